"""What a sweep need not measure again: the same variant, on this kind of machine, measured well and logged whole."""

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
from mlflow_compress.tracking import reading
from mlflow_compress.tracking.connection import Store
from mlflow_compress.tracking.run_tags import LOGGED
from mlflow_compress.tracking.spool import Shipment, Spool
from mlflow_compress.untrusted import Malformed, parse_json
from mlflow_compress.version import installed

# What tells machines apart, and torch, which is another engine in another version: those of `words.CIRCUMSTANCES` that
# are known before anything is measured. Threads, the runtime and the work of a call are the variant's own, and what is
# computed in TF32 is torch's.
_MACHINE = ("cpu_model", "cores_logical", "cores", "cpu_flags", "torch")
_GPU, _POWER = "gpu_model", "gpu_power_limit_w"
_MOST_READ_BYTES = 256 * 2**20  # of files that code may mean; of more, size and date tell one from another
_KEYS = (*_MACHINE, _GPU, _POWER)
_ROW = ("team", "model", "method", "family", "chain", "batch_size", "setting")
_NO_DIFFERENCE = ("folder", "requires")  # to the numbers


def digest(variant: Variant, machine: Mapping[str, str] | None = None) -> str:
    """Return what two variants have in common when one's result does for the other.

    That is the kind of CPU, and of GPU with its power limit where that is measured too, the row (team, model, method),
    the model's source and weights and the data with the content of their files, and of all that Python code may need by
    its text (see `code_needs`), what is timed, and all settings but the timeout; and the versions of torch there, and
    here of what the methods need. Those of other libraries are not in it, nor is where the recipe lies, nor what kind
    of machine the variant requires.

    Args:
        variant: it.
        machine: what it is measured on, as `requirements.here` describes it; None: this one.
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
    if beside := _beside(Path(variant.folder, variant.source)):
        described["beside"] = beside
    needs = {name for step in variant.chain for name in registry.find("methods", step.method).needs}
    described["engines"] = {name: installed(name) for name in sorted(needs)}
    machine = requirements.here() if machine is None else machine
    described["machine"] = [machine.get(key, "") for key in _MACHINE]
    if "cuda" in variant.devices:
        described["machine"].append(machine.get(_GPU, ""))
        if limit := machine.get(_POWER):
            described["machine"].append(limit)
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()


def _revisions(variant: Variant) -> dict[str, dict[str, int]]:
    """Return the revisions of a family and a chain's methods, where one makes another model today than its first."""
    revisions = {step.method: registry.find("methods", step.method).revision for step in variant.chain}
    revisions[variant.family] = registry.find("families", variant.family).revision
    later = {name: revision for name, revision in revisions.items() if revision > 1}
    return {"revisions": later} if later else {}


def measured(
    store: Store, experiment_id: str, digest: str, variant: Variant
) -> tuple[str, Result, Mapping[str, bytes]] | None:
    """Find the newest result of a variant that is ok and logged whole.

    Who may write into the experiment may write a digest into any run. So a tag is a hint and no more: a run counts if
    its `result.json` is a whole result of this row (the same team, model, method, batch size and setting) that is ok,
    and its tag of the team says the same. What stands in such a result is believed, as a report believes it: the store
    does not tell who wrote a run in whose name. A run that is none of this is passed over, so nobody's tag keeps
    another's variant from being measured.

    Args:
        store: where to look.
        experiment_id: in which experiment.
        digest: of the variant.
        variant: it.

    Returns:
        In words where it is, the result, and the statistics of its scores by file name; None when there is none.

    Raises:
        StoreError: the server is gone.
    """
    where = f"tags.`compress.variant_digest` = '{digest}' and tags.status = 'ok' and tags.`{LOGGED}` = 'complete'"
    for run in reading.runs(store, {experiment_id: ""}, where):
        with contextlib.suppress(Malformed):
            record = reading.artifact(store, run.run_id, "result.json")
            if record is None:
                continue
            result = Result.from_json(parse_json(record, "result.json"))
            if run.said("team") != variant.team or not _is_good_for(variant, result):
                continue
            statistics = reading.artifact(store, run.run_id, STATISTICS, MOST_PACKED_BYTES)
            return f"run {run.run_id}", result, {} if statistics is None else {STATISTICS: statistics}
    return None


