"""A transformers cache of places: it says which texts and tokens a runtime with its own cache continues.

It holds the indices of texts instead of keys, and the positions of tokens instead of values. transformers changes them
like a cache (it reorders beams, repeats texts, crops tokens), and the runtime then changes its own cache accordingly.
"""

from __future__ import annotations

from typing import Any

from mlflow_compress.networks.decoding import refill, tensors_of


def write(cache: Any, layers: int, texts: int, tokens: int) -> None:
    """Fill a cache with the places of all texts and tokens that a runtime holds, the same in each layer.

    transformers, as in Whisper's `generate`, reads each layer of a cache.
    """
    import torch

    shape = (texts, 1, tokens, 1)
    rows, positions = torch.arange(texts).view(-1, 1, 1, 1), torch.arange(tokens).view(1, 1, -1, 1)
    refill(cache, [rows.expand(shape), positions.expand(shape)] * layers)


def read(cache: Any) -> tuple[Any, Any]:
    """Return the indices of the texts [texts] and the positions of the tokens [tokens] that a cache still holds."""
    rows, positions = tensors_of(cache)[:2]
    return rows[:, 0, 0, 0].contiguous(), positions[0, 0, :, 0].contiguous()
