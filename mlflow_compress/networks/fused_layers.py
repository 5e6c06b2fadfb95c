"""torch's own transformer layers: in inference they may hand all weights to one fused kernel.

With a padding mask that path gives zeros at padded places, where the layers called one by one, as in training and in
an exported graph, compute numbers from what is not padded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def unfused() -> Iterator[None]:
    """Have torch's own transformer layers call their linear layers, rather than hand the weights to a fused kernel.

    They also take a mask as it is, without looking at its values for whether it is causal, which only chooses a kernel,
    and which no graph can hold.
    """
    import torch
    from torch.nn.modules import transformer

    was_fused, looks = torch.backends.mha.get_fastpath_enabled(), transformer._detect_is_causal_mask
    torch.backends.mha.set_fastpath_enabled(False)
    transformer._detect_is_causal_mask = lambda mask, is_causal=None, size=None: is_causal is True
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was_fused)
        transformer._detect_is_causal_mask = looks


def may_be_fused(module: Any) -> bool:
    """Return whether a module holds layers that have such a kernel."""
    import torch

    return isinstance(module, torch.nn.Module) and any(
        isinstance(layer, torch.nn.TransformerEncoderLayer) for layer in module.modules()
    )