def finished(store: Store, experiment_id: str) -> list[Run]:
    """Return the runs of all results that are ok and logged whole, newest first.

    Raises:
        StoreError: the server is gone.
    """
    return reading.runs(store, {experiment_id: ""}, f"tags.status = 'ok' and tags.`{LOGGED}` = 'complete'")


def digests(runs: Iterable[Run], spool: Spool, experiment: str) -> set[str]:
    """Return the digests of variants that are said to be measured, for a forecast: `measured` has the last word.

    Args:
        runs: as `finished` gives them.
        spool: where results wait.
        experiment: the name of the experiment that these must be to go to.
    """
    kept = {shipment.address.digest for shipment in _kept(spool) if _is_good(shipment, experiment)}
    return kept | {run.tags.get("compress.variant_digest", "") for run in runs} - {""}


def machines(runs: Iterable[Run]) -> list[dict[str, str]]:
    """Return what tells the machines apart that runs were measured on, as `digest` takes it."""
    found = {tuple((key, run.tags.get(f"compress.env.{key}", "")) for key in _KEYS) for run in runs}
    return [{key: text for key, text in each if text} for each in sorted(found)]


def waiting(
    spool: Spool, experiment: str, digest: str, variant: Variant
) -> tuple[str, Result, Mapping[str, bytes]] | None:
    """Find the result of a variant that is ok and waits in the spool; as `measured` gives it.

    Args:
        spool: where to look.
        experiment: the name of the experiment that it is to go to.
        digest: of the variant.
        variant: it.
    """
    for shipment in _kept(spool):
        is_this = shipment.address.digest == digest and _is_good_for(variant, shipment.result)
        if is_this and _is_good(shipment, experiment):
            folder = shipment.entry.folder
            path = folder / STATISTICS
            return f"kept in {folder}", shipment.result, {STATISTICS: path.read_bytes()} if path.is_file() else {}
    return None


def _kept(spool: Spool) -> Iterator[Shipment]:
    """Yield what waits in the spool, as far as it can be read; each is ours until the next is asked for."""
    for entry in spool.entries():
        with contextlib.suppress(OSError, Malformed):
            yield entry.read(_silent)


def _silent(_: str) -> None:
    pass


def _is_good_for(variant: Variant, result: Result) -> bool:
    """Return whether a result is of this variant's row, and ok."""
    rows = [tuple(getattr(each, name) for name in _ROW) for each in (variant, result.variant)]
    return result.status == "ok" and rows[0] == rows[1]


def _is_good(shipment: Shipment, experiment: str) -> bool:
    return (shipment.address.experiment, shipment.result.status) == (experiment, "ok")


def _source(data: str | None) -> str:
    """Return the part of a name of data that may be a path."""
    try:
        return parse(data).source if data else ""
    except RecipeError:
        return ""


def _content(path: Path) -> str:
    """Describe what is at a path: empty where there is nothing."""
    try:
        if path.is_dir():
            files = sorted(files_below(path))
            return "\n".join(f"{each.relative_to(path)} {_file(each)}" for each in files)
        return _file(path) if path.is_file() else ""
    except (OSError, ValueError):  # a name that is none of a file
        return ""


def _beside(source: Path) -> dict[str, str]:
    """Describe what a file of Python code needs beside it, by its name below the file's folder, or the whole one."""
    if source.suffix != ".py" or not source.is_file():
        return {}
    needs = needs_of(source)
    folder = source.parent
    names = {
        path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path): path
        for path in needs.all_files()
    }
    described = {f"${name}": state for name in needs.variables if (state := variable_state(name))}
    whole = {*needs.modules, *needs.files}
    left = _MOST_READ_BYTES
    for name, path in sorted(names.items()):
        with contextlib.suppress(OSError):  # what can't be read is told when it is run
            left -= 0 if path in whole else path.stat().st_size
            described[name] = _file(path) if path in whole or left >= 0 else _date(path)
    return described


def _file(path: Path) -> str:
    return sha256_unless_large(path) or _date(path)


def _date(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"
