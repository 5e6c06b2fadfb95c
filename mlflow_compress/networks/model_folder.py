"""The model folder: what `prepare` writes, `measure` restores, and the tracking server keeps.

model/
    manifest.json       family, options, chain, origin of the weights
    model.safetensors (or shards and their index), or weights.pt, or the files of another runtime
    config.json, ...    what the family needs to build the architecture
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlflow_compress import registry
from mlflow_compress.errors import CompressError, MachineLacks, Unsupported, WeightsError, named_line
from mlflow_compress.networks import custom_code, gguf_checkpoints, mlflow_folders, tensor_layouts
from mlflow_compress.networks.exported_program_scan import code_in_program
from mlflow_compress.networks.gguf_header import read_header
from mlflow_compress.networks.kernels import use_kernels
from mlflow_compress.networks.onnx_files import require_own_weights
from mlflow_compress.networks.own_files import require_own_files
from mlflow_compress.networks.plain_layers import make_plain_again
from mlflow_compress.networks.quantised_checkpoints import is_quantised
from mlflow_compress.networks.stored_weights import load_weights, save_weights
from mlflow_compress.networks.torchscript_scan import code_in_script
from mlflow_compress.records import Step, Variant, write_json
from mlflow_compress.sockets import Family, Method, Model, NativeFlavor, Published
from mlflow_compress.untrusted import Malformed, read_json, record
from mlflow_compress.version import installed

_MANIFEST = "manifest.json"
_FORMAT = 3
_CALLED_IN_0_1 = {"int8_dynamic": "int8_dynamic_torch"}  # current names of the methods of format 1


@dataclass(frozen=True)
class Manifest:
    """The content of a model folder.

    Attributes:
        format: format of the folder; 1 for version 0.1, which wrote none.
    """

    family: str
    options: dict[str, Any]
    chain: tuple[Step, ...]
    weights: str
    model: str
    method: str
    format: int = 1


@dataclass
class Restored:
    """A model restored from its folder, with everything that is needed to use it."""

    model: Model
    family: Family
    methods: list[Method]
    manifest: Manifest


def methods_of(chain: Sequence[Step]) -> list[Method]:
    """Make the methods of a chain, in order.

    Raises:
        MachineLacks: what a method needs is not installed.
    """
    methods: list[Method] = [registry.build("methods", step.method, step.options) for step in chain]
    for step, method in zip(chain, methods, strict=True):
        if missing := [name for name in method.needs if installed(name) is None]:
            packages = f'"mlflow-compress[{method.extra}]"' if method.extra else " ".join(missing)
            command = method.install or f"pip install {packages}"
            raise MachineLacks(f"{step.method} needs {', '.join(missing)}: {command}")
    return methods


def save(model: Model, family: Family, methods: Sequence[Method], variant: Variant, folder: Path) -> None:
    """Write a compressed model into an empty folder."""
    manifest = Manifest(
        family=variant.family,
        options=dict(variant.options),
        chain=variant.chain,
        weights=model.weights,
        model=variant.model,
        method=variant.method,
        format=_FORMAT,
    )
    family.save(model, folder)
    if (saver := _saver(methods)) is not None:
        saver.save(model, family, folder)
    elif (file := gguf_checkpoints.file_of(model.module)) is not None:
        gguf_checkpoints.copy(file, folder)
    elif not is_quantised(model.module):  # else the family copied the files of the checkpoint
        save_weights(model.module, folder)
    tensor_layouts.keep(model.module, folder)
    write_json(folder / _MANIFEST, manifest)


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a model folder.

    Raises:
        WeightsError: it is not a model folder.
    """
    try:
        manifest = record(Manifest, read_json(folder / _MANIFEST), _MANIFEST)
    except (OSError, Malformed) as error:
        raise WeightsError(f"{folder} is not a model folder of mlflow-compress: {error}") from error
    if manifest.format > 1:
        return manifest
    chain = tuple(replace(step, method=_CALLED_IN_0_1.get(step.method, step.method)) for step in manifest.chain)
    return replace(manifest, chain=chain)


def restore(folder: Path, device: str = "cpu") -> Restored:
    """Restore a model on a device, ready for inference.

    Raises:
        WeightsError: files are missing, corrupt, or do not match.
        Unsupported: it can't run on the device.
    """
    manifest = read_manifest(folder)
    family: Family = registry.build("families", manifest.family, manifest.options)
    methods = methods_of(manifest.chain)
    for step, method in zip(manifest.chain, methods, strict=True):
        if device not in method.devices:
            raise Unsupported(f"the output of {step.method} runs on {' and '.join(method.devices)} only")
    saver = _saver(methods)
    if saver is not None and saver.changes == "runtime":
        model = family.restore_assets(folder)
        model.weights = manifest.weights  # type: ignore[assignment]
        model.device = device
        return Restored(saver.load(model, family, folder), family, methods, manifest)
    if saver is None and (gguf := folder / gguf_checkpoints.FILE).is_file():
        model = family.restore_assets(folder)
        model.weights = manifest.weights  # type: ignore[assignment]
        model.device = device
        return Restored(gguf_checkpoints.open_checkpoint(model, family, gguf), family, methods, manifest)
    model = family.restore(folder)
    model.weights = manifest.weights  # type: ignore[assignment]
    if is_quantised(model.module):
        model.device = device
        model.module.to(device)
        return Restored(model, family, methods, manifest)
    model = _filled(model, folder, family, methods)
    tensor_layouts.apply(model.module, folder)
    model.device = device
    model.module.to(device)
    use_kernels(model.module)
    return Restored(model, family, methods, manifest)


