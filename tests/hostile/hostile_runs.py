"""Runs that somebody logged to do harm, each of which may cost only its own row, next to honest runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, RunTag

from mlflow_compress.records import Variant, to_json
from mlflow_compress.tracking import writing
from mlflow_compress.tracking.connection import Store, open_store

from . import inputs_texts
from .harmless import Make

EXPERIMENT = "honest"
STEERING = "x\x1b[2J\x1b]0;seized\x07\u202egnp\x9b31m\nAll 5 variants reach what was asked of them."
NUMBERS = {
    "size/weights_mib": 90.0,
    "size/disk_mib": 91.0,
    "size/params": 1e6,
    "cpu/latency_p50_ms": 40.0,
    "cpu/latency_p50_stderr_ms": 0.5,
    "cpu/ram_peak_mib": 300.0,
    "quality/accuracy": 0.75,
    "quality/samples": 100.0,
}


@dataclass(frozen=True)
class HostileRun:
    """A run, by its differences from an honest one of the team `evil`.

    Attributes:
        tags: Changed tags by name; None removes a tag.
        metrics: Changed metrics by name; None removes a metric.
        started_ms: Start time in milliseconds since the epoch.
        files: Functions that write the run's files.
        name: Name of the run.
    """

    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    started_ms: int = 1_700_000_000_000
    files: tuple[Make, ...] = ()
    name: str = "run"


def _all(value: float) -> dict[str, float]:
    return dict.fromkeys(NUMBERS, value)


RUNS: Mapping[str, HostileRun] = {
    "began_in_far_future": HostileRun(started_ms=10**18),
    "began_at_the_end_of_integers": HostileRun(started_ms=2**63 - 1),
    "began_before_the_epoch": HostileRun(started_ms=-(10**18)),
    "began_at_zero": HostileRun(started_ms=0),
    "original_of_far_future": HostileRun({"method": "original"}, _all(1e308), 10**18),
    "negative_numbers": HostileRun(metrics=_all(-1.0)),
    "largest_numbers": HostileRun(metrics=_all(1e308)),
    "subnormal_numbers": HostileRun(metrics=_all(5e-324)),
    "no_numbers": HostileRun(metrics=_all(float("nan"))),
    "infinite_numbers": HostileRun(metrics=_all(float("inf"))),
    "zeros": HostileRun(metrics=_all(0.0)),
    "long_model": HostileRun({"model": "m" * 8000}),
    "long_method": HostileRun({"method": "m" * 8000}),
    "long_team": HostileRun({"team": "т" * 4000}),
    "steering_names": HostileRun({"team": STEERING, "model": STEERING, "method": STEERING}, name=STEERING),
    "steering_reason": HostileRun({"status": "failed", "compress.outcome.cpu": "failed", "compress.reason": STEERING}),
    "long_reason": HostileRun({"status": "failed", "compress.outcome.cpu": "failed", "compress.reason": "r" * 8000}),
    "tags_of_other_types": HostileRun(
        {
            "compress.batch_size": "[]",
            "compress.setting": "{",
            "compress.cautions": "[1]",
            "compress.caution.1": "[" * 7000,
            "compress.caution.2": '{"code": 5, "short": []}',
            "compress.metric.accuracy": "[" * 4000,
            "compress.weights": "1e308",
            "compress.seconds": "nan",
            "compress.logged": "complete",
            "status": "ok",
        }
    ),
    "seconds_of_infinity": HostileRun({"compress.seconds": "1e308", "compress.logged": "complete"}),
    "metric_of_hostile_facts": HostileRun(
        {
            "compress.metric.accuracy": json.dumps(
                {"label": {"en": STEERING, "ru": 5}, "scale": [], "greater_is_better": "yes", "rank": -(10**400)}
            )
        }
    ),
    "device_of_no_kind": HostileRun({"compress.outcome.tpu": "ok", "compress.outcome.cpu": "maybe"}),
    "no_names": HostileRun({"team": "", "model": "", "method": ""}),
    **{
        f"file_{make.__name__}": HostileRun({"compress.logged": "complete"}, files=(make,))
        for make in vars(inputs_texts).values()
        if callable(make) and getattr(make, "__module__", "") == inputs_texts.__name__ and make.__name__[0] != "_"
        if make.__name__ != "result_of_a_pipe"  # MLflow itself would wait for it
    },
}


def add_honest(uri: str, experiment: str = EXPERIMENT) -> None:
    """Log the runs of two honest teams: an original and two variants, one of which failed."""
    store = open_store(uri)
    number = writing.experiment_id(store, experiment)
    for team in ("alpha", "бета"):
        for method, factor in (("original", 1.0), ("fp16", 0.5)):
            metrics = {name: value * factor for name, value in NUMBERS.items()}
            metrics["quality/samples"] = 100.0
            _log(store, number, {"team": team, "method": method}, metrics, 1_600_000_000_000, f"yolo {method}")
        reason = {"status": "failed", "compress.outcome.cpu": "failed", "compress.reason": "out of memory"}
        _log(store, number, {"team": team, "method": "int8", **reason}, {}, 1_600_000_000_001, "yolo int8")


def add_hostile(uri: str, folder: Path, experiment: str = EXPERIMENT) -> dict[str, str]:
    """Log all hostile runs; return their ids by name."""
    store = open_store(uri)
    number = writing.experiment_id(store, experiment)
    ids = {}
    for name, run in RUNS.items():
        tags = {"team": "evil", "method": name, **run.tags}
        ids[name] = _log(store, number, tags, {**NUMBERS, **run.metrics}, run.started_ms, run.name)
        for make in run.files:
            place = folder / name
            place.mkdir()
            make(place, "touch ran")
            described = to_json(Variant("yolo", name, "evil", "python", "model.py", data="own", metrics=("accuracy",)))
            (place / "variant.json").write_text(json.dumps(described))
            store.client.log_artifacts(ids[name], str(place))
    return ids


def _log(
    store: Store, number: str, tags: Mapping[str, str], metrics: Mapping[str, float], start_ms: int, name: str
) -> str:
    usual: dict[str, Any] = {
        "model": "yolo",
        "status": "ok",
        "compress.role": "variant",
        "compress.batch_size": "1",
        "compress.outcome.cpu": "ok",
        "compress.env.cpu_model": "Xeon",
        "compress.env.threads": "4",
        "compress.data_digest": "abc",
        "compress.protocol.accuracy": "top 1",
    }
    client = store.client
    run_id = writing.start(store, number, name, {}, start_ms=start_ms)
    run_tags = [RunTag(key, value) for key, value in {**usual, **tags}.items()]
    client.log_batch(run_id, [Metric(key, value, 1, 0) for key, value in metrics.items()], tags=run_tags)
    client.set_terminated(run_id, "FINISHED", end_time=start_ms)
    return run_id


__all__ = ["EXPERIMENT", "NUMBERS", "RUNS", "STEERING", "HostileRun", "add_honest", "add_hostile"]
