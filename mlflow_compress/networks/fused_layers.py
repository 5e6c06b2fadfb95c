"""torch's own transformer layers: in inference they may pass all weights to one fused kernel.

With a padding mask that path returns zeros at padded places. The layers called one by one, as in training and in an
exported graph, return other numbers there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def unfused() -> Iterator[None]:
    """Make torch's own transformer layers call their linear layers instead of a fused kernel.

    They also skip the check of a mask's values for causality: it only chooses a kernel, and a graph can't contain it.
    """
    import torch
    from torch.nn.modules import transformer

    was_fused, detect = torch.backends.mha.get_fastpath_enabled(), transformer._detect_is_causal_mask
    torch.backends.mha.set_fastpath_enabled(False)
    transformer._detect_is_causal_mask = lambda mask, is_causal=None, size=None: is_causal is True
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was_fused)
        transformer._detect_is_causal_mask = detect


def may_be_fused(module: Any) -> bool:
    """Return whether a module contains layers with such a kernel."""
    import torch

    return isinstance(module, torch.nn.Module) and any(
        isinstance(layer, torch.nn.TransformerEncoderLayer) for layer in module.modules()
    )
