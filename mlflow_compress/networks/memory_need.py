"""How many bytes a model's weights will take in memory, told before any is read or made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow_compress.networks import weight_files
from mlflow_compress.networks.native_precision import NATIVE, of_config


def of_files(folder: Path, variant: str, precision: str) -> int | None:
    """Return what the weights in files of safetensors will take, from their headers; None: there are none.

    Args:
        folder: where they are.
        variant: which of several are read (see `weight_files.variant_in`).
        precision: what they are cast to; `native`: to nothing.
    """
    import torch

    counts = weight_files.numbers_in(folder, variant)
    sizes = (
        count * getattr(torch, dtype if precision == NATIVE else precision).itemsize for dtype, count in counts.items()
    )
    return sum(sizes) or None


def of_architecture(auto_class: str, fields: Mapping[str, Any], precision: str) -> int | None:
    """Return what random weights of an architecture will take; None: it can't be built without memory.

    Args:
        auto_class: the transformers class that builds it.
        fields: of its config, with `model_type`.
        precision: what the weights are made in; `native`: what the config says.
    """
    import torch
    import transformers

    from mlflow_compress.networks.stored_weights import unfilled

    named = dict(fields)
    dtype = of_config(fields) if precision == NATIVE else getattr(torch, precision)
    try:
        config = transformers.AutoConfig.for_model(named.pop("model_type"), **named)
        config.architectures = config.architectures or []  # transformers walks over it
        with unfilled(), torch.random.fork_rng(devices=[]):
            module = getattr(transformers, auto_class).from_config(config, trust_remote_code=False)
        module.tie_weights()  # on the way to the meta device each got a parameter of its own
    except Exception:  # whatever is wrong with it, loading it says so
        return None
    return sum(int(each.numel()) for each in module.parameters()) * int(dtype.itemsize)
