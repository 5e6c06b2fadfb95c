"""`log`: writes results into MLflow, each into a run of its own or into the one that `mlflow run` made."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from mlflow_compress import isolate, note, plot, registry
from mlflow_compress.records import Result, Variant
from mlflow_compress.store import Store, names_model

_GENERATED_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")  # what MLflow calls a run that nobody named


class Log:
    """Where the results of one command go.

    A single variant's result goes into `mlflow run`'s own run; those of several go into runs below it.

    Args:
        store: the tracking store.
        asked: parameters as the user gave them.
        experiment: the experiment's name; None chooses as MLflow does.
        models: the models of a sweep, for its name; none when there is a single variant.
        with_model: whether to log the model itself.

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
    ) -> None:
        self._store = store
        self._asked = asked
        self._with_model = with_model
        self._outer = os.environ.get("MLFLOW_RUN_ID")
        self._into_outer = bool(self._outer) and not models
        if self._outer:
            self._experiment = store.experiment_of(self._outer)
            if not self._into_outer:
                store.tag(self._outer, {"compress.role": "sweep"})
                self._name(self._outer, f"sweep of {', '.join(models)}")
        else:
            self._experiment = _experiment(store, experiment)

    def add(self, result: Result, folder: Path) -> None:
        """Log a result: numbers first, the model last.

        Args:
            result: what came of a variant.
            folder: its folder, with the model and the logs.

        Raises:
            StoreError: the server refused, or is gone.
        """
        run_id = self._run(result)
        files = {} if result.status == "ok" else {f"logs/{name}": text for name, text in isolate.logs(folder).items()}
        pictures = {"latency.png": plot.latency_png(result), "memory.png": plot.memory_png(result)}
        files |= isolate.tables(folder)
        files |= {name: picture for name, picture in pictures.items() if picture is not None}
        try:
            self._store.log(run_id, result, {**self._asked, **_resolved(result)}, note.markdown(result), files)
            if self._with_model and result.outcomes and result.status != "skipped":
                self._store.log_model(run_id, isolate.model_folder(folder), _requirements(result.variant))
        finally:
            if run_id != self._outer:
                self._store.end(run_id, succeeded=result.status != "failed")

    def located(self, variant: Variant) -> Variant:
        """Give a variant whose model the tracking server keeps with its weights' path: its worker knows no server."""
        if variant.weights != "auto" or not names_model(variant.source):
            return variant
        return dataclasses.replace(variant, weights=str(self._store.fetch(variant.source)))

    def close(self, results: Sequence[Result]) -> None:
        """Describe a sweep in the run that `mlflow run` made for it."""
        if self._outer and not self._into_outer:
            self._store.tag(self._outer, {"mlflow.note.content": "\n".join(note.markdown(each) for each in results)})

    def _run(self, result: Result) -> str:
        """Give the run that takes the result."""
        name = _name(result.variant)
        if self._outer and self._into_outer:
            self._name(self._outer, name)
            return self._outer
        tags = {"compress.role": "variant"}
        if self._outer:
            tags["mlflow.parentRunId"] = self._outer
        return self._store.start(self._experiment, name, tags, int(result.started_s * 1000))

    def _name(self, run_id: str, name: str) -> None:
        """Name the run of `mlflow run`, unless its user did."""
        if _GENERATED_NAME.fullmatch(self._store.name_of(run_id)):
            self._store.tag(run_id, {"mlflow.runName": name})


def _name(variant: Variant) -> str:
    """Name a run so that it can be told from its siblings."""
    apart = ", ".join(filter(None, (f"batch {variant.batch_size}" if variant.batch_size > 1 else "", variant.setting)))
    return f"{variant.model} {variant.method}" + (f" [{apart}]" if apart else "")


def _experiment(store: Store, name: str | None) -> str:
    """Choose the experiment as MLflow does: by option, by environment, or `Default`."""
    if not name and (found := os.environ.get("MLFLOW_EXPERIMENT_ID")):
        return found
    return store.experiment_id(name or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "Default")


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
