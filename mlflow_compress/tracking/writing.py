"""Writes into runs: start and end, parameters, metrics, tags and files.

Layout of a run (schema 1):

* params: what was requested, as strings (`model`, `method`, `team`, `device`, `weights`, ...); in a run that somebody
  else began also `compress.result_id`: the result that took the run, since a parameter can't be changed;
* metrics: what was measured (`cpu/latency_p50_ms`); the samples are in `result.json`;
* tags: see `run_tags`;
* artifacts: `variant.json`, `result.json`, plots, logs, and the model as an MLflow model.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TypeVar

from mlflow_compress import user_home
from mlflow_compress.errors import StoreError, one_line
from mlflow_compress.records import Result, Variant, finite, to_json
from mlflow_compress.tracking import experiment_note, reading, run_tags
from mlflow_compress.tracking.connection import Store, check, open_store, quiet, refusals, without_secrets
from mlflow_compress.tracking.run_tags import LOGGED, NOTE, RESULT_ID, ROLE, SECONDS, TAG_LIMIT

SWEEP, EVALUATIONS = "sweep", "evaluations"  # roles of runs that are not results, but have results below them
PROGRAM = "compress-bench"
METRICS_PER_CALL, TAGS_PER_CALL, _PARAMS_PER_CALL = 1000, 100, 100
_ALREADY_THERE = ("UNIQUE constraint failed", "duplicate key value", "Duplicate entry")  # messages of databases
_TABLE = "predictions.json"
_OTHER_TABLES = ("confusion_matrix.json", "classes.json", "flips.json", "layers.json", "load.json")
_TABLES = (_TABLE, *_OTHER_TABLES)  # that the UI shows
RESULT = "result.json"

_Item = TypeVar("_Item")


@contextlib.contextmanager
def fluent_run(name: str) -> Iterator[tuple[Store, str]]:
    """Yield the store and the active run of this process; without one, start a run that ends with the block.

    Raises:
        StoreError: the store can't be reached.
    """
    store = open_store()
    import mlflow

    active = mlflow.active_run()
    if active is not None:
        yield store, str(active.info.run_id)
        return
    with refusals(store.uri):
        started = mlflow.start_run(run_name=name)
    with started as run:
        yield store, str(run.info.run_id)


def experiment_id(store: Store, name: str) -> str:
    """Return the experiment's id; create the experiment if there is none with that name."""
    with quiet(), refusals(store.uri):
        experiment = store.client.get_experiment_by_name(name)
        if experiment is None:
            with contextlib.suppress(Exception):  # another process may have created it in between
                return str(store.client.create_experiment(name))
            experiment = store.client.get_experiment_by_name(name)
        if experiment is None:
            return str(store.client.create_experiment(name))  # raises with the reason
        if experiment.lifecycle_stage != "active":
            raise StoreError(f"The experiment {name!r} is deleted. Restore it, or choose another name.")
        return str(experiment.experiment_id)


def start(store: Store, experiment_id: str, name: str, tags: Mapping[str, str], start_ms: int | None = None) -> str:
    """Start a run and return its id. Set MLflow's own tags here, because only its fluent API sets them."""
    mlflow_tags = {
        "mlflow.user": user_home.user_name(),
        "mlflow.source.name": PROGRAM,
        "mlflow.source.type": "LOCAL",
    }
    with refusals(store.uri):
        run = store.client.create_run(
            experiment_id, run_name=name, tags=kept({**mlflow_tags, **tags}), start_time=start_ms
        )
        return str(run.info.run_id)


def claim(
    store: Store, experiment_id: str, result_id: str, name: str, tags: Mapping[str, str], start_ms: int | None = None
) -> str:
    """Return the run of a result; start it if there is none.

    A request may be repeated when a server dies before it answers, and so may start two runs: delete one of them.
    """
    tags = {**tags, RESULT_ID: result_id}
    if ids := _runs_of(store, experiment_id, result_id):
        tag(store, ids[0], tags)
    else:
        start(store, experiment_id, name, tags, start_ms)
        ids = _runs_of(store, experiment_id, result_id)
    with refusals(store.uri):
        for double in ids[1:]:
            store.client.delete_run(double)
    return ids[0]


def take(store: Store, run_id: str, result_id: str) -> bool:
    """Assign a run that somebody else began to a result; the first result to ask owns it permanently.

    Args:
        store: the tracking store.
        run_id: the run.
        result_id: the result's id; `SWEEP` for all sweeps, which put their results into runs below it.

    Returns:
        Whether the run belongs to this result.

    Raises:
        StoreError: the run does not exist, is deleted, or the server is gone.
    """
    if owner := _owner(store, run_id):
        return owner == result_id
    try:
        with refusals(store.uri):
            store.client.log_param(run_id, RESULT_ID, result_id)  # of two at once, MLflow refuses one
    except StoreError:
        if not (owner := _owner(store, run_id)):
            raise
        return owner == result_id
    return True


