"""Language models in one GGUF file, run by llama.cpp as they are: those that a method wrote, and other people's."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from mlflow_compress.errors import Unsupported, WeightsError, one_line
from mlflow_compress.networks.gguf_header import Header, read_header
from mlflow_compress.networks.hub import Origin
from mlflow_compress.networks.llama_binding import DISTRIBUTION, binding
from mlflow_compress.networks.llama_cpp import LlamaCpp
from mlflow_compress.networks.quantised_checkpoints import PACKED
from mlflow_compress.sockets import Family, Model
from mlflow_compress.version import installed

FILE = "model.gguf"  # in a model folder
_GRAPH = "model"  # what the family runs


def load_config(origin: Origin) -> Any:
    """Return the transformers config that a GGUF file describes.

    Raises:
        WeightsError: its header lies, or transformers knows no such architecture.
        MachineLacks: llama.cpp's binding is not installed.
    """
    import transformers

    read_header(Path(origin.location, origin.file))
    binding()
    try:
        config = transformers.AutoConfig.from_pretrained(origin.location, **origin.arguments)
    except Exception as error:  # each architecture's reader has errors of its own
        raise WeightsError(
            f"{origin.file} in {origin.location} has an unknown architecture: {one_line(error)}"
        ) from error
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # it is llama.cpp that runs it
    return config


def open_checkpoint(model: Model, family: Family, path: Path) -> Model:
    """Put a file in the place of a model's module, and say in its facts how it is packed.

    Raises:
        WeightsError: its header lies, or llama.cpp refuses it.
    """
    model = attach(model, family, path)
    kind = file_type(model.module.calls[_GRAPH].header)
    model.facts[PACKED] = f"gguf {kind}"
    model.facts["checkpoint"] = f"gguf {kind}; run by llama.cpp ({DISTRIBUTION} {installed(DISTRIBUTION)})"
    return model


def attach(model: Model, family: Family, path: Path) -> Model:
    """Put a file in the place of a model's module.

    Raises:
        Unsupported: the model is to run on a GPU.
        WeightsError: its header lies, or llama.cpp refuses it.
    """
    if model.device != "cpu":
        raise Unsupported("this package runs GGUF files on the CPU only")
    call = LlamaCpp(path)
    model = family.attach(model, {_GRAPH: call})
    model.runtime = call.runtime
    return model


def file_of(module: Any) -> Path | None:
    """Return the file that llama.cpp runs in a module's place; None: it is another module."""
    call = getattr(module, "calls", {}).get(_GRAPH) if isinstance(getattr(module, "calls", None), dict) else None
    return call.path if isinstance(call, LlamaCpp) else None


def copy(path: Path, folder: Path) -> None:
    """Copy a file into a model folder."""
    shutil.copyfile(path, folder / FILE)


def file_type(header: Header) -> str:
    """Return which type a file is mostly in, as llama.cpp names it: `q4_k_m`."""
    from gguf.constants import LlamaFileType

    try:
        return (
            LlamaFileType(header.fields["general.file_type"]).name.lower().removeprefix("mostly_").removeprefix("all_")
        )
    except (KeyError, ValueError):  # not said, or newer than the package
        counts: dict[str, int] = {}
        for each in header.tensors:
            counts[each.type] = counts.get(each.type, 0) + each.elements
        return max(counts, key=lambda kind: counts[kind])
