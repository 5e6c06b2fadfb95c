"""Sends results to MLflow: each into its own run, or into the run that `mlflow run` made.

A run that somebody else began takes one result, the first. Each later result gets its own run below it.

A variant's result is processed in four steps: `Shipment.keep`, `Originals.pair`, `send`, `write`.
"""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Callable, Mapping

from mlflow_compress import registry, untrusted
from mlflow_compress.errors import StoreError, WeightsError
from mlflow_compress.measuring import input_example, isolate, quality
from mlflow_compress.measuring.layer_table import LAYERS
from mlflow_compress.measuring.quality import CONFUSION, PREDICTIONS, STATISTICS
from mlflow_compress.networks.own_files import require_own_files
from mlflow_compress.records import Result, Variant
from mlflow_compress.scoring import statistics_file
from mlflow_compress.tracking import (
    confusion_plot,
    layer_plot,
    models,
    process_identity,
    reading,
    run_plots,
    run_summary,
    writing,
)
from mlflow_compress.tracking.connection import Store, check
from mlflow_compress.tracking.run_tags import LOGGED, NOT_LOGGED, NOTE, PARENT, RESULT_ID, ROLE
from mlflow_compress.tracking.spool import Shipment
from mlflow_compress.version import installed

_OF_AN_EARLIER_TRY = {"compress.reason", NOT_LOGGED}  # may no longer be true
_GENERATED_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")  # MLflow's name for a run without a name


def send(store: Store, shipment: Shipment, ending: bool = True) -> str:
    """Write a result into its run, whatever is already there: the numbers first, the model last; return the run's id.

    Repeating this, even after a crash, does not change what is there. Large files that the server refuses are left
    out, and the run says so.

    Args:
        store: the tracking store.
        shipment: the result and its address.
        ending: whether to end a run that somebody else began; our own runs always end.

    Raises:
        StoreError: the server refused the numbers, or is gone. What was written stays.
    """
    check(store)  # MLflow's own client would retry for a long time
    run_id = _run(store, shipment)
    ending = ending or run_id != shipment.address.run
    try:
        if reading.run(store, run_id).tags.get(LOGGED) != "complete":
            write(store, run_id, shipment)
    except StoreError as error:
        with contextlib.suppress(StoreError):
            check(store)
            writing.tag(store, run_id, {NOT_LOGGED: str(error)})
            if ending:
                writing.end(store, run_id, succeeded=False)  # it was refused, and may wait for a long time
        raise
    if ending:
        writing.end(store, run_id, succeeded=shipment.result.status != "failed")
    return run_id


def write(store: Store, run_id: str, shipment: Shipment) -> None:
    """Write a result, its files and its model into a run; the tag that everything is logged comes last.

    Raises:
        StoreError: the server refused the numbers, or is gone.
    """
    result, address, folder = shipment.result, shipment.address, shipment.entry.folder
    tables = isolate.tables(folder)
    files = _pictures(result, tables) | tables
    files |= {} if result.status == "ok" else {f"logs/{name}": text for name, text in isolate.logs(folder).items()}
    missing = {"tables": isolate.too_large(folder)}
    writing.untag(store, run_id, _OF_AN_EARLIER_TRY)
    writing.write_result(store, run_id, result, {**address.asked, **_resolved(result)}, run_summary.page(result), {})
    missing["files"] = _refusal(store, lambda: writing.write_files(store, run_id, files))
    is_for_another_machine = result.status == "skipped" and "size/weights_mib" in result.measurements
    is_wanted = address.with_model and result.outcomes and (result.status != "skipped" or is_for_another_machine)
    if is_wanted and registry.find("families", result.variant.family).is_remote:
        missing["model"] = "a service can't be registered" if address.register else ""
    elif is_wanted:
        missing["model"] = _refusal(store, lambda: _write_model(store, run_id, shipment))
    elif address.lost:
        missing["model"] = address.lost
    not_logged = "; ".join(f"{part}: {reason}" for part, reason in missing.items() if reason)
    tags = {NOT_LOGGED: not_logged} if not_logged else {}
    writing.tag(store, run_id, {**tags, "compress.variant_digest": address.digest, LOGGED: "complete"})


def write_into_open_run(
    store: Store,
    run_id: str,
    result: Result,
    files: Mapping[str, bytes] | None = None,
    *,
    asked: Mapping[str, str] | None = None,
    with_metrics: bool = True,
) -> str:
    """Write a result into a run that somebody else began and will end, without its model. Their note stays.

    Where that run already has a result, this one gets its own run below it.

    Args:
        store: the tracking store.
        run_id: the run.
        result: the result of a variant.
        files: the files from scoring, by name.
        asked: parameters as the user gave them.
        with_metrics: whether to write the metrics too, or leave them to MLflow's evaluation, which writes them into the
            open run.

    Returns:
        The id of the run with the result.

    Raises:
        StoreError: the server refused, or is gone.
    """
    all_files = {**_pictures(result, files or {}), **(files or {})}
    params = {**(asked or {}), **_resolved(result)}
    note, result_id = run_summary.page(result), uuid.uuid4().hex
    if writing.take(store, run_id, result_id):
        user_note = reading.run(store, run_id).tags.get(NOTE, "").rstrip()
        note = f"{user_note}\n\n{note}" if user_note else note
        writing.write_result(store, run_id, result, params, note, all_files, with_metrics=with_metrics)
        writing.tag(store, run_id, {LOGGED: "complete"})
        return run_id
    if not with_metrics:
        _move_below(store, run_id)
    return _write_below(store, run_id, result, result_id, params, all_files)


