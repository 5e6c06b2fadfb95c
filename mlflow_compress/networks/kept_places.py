"""A transformers cache of places: which texts and tokens a runtime that keeps keys and values itself goes on with.

In place of keys stand the numbers of texts, in place of values the positions of tokens. What transformers does to a
cache (it reorders beams, repeats texts, crops tokens) it does to these, and the runtime reads there what to do to its
own.
"""

from __future__ import annotations

from typing import Any

from mlflow_compress.networks.decoding import refill, tensors_of


def write(cache: Any, layers: int, texts: int, tokens: int) -> None:
    """Let a cache hold the places of all that a runtime holds: so many texts of so many tokens, the same in each layer.

    transformers asks each layer of a cache, as Whisper's `generate` does.
    """
    import torch

    shape = (texts, 1, tokens, 1)
    rows, positions = torch.arange(texts).view(-1, 1, 1, 1), torch.arange(tokens).view(1, 1, -1, 1)
    refill(cache, [rows.expand(shape), positions.expand(shape)] * layers)


def read(cache: Any) -> tuple[Any, Any]:
    """Return the numbers of the texts [texts] and the positions of the tokens [tokens] that a cache still holds."""
    rows, positions = tensors_of(cache)[:2]
    return rows[:, 0, 0, 0].contiguous(), positions[0, 0, :, 0].contiguous()
