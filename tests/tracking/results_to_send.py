"""A result to send, and what MLflow has of it."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock
from mlflow import MlflowClient

from mlflow_compress.records import Outcome, Result, Run, Step, Variant
from mlflow_compress.tracking import reading
from mlflow_compress.tracking.connection import Store
from mlflow_compress.tracking.spool import Address, Entry, Shipment, Spool

VARIANT = Variant("small", "original", "alpha", "python", "small.py", chain=(Step("original"),))


RESULT = Result(
    VARIANT,
    "ok",
    measurements={"cpu/latency_p50_ms": 1.25, "size/params": 7.0},
    samples={"cpu/latency_ms": [1.0, 1.25, 1.5]},
    outcomes={"cpu": Outcome("ok")},
    facts={"data_digest": "0" * 8, "data_source": "own", "data_name": "own"},
    started_s=1.0,
    ended_s=2.0,
)


def keep(spool: Spool, address: Address, result: Result = RESULT) -> str:
    entry = spool.begin()
    (entry.folder / "model").mkdir()
    (entry.folder / "model" / "weights").write_bytes(b"w" * 1000)
    (entry.folder / "predictions.json").write_text("[]")
    Shipment(entry, result, address, print).keep()
    entry.release()
    return entry.id


def shipment(folder: Path, result_id: str, address: Address) -> Shipment:
    """Return a result that is not on disk, with an empty model."""
    (folder / result_id / "model").mkdir(parents=True, exist_ok=True)
    return Shipment(Entry(folder / result_id, FileLock(folder / "lock")), RESULT, address, print)


def runs(store: Store, address: Address) -> list[Run]:
    number = reading.experiments(store).get(address.experiment)
    return [] if number is None else reading.runs(store, {number: address.experiment})


def only(found: list[Run]) -> Run:
    (run,) = found
    return run


def models(store: Store, run: Run) -> list[str]:
    client = MlflowClient(store.uri)
    experiment = client.get_run(run.run_id).info.experiment_id
    models_found = client.search_logged_models([experiment], filter_string=f"source_run_id = '{run.run_id}'")
    return [str(found_model.status) for found_model in models_found]
