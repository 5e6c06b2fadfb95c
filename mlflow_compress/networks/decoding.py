"""Decoding through `generate` of transformers, and its key-value caches as plain tensors.

transformers names the cache `cache` from 5.24 on, and `past_key_values` before: `cache_keyword` is the one place that
knows.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from mlflow_compress.errors import Unsupported
from mlflow_compress.sockets import Continuation, Mark

CACHE_NAMES = ("cache", "past_key_values")
UNCACHED = "generates_without_cache"  # a field of ours in the config
ONE_ANSWER = {  # greedy or beam search, one answer that no clock ends, whatever the model's own settings say
    "do_sample": False,
    "num_return_sequences": 1,
    "return_dict_in_generate": False,
    "stop_strings": None,
    "max_time": None,
    "cache_implementation": None,  # exported decoders keep what was seen in a plain, growing cache: so do all
}


@functools.cache
def cache_keyword() -> str:
    """Return the name under which the installed transformers passes a cache to a model and reads it from the output."""
    from transformers.modeling_outputs import CausalLMOutputWithPast

    fields = [field.name for field in dataclasses.fields(CausalLMOutputWithPast)]
    return next(name for name in CACHE_NAMES if name in fields)


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
    """Return the keys and values of each layer, in turns.

    Raises:
        Unsupported: there is no cache, or a layer keeps something else, such as the state of a state-space model.
    """
    layers = getattr(cache, "layers", ())
    if not layers or not all(hasattr(layer, "keys") and hasattr(layer, "values") for layer in layers):
        raise Unsupported("its cache does not hold the keys and values of its layers")
    return tuple(tensor for layer in layers for tensor in (layer.keys, layer.values))


def generate(module: Any, new_tokens: int, mark: Mark, first: str, **inputs: Any) -> Any:
    """Generate greedily, exactly `new_tokens` tokens: the end of a text is suppressed until then.

    Args:
        module: a transformers model, or what stands in its place.
        new_tokens: how many tokens.
        mark: called with `first` after the first token, and with `token` after each later one; with `decoder` after all
            of them where the module makes them in one call.
        first: the name of the stage that ends with the first token.
        inputs: of the module's `generate`.

    Returns:
        The tokens [batch, new_tokens].
    """
    made = module.generate(streamer=_Marks(mark, first), **_exactly(module, new_tokens, beams=1), **inputs)
    return made[:, -new_tokens:]


def continuation(
    module: Any, new_tokens: int, at_once: Callable[[Any], Any], beams: int = 1, **inputs: Any
) -> Continuation:
    """Generate as `generate` does, and score the same tokens a second time, in one pass without a cache.

    Args:
        module: a transformers model, or what stands in its place.
        new_tokens: how many tokens.
        at_once: takes all tokens but the last [batch, tokens], and returns their logits [batch, tokens, vocabulary].
        beams: width of the beam search; 1 generates greedily.
        inputs: of the module's `generate`.
    """
    import torch

    options = {**_exactly(module, new_tokens, beams), "return_dict_in_generate": True, "output_logits": True}
    made = module.generate(**options, **inputs)
    logits = torch.stack(made.logits, dim=1)  # [batch * beams, new_tokens, vocabulary]
    count = logits.shape[1]
    if beams > 1:
        logits = logits[made.beam_indices[:, :count], torch.arange(count)]
    tokens = made.sequences[:, -count:]
    return Continuation(tokens, logits.float(), at_once(made.sequences[:, :-1])[:, -count:].float())


def _exactly(module: Any, new_tokens: int, beams: int) -> dict[str, Any]:
    """Return the options of `generate` that make exactly so many tokens of any text."""
    options = {
        **ONE_ANSWER,
        "max_new_tokens": new_tokens,
        "min_new_tokens": new_tokens,
        "max_length": None,
        "min_length": None,
        "num_beams": beams,
        "use_cache": uses_cache(module),
    }
    if "force_unique_generate_call" in inspect.signature(module.generate).parameters:
        options["force_unique_generate_call"] = True  # else Whisper goes on after a time stamp
    return options


def uses_cache(module: Any) -> bool:
    """Return whether a model keeps something of the past while it generates; a setting of its config is not asked."""
    return not getattr(module.config, UNCACHED, False)


def settings_of(module: Any, facts: dict[str, str]) -> Any:
    """Return a model's generation config, and note in the facts where it would sample.

    What is measured is greedy decoding, or beam search: samples can't be compared.
    """
    settings = module.generation_config
    if settings.do_sample:
        facts["decoding"] = "greedy: the model's own generation settings would sample"
    return settings


class _Marks:
    """Marks the stages of `generate`, which hands its streamer the prompt, and then each token.

    A runtime that makes all tokens in one call calls `whole` after them.
    """

    def __init__(self, mark: Mark, first: str) -> None:
        self._mark = mark
        self._stages = itertools.chain(("", first), itertools.repeat("token"))

    def put(self, tokens: Any) -> None:
        if stage := next(self._stages):
            self._mark(stage)

    def whole(self) -> None:
        self._mark("decoder")

    def end(self) -> None:
        pass


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
