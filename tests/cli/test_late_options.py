from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from mlflow_compress.cli.late_options import LateOptions
from mlflow_compress.planning.options import Options, declared


def test_the_help_of_the_program_declares_no_option() -> None:
    code = """
import sys
from mlflow_compress.cli.bench import main
main.main(["--help"], prog_name="x", standalone_mode=False)
print(sorted(name for name in sys.modules if name in ("mlflow_compress.planning.options", "mlflow_compress.records")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert "sweep" in done.stdout
    assert done.stdout.endswith("[]\n")


def test_options_are_made_only_once() -> None:
    @click.command(cls=LateOptions, taker="run")
    def command(options: object) -> None: ...

    context = click.Context(command)
    assert command.params == []
    names = [param.name for param in command.get_params(context)]
    assert names == [param.name for param in command.get_params(context)]
    assert {option.name for option in declared("run")} < set(names)


def test_the_help_of_the_command_shows_them() -> None:
    @click.command(cls=LateOptions, taker="sweep")
    def command(options: object) -> None: ...

    help_text = CliRunner().invoke(command, ["--help"]).output
    assert "--limit-time" in help_text
    assert "--score-seconds" in help_text


@pytest.mark.parametrize("written", [["--language", "ru"], ["--language=ru"], ["-O", "language=ru"]])
def test_an_option_of_a_family_may_stand_alone(written: list[str]) -> None:
    """MLflow writes `-P language=ru` as `--language ru`."""
    calls = []

    @click.command(cls=LateOptions, taker="run")
    @click.argument("model")
    def command(model: str, options: Options) -> None:
        calls.append((model, options.family_options, options.batch_size))

    result = CliRunner().invoke(command, ["whisper", *written, "--new_tokens", "8", "--batch-size", "2"])
    assert result.exit_code == 0, result.output
    assert calls == [("whisper", ("language=ru", "new_tokens=8"), (2,))]


def test_an_option_that_nothing_has_is_rejected() -> None:
    @click.command(cls=LateOptions, taker="run")
    def command(options: object) -> None: ...

    result = CliRunner().invoke(command, ["--langauge", "ru"])
    assert (result.exit_code, "No such option" in result.output) == (2, True)
    assert CliRunner().invoke(command, ["--language"]).exit_code == 2
