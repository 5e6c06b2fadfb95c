"""Fill a SQLite tracking store with runs like those of this tool: `filled_store.py FILE RUNS [EXPERIMENTS]`.

MLflow creates the tables; SQL inserts the rows, since MLflow's client would take an hour. The experiment is `scale`;
several experiments share the runs equally and are named `scale 1`, `scale 2`, ... There are 334 teams in turn, each
with sweeps of one model after the other over twelve methods, the original first.
"""

from __future__ import annotations

import random
import sqlite3
import sys
from pathlib import Path

from mlflow_compress.tracking import writing
from mlflow_compress.tracking.connection import open_store

_METHODS = ("original", "fp16", "bf16", "int8_dynamic", "int8_static", "cluster", "low_rank", "onnx", "onnx_int8",
            "openvino", "openvino_int8", "prune_magnitude")  # fmt: skip
_METRICS = (
    *(f"size/{name}" for name in ("weights_mib", "disk_mib", "disk_gzip_mib", "params", "params_nonzero")),
    *(f"cpu/latency_{name}_ms" for name in ("p50", "p50_stderr", "mean", "min", "max", "p90", "p95", "std")),
    *(f"cpu/{name}" for name in ("throughput_per_s", "ram_peak_mib", "ram_model_mib", "load_s", "energy_per_item_j")),
    *(f"quality/{name}" for name in ("accuracy", "accuracy_low", "accuracy_high", "f1", "samples", "top1_agreement",
                                     "output_error_rel_l2")),
)  # fmt: skip
_TEAMS, _PARAMS, _CHUNK = 334, 15, 5000


def fill(file: Path, runs: int, experiments: int = 1) -> None:
    """Create the store."""
    store = open_store(f"sqlite:///{file}")
    names = [f"scale {number}" for number in range(1, experiments + 1)] if experiments > 1 else ["scale"]
    ids = [int(writing.experiment_id(store, name)) for name in names]
    chance = random.Random(0)  # noqa: S311  (no secret)
    with sqlite3.connect(file) as database:
        database.execute("PRAGMA synchronous = OFF")
        for index, experiment in enumerate(ids):
            numbers = range(runs * index // len(ids), runs * (index + 1) // len(ids))
            for start in range(0, len(numbers), _CHUNK):
                _insert(database, experiment, numbers[start : start + _CHUNK], chance)


def _insert(database: sqlite3.Connection, experiment: int, numbers: range, chance: random.Random) -> None:
    rows: dict[str, list[tuple[object, ...]]] = {"runs": [], "tags": [], "params": [], "latest_metrics": []}
    for number in numbers:
        run_id = f"{number:032x}"
        method = _METHODS[number % len(_METHODS)]
        sweep = number // len(_METHODS)
        team = f"team {sweep % _TEAMS}"
        model = f"model {sweep // _TEAMS}"
        rows["runs"].append((run_id, f"{model} {method}", "FINISHED", number, "active", experiment, "LOCAL", "someone"))
        tags = {
            "team": team,
            "model": model,
            "method": method,
            "status": "ok",
            "mlflow.runName": f"{model} {method}",
            "mlflow.user": "someone",
            "compress.schema": "1",
            "compress.role": "variant",
            "compress.batch_size": "1",
            "compress.outcome.cpu": "ok",
            "compress.env.cpu_model": "AMD EPYC",
            "compress.env.threads": "2",
        }
        rows["tags"] += [(run_id, key, value) for key, value in tags.items()]
        rows["params"] += [(run_id, f"param {index}", "value") for index in range(_PARAMS)]
        rows["latest_metrics"] += [(run_id, name, chance.random(), 0, 0, False) for name in _METRICS]
    columns = {
        "runs": "run_uuid, name, status, start_time, lifecycle_stage, experiment_id, source_type, user_id",
        "tags": "run_uuid, key, value",
        "params": "run_uuid, key, value",
        "latest_metrics": "run_uuid, key, value, timestamp, step, is_nan",
    }
    for table, names in columns.items():
        marks = ", ".join("?" for _ in names.split(","))
        database.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows[table])  # noqa: S608


if __name__ == "__main__":
    fill(Path(sys.argv[1]), *map(int, sys.argv[2:]))
