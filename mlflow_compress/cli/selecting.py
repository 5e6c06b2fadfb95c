"""The options that select runs, for the commands that read them, and the comparison of the selected runs."""

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
    """Add the options that select the compared runs. Each command defines its own --device."""
    options = [
        click.option(
            "-e",
            "--experiment",
            "experiments",
            multiple=True,
            metavar="NAME",
            help="Name or pattern (hw*) of an experiment; can be repeated. Default: MLFLOW_EXPERIMENT_NAME.",
        ),
        click.option(
            "--tracking-uri",
            "tracking_uris",
            multiple=True,
            metavar="URI",
            help="Tracking server or store; repeat it to combine several in one table. Default: MLFLOW_TRACKING_URI, "
            "or mlflow.db here.",
        ),
        click.option("--team", "teams", multiple=True, metavar="NAME", help="Only this team; can be repeated."),
        click.option("--model", "models", multiple=True, metavar="NAME", help="Only this model; can be repeated."),
        click.option("--method", "methods", multiple=True, metavar="NAME", help="Only this method; can be repeated."),
        click.option(
            "--since", metavar="WHEN", help="Only runs started since then: 2026-11-01, 2026-11-01T12:00, 7d, 12h."
        ),
        click.option("--where", default="", metavar="FILTER", help="Filter in MLflow's search syntax."),
        click.option(
            "--baseline",
            "baselines",
            multiple=True,
            metavar="MODEL|RUN",
            help="Compare rows with this baseline instead of their own model's original: the original of MODEL, or a "
            "run (its id or the first 8 characters). It applies to models whose checkpoint was already quantised "
            "(GPTQ, AWQ, GGUF, ...); a run also applies to the other rows of its own model. OTHER=MODEL|RUN applies to "
            "the model OTHER, '*=MODEL' to all models of the same family. Can be repeated; the first match is used.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def experiments_of(options: tuple[str, ...]) -> tuple[str, ...]:
    """Return the experiments of the options, or else that of the environment.

    Raises:
        UsageError: Neither names an experiment.
    """
    # Not click's envvar=, which would split a name with spaces in it.
    names = options or (os.environ.get("MLFLOW_EXPERIMENT_NAME") or os.environ.get("COMPRESS_EXPERIMENT") or "",)
    names = tuple(filter(None, names))
    if not names:
        raise click.UsageError("No experiment was given. Give --experiment NAME, or set MLFLOW_EXPERIMENT_NAME.")
    return names


def compare_selected(selected: dict[str, Any], language: str, every_run: bool) -> Comparison:
    """Read the runs selected by the options of `selecting`, and compare them.

    Args:
        selected: Values of these options, by name; also `device`, to take only what was measured on it, and
            `accelerator`, to leave out GPU numbers of other kinds.
        language: Language of the table, `en` or `ru`.
        every_run: Whether each run gets its own row.

    Raises:
        StoreError: The store can't be read, or has no matching run.
    """
    from mlflow_compress.records import Selection, metric_group
    from mlflow_compress.reporting import ranking
    from mlflow_compress.reporting.baselines import idle
    from mlflow_compress.reporting.compare import compare
    from mlflow_compress.reporting.table_lines import on_accelerator
    from mlflow_compress.tracking.query import find

    experiments = experiments_of(selected["experiments"])
    device = selected.get("device") or ""
    accelerator = selected.get("accelerator") or device
    selection = Selection(
        teams=selected["teams"],
        models=selected["models"],
        methods=selected["methods"],
        device=metric_group(device) if device else "",
        since_ms=_since(selected["since"]),
        where=selected["where"],
    )
    selected_runs = find(experiments, selection, selected["tracking_uris"], baselines=selected["baselines"])
    if not selected_runs.runs:
        names = ", ".join(repr(name) for name in experiments)
        if selection != Selection():
            raise StoreError(f"No run in {names} matches all filters. Remove a filter.")
        raise StoreError(
            f"There are no results in {names} yet. Measure a model (compress-bench run RECIPE --experiment "
            f"{experiments[0]}), or give another experiment with --experiment."
        )
    comparison = compare(
        on_accelerator(selected_runs.runs, accelerator),
        originals=on_accelerator(selected_runs.originals, accelerator),
        title=", ".join(selected_runs.experiments),
        language=language,
        devices=(selection.device,) if selection.device else (),
        every_run=every_run,
        baselines=selected_runs.baselines,
    )
    for sentence in idle(selected_runs.baselines, comparison.rows):
        terminal.warn(sentence)
    return ranking.summed_up(ranking.directed(comparison))


def _since(text: str | None) -> int:
    """Convert a date, a time or an age such as `7d` to milliseconds since the epoch."""
    from datetime import datetime

    if not text:
        return 0
    if ago := re.fullmatch(r"(\d{1,6})([dhw])", text.strip()):
        return int((time.time() - int(ago[1]) * _AGO[ago[2]]) * 1000)
    try:
        return int(datetime.fromisoformat(text.strip()).timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(f"{text!r} is not a time. Give 2026-11-01, 2026-11-01T12:00, 7d or 12h.") from None
