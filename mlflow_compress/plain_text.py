"""`plain`: make other people's text safe to show in a terminal, a table or a page.

Control characters, text direction marks and invisible characters are visibly replaced. Markup is escaped where the text
is used.
"""

from __future__ import annotations

import re

REPLACEMENT = "\ufffd"

# Characters by their effect. Letters, marks and signs, however rare, and emoji variation selectors are not included.
_CONTROLS = "\x00-\x1f\x7f-\x9f"  # escape, bell, backspace; and C1 controls: terminals interpret CSI and OSC
_DIRECTIONS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_LINE_ENDS = "\u2028\u2029"
_WITHOUT_WIDTH = (
    "\xad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u2060-\u2065\u206a-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_NO_CHARACTERS = "\ud800-\udfff\ufffe\uffff"  # surrogates, which UTF-8 can't encode
# Joiners are used in Persian, Hindi and emoji; between ASCII characters they are only invisible.
_JOINERS = "(?<![^\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f])"

HIDDEN = f"[{_CONTROLS}{_DIRECTIONS}{_LINE_ENDS}{_WITHOUT_WIDTH}{_NO_CHARACTERS}]|{_JOINERS}"  # a regular expression
_HIDDEN = re.compile(HIDDEN)
_SPACES = re.compile(r"\s+")
_BREAKS = re.compile("\r\n|[\t-\r\x1c-\x1e\x85\u2028\u2029]")


def plain(text: str, most: int | None = None) -> str:
    """Return a text as one line without hidden characters.

    Any sequence of white space becomes one space; hidden characters become U+FFFD.

    Args:
        text: Any text.
        most: Maximum number of characters; a longer text ends with an ellipsis. None keeps all.
    """
    line = _HIDDEN.sub(REPLACEMENT, _SPACES.sub(" ", text)).strip()
    return line if most is None or len(line) <= most else f"{line[: most - 1]}…"


def unbroken(text: str) -> str:
    """Return a text as one line with unchanged spaces, so that columns stay aligned."""
    return _HIDDEN.sub(REPLACEMENT, _BREAKS.sub(" ", text))


def visible(text: str) -> str:
    """Return a text with hidden characters replaced, except tabs and line ends: for code that escapes these."""
    return _HIDDEN.sub(lambda match: match.group() if match.group() in "\t\n\r" else REPLACEMENT, text)
