"""Spellings of labels: names in any case, whole numbers, true and false."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping

_WHOLE = re.compile(r"(\d+)(?:\.0*)?")
_BETWEEN = re.compile(r"[\s_-]+")
_TRUTH = {"false": "0", "true": "1"}


def new_label(label: str, new_names: Mapping[str, str]) -> str | None:
    """Return the user's new name for a label, in any spelling (see `labels_of`); None if it has none."""
    if label in new_names:
        return new_names[label]
    spellings: tuple[Callable[[str], str], ...] = (whole_number, in_words, truth)
    for spelling in spellings:
        by_spelling = unambiguous({name: spelling(name) for name in new_names})
        if spelling(label) in by_spelling:
            return new_names[by_spelling[spelling(label)]]
    return None


def whole_number(label: str) -> str:
    """Return a number without its decimal point and zeros, `1` for `1.0`; anything else unchanged."""
    match = _WHOLE.fullmatch(label.strip())
    return str(int(match[1])) if match else label


def truth(label: str) -> str:
    """Return 1 or 0 for true or false; for anything else, see `whole_number`."""
    return _TRUTH.get(label.strip().lower(), whole_number(label))


def in_any_case(name: str) -> str:
    """Normalise the case of a name."""
    return unicodedata.normalize("NFC", name).casefold()  # macOS decomposes letters of file names


def in_words(name: str) -> str:
    """Normalise the case of a name, and the separators between its words."""
    return " ".join(_BETWEEN.split(in_any_case(name).strip()))


def unambiguous(spellings: Mapping[str, str]) -> dict[str, str]:
    """Return names by their spelling, without spellings that several names share."""
    counts = Counter(spellings.values())
    return {spelling: name for name, spelling in spellings.items() if counts[spelling] == 1}
