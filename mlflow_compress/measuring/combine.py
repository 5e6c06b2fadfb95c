"""`combine`: build the one Result of a variant from the Parts that its processes wrote."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TypeVar

from mlflow_compress.errors import Cause
from mlflow_compress.meters import environment as surroundings
from mlflow_compress.records import Caution, Outcome, Part, Result, Status, Variant, finite, metric_group

V = TypeVar("V")


def combine(variant: Variant, parts: Mapping[str, Part], started: float) -> Result:
    """Combine the parts of all processes.

    The variant failed if any requested part failed, and was skipped if all parts were skipped. Measured numbers stay,
    whatever else failed.

    Args:
        variant: The variant.
        parts: Parts by `prepare` and by device: `cpu`, `cuda`, `mps` or `xpu`.
        started: Start time, seconds since the epoch.
    """
    outcomes: dict[str, Outcome] = {}
    for name, part in parts.items():
        if name != "prepare":
            outcomes[metric_group(name)] = part.outcome
        if part.quality is not None:
            outcomes["quality"] = part.quality
    judged = {"": parts["prepare"].outcome, **outcomes} if parts["prepare"].outcome.status != "ok" else outcomes
    unmeasured = {name: outcome for name, outcome in judged.items() if outcome.status != "ok"}
    has_failed = any(outcome.status == "failed" for outcome in unmeasured.values())
    status: Status = "failed" if has_failed else "skipped" if len(unmeasured) == len(judged) else "ok"
    reason = "; ".join(f"{name}: {outcome.reason}" if name else outcome.reason for name, outcome in unmeasured.items())
    cautions: list[Caution] = []
    for part in parts.values():
        cautions += [caution for caution in part.cautions if caution not in cautions]
    return Result(
        variant=variant,
        status=status,
        reason=reason,
        cause=_cause(status, unmeasured.values()),
        measurements=finite(_merged(part.measurements for part in parts.values())),
        samples=_merged(part.samples for part in parts.values()),
        cautions=tuple(cautions),
        environment=surroundings.machine() | _merged(part.environment for part in parts.values()),
        outcomes=outcomes,
        facts=_merged(part.facts for part in parts.values()),
        started_s=started,
        ended_s=time.time(),
    )


def _cause(status: Status, outcomes: Iterable[Outcome]) -> Cause:
    """Return the cause of a failed or skipped variant."""
    causes = [outcome.cause for outcome in outcomes if outcome.status == status]
    if status == "failed":
        return causes[0] or "measuring"
    return "machine" if status == "skipped" and "machine" in causes else ""


def unmeasured(variant: Variant, status: Status, reason: str) -> Result:
    """Return the result of a variant that was not loaded.

    Args:
        variant: The variant.
        status: `skipped`: no available machine may measure it; or `failed`.
        reason: The reason, one sentence.
    """
    return combine(variant, {"prepare": Part(Outcome(status, reason))}, time.time())


def _merged(mappings: Iterable[Mapping[str, V]]) -> dict[str, V]:
    merged: dict[str, V] = {}
    for mapping in mappings:
        merged |= mapping
    return merged
