"""Find earlier results: those that need not be measured again, and the originals to pair scores with."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mlflow_compress import registry
from mlflow_compress.data.spec import parse
from mlflow_compress.errors import RecipeError
from mlflow_compress.files import sha256_unless_large
from mlflow_compress.folder_trees import files_below
from mlflow_compress.measuring.quality import STATISTICS
from mlflow_compress.networks.code_needs import needs_of, variable_state
from mlflow_compress.planning import requirements
from mlflow_compress.records import Result, Run, Variant, to_json
from mlflow_compress.scoring.statistics_file import MOST_PACKED_BYTES
from mlflow_compress.torch_devices import CPU
from mlflow_compress.tracking import reading
from mlflow_compress.tracking.connection import Store
from mlflow_compress.tracking.run_tags import LOGGED
from mlflow_compress.tracking.spool import Shipment, Spool
from mlflow_compress.untrusted import Malformed, parse_json
from mlflow_compress.version import installed
from mlflow_compress.words import ORIGINAL

# Conditions that distinguish machines, and the version of torch: those of `words.CIRCUMSTANCES` that are known before
# anything is measured. Threads, runtime and the work of a call belong to the variant, and TF32 to torch.
_MACHINE = ("cpu_model", "cores_logical", "cores", "cpu_flags", "torch")
_GPU, _POWER = "gpu_model", "gpu_power_limit_w"
_MOST_READ_BYTES = 256 * 2**20  # of files that code may use; larger ones are identified by size and date
_KEYS = (*_MACHINE, _GPU, _POWER)
_ROW = ("team", "model", "method", "family", "chain", "batch_size", "setting")
_NO_DIFFERENCE = ("folder", "requires", "published")  # for the numbers


def digest(variant: Variant, machine: Mapping[str, str] | None = None) -> str:
    """Return a digest that is equal for two variants if the result of one is valid for the other.

    It includes the kind of CPU, the kind of GPU with its power limit if the GPU is measured, the row (team, model,
    method), the model's source, weights and data with the content of their files, the content of files that Python code
    may need (see `code_needs`), what is timed, all settings except the timeout, the version of torch there, and the
    versions of the methods' libraries here. It does not include other libraries, the folder of the recipe, or the
    machine that the variant requires.

    Args:
        variant: The variant.
        machine: Machine it is measured on, as `requirements.here` describes it; None: this one.
    """
    described = {key: value for key, value in to_json(variant).items() if key not in _NO_DIFFERENCE}
    described["budget"].pop("timeout_seconds")
    described["timed"] = registry.find("families", variant.family).timed
    described |= _revisions(variant)
    paths = {"source": variant.source, "weights": variant.weights, "data": _source(variant.data)}
    described["content"] = {key: _content(Path(variant.folder, path)) for key, path in paths.items() if path}
    for key, path in paths.items():
        if described["content"].get(key):
            described[key] = described[key].replace(path, Path(path).name)
    if files_beside := _beside(Path(variant.folder, variant.source)):
        described["beside"] = files_beside
    needs = {name for step in variant.chain for name in registry.find("methods", step.method).needs}
    described["engines"] = {name: installed(name) for name in sorted(needs)}
    machine = requirements.here() if machine is None else machine
    described["machine"] = [machine.get(key, "") for key in _MACHINE]
    if set(variant.devices) - {CPU}:
        described["machine"].append(machine.get(_GPU, ""))
        if limit := machine.get(_POWER):
            described["machine"].append(limit)
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()


def _revisions(variant: Variant) -> dict[str, dict[str, int]]:
    """Return the revisions of a family and of a chain's methods that are above 1."""
    revisions = {step.method: registry.find("methods", step.method).revision for step in variant.chain}
    revisions[variant.family] = registry.find("families", variant.family).revision
    raised = {name: revision for name, revision in revisions.items() if revision > 1}
    return {"revisions": raised} if raised else {}


def measured(
    store: Store, experiment_id: str, digest: str, variant: Variant
) -> tuple[str, Result, Mapping[str, bytes]] | None:
    """Find the newest successful, completely logged result of a variant.

    Anybody who can write to the experiment can write a digest into any run, so the tag is only a hint. A run counts if
    its `result.json` is a complete, successful result of this row (the same team, model, method, batch size and
    setting), and its team tag agrees. The numbers of such a result are trusted, as in a report: the store does not
    record who wrote a run. Other runs are ignored, so a wrong tag can't stop a variant from being measured.

    Args:
        store: The store to search.
        experiment_id: The experiment to search.
        digest: Digest of the variant.
        variant: The variant.

    Returns:
        A description of its place, the result, and the statistics of its scores by file name; None if there is none.

    Raises:
        StoreError: The server is gone.
    """
    query = f"tags.`compress.variant_digest` = '{digest}' and tags.status = 'ok' and tags.`{LOGGED}` = 'complete'"
    for run in reading.runs(store, {experiment_id: ""}, query):
        with contextlib.suppress(Malformed):
            result = _result(store, run)
            if result is not None and run.said("team") == variant.team and _is_good_for(variant, result):
                return f"run {run.run_id}", result, _statistics(store, run)
    return None


