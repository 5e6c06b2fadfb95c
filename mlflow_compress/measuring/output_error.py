"""How like the original a compressed model still is: the raw outputs of both on the same inputs.

It needs no labels and no real weights. The inputs are those of the timed call, random ones: what real inputs make of
the difference, the scores say, and where there are scores it is not told. Each part of the output is compared by itself
(see `output_parts`), and the worst counts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow_compress.errors import WorkerError
from mlflow_compress.networks.output_parts import farthest, parts_of
from mlflow_compress.networks.stored_weights import ROUNDING, distance, flat
from mlflow_compress.records import Caution, CautionKind, Variant
from mlflow_compress.sockets import Family, Model

BLIND_OUTPUTS = CautionKind(
    "blind_outputs",
    short={
        "en": "random weights: outputs do not depend on the input",
        "ru": "случайные веса: выходы не зависят от входа",
    },
    message={
        "en": "with these weights the outputs of two inputs differ by less than {most:.0e}: how far they are from the "
        "original's says nothing",
        "ru": "с этими весами выходы на двух входах различаются меньше чем на {most:.0e}: их отличие от "
        "оригинала ни о чём не говорит",
    },
    advice={"en": "Give real weights.", "ru": "Возьмите настоящие веса."},
)
NUMBERS = ("quality/output_error_rel_l2", "quality/top1_agreement", "quality/kl_divergence_nats")
_MOST_BATCHES, _MOST_SECONDS, _MOST_ELEMENTS = 8, 0.5, 2**24
_FEWEST = 2  # inputs, to see whether outputs depend on them
_ALIKE = 1e-5  # relative difference of what two inputs give, below which nothing can be said
_OLD = ("original", "saved")  # tensors of 0.1, whose parts stood in one vector


def outputs(family: Family, model: Model, variant: Variant, count: int | None = None) -> list[Any]:
    """Return the outputs of forward passes, always on the same inputs.

    Args:
        family: the model's family.
        model: the model.
        variant: gives batch size and seed.
        count: how many passes; None: as many as fit into half a second and 64 MiB, two at least.

    Returns:
        Of each part a tensor [passes, elements] of float32 on the CPU.

    Raises:
        ArithmeticError: they are not finite.
    """
    return _passes(family, model, variant, count)[0]


def keep(original: Sequence[Any], saved: Sequence[Any], path: Path) -> None:
    """Write what the original gave, and what the compressed model gave before it was saved."""
    from safetensors.torch import save_file

    both = zip(_OLD, (original, saved), strict=True)
    kept = {f"{name}.{index}": part.clone() for name, parts in both for index, part in enumerate(parts)}
    save_file(kept, str(path))


def compare(family: Family, model: Model, variant: Variant, path: Path, device: str) -> dict[str, float]:
    """Compare the restored model with what `keep` wrote.

    Returns:
        `quality/output_error_rel_l2`, the 2-norm of the difference to the original's outputs over that of these, of the
        part that differs most. For families whose outputs are scores of classes also `quality/top1_agreement`, the
        share of positions at which both choose the same class, and `quality/kl_divergence_nats`, the mean of
        KL(original || restored) over positions. Nothing where outputs do not depend on the input.

    Raises:
        WorkerError: the restored model's outputs are not those of the model that was saved.
    """
    from safetensors.torch import load_file

    before: Mapping[str, Any] = load_file(str(path))
    if _OLD[1] in before:
        restored, least = [_as_0_1_did(family, model, variant, len(before[_OLD[1]]))], [0.0]
        original, saved = ([before[name]] for name in _OLD)
    else:
        original, saved = (_kept(before, name) for name in _OLD)
        restored, least = _passes(family, model, variant, len(saved[0]))
    if not (moved := farthest(restored, saved, least)) <= ROUNDING[device]:
        raise WorkerError(f"the restored model's outputs differ by {moved:.1%} from those of the model that was saved")
    if is_blind(original):
        return {}
    found = {"quality/output_error_rel_l2": farthest(restored, original, least)}
    if (classes := family.classes(model)) > 1:
        found |= _of_classes(restored[0].reshape(-1, classes), original[0].reshape(-1, classes))
    return found


def cautions(original: Sequence[Any]) -> list[Caution]:
    """Say it where outputs do not depend on the input."""
    return [BLIND_OUTPUTS.of(most=_ALIKE)] if is_blind(original) else []


def is_blind(original: Sequence[Any]) -> bool:
    """Return whether the first two passes, on two inputs, gave the same but for rounding, in all parts."""
    parts = [part for part in original if part.numel()]
    if not parts or len(parts[0]) < _FEWEST:
        return False
    return all(distance(part[0], part[1]) < _ALIKE for part in parts)


def _passes(family: Family, model: Model, variant: Variant, count: int | None) -> tuple[list[Any], list[float]]:
    """Return the outputs (see `outputs`), and the least norm of each part's."""
    import torch

    started = time.monotonic()
    passes: list[list[tuple[Any, float]]] = []
    with torch.inference_mode():
        while len(passes) < (count or _MOST_BATCHES):
            passes.append(parts_of(family, model, family.batch(model, variant.batch_size, variant.seed + len(passes))))
            elements = len(passes) * sum(part.numel() for part, _ in passes[0])
            is_enough = time.monotonic() - started > _MOST_SECONDS or elements > _MOST_ELEMENTS
            if count is None and is_enough and len(passes) >= _FEWEST:
                break
        stacked = [torch.stack([part for part, _ in several]) for several in zip(*passes, strict=True)]
    return stacked, [least for _, least in passes[0]]


def _kept(before: Mapping[str, Any], name: str) -> list[Any]:
    return [before[f"{name}.{index}"] for index in range(sum(each.startswith(f"{name}.") for each in before))]


def _as_0_1_did(family: Family, model: Model, variant: Variant, count: int) -> Any:
    """Return the outputs with all parts in one vector: [passes, elements]."""
    import torch

    with torch.inference_mode():
        batches = (family.batch(model, variant.batch_size, variant.seed + index) for index in range(count))
        return torch.stack([flat(family.forward(model, batch)) for batch in batches])


def _of_classes(own: Any, original: Any) -> dict[str, float]:
    import torch

    agreement = (own.argmax(-1) == original.argmax(-1)).float().mean()
    divergence = torch.nn.functional.kl_div(
        own.log_softmax(-1), original.log_softmax(-1), reduction="batchmean", log_target=True
    )
    not_below_0 = max(0.0, float(divergence))  # of two that are nearly the same, rounding makes it -1e-9
    return {"quality/top1_agreement": float(agreement), "quality/kl_divergence_nats": not_below_0}
