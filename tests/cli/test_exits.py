from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from mlflow_compress.cli.exits import Command, Group
from mlflow_compress.errors import CompressError, RecipeError, StoreError, WeightsError, WorkerError

ERRORS = {cls.__name__: cls for cls in (CompressError, RecipeError, StoreError, WeightsError, WorkerError)}


def fail(name: str | None) -> None:
    if name is None:
        return
    raise ERRORS[name]("what happened\nand what to do")


@click.command(cls=Command)
@click.argument("name")
@click.option("--model")
@click.option("--early", callback=lambda ctx, param, value: fail(value))
def command(name: str, model: str, early: str) -> None:
    fail(name)


@click.group(cls=Group)
def group() -> None:
    pass


group.add_command(click.Command("plain", callback=lambda: fail("StoreError")))


@group.command()
@click.argument("name")
def measure(name: str) -> None:
    fail(name)


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("before", [[], ["measure"]])
def test_an_error_is_a_message_and_an_exit_code(name: str, before: list[str]) -> None:
    result = CliRunner().invoke(group if before else command, [*before, name])
    assert result.exit_code == ERRORS[name].exit_code
    assert result.stdout == ""
    assert result.stderr == "Error: what happened and what to do\n"


def test_a_subcommand_of_clicks_own_kind_is_served_too() -> None:
    assert CliRunner().invoke(group, ["plain"]).exit_code == StoreError.exit_code


def test_an_error_while_options_are_read() -> None:
    result = CliRunner().invoke(command, ["x", "--early", "WeightsError"])
    assert result.exit_code == WeightsError.exit_code


def test_subcommands_are_of_our_kind() -> None:
    assert isinstance(measure, Command)


def test_a_wrong_option_is_reported_with_the_nearest_one() -> None:
    result = CliRunner().invoke(command, ["x", "--modle", "y"])
    assert result.exit_code == 2
    assert "--model" in result.stderr


@click.command(cls=Command)
@click.option("--model", help="Whose.")
@click.option("--log", "log", type=bool, help="Whether.")
@click.option("--no-log", "log", flag_value=False, type=bool)
@click.option("--quiet", is_flag=True)
@click.option("--some", multiple=True)
def options(**values: object) -> None:
    click.echo(values)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "a", "--model", "b"], "--model: 2 values were given, but only one is allowed. "),
        (["--model=a", "--model=a", "--model=a"], "--model: 3 values were given"),
        (["--log", "true", "--no-log"], "--log and --no-log: 2 values were given"),
    ],
)
def test_an_option_of_one_value_is_not_given_twice(words: list[str], message: str) -> None:
    result = CliRunner().invoke(options, words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert ("--model: Whose." in result.stderr) == ("--model" in message)


def test_repeatable_options_may_be_repeated() -> None:
    result = CliRunner().invoke(options, ["--quiet", "--quiet", "--some", "a", "--some", "b", "--model", "a"])
    assert result.exit_code == 0, result.stderr


def test_a_wrong_subcommand_is_reported_with_the_nearest_one() -> None:
    result = CliRunner().invoke(group, ["mesure"])
    assert result.exit_code == 2
    assert "'measure'" in result.stderr


def test_a_fault_of_our_own_keeps_its_traceback() -> None:
    with pytest.raises(KeyError):
        CliRunner().invoke(command, ["no such error"], catch_exceptions=False)


def test_ctrl_c_prints_how_to_continue() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    stoppable = Group("bench", stopped="Stopped. Say it again.")
    stoppable.add_command(Command("run", callback=stop))
    result = CliRunner().invoke(stoppable, ["run"])
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "Error: Stopped. Say it again.\n")
    stoppable.add_command(Command("sync", callback=stop, stopped="Stopped. It is kept."))  # knows more than its group
    result = CliRunner().invoke(stoppable, ["sync"])
    assert (result.exit_code, result.stderr) == (130, "Error: Stopped. It is kept.\n")
