"""How MLflow's own flavors load a model folder, so that no weights are stored twice.

MLflow has no flavor for OpenVINO, GGUF, CTranslate2, ncnn, TensorRT, LiteRT, ExecuTorch or Core ML. Its `pytorch`
flavor reads a torch.export graph or a pickle. This package writes no pickles, and MLflow reads TorchScript only if
pickles are trusted. Its `onnx` and `pytorch` flavors load one graph, so a model with several (an encoder and a decoder)
has no flavor.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from mlflow_compress.errors import Unsupported
from mlflow_compress.networks.published_files import OURS
from mlflow_compress.networks.stored_weights import INDEX, SAFETENSORS
from mlflow_compress.sockets import NativeFlavor
from mlflow_compress.untrusted import Malformed, parse_json
from mlflow_compress.version import installed

GraphFlavor = Literal["onnx", "pytorch"]

_GRAPH = "model.pt2"  # MLflow's name for it
_MOST_BYTES = 2**30  # size of a graph's JSON
_IS_WEIGHTS = (".safetensors", ".index.json", ".pt", ".bin")
_PROCESSORS = ("config.json", "preprocessor_config.json", "processor_config.json")
_COMPONENTS = "components"  # MLflow looks for tokenizers and the like in subfolders of this folder
_NO_PIPELINE = "processor"  # with it, MLflow itself says to load the components, not a pipeline


def graph_flavor(saved: Path, flavor: GraphFlavor) -> NativeFlavor:
    """Return the flavor that loads a model with one graph in a file.

    Args:
        saved: the model folder.
        flavor: MLflow's name for the flavor.

    Raises:
        Unsupported: there are several graphs.
    """
    graphs = sorted(path.name for path in saved.glob("*.onnx" if flavor == "onnx" else "*.pt2"))
    if len(graphs) != 1:
        raise Unsupported(f"MLflow's {flavor} flavor loads one graph, but this model has {len(graphs)}")
    if flavor == "onnx":
        settings = {"data": f"FOLDER/{graphs[0]}", "providers": ["CPUExecutionProvider"]}
        return NativeFlavor(flavor, {**settings, "onnx_version": installed("onnx") or "unknown"})
    if graphs[0] != _GRAPH:
        raise Unsupported(f"MLflow's pytorch flavor loads a graph named {_GRAPH}, but this is {graphs[0]}")
    return NativeFlavor(flavor, {"model_data": "FOLDER", "pytorch_version": _torch_version(saved / _GRAPH)})


def transformers_flavor(saved: Path, loader: str, task: str, components: Mapping[str, str]) -> NativeFlavor:
    """Return the flavor that loads a model with `from_pretrained`.

    The weights are read in place. MLflow reads a tokenizer from its own folder, so its files, which are small, are
    copied.

    Args:
        saved: the model folder.
        loader: the class of transformers that loads the model (`AutoModelForCausalLM`).
        task: name of its pipeline; empty: transformers has no pipeline for it, and the model and its tokenizer are
            loaded with `return_type="components"`.
        components: the class that loads each component, by MLflow's name for it (`tokenizer`).

    Raises:
        Unsupported: transformers can't read its weight files.
    """
    if not any((saved / name).is_file() for name in (SAFETENSORS, INDEX)):
        raise Unsupported("its weights are not in safetensors files, which MLflow's transformers flavor requires")
    if not task:
        components = {_NO_PIPELINE: next(iter(components.values()))}
    fields: dict[str, Any] = json.loads((saved / "config.json").read_text(encoding="utf-8"))
    settings: dict[str, Any] = {
        "task": task or None,
        "pipeline_model_type": loader,
        "model_binary": "FOLDER",
        "components": [name for name in components if name != _NO_PIPELINE],
        **{f"{name}_type": reader for name, reader in components.items()},
    }
    if dtype := fields.get("dtype"):
        settings["torch_dtype"] = f"torch.{dtype}"
    return NativeFlavor(
        "transformers", settings, {f"{_COMPONENTS}/{name}": _files_of(name, saved) for name in components}
    )


def _files_of(component: str, saved: Path) -> tuple[str, ...]:
    """Return the names of a component's files: those of a tokenizer may have any name."""
    names = tuple(path.name for path in sorted(saved.iterdir()))
    if component in ("feature_extractor", "image_processor"):
        return tuple(name for name in names if name in _PROCESSORS)
    return tuple(name for name in names if name not in OURS and not name.endswith(_IS_WEIGHTS))


def _torch_version(graph: Path) -> str:
    """Return the version of torch that wrote a graph, from the file."""
    try:
        with zipfile.ZipFile(graph) as archive:
            name = next(name for name in archive.namelist() if name.endswith("models/model.json"))
            described = parse_json(archive.read(name), name, _MOST_BYTES)
        return str(described["torch_version"])
    except (OSError, zipfile.BadZipFile, StopIteration, Malformed, KeyError, TypeError):
        return installed("torch") or "unknown"
