"""How like the original a compressed model still is: the raw outputs of both on the same inputs.

It needs no labels and no real weights. The inputs are those of the timed call, random ones: what real inputs make of
the difference, the scores say.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow_compress.errors import WorkerError
from mlflow_compress.networks.stored_weights import ROUNDING, distance, flat
from mlflow_compress.records import Variant
from mlflow_compress.sockets import Family, Model

_MOST_BATCHES, _MOST_SECONDS, _MOST_ELEMENTS = 8, 0.5, 2**24


def outputs(family: Family, model: Model, variant: Variant, count: int | None = None) -> Any:
    """Return the outputs of forward passes, always on the same inputs.

    Args:
        family: the model's family.
        model: the model.
        variant: gives batch size and seed.
        count: how many passes; None: as many as fit into half a second and 64 MiB, one at least.

    Returns:
        A tensor [passes, elements] of float32 on the CPU.

    Raises:
        ArithmeticError: they are not finite.
    """
    import torch

    started = time.monotonic()
    found: list[Any] = []
    with torch.inference_mode():
        while len(found) < (count or _MOST_BATCHES):
            batch = family.batch(model, variant.batch_size, variant.seed + len(found))
            found.append(flat(family.forward(model, batch)))
            is_enough = time.monotonic() - started > _MOST_SECONDS or len(found) * len(found[0]) > _MOST_ELEMENTS
            if count is None and is_enough:
                break
        return torch.stack(found)


def keep(original: Any, saved: Any, path: Path) -> None:
    """Write what the original gave, and what the compressed model gave before it was saved."""
    from safetensors.torch import save_file

    save_file({"original": original.contiguous(), "saved": saved.contiguous()}, str(path))


def compare(family: Family, model: Model, variant: Variant, path: Path, device: str) -> dict[str, float]:
    """Compare the restored model with what `keep` wrote.

    Returns:
        `quality/output_error_rel_l2`, the 2-norm of the difference to the original's outputs over that of these. For
        families whose outputs are scores of classes also `quality/top1_agreement`, the share of positions at which both
        choose the same class, and `quality/kl_divergence_nats`, the mean of KL(original || restored) over positions.

    Raises:
        WorkerError: the restored model's outputs are not those of the model that was saved.
    """
    from safetensors.torch import load_file

    before: Mapping[str, Any] = load_file(str(path))
    restored = outputs(family, model, variant, len(before["saved"]))
    if (moved := distance(restored, before["saved"])) > ROUNDING[device]:
        raise WorkerError(f"the restored model's outputs differ by {moved:.1%} from those of the model that was saved")
    found = {"quality/output_error_rel_l2": distance(restored, before["original"])}
    if (classes := family.classes(model)) > 1:
        found |= _of_classes(restored.reshape(-1, classes), before["original"].reshape(-1, classes))
    return found


def _of_classes(own: Any, original: Any) -> dict[str, float]:
    import torch

    agreement = (own.argmax(-1) == original.argmax(-1)).float().mean()
    divergence = torch.nn.functional.kl_div(
        own.log_softmax(-1), original.log_softmax(-1), reduction="batchmean", log_target=True
    )
    not_below_0 = max(0.0, float(divergence))  # of two that are nearly the same, rounding makes it -1e-9
    return {"quality/top1_agreement": float(agreement), "quality/kl_divergence_nats": not_below_0}
