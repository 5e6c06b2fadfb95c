"""`plain`: other people's text as text and nothing else, wherever people read it: a terminal, a table, a page.

What a terminal acts upon, what turns the direction of writing, and what is not seen at all is replaced, visibly. What
each place reads as markup beside that is for the place to escape.
"""

from __future__ import annotations

import re

REPLACEMENT = "\ufffd"

# Characters by what they do. Not among them: letters, marks and signs, however rare, and what chooses an emoji's form.
_CONTROLS = "\x00-\x1f\x7f-\x9f"  # escape, bell, backspace; and the C1 controls, of which terminals know CSI and OSC
_DIRECTIONS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_LINE_ENDS = "\u2028\u2029"
_WITHOUT_WIDTH = (
    "\xad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u2060-\u2065\u206a-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_NO_CHARACTERS = "\ud800-\udfff\ufffe\uffff"  # halves of characters, which UTF-8 can't hold
# Joiners belong to the spelling of Persian and Hindi and to emoji; between ASCII characters they only hide.
_JOINERS = "(?<![^\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f])"

HIDDEN = f"[{_CONTROLS}{_DIRECTIONS}{_LINE_ENDS}{_WITHOUT_WIDTH}{_NO_CHARACTERS}]|{_JOINERS}"  # a regular expression
_HIDDEN = re.compile(HIDDEN)
_SPACES = re.compile(r"\s+")
_BREAKS = re.compile("\r\n|[\t-\r\x1c-\x1e\x85\u2028\u2029]")


def plain(text: str, most: int | None = None) -> str:
    """Return a text as one line that shows all it holds.

    White space of any kind and length becomes one space; what is hidden becomes U+FFFD.

    Args:
        text: anybody's.
        most: more characters than these are cut off, with an ellipsis for the last; None keeps all.
    """
    line = _HIDDEN.sub(REPLACEMENT, _SPACES.sub(" ", text)).strip()
    return line if most is None or len(line) <= most else f"{line[: most - 1]}…"


def unbroken(text: str) -> str:
    """Return a text as one line with its spaces as they are: what is aligned stays so."""
    return _HIDDEN.sub(REPLACEMENT, _BREAKS.sub(" ", text))


def visible(text: str) -> str:
    """Return a text with what is hidden replaced, but for tabs and line ends: for places that escape these."""
    return _HIDDEN.sub(lambda match: match.group() if match.group() in "\t\n\r" else REPLACEMENT, text)
