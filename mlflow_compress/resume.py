"""What a sweep need not measure again: the same variant, on this kind of machine, measured well and logged whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from mlflow_compress.data.datasets import parse
from mlflow_compress.errors import RecipeError
from mlflow_compress.meters import environment
from mlflow_compress.quality import STATISTICS
from mlflow_compress.records import Result, Variant, to_json
from mlflow_compress.spool import Spool
from mlflow_compress.store import LOGGED, Store

_LARGE_BYTES = 64 * 2**20  # larger files are told apart by size and date


def digest(variant: Variant) -> str:
    """Give what two variants have in common when one's result does for the other.

    That is the kind of CPU, the row (team, model, method), the model's source and weights and the data with the content
    of their files, and all settings but the timeout. Versions of libraries are not in it, nor is where the recipe lies.
    """
    described = {key: value for key, value in to_json(variant).items() if key != "folder"}
    described["budget"].pop("timeout_seconds")
    paths = {"source": variant.source, "weights": variant.weights, "data": _source(variant.data)}
    described["content"] = {key: _content(Path(variant.folder, path)) for key, path in paths.items() if path}
    for key, path in paths.items():
        if described["content"].get(key):
            described[key] = described[key].replace(path, Path(path).name)
    machine = environment.machine()
    described["machine"] = [machine["cpu_model"], machine["cores_logical"]]
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()


def measured(store: Store, experiment_id: str, digest: str) -> tuple[str, Result, Mapping[str, bytes]] | None:
    """Find the newest result of a variant that is ok and logged whole.

    Args:
        store: where to look.
        experiment_id: in which experiment.
        digest: of the variant.

    Returns:
        In words where it is, the result, and the statistics of its scores by file name; None when there is none.

    Raises:
        StoreError: the server is gone.
    """
    where = f"tags.`compress.variant_digest` = '{digest}' and tags.status = 'ok' and tags.`{LOGGED}` = 'complete'"
    for run in store.query({experiment_id: ""}, where):
        record = store.read(run.run_id, "result.json")
        if record is not None:
            statistics = store.read(run.run_id, STATISTICS)
            files = {} if statistics is None else {STATISTICS: statistics}
            return f"run {run.run_id}", Result.from_json(json.loads(record)), files
    return None


def waiting(spool: Spool, experiment: str, digest: str) -> tuple[str, Result, Mapping[str, bytes]] | None:
    """Find the result of a variant that is ok and waits in the spool; as `measured` gives it.

    Args:
        spool: where to look.
        experiment: the name of the experiment that it is to go to.
        digest: of the variant.
    """
    for entry in spool.entries():
        try:
            result, address = entry.read()
        except (OSError, ValueError, LookupError, TypeError):
            continue
        if (address.digest, address.experiment, result.status) == (digest, experiment, "ok"):
            path = entry.folder / STATISTICS
            return f"kept in {entry.folder}", result, {STATISTICS: path.read_bytes()} if path.is_file() else {}
    return None


def _source(data: str | None) -> str:
    """Give the part of a name of data that may be a path."""
    try:
        return parse(data).source if data else ""
    except RecipeError:
        return ""


def _content(path: Path) -> str:
    """Describe what is at a path: empty where there is nothing."""
    try:
        if path.is_dir():
            files = sorted(each for each in path.rglob("*") if each.is_file())
            return "\n".join(f"{each.relative_to(path)} {_file(each)}" for each in files)
        return _file(path) if path.is_file() else ""
    except (OSError, ValueError):  # a name that is none of a file
        return ""


def _file(path: Path) -> str:
    status = path.stat()
    if status.st_size > _LARGE_BYTES:
        return f"{status.st_size} {status.st_mtime_ns}"
    return hashlib.sha256(path.read_bytes()).hexdigest()
