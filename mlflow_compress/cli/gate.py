"""`compress-report gate`: what a pull request must reach."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from mlflow_compress import terminal
from mlflow_compress.cli.exits import Command
from mlflow_compress.cli.selecting import compare_selected, selecting
from mlflow_compress.errors import StoreError

if TYPE_CHECKING:
    from mlflow_compress.reporting.gate import Check, Demands, Verdict

SCHEMA = 1
_HEADER = ("Team", "Model", "Method", "Verdict", "Asked", "Measured", "That is", "95 % interval", "Why")


@click.command("gate", cls=Command)
@selecting
@click.option(
    "--device",
    type=click.Choice(["cpu", "gpu"]),
    default="cpu",
    help="Whose latency and memory are meant. It leaves no variant out.",
)
@click.option(
    "--min-speedup", type=click.FloatRange(0, min_open=True), metavar="X", help="At least so many times as fast."
)
@click.option(
    "--max-quality-drop",
    metavar="DROP",
    help="At most so much lost of the score that stands for the quality: 1% of the original's, or 0.005 in its own "
    "unit.",
)
@click.option(
    "--max-size-ratio",
    type=click.FloatRange(0, min_open=True),
    metavar="X",
    help="At most so much of the original's weights, as they are held in memory.",
)
@click.option(
    "--max-disk-ratio",
    type=click.FloatRange(0, min_open=True),
    metavar="X",
    help="At most so much of the original's saved model, on disk.",
)
@click.option(
    "--max-memory-ratio",
    type=click.FloatRange(0, min_open=True),
    metavar="X",
    help="At most so much of its peak memory, and 1 % for noise.",
)
@click.option(
    "--preset",
    type=click.Choice(["mlperf", "mlperf-high"]),
    help="MLPerf's rule for quality: --max-quality-drop 1% (or 0.1%), against the original measured here.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the Markdown table.")
def gate(
    device: str,
    min_speedup: float | None,
    max_quality_drop: str | None,
    max_size_ratio: float | None,
    max_disk_ratio: float | None,
    max_memory_ratio: float | None,
    preset: str | None,
    as_json: bool,
    **selected: Any,
) -> None:
    """Say of every variant whether it passes, fails, or can't be decided: exit code 0, 6 or 7.

    A variant passes where even the bad end of the number's 95 % interval meets the demand, and fails where even the
    good end misses it; otherwise it is undecided, as is what was not measured. Speed and memory are those of --device.
    What failed fails; what was skipped or copied by hand is not checked.
    """
    from mlflow_compress.reporting.gate import EXIT_CODES, PRESETS, Demands, check, verdict
    from mlflow_compress.reporting.quality_drop import Drop

    if preset and max_quality_drop is not None:
        raise click.UsageError("--preset says what quality may be lost, and so does --max-quality-drop: give one.")
    drop = Drop.read(max_quality_drop) if max_quality_drop is not None else PRESETS[preset].drop if preset else None
    demands = Demands(min_speedup, drop, max_size_ratio, max_disk_ratio, max_memory_ratio, device)
    if not demands.asked():
        raise click.UsageError("What must a variant reach? Give --min-speedup, --max-quality-drop, or another demand.")
    checks = check(compare_selected(selected, "en", every_run=False), demands)
    if not checks:
        raise StoreError("There is no variant to check: only originals were measured.")
    decided = verdict(checks)
    if as_json:
        terminal.give_json(_data(checks, demands, preset or "", decided))
        terminal.warn(_conclusion(checks, decided))
    else:
        terminal.give_table("\n".join(_lines(checks)) + "\n")
        if preset:
            terminal.say_lines((f"{preset}: {PRESETS[preset].meaning}.", ""))
        terminal.say(_conclusion(checks, decided))
    raise SystemExit(EXIT_CODES[decided])


def _lines(checks: Sequence[Check]) -> Iterator[str]:
    """Return the table of all checks, and below it what to do."""
    from mlflow_compress.renderers.md import escape, padded_table

    table = [list(_HEADER)]
    for it in checks:
        told = (it.team, it.model, it.method, it.verdict, it.asked, it.measured, it.result, it.interval, it.reason)
        table.append([escape(text or "-") for text in told])
    yield from padded_table([False] * len(_HEADER), table)
    yield ""
    advice = Counter((it.reason, it.advice) for it in checks if it.advice and it.verdict != "passes")
    if advice:
        yield "What to do:"
        yield ""
        yield from (f"- {escape(f'{reason}: {what}' if reason else what)}." for reason, what in advice)
        yield ""


def _conclusion(checks: Sequence[Check], decided: Verdict) -> str:
    """Say in a line what all checks come to."""
    from mlflow_compress.reporting.gate import of_variants

    counts = Counter(of_variants(checks).values())
    told: dict[Verdict, str] = {
        "fails": "{} missing what was asked of them",
        "undecided": "{} undecided",
        "passes": "{} passing",
        "not checked": "{} not checked",
    }
    parts = [text.format(counts[kind]) for kind, text in told.items() if counts[kind]]
    said = {
        "passes": "Passes: every variant that was checked reaches what was asked of it.",
        "fails": "Fails.",
        "undecided": "Undecided: nothing misses, but not all that was asked is shown.",
    }[decided]
    return f"{said} Variants: {', '.join(parts)}."


def _data(checks: Sequence[Check], demands: Demands, preset: str, decided: Verdict) -> dict[str, Any]:
    """Return what `--json` prints: schema 1. A later schema may add keys; what is here keeps its meaning.

    `verdict` and `exit_code` of all; `preset`; `demands` (`option`, `device`, `limit`, and whether that is `relative`,
    a part of the original's quality); `checks`, as `reporting.gate.Check` describes them. What is not known is null.
    """
    from mlflow_compress.reporting.gate import EXIT_CODES

    asked = [
        {
            "option": it.option,
            "device": demands.device,
            "limit": it.limit,
            "relative": bool(it.drop and it.drop.relative),
        }
        for it in demands.asked()
    ]
    return {
        "schema": SCHEMA,
        "verdict": decided,
        "exit_code": EXIT_CODES[decided],
        "preset": preset,
        "demands": asked,
        "checks": [{key: _known(value) for key, value in dataclasses.asdict(each).items()} for each in checks],
    }


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
