"""Stores with a few variants, some of them unusual."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from mlflow_compress.records import Run, Selection
from mlflow_compress.tracking import writing
from mlflow_compress.tracking.connection import open_store

HOSTILE = 'it\'s "quoted" | `x` %_ \\ ; -- 🙂 Ёж'


EVERYTHING = Selection()


def fill(uri: str, folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        add(uri, "query 1", "alpha", "yolo", "original", 1000)
        add(uri, "query 1", "alpha", "yolo", "fp16", 2000)
        add(uri, "query 1", "beta", "yolo", "fp16", 3000, device="gpu")
        add(uri, "query 1", HOSTILE, HOSTILE, "original", 4000)
        add(uri, "query 1", HOSTILE, HOSTILE, "fp16", 5000)
        add(uri, "query 2", "beta", "vit", "original", 6000)
        store = open_store(uri)
        writing.start(store, writing.experiment_id(store, "query 1"), "sweep", {"compress.role": "sweep"})
        deleted = add(uri, "query 1", "alpha", "yolo", "deleted", 7000)
        MlflowClient(uri).delete_run(deleted)
    mlflow.set_tracking_uri("")


def add(
    uri: str, experiment: str, team: str, model: str, method: str, at: int, device: str = "cpu", **further_tags: str
) -> str:
    store = open_store(uri)
    tags = {
        "team": team,
        "model": model,
        "method": method,
        "status": "ok",
        "compress.role": "variant",
        f"compress.outcome.{device}": "ok",
        "compress.note": "mlflow.x",
        **{f"compress.{name}": text for name, text in further_tags.items()},
    }
    run_id = writing.start(
        store, writing.experiment_id(store, experiment), f"{model} {method}"[:200], tags, start_ms=at
    )
    numbers = {"size/weights_mib": at / 7, "cpu/nan": float("nan"), "cpu/inf": float("inf"), "cpu/zero": -0.0}
    MlflowClient(uri).log_batch(
        run_id,
        [Metric(name, value, 1, 0) for name, value in numbers.items()],
        [Param("team", team), Param("limit", "5")],
        [RunTag("empty", "")],
    )
    writing.end(store, run_id, succeeded=True)
    return run_id


def names(runs: tuple[Run, ...]) -> list[tuple[str, str, str]]:
    return [(run.tags["team"], run.tags["model"], run.tags["method"]) for run in runs]


def plain(runs: Sequence[Run]) -> str:
    """Return the content of runs in an order that does not depend on the store; NaN does not equal itself."""

    def in_order(items: Mapping[str, Any]) -> dict[str, Any]:
        return dict(sorted(items.items()))

    ordered = [
        replace(run, tags=in_order(run.tags), params=in_order(run.params), metrics=in_order(run.metrics))
        for run in runs
    ]
    return "\n".join(map(repr, ordered))


SELECTIONS = [
    EVERYTHING,
    Selection(teams=("alpha",)),
    Selection(teams=("alpha", "beta"), methods=("fp16",)),
    Selection(teams=(HOSTILE,)),
    Selection(models=(HOSTILE, "yolo")),
    Selection(since_ms=3000),
    Selection(device="gpu"),
    Selection(methods=("fp16",), since_ms=2000, device="cpu"),
]


def copied(uri: str, path: Path) -> None:
    shutil.copy(uri.removeprefix("sqlite:///"), path)
