"""The message of an error fits into one line."""

from __future__ import annotations

import pytest

from mlflow_compress.errors import first_line, named_line, one_line


def test_all_that_an_error_says_becomes_one_line() -> None:
    error = ValueError("first\n  second\tthird\n")
    assert one_line(error) == "first second third"
    assert named_line(error) == "ValueError: first second third"
    assert one_line(error, most=5) == "first"
    assert len(one_line("x" * 1000)) == 400
    assert len(one_line("x" * 1000, most=None)) == 1000


@pytest.mark.parametrize(
    ("message", "line"), [("\n first\nsecond", "first"), ("", "KeyboardInterrupt"), ("x" * 999, "x" * 300)]
)
def test_the_first_line_of_an_errors_message(message: str, line: str) -> None:
    assert first_line(KeyboardInterrupt(message)) == line
