"""Files of text in any encoding: as their byte order mark says, as the data says, or UTF-8."""

from __future__ import annotations

import codecs
from pathlib import Path

from mlflow_compress.errors import RecipeError

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}  # the longer ones first
_MOSTLY = 0.6  # of the upper bytes of UTF-16 that are null: blanks and ASCII
_HEAD = 2**14  # bytes that an encoding is seen from


def read_text(path: Path, encoding: str = "") -> str:
    """Read a file of text; ends of lines stay as they are.

    Args:
        path: of UTF-8, or of what its byte order mark says; of UTF-16 also without one.
        encoding: of a file without a byte order mark; empty: UTF-8.

    Raises:
        RecipeError: it can't be read, or is not in that encoding, naming the line.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RecipeError(f"{path} can't be read: {error.strerror or error}.") from error
    used = next((name for mark, name in _MARKS.items() if raw.startswith(mark)), encoding or _wide(raw) or "utf-8")
    try:
        text = raw.decode(used)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        called = "UTF-8" if used in ("utf-8", "utf-8-sig") else used
        advice = "" if encoding else ", or say encoding=cp1251 (or what else it is in)"
        raise RecipeError(f"{path}, line {line}: this is not {called}. Save the file as UTF-8{advice}.") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise RecipeError(
            f"{path}, line {line}: there is a null character, so this is no text. Save the file as UTF-8."
        )
    return text


def _wide(raw: bytes) -> str:
    """Name the UTF-16 that bytes without a mark are in, by where their null bytes are; empty where they are not."""
    head = raw[:_HEAD]
    for name, zeros, others in (("utf-16-le", head[1::2], head[::2]), ("utf-16-be", head[::2], head[1::2])):
        if len(zeros) > 1 and zeros.count(0) > len(zeros) * _MOSTLY and not others.count(0):
            return name
    return ""
