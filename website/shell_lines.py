"""`shell_lines`: the simple commands in a shell block, as words."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)
_ENDS = frozenset({"&&", "||", "|", ";", "&", "(", ")", "|&", ";;"})


def commands(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each command with the number of its line, from 0. Aliases are expanded.

    Lines that are not shell commands, such as a program's output, are left out.
    """
    aliases: dict[str, list[str]] = {}
    for number, line in _lines(text):
        for words in _commands(line):
            if words[0] == "alias" and len(words) == 2:
                name, _, meaning = words[1].partition("=")
                aliases[name] = shlex.split(meaning)
            yield number, [*aliases.get(words[0], words[:1]), *words[1:]]


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield lines with their numbers; a line that ends in a backslash is joined with the next."""
    begun, started = "", 0
    for number, line in enumerate(text.splitlines()):
        started = started if begun else number
        begun += line.removeprefix("$ ")
        if begun.endswith("\\"):
            begun = f"{begun[:-1]} "
            continue
        yield started, begun
        begun = ""


def _commands(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = "#"
    try:
        words = list(lexer)
    except ValueError:  # a quote that is not closed
        return
    command: list[str] = []
    for word in [*words, ";"]:
        if word in _ENDS:
            if command:
                yield command
            command = []
        elif command or not (_ASSIGNMENT.fullmatch(word) or word in ("export", "time", "nice")):
            command.append(word)
