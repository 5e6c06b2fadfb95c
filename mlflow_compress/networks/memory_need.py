"""Computes how many bytes a model's weights will take in memory, before they are read or created."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow_compress.networks import weight_files
from mlflow_compress.networks.native_precision import NATIVE, of_config


def of_files(folder: Path, variant: str, precision: str) -> int | None:
    """Return the bytes of the weights in safetensors files, from their headers; None: there are no such files.

    Args:
        folder: folder of the files.
        variant: variant of the files that is read (see `weight_files.variant_in`).
        precision: type that floating-point numbers are cast to; `native`: they are not cast. Others, such as packed
            weights, are never cast.

    Raises:
        WeightsError: a header contradicts its file.
    """
    import torch

    counts = weight_files.numbers_in(folder, variant)
    sizes = (
        count * getattr(torch, dtype if precision == NATIVE else precision).itemsize for dtype, count in counts.items()
    )
    return (sum(sizes) + weight_files.integer_bytes_in(folder, variant)) or None


def of_gguf(path: Path, precision: str) -> int:
    """Return the bytes of the weights in a GGUF file, from its header.

    Args:
        path: the file.
        precision: type that they are unpacked to; `native`: llama.cpp runs them as they are.

    Raises:
        WeightsError: the header contradicts the file.
    """
    import torch

    from mlflow_compress.networks.gguf_header import read_header

    tensors = read_header(path).tensors
    if precision == NATIVE:
        return sum(tensor.bytes for tensor in tensors)
    return sum(tensor.elements for tensor in tensors) * int(getattr(torch, precision).itemsize)


def of_architecture(auto_class: str, fields: Mapping[str, Any], precision: str) -> int | None:
    """Return the bytes of random weights of an architecture; None: it can't be built without memory.

    Args:
        auto_class: the transformers class that builds it.
        fields: fields of its config, with `model_type`.
        precision: type of the weights; `native`: the type in the config.
    """
    import torch
    import transformers

    from mlflow_compress.networks.stored_weights import unfilled

    settings = dict(fields)
    dtype = of_config(fields) if precision == NATIVE else getattr(torch, precision)
    try:
        config = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
        config.architectures = config.architectures or []  # transformers iterates over it
        with unfilled(), torch.random.fork_rng(devices=[]):
            module = getattr(transformers, auto_class).from_config(config, trust_remote_code=False)
        module.tie_weights()  # moving to the meta device has untied them
    except Exception:  # loading it raises the same error
        return None
    return sum(int(parameter.numel()) for parameter in module.parameters()) * int(dtype.itemsize)
