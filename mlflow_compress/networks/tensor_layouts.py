"""Properties of tensors that weight files do not store: the order of axes in memory, and types of unsaved buffers.

The order decides which kernels run (channels last, transposed weights), so a restored model must have the same order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_FILE = "layouts.json"  # only for a module whose tensors differ from what loading gives
_MAKES_ITS_OWN = ("transformers.", "transformers_modules.")  # their unsaved buffers stay in float32 in any precision


def keep(module: Any, folder: Path) -> None:
    """Write the memory layout of a module's tensors, and the precision of its unsaved buffers."""
    import torch

    if not isinstance(module, torch.nn.Module):
        return
    strides = {
        name: list(tensor.stride())
        for name, tensor in module.state_dict().items()
        if _is_strided(tensor) and not tensor.is_contiguous() and _is_dense(tensor)
    }
    dtypes = {
        name: str(layer._buffers[key].dtype).removeprefix("torch.")
        for name, layer, key in following_buffers(module)
        if layer._buffers[key].dtype != torch.float32
    }
    if strides or dtypes:
        (folder / _FILE).write_text(json.dumps({"strides": strides, "dtypes": dtypes}), encoding="utf-8")


def apply(module: Any, folder: Path) -> None:
    """Apply the layout that `keep` wrote to the tensors of a filled module."""
    import torch

    if not (folder / _FILE).is_file() or not isinstance(module, torch.nn.Module):
        return
    layouts = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    tensors = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
    for name, stride in layouts["strides"].items():
        tensor = tensors.get(name)
        if tensor is not None and _is_strided(tensor) and tensor.stride() != tuple(stride):
            target = torch.empty_strided(tensor.shape, stride, dtype=tensor.dtype, device=tensor.device)
            tensor.data = target.copy_(tensor.data)
    for name, layer, key in following_buffers(module):
        if name in layouts["dtypes"]:
            layer._buffers[key] = layer._buffers[key].to(getattr(torch, layouts["dtypes"][name]))


def following_buffers(module: Any) -> Iterator[tuple[str, Any, str]]:
    """Yield the unsaved floating-point buffers that follow the weights' precision, as with `Module.half()`.

    Buffers of transformers' layers do not: its rotary embeddings are loaded in float32 and stay so.

    Returns:
        For each buffer its full name, its layer, and its name in the layer.
    """
    for path, layer in module.named_modules():
        if type(layer).__module__.startswith(_MAKES_ITS_OWN):
            continue
        for key in layer._non_persistent_buffers_set:
            buffer = layer._buffers.get(key)
            if buffer is not None and buffer.is_floating_point():
                yield f"{path}.{key}".lstrip("."), layer, key


def _is_strided(tensor: Any) -> bool:
    import torch

    is_plain = type(tensor) in (torch.Tensor, torch.nn.Parameter)
    return is_plain and tensor.layout == torch.strided and not tensor.is_quantized


def _is_dense(tensor: Any) -> bool:
    """Return whether a tensor is contiguous up to the order of its axes."""
    step = 1
    for stride, length in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if length > 1:
            if stride != step:
                return False
            step *= length
    return True
