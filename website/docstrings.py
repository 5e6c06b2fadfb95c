"""`docstrings`: the parts of a docstring in Google's style."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping

_SECTION = re.compile(r"^(?:Args|Attributes|Raises|Returns):$", re.MULTILINE)
_ITEM = re.compile(r"^    (\w+(?:, \w+)*): ", re.MULTILINE)


def description(cls: type) -> str:
    """Return a class's docstring up to its first section, as Markdown."""
    return _SECTION.split(inspect.getdoc(cls) or "", maxsplit=1)[0].strip()


def attributes(cls: type) -> Mapping[str, str]:
    """Return the descriptions of attributes in the docstrings of a class and its bases, by name."""
    texts: dict[str, str] = {}
    for base in cls.__mro__:
        for name, text in _of_one(inspect.cleandoc(base.__doc__ or "")).items():
            texts.setdefault(name, text)
    return texts


def _of_one(text: str) -> dict[str, str]:
    _, _, section = text.partition("Attributes:\n")
    section = _SECTION.split(section, maxsplit=1)[0]
    _, *parts = _ITEM.split(section)
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return {name: " ".join(meaning.split()) for names, meaning in pairs for name in names.split(", ")}
