"""How labels are written: as names in any case, as whole numbers, as true and false."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping

_WHOLE = re.compile(r"(\d+)(?:\.0*)?")
_BETWEEN = re.compile(r"[\s_-]+")
_TRUTH = {"false": "0", "true": "1"}


def called(label: str, said: Mapping[str, str]) -> str | None:
    """Return what the user says that a label is called, however it is written (see `labels_of`); None: nothing."""
    if label in said:
        return said[label]
    forms: tuple[Callable[[str], str], ...] = (whole_number, in_words, truth)
    for form in forms:
        known = told_apart({own: form(own) for own in said})
        if form(label) in known:
            return said[known[form(label)]]
    return None


def whole_number(label: str) -> str:
    """Return a number without its decimal point and zeros, `1` of `1.0`; anything else as it is."""
    match = _WHOLE.fullmatch(label.strip())
    return str(int(match[1])) if match else label


def truth(label: str) -> str:
    """Return the number of true or false; of anything else, see `whole_number`."""
    return _TRUTH.get(label.strip().lower(), whole_number(label))


def in_any_case(name: str) -> str:
    """Return a name without regard to case."""
    return unicodedata.normalize("NFC", name).casefold()  # macOS writes file names in parts: a letter, and its mark


def in_words(name: str) -> str:
    """Return a name without regard to case, and to what stands between its words."""
    return " ".join(_BETWEEN.split(in_any_case(name).strip()))


def told_apart(alike: Mapping[str, str]) -> dict[str, str]:
    """Return names by what is written alike, without those of which there are several."""
    counts = Counter(alike.values())
    return {written: name for name, written in alike.items() if counts[written] == 1}