def _owner(store: Store, run_id: str) -> str:
    """Return the id of the result that took a run; empty for none. Runs of version 0.1 record it only in tags."""
    with refusals(store.uri):
        data = store.client.get_run(run_id).data
    if owner := data.params.get(RESULT_ID):
        return str(owner)
    tags = run_tags.unhidden(data.tags.items())
    return SWEEP if tags.get(ROLE) == SWEEP else tags.get(RESULT_ID) or tags.get(LOGGED, "")


def _runs_of(store: Store, experiment_id: str, result_id: str) -> list[str]:
    runs = reading.runs(store, {experiment_id: ""}, f"tags.`{RESULT_ID}` = '{result_id}'")
    return [run.run_id for run in sorted(runs, key=lambda run: (LOGGED not in run.tags, run.run_id))]


def tag(store: Store, run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of a run, even if other processes do so at the same moment."""
    with refusals(store.uri):
        for key, value in kept(tags).items():
            try:
                store.client.set_tag(run_id, key, value)
            except Exception as error:
                if not any(words in str(error) for words in _ALREADY_THERE):
                    raise
                store.client.set_tag(run_id, key, value)  # now it exists and can be changed


def untag(store: Store, run_id: str, names: AbstractSet[str]) -> None:
    """Remove tags from a run, where it has them."""
    with refusals(store.uri):
        all_names = names | set(map(run_tags.kept_name, names))
        for name in all_names & store.client.get_run(run_id).data.tags.keys():
            store.client.delete_tag(run_id, name)


def end(store: Store, run_id: str, succeeded: bool) -> None:
    """End a run as FINISHED or FAILED."""
    close(store, run_id, "FINISHED" if succeeded else "FAILED")


def close(store: Store, run_id: str, lifecycle: str) -> None:
    """End a run as FINISHED, FAILED or KILLED."""
    with refusals(store.uri):
        store.client.set_terminated(run_id, lifecycle)


def write_result(
    store: Store,
    run_id: str,
    result: Result,
    asked: Mapping[str, str],
    note: str,
    files: Mapping[str, bytes],
    *,
    with_metrics: bool = True,
) -> None:
    """Write a result into a run: params, metrics, tags, and the files as artifacts. Repeating this changes nothing.

    Args:
        store: the tracking store.
        run_id: the run, ours or that of `mlflow run`.
        result: the result to log.
        asked: parameters as the user gave them. Parameters that the run already has stay.
        note: Markdown for the run's description.
        files: content by artifact path (`latency.png`).
        with_metrics: whether to write the metrics too, or leave them to MLflow's evaluation, which writes them itself.

    Raises:
        StoreError: the server refused, or is gone.
    """
    from mlflow.entities import Metric, Param, RunTag

    with refusals(store.uri):
        existing = store.client.get_run(run_id).data.params
        params = [Param(key, value[:TAG_LIMIT]) for key, value in asked.items() if key not in existing]
        tags = [RunTag(key, value) for key, value in kept({**tags_of(result), NOTE: note}).items()]
        now = int(result.ended_s * 1000)
        numbers = finite(result.measurements) if with_metrics else {}
        metrics = [Metric(key, value, now, 0) for key, value in numbers.items()]
        for batch in parts(metrics, METRICS_PER_CALL):
            store.client.log_batch(run_id, metrics=batch)
        for few in parts(params, _PARAMS_PER_CALL):
            store.client.log_batch(run_id, params=few)
        for part in parts(tags, TAGS_PER_CALL):
            store.client.log_batch(run_id, tags=part)
    finite_result = dataclasses.replace(result, measurements=finite(result.measurements))
    records = {"variant.json": to_json(result.variant), RESULT: to_json(finite_result)}
    with _artifacts(store, run_id):
        for path, record in records.items():
            store.client.log_text(run_id, json.dumps(record, ensure_ascii=False, indent=1), path)
    with refusals(store.uri):
        _write_data(store, run_id, result.facts)
    write_files(store, run_id, files)


def _write_data(store: Store, run_id: str, facts: Mapping[str, str]) -> None:
    """Record the data set used for scoring, so that MLflow shows it with the run."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    if "data_digest" not in facts:
        return
    source = json.dumps({"uri": facts["data_source"]})
    data = Dataset(facts["data_name"], facts["data_digest"], source_type="mlflow_compress", source=source)
    store.client.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "evaluation")])])


def write_files(store: Store, run_id: str, files: Mapping[str, bytes]) -> None:
    """Write files into a run, by artifact path."""
    import tempfile

    with refusals(store.uri), tempfile.TemporaryDirectory() as folder:
        for path, content in files.items():
            local = Path(folder, path)
            local.parent.mkdir(parents=True, exist_ok=True)
            local.write_bytes(content)
        if files:
            with _artifacts(store, run_id):
                store.client.log_artifacts(run_id, folder)
        if _TABLE in files:
            artifact_list = json.dumps([{"path": table, "type": "table"} for table in _TABLES if table in files])
            store.client.set_tag(run_id, "mlflow.loggedArtifacts", artifact_list)  # so that the UI opens it as a table