def _move_below(store: Store, run_id: str) -> None:
    """Copy a run's result into a run below it, because MLflow will log other numbers into this run."""
    run = reading.run(store, run_id)
    if run.tags.get(ROLE) != "variant":
        return
    try:
        record = reading.artifact(store, run_id, writing.RESULT) or b""
        result = Result.from_json(untrusted.parse_json(record, writing.RESULT))
    except untrusted.Malformed:  # an unreadable result is not a row
        return
    result_id = f"{run.params.get(RESULT_ID, run_id)}.below"  # the same each time, and unique
    max_bytes = dict.fromkeys(isolate.TABLES, isolate.MOST_TABLE_BYTES)
    max_bytes |= {PREDICTIONS: quality.MOST_BYTES, STATISTICS: statistics_file.MOST_PACKED_BYTES}
    files = {name: reading.artifact(store, run_id, name, size) for name, size in max_bytes.items()}
    tables = {name: content for name, content in files.items() if content is not None}
    params = {name: text for name, text in run.params.items() if name != RESULT_ID}
    _write_below(store, run_id, result, result_id, params, _pictures(result, tables) | tables)
    writing.tag(store, run_id, {ROLE: writing.EVALUATIONS})


def _write_below(
    store: Store, parent: str, result: Result, result_id: str, params: Mapping[str, str], files: Mapping[str, bytes]
) -> str:
    """Write a result into its own run below another one, end it, and return its id."""
    run_id = _run_below(store, parent, reading.experiment_of(store, parent), result, result_id)
    succeeded = False
    try:
        writing.write_result(store, run_id, result, params, run_summary.page(result), files)
        writing.tag(store, run_id, {LOGGED: "complete"})
        succeeded = result.status != "failed"
    finally:
        writing.end(store, run_id, succeeded=succeeded)
    return run_id


def _pictures(result: Result, tables: Mapping[str, bytes]) -> dict[str, bytes]:
    pictures = {"latency.png": run_plots.latency_png(result), "memory.png": run_plots.memory_png(result)}
    if CONFUSION in tables:
        pictures["confusion_matrix.png"] = confusion_plot.confusion_png(tables[CONFUSION], run_plots.title(result))
    if LAYERS in tables:
        pictures["layers.png"] = layer_plot.layers_png(tables[LAYERS], run_plots.title(result))
    return {name: picture for name, picture in pictures.items() if picture is not None}


def _write_model(store: Store, run_id: str, shipment: Shipment) -> None:
    """Write the model with its input example, link the numbers to it, and register it where requested."""
    result, folder = shipment.result, shipment.entry.folder
    model, needs = isolate.model_folder(folder), _requirements(result.variant)
    try:
        require_own_files(model)  # the model's own code may have left a link to a private file there
    except (WeightsError, OSError) as error:
        raise StoreError(str(error)) from error
    model_id = models.write_model(store, run_id, model, needs, input_example.read(folder))
    models.link(store, run_id, model_id, result)
    if shipment.address.register:
        models.register(store, model_id, shipment.address.register, result)


def _refusal(store: Store, write_it: Callable[[], None]) -> str:
    """Write something large; return why the server refuses it, after two attempts; empty if it was written.

    Raises:
        StoreError: the server is gone.
    """
    reason = ""
    for _ in range(2):
        try:
            write_it()
        except StoreError as error:
            check(store)
            reason = str(error)
        else:
            return ""
    return reason


def _run(store: Store, shipment: Shipment) -> str:
    """Return the run that takes the result."""
    result, address, result_id = shipment.result, shipment.address, shipment.entry.id
    outer = address.run if address.run and reading.has_run(store, address.run) else ""
    if outer and writing.take(store, outer, result_id):
        tags = {RESULT_ID: result_id, process_identity.TAG: process_identity.mine()}
        writing.tag(store, outer, tags)
        name_unnamed(store, outer, _name(result.variant))
        return outer
    experiment_id = writing.experiment_id(store, address.experiment)
    return _run_below(store, outer or address.parent, experiment_id, result, result_id)


def _run_below(store: Store, parent: str, experiment_id: str, result: Result, result_id: str) -> str:
    """Return a result's own run, below another one if `parent` is given."""
    variant = result.variant  # tables show its row while its files are being sent
    tags = {**writing.tags_of_variant(variant), process_identity.TAG: process_identity.mine()}
    if parent:
        tags[PARENT] = parent
    started_ms = int(result.started_s * 1000)
    return writing.claim(store, experiment_id, result_id, _name(result.variant), tags, started_ms)


def name_unnamed(store: Store, run_id: str, name: str) -> None:
    """Name the run of `mlflow run`, unless its user did."""
    if _GENERATED_NAME.fullmatch(reading.run_name(store, run_id)):
        writing.tag(store, run_id, {"mlflow.runName": name})


def _name(variant: Variant) -> str:
    return writing.run_name(variant.team, variant.model, variant.label)


def _resolved(result: Result) -> dict[str, str]:
    """Return the parameters that the recipe added."""
    variant = result.variant
    options = {f"option.{key}": str(value) for key, value in variant.options.items() if key != "architecture"}
    return {
        "batch_size": str(variant.batch_size),
        "model": variant.model,
        "method": variant.method,
        "team": variant.team,
        "family": variant.family,
        "source": variant.source,
        **options,
    }


def _requirements(variant: Variant) -> list[str]:
    """Return the requirements of the logged model, with versions. Inferring them would take minutes."""
    needs = ["mlflow-compress", *registry.find("families", variant.family).needs]
    for step in variant.chain:
        needs += registry.find("methods", step.method).needs
    versions = {name: installed(name) for name in needs}
    return [f"{name}=={version}" if version else name for name, version in versions.items()]
