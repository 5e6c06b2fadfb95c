"""The door to standard output and standard error: all that the commands say goes through it, as plain text.

Names, reasons and messages of libraries are other people's, and a terminal acts upon escape codes, bells and marks that
turn the direction of writing. Here these are replaced, and so are line ends within a line: a reason can't look like a
line that a command says of itself. What else is written, colours or a cursor's moves, is written on purpose, here.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterable
from types import TracebackType
from typing import Any, TextIO

from mlflow_compress.plain_text import HIDDEN, unbroken, visible

_CLEARED = "\r\x1b[2K"  # back to the line's beginning, and the line empty
_HIDDEN_IN_JSON = re.compile(f"(?![\t\n])(?:{HIDDEN})")


def say(line: str) -> None:
    """Write one line of text to standard output."""
    write_line(sys.stdout, line)


def say_lines(lines: Iterable[str]) -> None:
    """Write lines of text to standard output, each as `say` does."""
    for line in lines:
        say(line)


def warn(line: str) -> None:
    """Write one line of text to standard error."""
    write_line(sys.stderr, line)


def tell_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Write an error that nobody foresaw to standard error, as Python does: for `sys.excepthook`."""
    import traceback

    for part in traceback.format_exception(kind, error, trace):
        for line in part.removesuffix("\n").split("\n"):
            warn(line)


def give_json(data: Any) -> None:
    """Write data as JSON to standard output."""
    give_json_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n")


def give_json_text(text: str) -> None:
    """Write a text in JSON to standard output: the same data, with what is hidden in its texts as escapes."""
    _give(_HIDDEN_IN_JSON.sub(lambda match: json.dumps(match.group())[1:-1], text))


def give_table(text: str) -> None:
    """Write a renderer's text to standard output, as it is but for what is hidden: its renderer escaped the rest."""
    _give(visible(text).replace("\r", ""))


def write_line(stream: TextIO, line: str) -> None:
    """Write one line of text."""
    _write(stream, unbroken(line) + "\n")


def write_over(stream: TextIO, line: str) -> None:
    """Write a text in place of the line that the cursor is on, as much of it as fits."""
    width = shutil.get_terminal_size().columns - 1
    _write(stream, _CLEARED + unbroken(line)[:width])


def clear_line(stream: TextIO) -> None:
    """Empty the line that the cursor is on."""
    _write(stream, _CLEARED)


def _give(text: str) -> None:
    """Write what may go into a file to standard output: in UTF-8, whatever the terminal's encoding."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()


def _write(stream: TextIO, text: str) -> None:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))  # a terminal may know few characters
    stream.flush()
