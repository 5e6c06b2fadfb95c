"""Structure of ultralytics' detectors, for methods that remove channels.

Their blocks (C2f, C3k2, C2PSA, PSA) split the channels of a convolution by number, which a dependency graph can't
follow when channels are removed: inside `separated`, each half has its own convolution.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Separated:
    """A detector whose channels can be followed.

    Attributes:
        forward: Takes the module and a list with the images; returns the outputs of the head's last convolutions.
        fixed: Layers whose outputs must all stay.
    """

    forward: Callable[[Any, Any], list[Any]]
    fixed: list[Any]


@contextlib.contextmanager
def separated(detector: Any) -> Iterator[Separated]:
    """Split the first convolution of each block into two halves, and join the halves again at the end.

    Meanwhile a convolution replaces each attention block, and the inputs of attention keep their width.

    Args:
        detector: Fused `ultralytics.nn.tasks.DetectionModel`; the halves must keep equal widths.
    """
    from torch import nn

    head = detector.model[-1]
    blocks = {module: module.cv1 for module in detector.modules() if _is_halving(module)}
    attentions = [module for module in detector.modules() if hasattr(module, "attn") and module not in blocks]
    fixed = []
    for block, first in blocks.items():
        block.cv1 = nn.ModuleList(_half(first.conv, side) for side in (0, 1))
        block.forward = _forward_of(block, first.act)
        if any(hasattr(module, "attn") for module in block.modules()):
            fixed += list(block.cv1)
    for attention in attentions:
        width = attention.attn.proj.conv.out_channels
        attention.stand_in = nn.Conv2d(width, width, 1)
        attention.forward = _added(attention.stand_in)
        fixed.append(attention.stand_in)
    branches = [branch for branch in (head.cv2, head.cv3) if branch is not None]
    head.forward = lambda features: [branch[i](level) for branch in branches for i, level in enumerate(features)]
    try:
        yield Separated(lambda module, images: module(*images), fixed)
    finally:
        for module in (head, *attentions, *blocks):
            del module.forward
        for attention in attentions:
            del attention.stand_in
        for block, first in blocks.items():
            block.c = _join(first.conv, *block.cv1)
            block.cv1 = first
        forget_anchors(detector)


def is_detector(module: Any) -> bool:
    """Return whether a module is a plain ultralytics detector, without masks or other outputs."""
    return type(module).__name__ == "DetectionModel"


def is_halving(module: Any) -> bool:
    """Return whether a module has blocks that split channels by number, like ultralytics' blocks."""
    return any(_is_halving(part) for part in module.modules())


def forget_anchors(module: Any) -> None:
    """Make the head of a detector rebuild its anchors: the kept ones belong to one device or are inference tensors."""
    if any(cls.__name__ == "DetectionModel" for cls in type(module).__mro__):
        module.model[-1].shape = None


def _is_halving(block: Any) -> bool:
    """Return whether the first convolution of a block outputs twice the block's inner width `c`."""
    convolution = getattr(getattr(block, "cv1", None), "conv", None)
    if convolution is None or not hasattr(block, "c") or not (hasattr(block, "m") or hasattr(block, "attn")):
        return False
    return bool(convolution.out_channels == 2 * block.c)


def _half(convolution: Any, side: int) -> Any:
    """Copy one half of a convolution's outputs: the first (0) or the second (1)."""
    from torch import nn

    width = convolution.out_channels // 2
    half = nn.Conv2d(convolution.in_channels, width, convolution.kernel_size, convolution.stride, convolution.padding)
    for name in ("weight", "bias"):
        part = getattr(convolution, name).detach()[side * width : (side + 1) * width]
        setattr(half, name, nn.Parameter(part.clone()))
    return half


def _join(convolution: Any, left: Any, right: Any) -> int:
    """Join two halves back into the whole convolution; return the width of a half.

    Raises:
        ValueError: The halves have different widths.
    """
    import torch
    from torch import nn

    if left.weight.shape != right.weight.shape:
        raise ValueError(f"halves of {left.out_channels} and {right.out_channels} channels can't be joined")
    for name in ("weight", "bias"):
        joined = torch.cat((getattr(left, name), getattr(right, name)))
        setattr(convolution, name, nn.Parameter(joined.detach(), requires_grad=False))
    convolution.in_channels, convolution.out_channels = left.in_channels, 2 * left.out_channels
    return int(left.out_channels)


def _forward_of(block: Any, activation: Any) -> Callable[[Any], Any]:
    import torch

    inner = getattr(block, "m", None)

    def forward(features: Any) -> Any:
        parts = [activation(half(features)) for half in block.cv1]
        if isinstance(inner, torch.nn.ModuleList):  # C2f: each stage reads the previous one, all are concatenated
            for stage in inner:
                parts.append(stage(parts[-1]))
        elif inner is not None:  # C2PSA: the right half is replaced
            parts[1] = inner(parts[1])
        return block.cv2(torch.cat(parts, 1))  # PSA: skip its attention, which keeps the width

    return forward


def _added(convolution: Any) -> Callable[[Any], Any]:
    """Return a residual function that keeps the convolution's number of channels."""
    return lambda features: features + convolution(features)
