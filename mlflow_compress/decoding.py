"""Key-value caches as plain tensors, and transformers' own decoding for what stands in a model's place."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any


def cache_names(prefix: str, layers: int) -> list[str]:
    """Name the keys and values of each layer: `past_key_0`, `past_value_0`, `past_key_1` and so on."""
    return [f"{prefix}_{kind}_{layer}" for layer in range(layers) for kind in ("key", "value")]


def cache_of(tensors: Sequence[Any]) -> Any:
    """Make a transformers cache of keys and values, in turns, of each layer: [batch, heads, tokens, width]."""
    from transformers import DynamicCache

    cache = DynamicCache()
    refill(cache, tensors)
    return cache


def refill(cache: Any, tensors: Sequence[Any]) -> None:
    """Put other keys and values into a cache."""
    cache.layers[:] = [_layer()(*pair) for pair in zip(tensors[::2], tensors[1::2], strict=True)]


def tensors_of(cache: Any) -> tuple[Any, ...]:
    """Give the keys and values of each layer, in turns."""
    return tuple(tensor for layer in cache.layers for tensor in (layer.keys, layer.values))


def generator(auto_class: str, config: Any, forward: Callable[..., Any], device: str, dtype: Any) -> Any:
    """Make a module without weights that has the `generate` of the model's class, and calls `forward` for logits.

    Args:
        auto_class: the transformers class that makes the model (`AutoModelForCausalLM`).
        config: the model's.
        forward: takes and gives what the model's `forward` does.
        device: where the tokens are.
        dtype: of the floating-point inputs.
    """
    import torch
    import transformers

    from mlflow_compress.tensors import unfilled

    with unfilled():
        module = getattr(transformers, auto_class).from_config(config).eval()
    placed = {"device": property(lambda self: torch.device(device)), "dtype": property(lambda self: dtype)}
    module.__class__ = type(type(module).__name__, (type(module),), placed)  # which would ask its parameters
    module.forward = forward
    return module


@functools.cache
def _layer() -> type:
    from transformers.cache_utils import DynamicLayer

    class Filled(DynamicLayer):
        """A layer that starts with given tensors, and asks nothing that a tracer could not answer."""

        def __init__(self, keys: Any, values: Any) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.keys, self.values = keys, values
            self.dtype, self.device = keys.dtype, keys.device
            self.is_initialized = True

        def get_seq_length(self) -> int:
            assert self.keys is not None
            return self.keys.shape[-2]

    return Filled
