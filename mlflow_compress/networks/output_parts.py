"""The parts of a model's raw output, each compared by itself: what is large in one must not hide what others lost.

Boxes in pixels drown scores: over both, a detector that has lost all its detections is 0.01 % from its original.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlflow_compress.networks.fused_layers import may_be_fused, unfused
from mlflow_compress.networks.random_state import has_drawn, seed_all
from mlflow_compress.networks.stored_weights import flat
from mlflow_compress.sockets import Family, Model

_LARGEST = 3e38  # about what float32 and bfloat16 hold at most: in one of them a mask is that, in the other infinite
_LARGEST_HALF = 6e4  # about what float16 holds at most
_OTHER_SEED = 7919  # added to a seed, for other random numbers


@dataclass(frozen=True)
class Observed:
    """What a model gave, to be compared with what it gives when it has been changed.

    Attributes:
        samples: how many it was given.
        parts: of what it gave: vectors of float32 on the CPU.
        least: of each part the least norm that a difference is divided by.
        spread: how far apart two passes are that draw other random numbers; 0: it draws none.
        seed: of the batch that it was given.
    """

    samples: int
    parts: list[Any]
    least: list[float]
    spread: float
    seed: int = 0

    def moved(self, family: Family, model: Model) -> float:
        """Return how far what the model gives now is from what was observed (see `farthest`)."""
        import torch

        with torch.inference_mode():
            now = [part for part, _ in parts_of(family, model, family.batch(model, self.samples, self.seed))]
        if not any(part.numel() for part in (*now, *self.parts)):
            return 0.0
        return farthest(now, self.parts, self.least)

    def is_by_chance(self, moved: float) -> bool:
        """Return whether random numbers explain that the outputs have moved so far: nothing can be said then."""
        return moved >= self.spread / 2 > 0


def observe(family: Family, model: Model, samples: int, seed: int = 0) -> Observed:
    """Call a model on a batch, always the same for a seed."""
    import torch

    with torch.inference_mode():
        batch = family.batch(model, samples, seed)
        given = parts_of(family, model, batch)
        spread = spread_of(family, model, batch) if has_drawn(0) else 0.0
    return Observed(samples, [part for part, _ in given], [least for _, least in given], spread, seed)


def parts_of(
    family: Family, model: Model, batch: Any, seed: int = 0, *, is_fused: bool = False
) -> list[tuple[Any, float]]:
    """Make a forward pass, whose random numbers, if it draws some, are those of a seed.

    Args:
        family: runs the model.
        model: the model.
        batch: what it is given.
        seed: of random numbers.
        is_fused: whether torch's own transformer layers may take their fused path, which gives zeros at padded places:
            a compressed model that can't take it would differ there, and nowhere else.

    Returns:
        Of each part a vector of float32 on the CPU, and the least norm that a difference is divided by.
    """
    seed_all(seed)
    with contextlib.nullcontext() if is_fused else unfused():
        return [(flat(part), least) for part, least in family.parts(model, family.forward(model, batch))]


def moved_by_fusing(family: Family, model: Model, batch: Any, seed: int = 0) -> float:
    """Return how far outputs are from those of the layers one by one, where torch's fused path is open to them."""
    if not may_be_fused(model.module):
        return 0.0
    one, other = (parts_of(family, model, batch, seed, is_fused=is_fused) for is_fused in (True, False))
    return farthest([part for part, _ in one], [part for part, _ in other], [least for _, least in other])


def spread_of(family: Family, model: Model, batch: Any, seed: int = 0) -> float:
    """Return how far apart two passes on one batch are that draw other random numbers."""
    one, other = (parts_of(family, model, batch, each) for each in (seed, seed + _OTHER_SEED))
    return farthest([part for part, _ in one], [part for part, _ in other], [least for _, least in other])


def farthest(own: Sequence[Any], other: Sequence[Any], least: Sequence[float]) -> float:
    """Return how far the part is that differs most: the 2-norm of the difference over that of the other.

    Where both hold the same infinity, or both NaN, they are alike. Infinite where only one does, and where they have
    other parts, or parts of another shape; NaN where there is nothing to compare.

    Args:
        own: the parts.
        other: those that they are compared with.
        least: the least norm that a difference is divided by, of each.
    """
    if len(own) != len(other) or any(one.shape != two.shape for one, two in zip(own, other, strict=True)):
        return float("inf")
    apart = [_apart(one, two, norm) for one, two, norm in zip(own, other, least, strict=True) if one.numel()]
    return max(apart) if apart else float("nan")


def differ(moved: float) -> str:
    """Say how far outputs are: `differ by 3.0%`."""
    if moved == float("inf"):
        return "have different shapes, or NaN or infinity in different places,"
    return f"differ by {moved:.1%}"


def odd_places(own: Sequence[Any], other: Sequence[Any]) -> int:
    """Count the places where one part holds NaN or infinity and the other one does not hold the same."""
    pairs = [(one, two) for one, two in zip(own, other, strict=False) if one.shape == two.shape]
    return sum(int(_odd(one, two).sum()) for one, two in pairs)


def _apart(own: Any, other: Any, least: float) -> float:
    import torch

    if bool(_odd(own, other).any()):
        return float("inf")
    is_number = torch.isfinite(own) & torch.isfinite(other) & ~_both_extreme(own, other)
    one, two = own[is_number].double(), other[is_number].double()
    return float((one - two).norm() / max(float(two.norm()), least or 1e-12))


def _odd(one: Any, two: Any) -> Any:
    """Return where one is no finite number, and the other is not the same."""
    import torch

    is_same = (one == two) | (one.isnan() & two.isnan()) | _both_extreme(one, two)
    are_numbers = torch.isfinite(one) & torch.isfinite(two) & ~_is_huge(one) & ~_is_huge(two)
    return ~are_numbers & ~is_same


def _both_extreme(one: Any, two: Any) -> Any:
    """Return where both stand for infinity: as it is, or as the greatest number of the type that they were of.

    Of two in half and in single precision that is 65,504 and 3.4e38. Where a finite 70,000 has become infinite, in half
    precision, it was lost.
    """
    huge_one, huge_two = _is_huge(one), _is_huge(two)
    of_half = (one.abs() >= _LARGEST_HALF) & huge_two | huge_one & one.isfinite() & (two.abs() >= _LARGEST_HALF)
    return (huge_one & huge_two | of_half) & (one.sign() == two.sign())


def _is_huge(vector: Any) -> Any:
    return vector.abs() >= _LARGEST