def publish(folder: Path, to: Path) -> tuple[Manifest, Published]:
    """Write the model of a folder for other programs, into an empty folder. No code of the model is run.

    Raises:
        Unsupported: no other program can load it; the message says why.
        WeightsError: it would read files outside the folder, or see `restore`.
    """
    require_own_files(folder)
    manifest = read_manifest(folder)
    family: Family = registry.build("families", manifest.family, manifest.options)
    methods = methods_of(manifest.chain)
    if not methods:
        raise WeightsError(f"{folder / _MANIFEST} names no method.")
    writer = _writer(manifest, methods)

    def portable() -> Model:
        if registry.find("families", manifest.family).runs_users_code or custom_code.lies_in(folder):
            raise Unsupported("the model is built by code beside it, which an export does not run")
        model = family.restore(folder)
        if is_quantised(model.module):
            raise Unsupported("its original was already quantised: export the original")
        return _filled(model, folder, family, methods)

    return manifest, writer.publish(folder, family, portable, to)


def native_flavor(folder: Path) -> NativeFlavor:
    """Return MLflow's own flavor that loads the model of a folder. Nothing is loaded, and no library is needed.

    Raises:
        Unsupported: no flavor loads it; the message says why.
        WeightsError: it is not a model folder, or is damaged.
        RecipeError: its family, or one of its methods, is unknown here.
    """
    manifest = read_manifest(folder)
    family: Family = registry.build("families", manifest.family, manifest.options)
    methods: list[Method] = [registry.build("methods", step.method, step.options) for step in manifest.chain]
    if not methods:
        raise WeightsError(f"{folder / _MANIFEST} names no method.")
    try:
        return _writer(manifest, methods).native_flavor(folder, family)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{folder} is damaged: {named_line(error, 300)}") from error


def restore_others(folder: Path) -> Restored:
    """Restore a model that others may have logged, without trusting it.

    Only models of families with user's code, and models that were measured with trust and have code (MLflow models, and
    transformers models with code beside them), run their own code, as MLflow's own models do when it loads them. If the
    user forbade MLflow to load pickles, they are rejected.

    Raises:
        WeightsError: another model would run code, or read files outside the folder, or send data to a service, or see
            `restore`.
        Unsupported: see `restore`.
    """
    require_own_files(folder)
    manifest = read_manifest(folder)
    if registry.find("families", manifest.family).is_remote:
        raise WeightsError(f"{folder} holds the address of a service, not a model: requests to it are not sent.")
    is_trusted = bool(manifest.options.get("trust"))
    brings_code = registry.find("families", manifest.family).runs_users_code or (
        is_trusted and (manifest.family == "mlflow_model" or custom_code.lies_in(folder))
    )
    if brings_code and mlflow_folders.is_unpickling_forbidden():
        raise WeightsError(
            f"{folder} holds a model that runs its own code when it is loaded, and MLflow is set to forbid that "
            f"({mlflow_folders.MAY_UNPICKLE}=false)."
        )
    for path in () if brings_code else sorted(folder.rglob("*.pt2")):
        if code := code_in_program(path):
            raise WeightsError(f"{path} is not loaded because it may run code: it holds {code}.")
    for path in () if brings_code else sorted(folder.glob("*.ts")):  # not recursive: deeper ones may be TypeScript
        if code := code_in_script(path):
            raise WeightsError(f"{path} is not loaded because it may run code: it holds {code}.")
    for path in sorted(folder.rglob("*.onnx")):
        require_own_weights(path)
    for path in sorted(folder.rglob("*.gguf")):
        read_header(path)  # before llama.cpp, which is native code, reads it
    try:
        return restore(folder)
    except (CompressError, Unsupported):
        raise
    except Exception as error:  # damaged files make their readers raise anything
        raise WeightsError(f"{folder} can't be restored: {named_line(error, 300)}") from error


def _filled(model: Model, folder: Path, family: Family, methods: Sequence[Method]) -> Model:
    """Change an unfilled model as its methods did, and fill it, on the CPU, where it was saved."""
    make_plain_again(model)
    for method in methods:
        model = method.rebuild(model, family)
    saver = _saver(methods)
    if saver is not None:
        return saver.load(model, family, folder)
    load_weights(model.module, folder)
    return model


def _writer(manifest: Manifest, methods: Sequence[Method]) -> Method:
    """Return the method that knows how other programs load the saved files.

    Raises:
        Unsupported: another method changed layers that this one saved.
    """
    saver = _saver(methods)
    changing = [method for method in methods if method.changes not in ("nothing", "weights")]
    writer = saver if saver is not None and saver.changes == "runtime" else (changing or methods)[-1]
    if writer.changes != "runtime":  # files of a runtime include all earlier changes
        for step, method in zip(manifest.chain, methods, strict=True):
            if method is not writer and method.changes == "architecture":
                raise Unsupported(f"{step.method} changed layers that {manifest.method} saves, and no other program "
                                  "can load them")  # fmt: skip
    return writer


def _saver(methods: Sequence[Method]) -> Method | None:
    """Return the method that writes and reads the weights itself; the last one if there are several."""
    return next((method for method in reversed(methods) if method.changes in ("storage", "runtime")), None)
