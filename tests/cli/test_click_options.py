"""The command line is parsed into one `Options`."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from mlflow_compress.cli.click_options import options_of
from mlflow_compress.cli.late_options import LateOptions
from mlflow_compress.planning.options import Options, Taker, declared


def parsed(taker: Taker, *words: str) -> Options:
    """Return the options that a command receives."""
    received: list[Options] = []

    @click.command(cls=LateOptions, taker=taker)
    @click.argument("model")
    def command(model: str, options: Options) -> None:
        assert model == "m"
        received.append(options)

    done = CliRunner().invoke(command, ["m", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return received[0]


@pytest.mark.parametrize("taker", ["run", "sweep"])
def test_without_options_all_fields_are_defaults(taker: Taker) -> None:
    assert parsed(taker) == Options()


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        ("--batch-size 1,4,1", "batch_size", (1, 4)),
        ("--threads auto", "threads", ()),
        ("--limit 5", "limit", 5),
        ("--limit auto", "limit", None),
        ("--score-seconds 2", "score_seconds", 2.0),
        ("--interleave", "interleave", True),
        ("--interleave false", "interleave", False),
        ("--launches 3", "launches", 3),
        ("--trust false", "trust", False),
        ("--no-log-model", "log_model", False),
        ("--log-model false", "log_model", False),
        ("-O a=1 --option b=2", "family_options", ("a=1", "b=2")),
        ("--requires os=linux", "requires", ("os=linux",)),
        ("-e hw1", "experiment", "hw1"),
        ("--json", "as_json", True),
        ("-q", "quiet", True),
    ],
)
@pytest.mark.parametrize("taker", ["run", "sweep"])
def test_an_option_sets_its_field(taker: Taker, words: str, field: str, value: Any) -> None:
    options = parsed(taker, *words.split())
    assert getattr(options, field) == value
    other_names = {option.name for option in declared()} - {field}
    assert {name for name in other_names if getattr(options, name) != getattr(Options(), name)} == set()


def test_a_sweep_has_a_limit_of_time() -> None:
    assert parsed("sweep", "--limit-time", "1h30m").limit_time == 5400.0
    assert parsed("sweep", "--limit-time", "none").limit_time is None


@pytest.mark.parametrize(
    "words",
    [
        "--limit 0",
        "--batch-size 1,x",
        "--iterations 0",
        "--launches 0",
        "--interleave maybe",
        "--seconds -1",
        "--seconds nan",
        "--device tpu",
    ],
)
def test_what_is_out_of_range_is_refused(words: str) -> None:
    with pytest.raises(AssertionError, match=words.split()[0]):
        parsed("run", *words.split())


def test_options_of_one_command_are_not_the_others() -> None:
    run, sweep = ({option.name for option in options_of(taker)} for taker in ("run", "sweep"))
    assert run - sweep == {"method", "all_methods", "register"}
    assert sweep - run == {"again", "limit_time", "on", "address", "dry_run"}
