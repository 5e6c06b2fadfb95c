"""The floating-point type of a model's weights when they are loaded: the option `dtype` of each family."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from mlflow_compress.errors import Unsupported
from mlflow_compress.networks.export_graphs import dtype_of
from mlflow_compress.networks.quantised_checkpoints import is_quantised
from mlflow_compress.networks.stored_weights import cast
from mlflow_compress.sockets import Family, Model

DTYPE = "dtype"  # fact: the precision in which the original was loaded
NATIVE = "native"
_WIDENED = "widened"  # fact: the precision from which weights were cast for an exporter
_FIELDS = ("dtype", "torch_dtype")  # config fields; the second before transformers 5


def of_config(fields: Mapping[str, Any]) -> Any:
    """Return the torch type that a config names for its weights; float32 if it names none.

    Args:
        fields: fields of `config.json`.
    """
    import torch

    name = next((fields[key] for key in _FIELDS if fields.get(key)), "float32")
    dtype = getattr(torch, str(name).removeprefix("torch."), None)
    return dtype if isinstance(dtype, torch.dtype) and dtype.is_floating_point else torch.float32


def name_of(dtype: Any) -> str:
    """Return the short name of a torch type: `bfloat16`."""
    return str(dtype).removeprefix("torch.")


def settle(model: Model, family: Family) -> None:
    """Cast a loaded model to the precision in the family's options, and note its precision.

    transformers loads models in that precision; other loaders may not.

    Raises:
        Unsupported: the options set a precision, but the weights are quantised.
    """
    import torch

    if not isinstance(model.module, torch.nn.Module):
        return
    if is_quantised(model.module):
        if family.dtype not in ("auto", NATIVE):
            raise Unsupported(
                f"its weights are quantised, and {DTYPE}={family.dtype} can't cast them: leave {DTYPE} out to measure "
                "it as it is"
            )
    elif family.precision != NATIVE:
        with contextlib.suppress(Unsupported):  # it already has this precision
            cast(model.module, getattr(torch, family.precision))
    if (dtype := dtype_of(model.module)) is not None:
        model.facts[DTYPE] = name_of(dtype)


def widen(model: Model, who: str) -> None:
    """Cast a model in half precision to float32 for a method that only supports float32, and note it in the facts.

    Args:
        model: the model that the method gets.
        who: name of the method or runtime, for the fact.
    """
    import torch

    if not isinstance(model.module, torch.nn.Module):
        return
    dtype = dtype_of(model.module)
    if dtype in (torch.bfloat16, torch.float16):
        cast(model.module, torch.float32)
        model.facts[_WIDENED] = f"{who} takes float32: the weights were cast from {name_of(dtype)}"


def widened_from(model: Model) -> str | None:
    """Return the precision of a model before `widen` cast it; None if it was not cast."""
    fact = model.facts.get(_WIDENED)
    return fact.rpartition(" ")[2] if fact else None
