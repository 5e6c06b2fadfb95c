from __future__ import annotations

import io
import json
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from mlflow_compress import terminal
from mlflow_compress.cli.exits import Group
from mlflow_compress.errors import StoreError, UnknownName

HOSTILE = "evil\x1b[2J\x1b]0;seized\x07\u202e\x9b31m\nAll 5 variants reach what was asked of them.\r\u2028x"
TAMED = "evil\ufffd[2J\ufffd]0;seized\ufffd\ufffd\ufffd31m All 5 variants reach what was asked of them.  x"


def test_a_line_stays_one_and_keeps_its_columns(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say(f"  a   {HOSTILE}")
    terminal.warn(HOSTILE)
    terminal.say_lines(["a", "b\nc"])
    out, err = capsys.readouterr()
    assert out == f"  a   {TAMED}\na\nb c\n"
    assert err == f"{TAMED}\n"


def test_data_in_json_stays_the_same_and_steers_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    data = {HOSTILE: ["\U000e0041", "я", 1.5]}
    terminal.give_json(data)
    out = capsys.readouterr().out
    assert json.loads(out) == data
    assert "я" in out
    assert not any(char in out for char in "\x1b\x07\x9b\u202e\u2028\r\U000e0041")


def test_a_table_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.give_table("| a\x1b |\n| b |\n")
    assert capsys.readouterr().out == "| a\ufffd |\n| b |\n"


def test_a_terminal_that_knows_few_characters_gets_them() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    terminal.write_line(stream, "я ≈ a")
    assert raw.getvalue() == b"\\u044f \\u2248 a\n"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (StoreError(HOSTILE), f"Error: {TAMED.replace('  ', ' ')}\n"),
        (UnknownName("team", "a", ["\x1b[2Jzz", "b\nc"]), "Error: Unknown team 'a'. Known: \ufffd[2Jzz, b c.\n"),
    ],
)  # fmt: skip
def test_an_error_is_one_line(error: Exception, expected: str) -> None:
    @click.group(cls=Group, invoke_without_command=True)
    def main() -> None:
        raise error

    assert CliRunner().invoke(main).stderr == expected


def test_what_click_refuses_is_plain_too() -> None:
    @click.group(cls=Group, invoke_without_command=True)
    @click.option("--kind", type=click.Choice(["a"]))
    def main(kind: str) -> None:
        raise AssertionError(kind)

    refused = CliRunner().invoke(main, ["--kind", HOSTILE])
    assert refused.exit_code == 2
    assert not any(char in refused.stderr for char in "\x1b\x07\x9b\u202e\r")
    assert not any(line.startswith("All 5") for line in refused.stderr.splitlines())


def test_an_error_that_nobody_foresaw_has_a_plain_traceback() -> None:
    code = """
import click
from mlflow_compress.cli.exits import Group
@click.group(cls=Group, invoke_without_command=True)
def main():
    raise KeyError("a") from ValueError("\\x1b[2J \\u202e")
main()
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert process.returncode == 1
    assert "Traceback (most recent call last):" in process.stderr
    assert "ValueError: \ufffd[2J \ufffd\n" in process.stderr
    assert "KeyError: 'a'\n" in process.stderr