@contextlib.contextmanager
def _artifacts(store: Store, run_id: str) -> Iterator[None]:
    """Name the folder in the error when files can't be written: a client often writes them itself, not the server.

    Raises:
        StoreError: they can't be written, or the server is gone.
    """
    try:
        with refusals(store.uri):
            yield
    except StoreError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        check(store)
        with refusals(store.uri):
            folder = without_secrets(str(store.client.get_run(run_id).info.artifact_uri))
        reason = one_line(error.__cause__)
        raise StoreError(
            f"The artifact folder {folder} is not writable: {reason}. Allow this user to write there, or let the "
            "server write the files (mlflow server --artifacts-destination FOLDER) in a new experiment."
        ) from error


def write_comparison(store: Store, experiment_id: str, files: Mapping[str, bytes], summary: str) -> str:
    """Store a comparison's files in the run `comparison`, and its summary in the experiment's description.

    Args:
        store: the tracking store.
        experiment_id: the experiment. It has one such run, which is created where there is none.
        files: content by artifact path (`comparison.html`).
        summary: the summary in Markdown.

    Returns:
        The run's id.
    """
    with quiet(), refusals(store.uri):
        tags = {ROLE: "comparison", NOTE: summary}
        run_id = _comparison(store, experiment_id) or _start_comparison(store, experiment_id, tags)
        tag(store, run_id, tags)
        write_files(store, run_id, files)
        end(store, run_id, succeeded=True)
        experiment_note.set_summary(store, experiment_id, summary)
        return str(run_id)


def _comparison(store: Store, experiment_id: str) -> str:
    """Return the id of an experiment's comparison run, the oldest where there are several; empty for none."""
    oldest_first = ["attributes.start_time ASC"]
    runs = store.client.search_runs([experiment_id], f"tags.`{ROLE}` = 'comparison'", order_by=oldest_first)
    ids = [(run.info.start_time, str(run.info.run_id)) for run in runs]
    return min(ids)[1] if ids else ""


def _start_comparison(store: Store, experiment_id: str, tags: Mapping[str, str]) -> str:
    """Start an experiment's comparison run; if another process does so too, the earlier run stays."""
    started = start(store, experiment_id, "comparison", tags)
    stored = _comparison(store, experiment_id)
    if stored != started:
        store.client.delete_run(started)
    return stored


def add_to_run(
    store: Store, run_id: str, numbers: Mapping[str, float], facts: Mapping[str, str], files: Mapping[str, bytes]
) -> None:
    """Add numbers, facts and files to a finished run."""
    with quiet(), refusals(store.uri):
        for name, value in finite(numbers).items():
            store.client.log_metric(run_id, name, value)
        write_files(store, run_id, files)
    tag(store, run_id, {f"compress.{name}": text for name, text in facts.items()})


def tags_of_variant(variant: Variant) -> dict[str, str]:
    """Return the tags that identify the row of a run."""
    return {
        "team": variant.team,
        "model": variant.model,
        "method": variant.method,
        ROLE: "variant",
        "compress.batch_size": str(variant.batch_size),
        "compress.setting": variant.setting,
        "compress.original": "yes" if variant.is_original else "no",
    }


def tags_of(result: Result) -> dict[str, str]:
    """Return all tags of a result's run."""
    tags = {
        **tags_of_variant(result.variant),
        "status": result.status,
        "compress.schema": str(result.schema),
        SECONDS: f"{result.ended_s - result.started_s:.1f}",
    }
    if result.cautions:
        tags["compress.cautions"] = ",".join(caution.code for caution in result.cautions)
    if result.reason:
        tags["compress.reason"] = result.reason
    for device, outcome in result.outcomes.items():
        tags[f"compress.outcome.{device}"] = outcome.status
        if outcome.reason:
            tags[f"compress.reason.{device}"] = outcome.reason
    tags |= {f"compress.caution.{number}": caution.to_text() for number, caution in enumerate(result.cautions, 1)}
    tags |= {f"compress.{key}": value for key, value in result.facts.items()}
    tags |= {f"compress.env.{key}": value for key, value in result.environment.items()}
    return tags


def run_name(team: str, model: str, label: str) -> str:
    """Return a name that distinguishes a run from its siblings and from other teams' runs."""
    return f"{model} {label}" if team in ("", "none") else f"{team}: {model} {label}"


def kept(tags: Mapping[str, str]) -> dict[str, str]:
    """Return tags as a run stores them: under the names of `run_tags`, and not too long."""
    return cut(run_tags.kept(tags))


def cut(tags: Mapping[str, str]) -> dict[str, str]:
    """Shorten values that MLflow would cut silently."""
    return {key: value if len(value) <= TAG_LIMIT else value[: TAG_LIMIT - 1] + "…" for key, value in tags.items()}


def parts(items: list[_Item], size: int) -> Iterator[list[_Item]]:
    """Yield the items in lists of at most a given size."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
