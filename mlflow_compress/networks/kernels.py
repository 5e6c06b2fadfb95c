"""Chooses kernels for packed layers once the weights are on their device, and describes the choice."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections import Counter
from typing import Any

from mlflow_compress.networks.stored_weights import ROUNDING

_BFLOAT16_ROUNDING = 0.04  # three times the difference of 30 layers of SmolLM2 on the CPU
_HALF_ROUNDING = 0.15  # if all operations round: Mistral 7B's 32 layers with random weights differ by 0.06
_HALF_BYTES = 2
_LAYERS_AT_ONCE = 8  # about the layers of one block of a language model


def use_kernels(module: Any) -> None:
    """Make each layer that has a kernel for this device repack its weights, one layer at a time.

    Such a layer has a method `use_kernel`, which drops its portable codes: the module can be used, but not saved.
    """
    layers = [layer for layer in module.modules() if hasattr(layer, "use_kernel")] if hasattr(module, "modules") else []
    for count, layer in enumerate(layers, 1):
        layer.use_kernel()
        if count % _LAYERS_AT_ONCE == 0 or count == len(layers):
            _return_freed_memory()


def kernels_of(module: Any) -> str:
    """Describe the kernels of the layers stored in few bits; empty if there are no such layers.

    Such a layer has `packed_bits` and a `kernel_name`; empty: each call converts the layer's weight to floating point.
    """
    layers = _packed_layers(module)
    names = Counter(layer.kernel_name for layer in layers)
    parts = [f"{name}, {count} of {len(layers)} linear layers" for name, count in names.most_common() if name]
    if without := names[""]:
        parts.append(f"no kernel, {without} of {len(layers)} linear layers")
    return "; ".join(parts)


def rounding(module: Any, device: str) -> float:
    """Return the tolerated relative change of outputs by saving."""
    if not rounds_inputs(module):
        return ROUNDING[device]
    is_half = any(parameter.dtype.itemsize == _HALF_BYTES for parameter in module.parameters())
    return max(ROUNDING[device], _HALF_ROUNDING if is_half else _BFLOAT16_ROUNDING)


def rounds_inputs(module: Any) -> bool:
    """Return whether kernels that layers repacked their weights for round the inputs to bfloat16."""
    return any(layer.kernel_name for layer in _packed_layers(module) if hasattr(layer, "use_kernel"))


def bits_without_kernel(module: Any) -> list[int]:
    """Return the bit widths of layers stored in few bits without a kernel, each once."""
    return sorted({layer.packed_bits for layer in _packed_layers(module) if not layer.kernel_name})


def _packed_layers(module: Any) -> list[Any]:
    layers = module.modules() if hasattr(module, "modules") else ()
    return [layer for layer in layers if getattr(layer, "packed_bits", 0) and hasattr(layer, "kernel_name")]


def _return_freed_memory() -> None:
    """Make glibc return freed memory to the system; elsewhere do nothing.

    Else what one layer frees is often too fragmented for the next: all of it would count in the model's memory.
    """
    with contextlib.suppress(AttributeError):
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)
