"""`compress-report gate`: check the requirements that a pull request must meet."""

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
from mlflow_compress.torch_devices import ACCELERATORS

if TYPE_CHECKING:
    from mlflow_compress.reporting.gate import Check, Demands, Verdict

SCHEMA = 1
_HEADER = ("Team", "Model", "Method", "Verdict", "Required", "Measured", "Result", "95 % interval", "Reason")


@click.command("gate", cls=Command)
@selecting
@click.option(
    "--device",
    type=click.Choice(["cpu", "gpu", *ACCELERATORS]),
    default="cpu",
    help="Device whose latency and memory are checked; gpu: any accelerator. It does not exclude any variant.",
)
@click.option(
    "--min-speedup",
    type=click.FloatRange(0, min_open=True),
    metavar="X",
    help="Minimum speed-up: at least X times as fast as the original.",
)
@click.option(
    "--max-quality-drop",
    metavar="DROP",
    help="Maximum loss of the main quality score: 1% of the original's score, or 0.005 in the score's own unit.",
)
@click.option(
    "--max-size-ratio",
    type=click.FloatRange(0, min_open=True),
    metavar="X",
    help="Maximum size of the weights in memory, as a fraction of the original's.",
)
@click.option(
    "--max-disk-ratio",
    type=click.FloatRange(0, min_open=True),
    metavar="X",
    help="Maximum size of the saved model on disk, as a fraction of the original's.",
)
@click.option(
    "--max-memory-ratio",
    type=click.FloatRange(0, min_open=True),
    metavar="X",
    help="Maximum peak memory, as a fraction of the original's, plus 1 % for noise.",
)
@click.option(
    "--preset",
    type=click.Choice(["mlperf", "mlperf-high"]),
    help="MLPerf's quality rule: --max-quality-drop 1% (or 0.1%), relative to the original measured here.",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Quality: leave a variant undecided unless its original's score is as published: in the recipe, or in its "
    "model card.",
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
    strict: bool,
    as_json: bool,
    **selected: Any,
) -> None:
    """Check whether each variant passes, fails or is undecided: exit code 0, 6 or 7.

    A variant passes if even the bad end of the number's 95 % interval meets the requirement. It fails if even the good
    end misses it. Otherwise it is undecided; so is a variant without the number. Speed and memory are those of
    --device. A variant whose measurement failed fails; skipped variants and rows copied by hand are not checked.
    """
    from mlflow_compress.records import metric_group
    from mlflow_compress.reporting.gate import EXIT_CODES, PRESETS, Demands, check, verdict
    from mlflow_compress.reporting.quality_drop import Drop

    if preset and max_quality_drop is not None:
        raise click.UsageError("--preset and --max-quality-drop both set the allowed quality loss. Give only one.")
    drop = Drop.read(max_quality_drop) if max_quality_drop is not None else PRESETS[preset].drop if preset else None
    demands = Demands(min_speedup, drop, max_size_ratio, max_disk_ratio, max_memory_ratio, metric_group(device), strict)
    if not demands.asked():
        raise click.UsageError(
            "No requirement was given. Give --min-speedup, --max-quality-drop, or another requirement."
        )
    checks = check(compare_selected({**selected, "accelerator": device}, "en", every_run=False), demands)
    if not checks:
        raise StoreError("There are no variants to check: only originals were measured.")
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
    """Yield the lines of the table of all checks, and of the advice below it."""
    from mlflow_compress.renderers.md import escape, padded_table

    table = [list(_HEADER)]
    for check in checks:
        cells = (
            check.team,
            check.model,
            check.method,
            check.verdict,
            check.asked,
            check.measured,
            check.result,
            check.interval,
            check.reason,
        )
        table.append([escape(text or "-") for text in cells])
    yield from padded_table([False] * len(_HEADER), table)
    yield ""
    advice = Counter((check.reason, check.advice) for check in checks if check.advice and check.verdict != "passes")
    if advice:
        yield "What to do:"
        yield ""
        yield from (f"- {escape(f'{reason}: {text}' if reason else text)}." for reason, text in advice)
        yield ""


def _conclusion(checks: Sequence[Check], decided: Verdict) -> str:
    """Return a one-line summary of all checks."""
    from mlflow_compress.reporting.gate import of_variants

    counts = Counter(of_variants(checks).values())
    texts: dict[Verdict, str] = {
        "fails": "{} failing",
        "undecided": "{} undecided",
        "passes": "{} passing",
        "not checked": "{} not checked",
    }
    parts = [text.format(counts[kind]) for kind, text in texts.items() if counts[kind]]
    conclusion = {
        "passes": "Passes: every checked variant meets all requirements.",
        "fails": "Fails.",
        "undecided": "Undecided: no variant fails, but not every requirement is shown to be met.",
    }[decided]
    return f"{conclusion} Variants: {', '.join(parts)}."


def _data(checks: Sequence[Check], demands: Demands, preset: str, decided: Verdict) -> dict[str, Any]:
    """Return the data that `--json` prints, schema 1. A later schema may add keys; these keys keep their meaning.

    The keys are the overall `verdict` and `exit_code`; `preset`; `demands` (`option`, `device`, `limit`, `relative`:
    whether the limit is a part of the original's quality); `checks`, see `reporting.gate.Check`. Unknown numbers are
    null.
    """
    from mlflow_compress.reporting.gate import EXIT_CODES

    requirements = [
        {
            "option": item.option,
            "device": demands.device,
            "limit": item.limit,
            "relative": bool(item.drop and item.drop.relative),
        }
        for item in demands.asked()
    ]
    return {
        "schema": SCHEMA,
        "verdict": decided,
        "exit_code": EXIT_CODES[decided],
        "preset": preset,
        "demands": requirements,
        "checks": [{key: _finite_or_none(value) for key, value in dataclasses.asdict(item).items()} for item in checks],
    }


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
