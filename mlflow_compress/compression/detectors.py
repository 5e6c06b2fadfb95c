"""How ultralytics' detectors are built, for methods that take channels out of them.

Their blocks (C2f, C3k2, C2PSA, PSA) halve the channels of a convolution by number, which a dependency graph can't
follow when channels go: inside `separated`, each half has a convolution of its own.
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
        forward: takes the module and a list with the images; gives what the head's last convolutions give.
        fixed: layers whose outputs must all stay.
    """

    forward: Callable[[Any, Any], list[Any]]
    fixed: list[Any]


@contextlib.contextmanager
def separated(detector: Any) -> Iterator[Separated]:
    """Split the first convolution of a block into one for each half, and join the halves again at the end.

    A block of attention is replaced by a convolution meanwhile, and what it reads keeps its width.

    Args:
        detector: an `ultralytics.nn.tasks.DetectionModel`, fused; the halves must keep equal widths.
    """
    from torch import nn

    head = detector.model[-1]
    blocks = {each: each.cv1 for each in detector.modules() if _is_halving(each)}
    attentions = [each for each in detector.modules() if hasattr(each, "attn") and each not in blocks]
    fixed = []
    for block, first in blocks.items():
        block.cv1 = nn.ModuleList(_half(first.conv, side) for side in (0, 1))
        block.forward = _forward_of(block, first.act)
        if any(hasattr(each, "attn") for each in block.modules()):
            fixed += list(block.cv1)
    for each in attentions:
        width = each.attn.proj.conv.out_channels
        each.stand_in = nn.Conv2d(width, width, 1)
        each.forward = _added(each.stand_in)
        fixed.append(each.stand_in)
    branches = [branch for branch in (head.cv2, head.cv3) if branch is not None]
    head.forward = lambda features: [branch[i](each) for branch in branches for i, each in enumerate(features)]
    try:
        yield Separated(lambda module, images: module(*images), fixed)
    finally:
        for each in (head, *attentions, *blocks):
            del each.forward
        for each in attentions:
            del each.stand_in
        for block, first in blocks.items():
            block.c = _join(first.conv, *block.cv1)
            block.cv1 = first
        forget_anchors(detector)


def is_detector(module: Any) -> bool:
    """Return whether a module is a plain detector of ultralytics: one that makes no masks or else."""
    return type(module).__name__ == "DetectionModel"


def is_halving(module: Any) -> bool:
    """Return whether blocks in a module halve channels by number, as those of ultralytics do."""
    return any(_is_halving(each) for each in module.modules())


def forget_anchors(module: Any) -> None:
    """Let the head of a detector make its anchors anew: those it keeps are of one device, and maybe of inference."""
    if any(cls.__name__ == "DetectionModel" for cls in type(module).__mro__):
        module.model[-1].shape = None


def _is_halving(block: Any) -> bool:
    """Return whether the first convolution of a block makes twice the `c` channels that its inside takes."""
    convolution = getattr(getattr(block, "cv1", None), "conv", None)
    if convolution is None or not hasattr(block, "c") or not (hasattr(block, "m") or hasattr(block, "attn")):
        return False
    return bool(convolution.out_channels == 2 * block.c)


def _half(whole: Any, side: int) -> Any:
    """Copy one half of a convolution's outputs: the first (0) or the second (1)."""
    from torch import nn

    width = whole.out_channels // 2
    half = nn.Conv2d(whole.in_channels, width, whole.kernel_size, whole.stride, whole.padding)
    for name in ("weight", "bias"):
        part = getattr(whole, name).detach()[side * width : (side + 1) * width]
        setattr(half, name, nn.Parameter(part.clone()))
    return half


def _join(whole: Any, left: Any, right: Any) -> int:
    """Put what is left of two halves back into the whole convolution; gives the width of a half.

    Raises:
        ValueError: they are not of one width.
    """
    import torch
    from torch import nn

    if left.weight.shape != right.weight.shape:
        raise ValueError(f"halves of {left.out_channels} and {right.out_channels} channels can't be joined")
    for name in ("weight", "bias"):
        both = torch.cat((getattr(left, name), getattr(right, name)))
        setattr(whole, name, nn.Parameter(both.detach(), requires_grad=False))
    whole.in_channels, whole.out_channels = left.in_channels, 2 * left.out_channels
    return int(left.out_channels)


def _forward_of(block: Any, activation: Any) -> Callable[[Any], Any]:
    import torch

    inside = getattr(block, "m", None)

    def forward(features: Any) -> Any:
        parts = [activation(half(features)) for half in block.cv1]
        if isinstance(inside, torch.nn.ModuleList):  # C2f: the right half goes on, and every stage is kept
            for each in inside:
                parts.append(each(parts[-1]))
        elif inside is not None:  # C2PSA: the right half is replaced
            parts[1] = inside(parts[1])
        return block.cv2(torch.cat(parts, 1))  # PSA: its attention keeps the width, which is all that counts here

    return forward


def _added(convolution: Any) -> Callable[[Any], Any]:
    """Return a function whose input and output have as many channels as the convolution."""
    return lambda features: features + convolution(features)
