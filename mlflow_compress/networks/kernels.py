"""The kernels of packed layers: chosen once the weights are where they will be used, and what was chosen."""

from __future__ import annotations

from collections import Counter
from typing import Any

from mlflow_compress.networks.stored_weights import ROUNDING

_BFLOAT16_ROUNDING = 0.04  # three times what 30 layers of SmolLM2 make of it on the CPU


def use_kernels(module: Any) -> None:
    """Let each layer that has a kernel for this device repack its weights for it, one layer after the other.

    A layer says so by its method `use_kernel`. It drops its portable codes then: such a module is used, not saved.
    """
    for layer in list(module.modules()) if hasattr(module, "modules") else ():
        if hasattr(layer, "use_kernel"):
            layer.use_kernel()


def kernels_of(module: Any) -> str:
    """Say which kernels the packed layers run on; empty where there are no such layers.

    A layer with `use_kernel` says by `kernel_name` on what it runs; empty: its weight is unpacked at each call.
    """
    layers = _packed_layers(module)
    names = Counter(layer.kernel_name for layer in layers)
    said = [f"{name}, {count} of {len(layers)} linear layers" for name, count in names.most_common() if name]
    if without := names[""]:
        said.append(f"no kernel, {without} of {len(layers)} linear layers")
    return "; ".join(said)


def rounding(module: Any, device: str) -> float:
    """Return how far outputs may be, relatively, from those before saving: kernels round activations to bfloat16."""
    runs = any(layer.kernel_name for layer in _packed_layers(module))
    return max(ROUNDING[device], _BFLOAT16_ROUNDING) if runs else ROUNDING[device]


def bits_without_kernel(module: Any) -> list[int]:
    """Return the bits of the packed layers that no kernel serves, each once."""
    return sorted({layer.packed_bits for layer in _packed_layers(module) if not layer.kernel_name})


def _packed_layers(module: Any) -> list[Any]:
    layers = [layer for layer in module.modules() if hasattr(layer, "use_kernel")] if hasattr(module, "modules") else []
    return [layer for layer in layers if layer.packed_bits]
