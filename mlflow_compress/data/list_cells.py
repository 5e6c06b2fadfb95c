"""Lists in the cells of a table: JSON, and lists as Python, pandas and NumPy print them."""

from __future__ import annotations

import ast
import json
import re

_STRING = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
_NUMBER = r"-?\d+(?:\.\d*)?(?![\d.])"  # a whole one: parts of it would match in exponentially many ways
_ITEM = re.compile(rf"{_STRING}|{_NUMBER}")
_LIST = re.compile(rf"[\[(]\s*(?:(?:{_STRING}|{_NUMBER})[\s,]*)*[\])]", re.DOTALL)


def items_of(cell: str) -> list[str] | None:
    """Return the items of a list in a cell as texts; None if it is not a list of quoted texts and numbers.

    NumPy puts blanks between the items, where Python would join them: `['EU' 'rejects']` has two items.
    """
    text = cell.strip()
    if not text.startswith(("[", "(")):
        return None
    try:
        items = json.loads(text)
    except (ValueError, RecursionError):
        items = None
    if isinstance(items, list) and all(isinstance(item, (str, int, float)) for item in items):
        return [str(item) for item in items]
    if not _LIST.fullmatch(text):
        return None
    try:
        return [str(ast.literal_eval(item)) for item in _ITEM.findall(text)]
    except (ValueError, SyntaxError):  # an invalid escape
        return None
