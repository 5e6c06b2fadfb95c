"""Decides which numbers and times can be a measurement: anyone with write access to a store may log any number.

An impossible number is left out of its row, with a caution: in every form of the table, and only there.
"""

from __future__ import annotations

import math
from dataclasses import replace

from mlflow_compress.records import LAST_S, CautionKind, Run
from mlflow_compress.reporting import metric_facts
from mlflow_compress.reporting.table_text import DIFFERENCE, METRICS

IMPOSSIBLE_NUMBER = CautionKind(
    "impossible_number",
    short={
        "en": "an impossible number was left out",
        "ru": "невозможное число пропущено",
    },
    message={"en": "{name} = {value} can't be a measurement", "ru": "{name} = {value} не может быть измерением"},
    advice={"en": "Check who logged the run, and how.", "ru": "Проверьте, кто и как записал этот запуск."},
)
IMPOSSIBLE_TIME = CautionKind(
    "impossible_time",
    short={
        "en": "the run's start time is not a valid date; the run counts as the oldest",
        "ru": "время начала запуска не является датой; запуск считается самым старым",
    },
    message={"en": "the start time {value} ms is not a valid date", "ru": "время начала {value} мс не является датой"},
    advice={"en": "Check who logged the run, and how.", "ru": "Проверьте, кто и как записал этот запуск."},
)

# Limits of measured numbers: from a millionth of a nanosecond, or of a byte, to the bytes of all disks in the world.
# Scores have wider limits, since a perplexity may be anything; beyond these a ratio is not finite.
_MEASURED, _SCORED = (1e-12, 1e15), (1e-100, 1e100)
NEVER_NOTHING = frozenset({*METRICS, "size/disk_mib"})  # never 0 for a model that runs; a count of page faults may be
_GREATEST = {"share": 1.0, "hundred": 100.0, "correlation": 1.0}  # the greatest score, or difference of two, by scale
_ROUNDED = 1e-6
_DIFFERENCES = ("/ram_model_mib",)  # the process minus an empty one: noise may make it negative
_LAST_MS = LAST_S * 1000
_LEFT_OUT = "compress.left_out"  # a tag that is never logged: the numbers that `without_impossible` removed


def is_possible(name: str, value: float) -> bool:
    """Return whether a metric can have this value."""
    is_score = name.startswith(f"{metric_facts.GROUP}/") and name != metric_facts.COUNT
    if is_score and abs(value) > 1 and not _is_on_scale(name, value):
        return False
    if is_score and value < 1 and name.endswith("perplexity"):  # 1: every token was predicted with certainty
        return False
    if _MEASURED[0] <= value <= _MEASURED[1]:  # the usual case
        return True
    if value == 0:
        return name not in NEVER_NOTHING
    least, greatest = _SCORED if is_score else _MEASURED
    if not least <= abs(value) <= greatest:  # also false for NaN
        return False
    return value > 0 or name.endswith(_DIFFERENCES) or (is_score and _may_be_negative(name))


def _is_on_scale(name: str, value: float) -> bool:
    """Return whether a score is within its scale: an accuracy of 93 is a typing mistake, or not an accuracy."""
    score = name.removesuffix("_low").removesuffix("_high").removesuffix(DIFFERENCE)
    return abs(value) <= _GREATEST.get(metric_facts.of(score, {}).scale or "", math.inf) + _ROUNDED


def _may_be_negative(name: str) -> bool:
    """Return whether a score can be below 0: a known share or error rate can't."""
    return DIFFERENCE in name or metric_facts.of(name, {}).scale in (None, "correlation", "unbounded")


def is_time(milliseconds: int) -> bool:
    """Return whether a time since the epoch is a valid date."""
    return 0 <= milliseconds <= _LAST_MS


def dated(run: Run) -> Run:
    """Return the run with a valid start time; a run with an impossible one counts as the oldest."""
    if is_time(run.started_ms):
        return run
    caution = IMPOSSIBLE_TIME.of(value=str(run.started_ms))
    return replace(run, started_ms=0, tags={**run.tags, **_tags(run, caution.code, caution.to_text())})


def without_impossible(run: Run) -> Run:
    """Return the run without impossible numbers, with a caution that names the first of them."""
    left_out = [name for name, value in run.metrics.items() if not is_possible(name, value)]
    if not left_out:
        return run
    caution = IMPOSSIBLE_NUMBER.of(name=left_out[0], value=f"{run.metrics[left_out[0]]:g}")
    return replace(
        run,
        metrics={name: value for name, value in run.metrics.items() if name not in left_out},
        tags={**run.tags, **_tags(run, caution.code, caution.to_text()), _LEFT_OUT: "\n".join(left_out)},
    )


def impossible(run: Run) -> list[str]:
    """Return the names of the numbers that `without_impossible` removed from a run."""
    return run.tags.get(_LEFT_OUT, "").splitlines()


def _tags(run: Run, code: str, text: str) -> dict[str, str]:
    """Return the tags of a run's cautions plus one more, in the format of `tracking.writing`."""
    codes = run.tags.get("compress.cautions", "")
    return {"compress.cautions": ",".join(filter(None, (codes, code))), f"compress.caution.{code}": text}
