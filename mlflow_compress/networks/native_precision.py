"""The floating-point type that a model's weights are loaded in: the option `dtype` of each family."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from mlflow_compress.errors import Unsupported
from mlflow_compress.networks.export_graphs import dtype_of
from mlflow_compress.networks.quantised_checkpoints import is_quantised
from mlflow_compress.networks.stored_weights import cast
from mlflow_compress.sockets import Family, Model

DTYPE = "dtype"  # the fact: in which precision the original was loaded
NATIVE = "native"
_WIDENED = "widened"  # the fact: from which precision weights were cast for an exporter
_FIELDS = ("dtype", "torch_dtype")  # of a config; the second in transformers before its version 5


def of_config(fields: Mapping[str, Any]) -> Any:
    """Return the torch type that a config names for its weights; float32 where it names none.

    Args:
        fields: of the config, as they stand in `config.json`.
    """
    import torch

    named = next((fields[name] for name in _FIELDS if fields.get(name)), "float32")
    found = getattr(torch, str(named).removeprefix("torch."), None)
    return found if isinstance(found, torch.dtype) and found.is_floating_point else torch.float32


def name_of(dtype: Any) -> str:
    """Return a torch type's name as people write it: `bfloat16`."""
    return str(dtype).removeprefix("torch.")


def settle(model: Model, family: Family) -> None:
    """Cast a loaded model to the precision that the family's options ask for, and note in which it is.

    What transformers loads is in it already; other models are as their loaders gave them.

    Raises:
        Unsupported: a precision was asked for, and the weights are quantised.
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
        with contextlib.suppress(Unsupported):  # all of it is in this precision already
            cast(model.module, getattr(torch, family.precision))
    if (dtype := dtype_of(model.module)) is not None:
        model.facts[DTYPE] = name_of(dtype)


def widen(model: Model, who: str) -> None:
    """Cast a model in half precision to float32, for what takes no other; say so in its facts.

    Args:
        model: as a method gets it.
        who: what takes float32 only, for a sentence.
    """
    import torch

    if not isinstance(model.module, torch.nn.Module):
        return
    dtype = dtype_of(model.module)
    if dtype in (torch.bfloat16, torch.float16):
        cast(model.module, torch.float32)
        model.facts[_WIDENED] = f"{who} takes float32: the weights were cast from {name_of(dtype)}"


def widened_from(model: Model) -> str | None:
    """Return in which precision a model was before `widen` cast it; None if it was in float32."""
    told = model.facts.get(_WIDENED)
    return told.rpartition(" ")[2] if told else None
