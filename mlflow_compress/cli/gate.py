"""`compress-report gate`: what a pull request must reach."""

from __future__ import annotations

from typing import Any

import click

from mlflow_compress import terminal
from mlflow_compress.cli.exits import Command
from mlflow_compress.cli.selecting import compare_selected, selecting
from mlflow_compress.errors import StoreError
from mlflow_compress.plain_text import plain

_MISSED = 6


@click.command("gate", cls=Command)
@selecting
@click.option(
    "--min-speedup", type=click.FloatRange(0, min_open=True), metavar="X", help="At least so many times as fast."
)
@click.option(
    "--max-quality-drop",
    metavar="DROP",
    help="At most so much of the original's quality lost: 1% of it, or 0.005 in the score's own unit.",
)
@click.option(
    "--max-size-ratio", type=click.FloatRange(0, min_open=True), metavar="X", help="At most so much of its size."
)
@click.option(
    "--max-memory-ratio", type=click.FloatRange(0, min_open=True), metavar="X", help="... of its peak memory."
)
@click.option(
    "--preset",
    type=click.Choice(["mlperf", "mlperf-high"]),
    help="MLPerf's rule for quality: 99 % (or 99.9 %) of the original's.",
)
def gate(
    min_speedup: float | None,
    max_quality_drop: str | None,
    max_size_ratio: float | None,
    max_memory_ratio: float | None,
    preset: str | None,
    **selected: Any,
) -> None:
    """Exit with 6 when a variant misses what is asked of it, and say which and why.

    Speed and memory are those of --device, or of the CPU. A variant that failed, or whose number is not known, misses.
    """
    from mlflow_compress.reporting.gate import PRESETS, Demands, Drop, misses

    drop = Drop.read(max_quality_drop) if max_quality_drop is not None else PRESETS[preset] if preset else None
    demands = Demands(min_speedup, drop, max_size_ratio, max_memory_ratio, selected["device"] or "cpu")
    if demands == Demands(device=demands.device):
        raise click.UsageError("What must a variant reach? Give --min-speedup, --max-quality-drop, or another demand.")
    comparison = compare_selected(selected, "en", every_run=False)
    from mlflow_compress.reporting.table_text import is_original

    checked = sum(not is_original(row) for row in comparison.rows)
    missed = misses(comparison, demands)
    for miss in missed:
        terminal.say(plain(f"{miss.team}, {miss.model}, {miss.method}: {miss.reason}"))
    if missed:
        variants = len({(miss.team, miss.model, miss.method) for miss in missed})
        terminal.warn(f"{variants} variants miss what was asked of them.")
        raise SystemExit(_MISSED)
    if not checked:
        raise StoreError("There is no variant to check: only originals were measured.")
    terminal.say(f"All {checked} variants reach what was asked of them.")