def scored_originals(
    store: Store, experiment_id: str, variant: Variant
) -> Iterator[tuple[Result, Mapping[str, bytes]]]:
    """Yield the logged originals of a variant's team and model that have statistics of their scores, newest first.

    Yields:
        The result, and the statistics of its scores by file name.

    Raises:
        StoreError: The server is gone.
    """
    query = f"tags.status = 'ok' and tags.`{LOGGED}` = 'complete'"
    for run in reading.runs(store, {experiment_id: ""}, query):
        is_original = run.said("method").startswith(ORIGINAL)
        if is_original and (run.said("team"), run.said("model")) == (variant.team, variant.model):
            with contextlib.suppress(Malformed):
                result, statistics = _result(store, run), _statistics(store, run)
                if result is not None and result.variant.is_original and statistics:
                    yield result, statistics


def _result(store: Store, run: Run) -> Result | None:
    record = reading.artifact(store, run.run_id, "result.json")
    return None if record is None else Result.from_json(parse_json(record, "result.json"))


def _statistics(store: Store, run: Run) -> Mapping[str, bytes]:
    statistics = reading.artifact(store, run.run_id, STATISTICS, MOST_PACKED_BYTES)
    return {} if statistics is None else {STATISTICS: statistics}


def finished(store: Store, experiment_id: str) -> list[Run]:
    """Return the runs of all successful, completely logged results, newest first.

    Raises:
        StoreError: The server is gone.
    """
    return reading.runs(store, {experiment_id: ""}, f"tags.status = 'ok' and tags.`{LOGGED}` = 'complete'")


def digests(runs: Iterable[Run], spool: Spool, experiment: str) -> set[str]:
    """Return the digests of variants that are marked as measured, for a forecast: only `measured` is authoritative.

    Args:
        runs: Runs from `finished`.
        spool: Spool with unsent results.
        experiment: Name of the experiment of the unsent results.
    """
    kept_digests = {shipment.address.digest for shipment in _kept(spool) if _is_good(shipment, experiment)}
    return kept_digests | {run.tags.get("compress.variant_digest", "") for run in runs} - {""}


def machines(runs: Iterable[Run]) -> list[dict[str, str]]:
    """Return the distinct machines that runs were measured on, for `digest`."""
    described = {tuple((key, run.tags.get(f"compress.env.{key}", "")) for key in _KEYS) for run in runs}
    return [{key: text for key, text in facts if text} for facts in sorted(described)]


def waiting(
    spool: Spool, experiment: str, digest: str, variant: Variant
) -> tuple[str, Result, Mapping[str, bytes]] | None:
    """Find a successful, unsent result of a variant in the spool; see `measured` for the return value.

    Args:
        spool: The spool to search.
        experiment: Name of the experiment of the result.
        digest: Digest of the variant.
        variant: The variant.
    """
    for shipment in _kept(spool):
        is_this = shipment.address.digest == digest and _is_good_for(variant, shipment.result)
        if is_this and _is_good(shipment, experiment):
            folder = shipment.entry.folder
            path = folder / STATISTICS
            return f"kept in {folder}", shipment.result, {STATISTICS: path.read_bytes()} if path.is_file() else {}
    return None


def _kept(spool: Spool) -> Iterator[Shipment]:
    """Yield the readable entries of the spool. Each is locked until the next one is requested."""
    for entry in spool.entries():
        with contextlib.suppress(OSError, Malformed):
            yield entry.read(_silent)


def _silent(_: str) -> None:
    pass


def _is_good_for(variant: Variant, result: Result) -> bool:
    """Return whether a result is successful and of this variant's row."""
    rows = [tuple(getattr(row, name) for name in _ROW) for row in (variant, result.variant)]
    return result.status == "ok" and rows[0] == rows[1]


def _is_good(shipment: Shipment, experiment: str) -> bool:
    return (shipment.address.experiment, shipment.result.status) == (experiment, "ok")


def _source(data: str | None) -> str:
    """Return the part of a data name that may be a path."""
    try:
        return parse(data).source if data else ""
    except RecipeError:
        return ""


def _content(path: Path) -> str:
    """Return a description of the content at a path; empty if there is nothing."""
    try:
        if path.is_dir():
            files = sorted(files_below(path))
            return "\n".join(f"{file.relative_to(path)} {_file(file)}" for file in files)
        return _file(path) if path.is_file() else ""
    except (OSError, ValueError):  # not a valid file name
        return ""


def _beside(source: Path) -> dict[str, str]:
    """Describe the files that Python code needs, by their relative path, or the full path outside the code's folder."""
    if source.suffix != ".py" or not source.is_file():
        return {}
    needs = needs_of(source)
    folder = source.parent
    names = {
        path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path): path
        for path in needs.all_files()
    }
    described = {f"${name}": state for name in needs.variables if (state := variable_state(name))}
    hashed_files = {*needs.modules, *needs.files}
    left = _MOST_READ_BYTES
    for name, path in sorted(names.items()):
        with contextlib.suppress(OSError):  # an unreadable file is reported when the code runs
            left -= 0 if path in hashed_files else path.stat().st_size
            described[name] = _file(path) if path in hashed_files or left >= 0 else _date(path)
    return described


def _file(path: Path) -> str:
    return sha256_unless_large(path) or _date(path)


def _date(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"
