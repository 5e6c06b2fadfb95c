"""Which runs the commands that read are about: the options that say it, and the comparison of those runs."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from mlflow_compress import terminal
from mlflow_compress.errors import StoreError

if TYPE_CHECKING:
    from mlflow_compress.records import Comparison

_AGO = {"d": 86_400, "h": 3600, "w": 7 * 86_400}


def selecting(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say which runs are compared; what a device means is each command's own."""
    options = [
        click.option(
            "-e",
            "--experiment",
            "experiments",
            multiple=True,
            metavar="NAME",
            help="An experiment, or a pattern (hw*); may be given again. Without it, MLFLOW_EXPERIMENT_NAME.",
        ),
        click.option(
            "--tracking-uri",
            "tracking_uris",
            multiple=True,
            metavar="URI",
            help="A tracking server or store; give it again for one table of several. Without it, MLFLOW_TRACKING_URI, "
            "or mlflow.db here.",
        ),
        click.option("--team", "teams", multiple=True, metavar="NAME", help="This team only; may be given again."),
        click.option("--model", "models", multiple=True, metavar="NAME", help="This model only; may be given again."),
        click.option(
            "--method", "methods", multiple=True, metavar="NAME", help="This method only; may be given again."
        ),
        click.option("--since", metavar="WHEN", help="Runs started since: 2026-11-01, 2026-11-01T12:00, 7d, 12h."),
        click.option("--where", default="", metavar="FILTER", help="A filter in MLflow's own language."),
        click.option(
            "--baseline",
            "baselines",
            multiple=True,
            metavar="MODEL|RUN",
            help="What rows are compared with in place of their own model's original: the original of this model, or "
            "a run (its id, or the first 8 characters). It is for models whose checkpoint was quantised already (GPTQ, "
            "AWQ, GGUF, ...); a run is for the rows of its own model too. OTHER=MODEL|RUN: for the rows of the model "
            "OTHER, '*=MODEL' for all of the same family. May be given again; the first that fits a row counts.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def experiments_of(given: tuple[str, ...]) -> tuple[str, ...]:
    """Return the experiments given, or that of the environment.

    Raises:
        UsageError: neither names one.
    """
    # Not click's envvar=, which would split a name with spaces in it.
    named = given or (os.environ.get("MLFLOW_EXPERIMENT_NAME") or os.environ.get("COMPRESS_EXPERIMENT") or "",)
    named = tuple(filter(None, named))
    if not named:
        raise click.UsageError("Which experiment? Give --experiment NAME, or set MLFLOW_EXPERIMENT_NAME.")
    return named


def compare_selected(selected: dict[str, Any], language: str, every_run: bool) -> Comparison:
    """Read the runs that the options of `selecting` take, and compare them.

    Args:
        selected: those options, by name; `device` too where only what was measured on it is wanted.
        language: of the table, `en` or `ru`.
        every_run: whether each run has a row of its own.

    Raises:
        StoreError: the store can't be read, or holds nothing of what was asked for.
    """
    from mlflow_compress.records import Selection
    from mlflow_compress.reporting import ranking
    from mlflow_compress.reporting.baselines import idle
    from mlflow_compress.reporting.compare import compare
    from mlflow_compress.tracking.query import find

    experiments = experiments_of(selected["experiments"])
    selection = Selection(
        teams=selected["teams"],
        models=selected["models"],
        methods=selected["methods"],
        device=selected.get("device") or "",
        since_ms=_since(selected["since"]),
        where=selected["where"],
    )
    found = find(experiments, selection, selected["tracking_uris"], baselines=selected["baselines"])
    if not found.runs:
        names = ", ".join(repr(name) for name in experiments)
        if selection != Selection():
            raise StoreError(f"No run in {names} fits all of what was asked for. Take a filter away.")
        raise StoreError(
            f"Nothing was measured in {names} yet. Measure a model (compress-bench run RECIPE --experiment "
            f"{experiments[0]}), or name another experiment with --experiment."
        )
    comparison = compare(
        found.runs,
        originals=found.originals,
        title=", ".join(found.experiments),
        language=language,
        devices=(selection.device,) if selection.device else (),
        every_run=every_run,
        baselines=found.baselines,
    )
    for sentence in idle(found.baselines, comparison.rows):
        terminal.warn(sentence)
    return ranking.summed_up(ranking.directed(comparison))


def _since(text: str | None) -> int:
    """Read a day, a time, or how long ago, as milliseconds since the epoch."""
    from datetime import datetime

    if not text:
        return 0
    if ago := re.fullmatch(r"(\d{1,6})([dhw])", text.strip()):
        return int((time.time() - int(ago[1]) * _AGO[ago[2]]) * 1000)
    try:
        return int(datetime.fromisoformat(text.strip()).timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(f"{text!r} is no time. Give 2026-11-01, 2026-11-01T12:00, 7d or 12h.") from None
