"""Count the multiply-accumulate operations (MACs) of one forward pass, per sample. One MAC is two FLOPs.

Covers: matrix products, convolutions, attention and recurrent layers, by their shapes, as torch's FlopCounterMode
counts them. The pass is `Family.forward` on the timed input: for models that decode, one pass without a cache.
Does not cover: everything else (normalisation, activations, pooling, embeddings), products with zeros that pruning left
in dense weights (they count), and what a runtime fuses or skips. Quantised layers have the operations of their float
original, which are counted before they are quantised.

Source: torch.utils.flop_counter.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from mlflow_compress.sockets import Family, Model


def count(family: Family, model: Model, batch_size: int, seed: int) -> float | None:
    """Return the MACs of one sample; None if the model is not a torch module, or no operation was counted.

    Args:
        family: The model's family.
        model: A model with float weights.
        batch_size: Samples of the batch.
        seed: Seed of the batch.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    if not isinstance(model.module, torch.nn.Module):
        return None
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), _unfused(model.module):
        batch = family.batch(model, batch_size, seed)
        with counter:
            family.forward(model, batch)
    operations = counter.get_total_flops()
    return operations / 2 / batch_size if operations else None


@contextlib.contextmanager
def _unfused(module: Any) -> Iterator[None]:
    """Run attention, encoder layers and recurrent layers as products that are counted, instead of fused kernels."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    is_recurrent = any(isinstance(layer, torch.nn.RNNBase) for layer in module.modules())
    was_fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            sdpa_kernel(SDPBackend.MATH),
            torch.backends.mkldnn.flags(enabled=False) if is_recurrent else contextlib.nullcontext(),
        ):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was_fast)
