"""Text files in the encoding of their byte order mark, a given encoding, or UTF-8."""

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
_MOSTLY = 0.6  # share of null upper bytes in UTF-16 text: blanks and ASCII
_HEAD = 2**14  # bytes used to detect an encoding


def read_text(path: Path, encoding: str = "") -> str:
    """Read a text file; line endings are not changed.

    Args:
        path: a file in UTF-8, in UTF-16, or with a byte order mark.
        encoding: encoding of a file without a byte order mark; empty: UTF-8.

    Raises:
        RecipeError: it can't be read, or is not in that encoding; the message names the line.
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
        name = "UTF-8" if used in ("utf-8", "utf-8-sig") else used
        advice = "" if encoding else ", or state its encoding, such as encoding=cp1251"
        raise RecipeError(f"{path}, line {line}: it is not {name}. Save the file as UTF-8{advice}.") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise RecipeError(
            f"{path}, line {line}: it contains a null character, so it is not text. Save the file as UTF-8."
        )
    return text


def _wide(raw: bytes) -> str:
    """Return the UTF-16 encoding of bytes without a mark, by the positions of null bytes; empty for other encodings."""
    head = raw[:_HEAD]
    for name, zeros, letters in (("utf-16-le", head[1::2], head[::2]), ("utf-16-be", head[::2], head[1::2])):
        if len(zeros) > 1 and zeros.count(0) > len(zeros) * _MOSTLY and not letters.count(0):
            return name
    return ""
