"""Compares the parts of a model's raw output separately, so that a part with large values does not hide other losses.

Boxes in pixels are much larger than scores: over both, a detector that lost all detections differs by only 0.01 %.
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

_LARGEST = 3e38  # about the largest float32 and bfloat16: a mask may be that in one of them, and infinite in the other
_LARGEST_HALF = 6e4  # about the largest float16
_OTHER_SEED = 7919  # added to a seed to draw other random numbers


@dataclass(frozen=True)
class Observed:
    """Outputs of a model, to compare with its outputs after a change.

    Attributes:
        samples: number of samples in the batch.
        parts: parts of the output: float32 vectors on the CPU.
        least: for each part the least norm that a difference is divided by.
        spread: difference between two passes with different random numbers; 0: it draws none.
        seed: seed of the batch.
    """

    samples: int
    parts: list[Any]
    least: list[float]
    spread: float
    seed: int = 0

    def moved(self, family: Family, model: Model) -> float:
        """Return the difference between the model's current outputs and the observed ones (see `farthest`)."""
        import torch

        with torch.inference_mode():
            now = [part for part, _ in parts_of(family, model, family.batch(model, self.samples, self.seed))]
        if not any(part.numel() for part in (*now, *self.parts)):
            return 0.0
        return farthest(now, self.parts, self.least)

    def is_by_chance(self, moved: float) -> bool:
        """Return whether random numbers explain a difference of the outputs, so that it shows nothing."""
        return moved >= self.spread / 2 > 0


def observe(family: Family, model: Model, samples: int, seed: int = 0) -> Observed:
    """Call a model on a batch that depends only on the seed, and return its outputs."""
    import torch

    with torch.inference_mode():
        batch = family.batch(model, samples, seed)
        outputs = parts_of(family, model, batch)
        spread = spread_of(family, model, batch) if has_drawn(0) else 0.0
    return Observed(samples, [part for part, _ in outputs], [least for _, least in outputs], spread, seed)


def parts_of(
    family: Family, model: Model, batch: Any, seed: int = 0, *, is_fused: bool = False
) -> list[tuple[Any, float]]:
    """Run a forward pass with the random numbers of a seed, and return the parts of its output.

    Args:
        family: family of the model, which runs it.
        model: the model.
        batch: its input.
        seed: seed for random numbers.
        is_fused: whether torch's own transformer layers may use their fused path, which returns zeros at padded places:
            a compressed model that can't use it would differ only there.

    Returns:
        For each part a float32 vector on the CPU, and the least norm that a difference is divided by.
    """
    seed_all(seed)
    with contextlib.nullcontext() if is_fused else unfused():
        return [(flat(part), least) for part, least in family.parts(model, family.forward(model, batch))]


def moved_by_fusing(family: Family, model: Model, batch: Any, seed: int = 0) -> float:
    """Return the difference of outputs with torch's fused path from those without it; 0 if there is no such path."""
    if not may_be_fused(model.module):
        return 0.0
    fused, plain = (parts_of(family, model, batch, seed, is_fused=is_fused) for is_fused in (True, False))
    return farthest([part for part, _ in fused], [part for part, _ in plain], [least for _, least in plain])


def spread_of(family: Family, model: Model, batch: Any, seed: int = 0) -> float:
    """Return the difference of two passes on one batch that draw different random numbers."""
    first, second = (parts_of(family, model, batch, weights_seed) for weights_seed in (seed, seed + _OTHER_SEED))
    return farthest([part for part, _ in first], [part for part, _ in second], [least for _, least in second])


def farthest(parts: Sequence[Any], reference: Sequence[Any], least: Sequence[float]) -> float:
    """Return the greatest difference of a part: the 2-norm of the difference divided by the 2-norm of the other.

    Equal infinities, and two NaN, count as equal. The result is infinite if only one side has them, or if the number or
    shapes of the parts differ; it is NaN if there is nothing to compare.

    Args:
        parts: the parts.
        reference: the parts to compare with.
        least: for each part the least norm that a difference is divided by.
    """
    if len(parts) != len(reference) or any(one.shape != two.shape for one, two in zip(parts, reference, strict=True)):
        return float("inf")
    differences = [
        _apart(one, two, norm) for one, two, norm in zip(parts, reference, least, strict=True) if one.numel()
    ]
    return max(differences) if differences else float("nan")


def differ(moved: float) -> str:
    """Return a difference of outputs as text: `differ by 3.0%`."""
    if moved == float("inf"):
        return "have different shapes, or NaN or infinity in different places,"
    return f"differ by {moved:.1%}"


def odd_places(parts: Sequence[Any], reference: Sequence[Any]) -> int:
    """Count the places where one side has NaN or infinity and the other does not have the same."""
    pairs = [(one, two) for one, two in zip(parts, reference, strict=False) if one.shape == two.shape]
    return sum(int(_odd(one, two).sum()) for one, two in pairs)


def _apart(part: Any, reference: Any, least: float) -> float:
    import torch

    if bool(_odd(part, reference).any()):
        return float("inf")
    is_number = torch.isfinite(part) & torch.isfinite(reference) & ~_both_extreme(part, reference)
    one, two = (side[is_number].cpu().double() for side in (part, reference))  # some accelerators have no float64
    return float((one - two).norm() / max(float(two.norm()), least or 1e-12))


def _odd(one: Any, two: Any) -> Any:
    """Return where one is not a finite number, and the other is not the same."""
    import torch

    is_same = (one == two) | (one.isnan() & two.isnan()) | _both_extreme(one, two)
    are_numbers = torch.isfinite(one) & torch.isfinite(two) & ~_is_huge(one) & ~_is_huge(two)
    return ~are_numbers & ~is_same


def _both_extreme(one: Any, two: Any) -> Any:
    """Return where both represent infinity: as infinity, or as the greatest number of their original type.

    In half and in single precision that is 65,504 and 3.4e38. A finite 70,000 that became infinite in half precision
    does not count: it was lost.
    """
    huge_one, huge_two = _is_huge(one), _is_huge(two)
    of_half = (one.abs() >= _LARGEST_HALF) & huge_two | huge_one & one.isfinite() & (two.abs() >= _LARGEST_HALF)
    return (huge_one & huge_two | of_half) & (one.sign() == two.sign())


def _is_huge(vector: Any) -> Any:
    return vector.abs() >= _LARGEST
