"""All output of the commands to standard output and standard error, as plain text.

Names, reasons and library messages come from other people, and a terminal acts on escape codes, bells and text
direction marks. They are replaced here, and so are line breaks within a line: a reason can't imitate a line of the
command itself. Other control codes, for colours or cursor moves, are only written here, on purpose.
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

_CLEARED = "\r\x1b[2K"  # move to the beginning of the line and clear it
_HIDDEN_IN_JSON = re.compile(f"(?![\t\n])(?:{HIDDEN})")


def say(line: str) -> None:
    """Write one line of text to standard output."""
    write_line(sys.stdout, line)


def say_lines(lines: Iterable[str]) -> None:
    """Write lines of text to standard output (see `say`)."""
    for line in lines:
        say(line)


def warn(line: str) -> None:
    """Write one line of text to standard error."""
    write_line(sys.stderr, line)


def tell_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Write the traceback of an unexpected error to standard error, like Python: for `sys.excepthook`."""
    import traceback

    for part in traceback.format_exception(kind, error, trace):
        for line in part.removesuffix("\n").split("\n"):
            warn(line)


def give_json(data: Any) -> None:
    """Write data as JSON to standard output."""
    give_json_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n")


def give_json_text(text: str) -> None:
    """Write JSON text to standard output, with hidden characters in its strings as escapes."""
    _give(_HIDDEN_IN_JSON.sub(lambda match: json.dumps(match.group())[1:-1], text))


def give_table(text: str) -> None:
    """Write a renderer's text to standard output, with hidden characters replaced: the renderer escaped the rest."""
    _give(visible(text).replace("\r", ""))


def write_line(stream: TextIO, line: str) -> None:
    """Write one line of text."""
    _write(stream, unbroken(line) + "\n")


def write_over(stream: TextIO, line: str) -> None:
    """Replace the line of the cursor by a text, cut to the width of the terminal."""
    width = shutil.get_terminal_size().columns - 1
    _write(stream, _CLEARED + unbroken(line)[:width])


def clear_line(stream: TextIO) -> None:
    """Clear the line of the cursor."""
    _write(stream, _CLEARED)


def _give(text: str) -> None:
    """Write text that may be redirected to a file: in UTF-8, whatever the terminal's encoding."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()


def _write(stream: TextIO, text: str) -> None:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))  # a terminal may support few characters
    stream.flush()
