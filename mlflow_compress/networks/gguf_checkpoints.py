"""Language models in one GGUF file, from a method or from others, run by llama.cpp as they are."""

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
_GRAPH = "model"  # the graph that the family runs
_SPECIAL_TOKENS = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}


def load_config(origin: Origin) -> Any:
    """Return the transformers config that a GGUF file describes.

    Raises:
        WeightsError: its header is invalid, or transformers does not know its architecture.
        MachineLacks: the binding of llama.cpp is not installed.
    """
    import transformers

    read_header(Path(origin.location, origin.file))
    binding()
    try:
        config = transformers.AutoConfig.from_pretrained(origin.location, **origin.arguments)
    except Exception as error:  # the reader of each architecture raises its own errors
        raise WeightsError(
            f"{origin.file} in {origin.location} has an unknown architecture: {one_line(error)}"
        ) from error
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # llama.cpp runs the model, not transformers
    return config


def add_special_tokens(tokenizer: Any, origin: Origin) -> None:
    """Set the special tokens of a GGUF file that transformers did not read, as with tokenizers of GPT-2's kind."""
    fields = read_header(Path(origin.location, origin.file)).fields
    for name, key in _SPECIAL_TOKENS.items():
        index = fields.get(f"tokenizer.ggml.{key}")
        if getattr(tokenizer, name) is None and type(index) is int and 0 <= index < len(tokenizer):
            setattr(tokenizer, name, tokenizer.convert_ids_to_tokens(index))


def open_checkpoint(model: Model, family: Family, path: Path) -> Model:
    """Replace a model's module by a file, and note in its facts how the file is packed.

    Raises:
        WeightsError: its header is invalid, or llama.cpp rejects it.
    """
    model = attach(model, family, path)
    kind = file_type(model.module.calls[_GRAPH].header)
    model.facts[PACKED] = f"gguf {kind}"
    model.facts["checkpoint"] = f"gguf {kind}; run by llama.cpp ({DISTRIBUTION} {installed(DISTRIBUTION)})"
    return model


def attach(model: Model, family: Family, path: Path) -> Model:
    """Replace a model's module by a file.

    Raises:
        Unsupported: the model should run on a GPU.
        WeightsError: its header is invalid, or llama.cpp rejects it.
    """
    if model.device != "cpu":
        raise Unsupported("this package runs GGUF files on the CPU only")
    call = LlamaCpp(path)
    model = family.attach(model, {_GRAPH: call})
    model.runtime = call.runtime
    return model


def file_of(module: Any) -> Path | None:
    """Return the file that llama.cpp runs for a module; None for other modules."""
    call = getattr(module, "calls", {}).get(_GRAPH) if isinstance(getattr(module, "calls", None), dict) else None
    return call.path if isinstance(call, LlamaCpp) else None


def copy(path: Path, folder: Path) -> None:
    """Copy a file into a model folder."""
    shutil.copyfile(path, folder / FILE)


def file_type(header: Header) -> str:
    """Return the main type of a file's weights, as llama.cpp names it: `q4_k_m`."""
    from gguf.constants import LlamaFileType

    try:
        return (
            LlamaFileType(header.fields["general.file_type"]).name.lower().removeprefix("mostly_").removeprefix("all_")
        )
    except (KeyError, ValueError):  # missing, or newer than the package
        counts: dict[str, int] = {}
        for tensor in header.tensors:
            counts[tensor.type] = counts.get(tensor.type, 0) + tensor.elements
        return max(counts, key=lambda kind: counts[kind])
