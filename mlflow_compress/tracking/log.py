"""Sends results to MLflow: writes each into a run of its own, or into the one that `mlflow run` made.

What a variant gave goes home in four steps: `Originals.pair`, `Shipment.keep`, `send`, `write`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata

from mlflow_compress import registry
from mlflow_compress.errors import StoreError
from mlflow_compress.measuring import input_example, isolate
from mlflow_compress.records import Result, Variant
from mlflow_compress.tracking import process_identity, run_plots, run_summary
from mlflow_compress.tracking.spool import Address, Shipment
from mlflow_compress.tracking.store import LOGGED, Store, lasting, names_model

_GENERATED_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")  # what MLflow calls a run that nobody named

_NOTE = "mlflow.note.content"


class Log:
    """Where the results of one command go.

    A single variant's result goes into `mlflow run`'s own run; those of several go into runs below it.

    Args:
        store: the tracking store.
        asked: parameters as the user gave them.
        experiment: the experiment's name; None chooses as MLflow does.
        models: the models of a sweep, for its name; none when there is a single variant.
        with_model: whether to log the model itself.
        register: the name to register it under; empty for none.

    Raises:
        StoreError: the experiment can't be had.
    """

    def __init__(
        self,
        store: Store,
        asked: Mapping[str, str],
        experiment: str | None,
        models: Sequence[str],
        with_model: bool,
        register: str = "",
    ) -> None:
        self.store = store
        self._register = register
        self._asked = asked
        self._with_model = with_model
        self._outer = os.environ.get("MLFLOW_RUN_ID", "")
        self._into_outer = bool(self._outer) and not models
        if self._outer:
            self.experiment_id = store.experiment_of(self._outer)
            store.tag(self._outer, {"compress.process": process_identity.mine()})
            if not self._into_outer:
                store.tag(self._outer, {"compress.role": "sweep"})
                _name_outer(store, self._outer, f"sweep of {', '.join(models)}")
        else:
            self.experiment_id = _experiment(store, experiment)
        self.experiment = store.experiment_name(self.experiment_id)

    def address(self, digest: str) -> Address:
        """Return where the result of a variant with this digest goes."""
        return Address(
            lasting(self.store.uri),
            self.experiment,
            self._asked,
            run=self._outer if self._into_outer else "",
            parent="" if self._into_outer else self._outer,
            with_model=self._with_model,
            digest=digest,
            register=self._register,
        )

    def located(self, variant: Variant) -> Variant:
        """Give a variant whose model the tracking server keeps with its weights' path: its worker knows no server."""
        if variant.weights != "auto" or not names_model(variant.source):
            return variant
        return dataclasses.replace(variant, weights=str(self.store.fetch(variant.source)))

    def close(self, results: Sequence[Result]) -> None:
        """Describe a sweep in the run that `mlflow run` made for it."""
        if self._outer and not self._into_outer:
            told = "\n".join(run_summary.markdown(each) for each in results)
            self.store.tag(self._outer, {_NOTE: told, LOGGED: "complete"})


def experiment_asked(store: Store, name: str | None) -> tuple[str, str]:
    """Give the id and the name of the experiment that results would go to; no id where it is still to be made.

    Args:
        store: the tracking store.
        name: the experiment's name; None chooses as MLflow does.

    Raises:
        StoreError: the server is gone.
    """
    known = store.experiments()
    if not name and (found := os.environ.get("MLFLOW_EXPERIMENT_ID")):
        return found, next((each for each, number in known.items() if number == found), "")
    named = _experiment_name(name)
    return known.get(named, ""), named


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
    store.check()  # MLflow's own client tries for long
    run_id = _run(store, shipment)
    try:
        if store.run(run_id).tags.get(LOGGED) != "complete":
            write(store, run_id, shipment)
    except StoreError:
        with contextlib.suppress(StoreError):
            store.check()
            store.end(run_id, succeeded=False)  # it is refused, and may wait for long
        raise
    if ending:
        store.end(run_id, succeeded=shipment.result.status != "failed")


def write(store: Store, run_id: str, shipment: Shipment) -> None:
    """Write a result, its files and its model into a run; the tag that all of it is there comes last.

    Raises:
        StoreError: the server refused the numbers, or is gone.
    """
    result, address, folder = shipment.result, shipment.address, shipment.entry.folder
    files = _pictures(result) | isolate.tables(folder)
    files |= {} if result.status == "ok" else {f"logs/{name}": text for name, text in isolate.logs(folder).items()}
    missing = {}
    store.log(run_id, result, {**address.asked, **_resolved(result)}, run_summary.markdown(result), {})
    missing["files"] = _refusal(store, lambda: store.log_files(run_id, files))
    if address.with_model and result.outcomes and result.status != "skipped":
        missing["model"] = _refusal(store, lambda: _write_model(store, run_id, shipment))
    elif address.lost:
        missing["model"] = address.lost
    told = "; ".join(f"{what}: {reason}" for what, reason in missing.items() if reason)
    tags = {"compress.not_logged": told} if told else {}
    store.tag(run_id, {**tags, "compress.variant_digest": address.digest, LOGGED: "complete"})


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
        with_metrics: see `Store.log`.

    Raises:
        StoreError: the server refused, or is gone.
    """
    all_files = {**_pictures(result), **(files or {})}
    about = {**(asked or {}), **_resolved(result)}
    told = _behind(store.run(run_id).tags.get(_NOTE, ""), run_summary.markdown(result))
    store.log(run_id, result, about, told, all_files, with_metrics=with_metrics)
    store.tag(run_id, {LOGGED: "complete"})


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
    model_id = store.log_model(run_id, model, needs, input_example.read(folder))
    store.link(run_id, model_id, result)
    if shipment.address.register:
        store.register(model_id, shipment.address.register, result)


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
            store.check()
            reason = str(error)
        else:
            return ""
    return reason


def _run(store: Store, shipment: Shipment) -> str:
    """Return the run that takes the result."""
    result, address, result_id = shipment.result, shipment.address, shipment.entry.id
    name = _name(result.variant)
    if address.run and store.has(address.run):
        store.tag(address.run, {"compress.result_id": result_id, "compress.process": process_identity.mine()})
        _name_outer(store, address.run, name)
        return address.run
    tags = {"compress.role": "variant", "compress.process": process_identity.mine()}
    if address.parent:
        tags["mlflow.parentRunId"] = address.parent
    experiment_id = store.experiment_id(address.experiment)
    return store.claim(experiment_id, result_id, name, tags, int(result.started_s * 1000))


def _name_outer(store: Store, run_id: str, name: str) -> None:
    """Name the run of `mlflow run`, unless its user did."""
    if _GENERATED_NAME.fullmatch(store.name_of(run_id)):
        store.tag(run_id, {"mlflow.runName": name})


def _name(variant: Variant) -> str:
    """Name a run so that it can be told from its siblings."""
    return f"{variant.model} {variant.label}"


def _experiment(store: Store, name: str | None) -> str:
    """Choose the experiment as MLflow does with our provider: by option, by environment, or `Default`."""
    if not name and (found := os.environ.get("MLFLOW_EXPERIMENT_ID")):
        return found
    return store.experiment_id(_experiment_name(name))


def _experiment_name(name: str | None) -> str:
    environment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or os.environ.get("COMPRESS_EXPERIMENT")
    return name or environment or "Default"


def _resolved(result: Result) -> dict[str, str]:
    """Give what the recipe added to what was asked for."""
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
    found = []
    for name in dict.fromkeys(needs):
        try:
            found.append(f"{name}=={metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(name)
    return found
