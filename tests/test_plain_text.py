from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_compress.plain_text import HIDDEN, plain, visible

CSI, OSC, BIDI = "\x1b[2J", "\x1b]0;seized\x07", "\u202e"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"a{CSI}b", "a\ufffd[2Jb"),
        (f"{OSC}b", "\ufffd]0;seized\ufffdb"),
        ("a\x9b31mb\x07\x08", "a\ufffd31mb\ufffd\ufffd"),
        (f"a{BIDI}gnp.exe\u2066", "a\ufffdgnp.exe\ufffd"),
        ("ev\u200bil \ufeffx\xad", "ev\ufffdil \ufffdx\ufffd"),
        ("one\r\ntwo\u2028three\x85 \t four\n", "one two three four"),
        ("half \ud800", "half \ufffd"),
        ("a\u200db", "a\ufffdb"),
        ("tag \U000e0041", "tag \ufffd"),
    ],
)
def test_what_a_terminal_acts_upon_is_seen_as_replaced(text: str, line: str) -> None:
    assert plain(text) == line


@pytest.mark.parametrize(
    "text",
    [
        "Модель Ё",
        "日本語",
        "e\u0301",
        "\u0645\u06cc\u200c\u062e\u0648",
        "क्\u200dष",
        "\U0001f469\u200d\U0001f4bb",
        "❤\ufe0f",
        "a-b_c=1.5 ≈ …",
    ],
)
def test_writing_of_every_kind_stays(text: str) -> None:
    assert plain(text) == visible(text) == text


def test_too_much_is_cut_with_an_ellipsis() -> None:
    assert plain("x" * 9, 9) == "x" * 9
    assert plain("x" * 10, 9) == "x" * 8 + "…"


@given(st.text(st.characters() | st.sampled_from("\x1b\x9b\u202e\u200d\n\r\t")))
def test_nothing_hidden_is_left(text: str) -> None:
    assert not re.search(HIDDEN, plain(text))
    assert re.search(HIDDEN, re.sub("[\t\n\r]", "", visible(text))) is None
    assert plain(text).encode().decode() == plain(plain(text))
