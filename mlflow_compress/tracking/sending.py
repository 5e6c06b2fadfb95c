"""Sends results to MLflow: writes each into a run of its own, or into the one that `mlflow run` made.

What a variant gave goes home in four steps: `Originals.pair`, `Shipment.keep`, `send`, `write`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping

from mlflow_compress import registry
from mlflow_compress.errors import StoreError
from mlflow_compress.measuring import input_example, isolate
from mlflow_compress.records import Result, Variant
from mlflow_compress.tracking import models, process_identity, reading, run_plots, run_summary, writing
from mlflow_compress.tracking.connection import Store, check
from mlflow_compress.tracking.spool import Shipment
from mlflow_compress.tracking.writing import LOGGED
from mlflow_compress.version import installed

NOTE = "mlflow.note.content"
_GENERATED_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")  # what MLflow calls a run that nobody named


def send(store: Store, shipment: Shipment, ending: bool = True) -> None:
    """Write a result into its run, whatever of it is there already: numbers first, the model last.

    Doing so again, also after a crash in the middle, changes nothing that is there. What large files the server refuses
    is left out, and the run says so.

    Args:
        store: the tracking store.
        shipment: the result, and where it goes.
        ending: whether to end the run.

    Raises:
        StoreError: the server refused the numbers, or is gone. What it has of the result stays.
    """
    check(store)  # MLflow's own client tries for long
    run_id = _run(store, shipment)
    try:
        if reading.run(store, run_id).tags.get(LOGGED) != "complete":
            write(store, run_id, shipment)
    except StoreError:
        with contextlib.suppress(StoreError):
            check(store)
            writing.end(store, run_id, succeeded=False)  # it is refused, and may wait for long
        raise
    if ending:
        writing.end(store, run_id, succeeded=shipment.result.status != "failed")


def write(store: Store, run_id: str, shipment: Shipment) -> None:
    """Write a result, its files and its model into a run; the tag that all of it is there comes last.

    Raises:
        StoreError: the server refused the numbers, or is gone.
    """
    result, address, folder = shipment.result, shipment.address, shipment.entry.folder
    files = _pictures(result) | isolate.tables(folder)
    files |= {} if result.status == "ok" else {f"logs/{name}": text for name, text in isolate.logs(folder).items()}
    missing = {}
    writing.write_result(
        store, run_id, result, {**address.asked, **_resolved(result)}, run_summary.markdown(result), {}
    )
    missing["files"] = _refusal(store, lambda: writing.write_files(store, run_id, files))
    if address.with_model and result.outcomes and result.status != "skipped":
        missing["model"] = _refusal(store, lambda: _write_model(store, run_id, shipment))
    elif address.lost:
        missing["model"] = address.lost
    told = "; ".join(f"{what}: {reason}" for what, reason in missing.items() if reason)
    tags = {"compress.not_logged": told} if told else {}
    writing.tag(store, run_id, {**tags, "compress.variant_digest": address.digest, LOGGED: "complete"})


def write_into_open_run(
    store: Store,
    run_id: str,
    result: Result,
    files: Mapping[str, bytes] | None = None,
    *,
    asked: Mapping[str, str] | None = None,
    with_metrics: bool = True,
) -> None:
    """Write a result into a run that somebody else began and will end, without its model. Their note stays.

    Args:
        store: the tracking store.
        run_id: the run.
        result: what came of a variant.
        files: what scoring left, by name.
        asked: parameters as the user gave them.
        with_metrics: see `writing.write_result`.

    Raises:
        StoreError: the server refused, or is gone.
    """
    all_files = {**_pictures(result), **(files or {})}
    about = {**(asked or {}), **_resolved(result)}
    told = _behind(reading.run(store, run_id).tags.get(NOTE, ""), run_summary.markdown(result))
    writing.write_result(store, run_id, result, about, told, all_files, with_metrics=with_metrics)
    writing.tag(store, run_id, {LOGGED: "complete"})


def _behind(known: str, told: str) -> str:
    """Put our note behind what stands there already, or in the place of our earlier one of the same variant."""
    heading = told.partition("\n")[0].rpartition(":")[0]
    theirs = known.partition(f"{heading}:")[0].rstrip()
    return f"{theirs}\n\n{told}" if theirs else told


def _pictures(result: Result) -> dict[str, bytes]:
    pictures = {"latency.png": run_plots.latency_png(result), "memory.png": run_plots.memory_png(result)}
    return {name: picture for name, picture in pictures.items() if picture is not None}


def _write_model(store: Store, run_id: str, shipment: Shipment) -> None:
    """Write the model with its input example, link the numbers to it, and register it where that was asked for."""
    result, folder = shipment.result, shipment.entry.folder
    model, needs = isolate.model_folder(folder), _requirements(result.variant)
    model_id = models.write_model(store, run_id, model, needs, input_example.read(folder))
    models.link(store, run_id, model_id, result)
    if shipment.address.register:
        models.register(store, model_id, shipment.address.register, result)


def _refusal(store: Store, write_it: Callable[[], None]) -> str:
    """Write something large; return why a server that is there does not take it, even when asked twice.

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
    name = _name(result.variant)
    if address.run and reading.has_run(store, address.run):
        writing.tag(store, address.run, {"compress.result_id": result_id, "compress.process": process_identity.mine()})
        name_unnamed(store, address.run, name)
        return address.run
    tags = {"compress.role": "variant", "compress.process": process_identity.mine()}
    if address.parent:
        tags["mlflow.parentRunId"] = address.parent
    experiment_id = writing.experiment_id(store, address.experiment)
    return writing.claim(store, experiment_id, result_id, name, tags, int(result.started_s * 1000))


def name_unnamed(store: Store, run_id: str, name: str) -> None:
    """Name the run of `mlflow run`, unless its user did."""
    if _GENERATED_NAME.fullmatch(reading.run_name(store, run_id)):
        writing.tag(store, run_id, {"mlflow.runName": name})


def _name(variant: Variant) -> str:
    """Name a run so that it can be told from its siblings."""
    return f"{variant.model} {variant.label}"


def _resolved(result: Result) -> dict[str, str]:
    """Return what the recipe added to what was asked for."""
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
    """Name what the logged model needs, with versions. Inferring them would take minutes."""
    needs = ["mlflow-compress", *registry.find("families", variant.family).needs]
    for step in variant.chain:
        needs += registry.find("methods", step.method).needs
    versions = {name: installed(name) for name in needs}
    return [f"{name}=={version}" if version else name for name, version in versions.items()]
