"""Checks what `save_pretrained` wrote before transformers reads it: what it can't read correctly is rejected."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow_compress.errors import RecipeError, WeightsError
from mlflow_compress.networks import custom_code, lora_adapters, quantised_checkpoints, weight_files
from mlflow_compress.networks.hub import Origin, config_fields
from mlflow_compress.records import Caution, CautionKind
from mlflow_compress.trust_word import trust_word

CODE_NOT_RUN = CautionKind(
    "code_not_run",
    short={"en": "the model's own code was not run", "ru": "собственный код модели не выполнялся"},
    message={
        "en": "config.json names the model's own Python code (auto_map), which was not run: transformers' own "
        "{kind} was measured",
        "ru": "config.json называет собственный код модели на Python (auto_map), он не выполнялся: измерена модель "
        "{kind} из самой transformers",
    },
    advice={
        "en": "If that code computes something else, these numbers belong to another model.",
        "ru": "Если этот код считает иначе, эти числа относятся к другой модели.",
    },
)
_ADAPTER_FILES = (lora_adapters.CONFIG, *lora_adapters.WEIGHTS)


@dataclass
class Saved:
    """A model that can be read.

    Attributes:
        origin: where it comes from.
        location: the folder or hub id that `from_pretrained` reads.
        adapter: the adapter that is merged into it; None: none.
        arguments: arguments of `from_pretrained` for its files, besides those of the origin.
        notes: facts about how it was read, by name.
        cautions: cautions about how it was read.
    """

    origin: Origin
    location: str
    adapter: lora_adapters.Opened | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    cautions: list[Caution] = field(default_factory=list)

    def merge(self, module: Any) -> frozenset[str]:
        """Merge the adapter into the loaded module; return the names of tensors that were replaced as a whole."""
        if self.adapter is None:
            return frozenset()
        replaced = self.adapter.merge(module)
        self.notes["adapter"] = self.adapter.describe(self.origin.source)
        return replaced

    def facts(self, measured: str) -> dict[str, str]:
        """Return how the loaded weights differ from those in the files.

        Args:
            measured: floating-point type of the loaded weights.
        """
        stored = weight_files.dtype_in(self.origin.folder, self.origin.variant) if self.origin.folder else ""
        is_same = stored in ("", measured)
        precision = {} if is_same else {"precision": f"measured in {measured}; the files hold {stored}"}
        variant = {"variant": self.origin.variant} if self.origin.variant else {}
        return {**precision, **variant, **self.notes}


@contextlib.contextmanager
def opened(origin: Origin) -> Iterator[Saved]:
    """Check the files of a saved model, and of the adapter that is merged into it.

    Raises:
        WeightsError: files are missing or belong to another library, it has its own code, or the adapter can't be
            merged.
        Unsupported: this machine does not run its quantisation.
    """
    folder = Path(origin.location)
    if origin.file:
        weight_files.require_no_pointer(folder / origin.file)
        yield Saved(origin, origin.location)
        return
    fields = _fields(origin)
    _require_runs(fields, origin)
    if not origin.runs_code:
        _require_no_code(fields, origin)
    if folder.is_dir():
        weight_files.require_whole(folder)
    arguments: dict[str, Any] = {"variant": origin.variant} if origin.variant else {}
    kind = custom_code.passed_over(fields)
    facts = {"code": f"transformers' own {kind}; what config.json names (auto_map) was not run"} if kind else {}
    cautions = [CODE_NOT_RUN.of(kind=kind)] if kind else []
    if not origin.adapter:
        yield Saved(origin, origin.location, arguments=arguments, notes=facts, cautions=cautions)
        return
    adapter = _adapter(Path(origin.adapter))
    if adapter.labels is not None and adapter.labels != _labels(fields):
        # the base has no head, or a different one: the new head is filled by the adapter
        arguments |= {"num_labels": adapter.labels, "ignore_mismatched_sizes": True}
    with _base_alone(origin) as location:
        yield Saved(origin, location, adapter, arguments, facts, cautions)


def _adapter(folder: Path) -> lora_adapters.Opened:
    weight_files.require_whole(folder)
    adapter = lora_adapters.read(folder)
    if adapter is None:
        raise WeightsError(f"There is no adapter in {folder}.")
    return lora_adapters.Opened(adapter)


@contextlib.contextmanager
def _base_alone(origin: Origin) -> Iterator[str]:
    """Yield a folder with the base's files only: if peft is installed, transformers would load the adapter itself."""
    folder = Path(origin.location)
    if not (folder / lora_adapters.CONFIG).is_file():
        yield origin.location
        return
    with tempfile.TemporaryDirectory() as scratch:
        for path in folder.iterdir():
            if path.name not in _ADAPTER_FILES:
                _link(path.resolve(), Path(scratch, path.name))
        yield scratch


def _link(path: Path, link: Path) -> None:
    """Link to a file or folder, or copy it where the system allows no links (Windows without developer mode)."""
    try:
        link.symlink_to(path, target_is_directory=path.is_dir())
    except OSError:
        if path.is_dir():
            shutil.copytree(path, link)
        else:
            shutil.copy2(path, link)


def _fields(origin: Origin) -> Mapping[str, Any]:
    """Return the fields of the config; empty if it can't be read: then transformers raises the error."""
    try:
        return config_fields(origin.source)
    except (RecipeError, WeightsError):
        return {}


def _labels(fields: Mapping[str, Any]) -> int:
    """Return the number of labels in a config; without labels transformers uses two."""
    labels = fields.get("id2label")
    return len(labels) if isinstance(labels, Mapping) else int(fields.get("num_labels") or 2)


def _require_runs(fields: Mapping[str, Any], origin: Origin) -> None:
    """Check that quantised weights can be measured here as they are."""
    if (packing := quantised_checkpoints.packing(fields, origin.location)) is None:
        return
    if origin.adapter:
        raise WeightsError(
            f"The adapter can't be merged into the weights in {origin.location}: they are quantised ({packing}). Give "
            "the original model as its base."
        )
    quantised_checkpoints.require_runs(packing, fields, origin.location)


def _require_no_code(fields: Mapping[str, Any], origin: Origin) -> None:
    if not custom_code.is_needed(fields):
        return
    folder = Path(origin.location)
    if obstacle := custom_code.obstacle(folder) if folder.is_dir() else "all of its code is there":
        what_to_do = (
            f"Code from the hub is never run ({obstacle}): download everything into one folder, read the code, and "
            "give that folder."
        )
    else:
        what_to_do = f"If you trust its author, say so: {trust_word()}"
    raise WeightsError(
        f"The model in {origin.location} is built by Python code beside it (auto_map in its config.json): "
        f"transformers itself has no {fields.get('model_type', 'model')!s:.60}. {what_to_do}"
    )
