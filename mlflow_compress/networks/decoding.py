"""Decoding through `generate` of transformers, and its key-value caches as plain tensors.

transformers names the cache `cache` since 5.24, and `past_key_values` before: only `cache_keyword` knows which.
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
UNCACHED = "generates_without_cache"  # our own field in the config
ONE_ANSWER = {  # greedy or beam search with one answer and no time limit, whatever the model's own settings are
    "do_sample": False,
    "num_return_sequences": 1,
    "return_dict_in_generate": False,
    "stop_strings": None,
    "max_time": None,
    "cache_implementation": None,  # exported decoders use a plain, growing cache, so all models do
}


@functools.cache
def cache_keyword() -> str:
    """Return the name under which the installed transformers passes a cache to a model and reads it from the output."""
    from transformers.modeling_outputs import CausalLMOutputWithPast

    fields = [field.name for field in dataclasses.fields(CausalLMOutputWithPast)]
    return next(name for name in CACHE_NAMES if name in fields)


def cache_names(prefix: str, layers: int) -> list[str]:
    """Return names for the keys and values of each layer: `past_key_0`, `past_value_0`, `past_key_1` and so on."""
    return [f"{prefix}_{kind}_{layer}" for layer in range(layers) for kind in ("key", "value")]


def cache_of(tensors: Sequence[Any]) -> Any:
    """Make a transformers cache of the keys and values of each layer, alternating: [batch, heads, tokens, width]."""
    from transformers import DynamicCache

    cache = DynamicCache()
    refill(cache, tensors)
    return cache


def refill(cache: Any, tensors: Sequence[Any]) -> None:
    """Replace the keys and values in a cache."""
    cache.layers[:] = [_layer()(*pair) for pair in zip(tensors[::2], tensors[1::2], strict=True)]


def tensors_of(cache: Any) -> tuple[Any, ...]:
    """Return the keys and values of each layer, alternating.

    Raises:
        Unsupported: there is no cache, or a layer stores something else, such as the state of a state-space model.
    """
    layers = getattr(cache, "layers", ())
    if not layers or not all(hasattr(layer, "keys") and hasattr(layer, "values") for layer in layers):
        raise Unsupported("its cache does not hold the keys and values of its layers")
    return tuple(tensor for layer in layers for tensor in (layer.keys, layer.values))


def generate(module: Any, new_tokens: int, mark: Mark, first: str, **inputs: Any) -> Any:
    """Generate exactly `new_tokens` tokens greedily: the end of a text is suppressed until then.

    Args:
        module: a transformers model, or its replacement.
        new_tokens: number of tokens.
        mark: called with `first` after the first token, and with `token` after each later one; with `decoder` after all
            tokens if the module generates them in one call.
        first: name of the stage that ends with the first token.
        inputs: inputs of the module's `generate`.

    Returns:
        The tokens [batch, new_tokens].
    """
    tokens = module.generate(streamer=_Marks(mark, first), **_exactly(module, new_tokens, beams=1), **inputs)
    return tokens[:, -new_tokens:]


def continuation(
    module: Any, new_tokens: int, at_once: Callable[[Any], Any], beams: int = 1, **inputs: Any
) -> Continuation:
    """Generate as `generate` does, and score the same tokens again in one pass without a cache.

    Args:
        module: a transformers model, or its replacement.
        new_tokens: number of tokens.
        at_once: takes all tokens but the last [batch, tokens], and returns their logits [batch, tokens, vocabulary].
        beams: width of the beam search; 1 generates greedily.
        inputs: inputs of the module's `generate`.
    """
    import torch

    options = {**_exactly(module, new_tokens, beams), "return_dict_in_generate": True, "output_logits": True}
    output = module.generate(**options, **inputs)
    logits = torch.stack(output.logits, dim=1)  # [batch * beams, new_tokens, vocabulary]
    count = logits.shape[1]
    if beams > 1:
        logits = logits[output.beam_indices[:, :count], torch.arange(count)]
    tokens = output.sequences[:, -count:]
    return Continuation(tokens, logits.float(), at_once(output.sequences[:, :-1])[:, -count:].float())


def _exactly(module: Any, new_tokens: int, beams: int) -> dict[str, Any]:
    """Return the options of `generate` for exactly this number of tokens."""
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
        options["force_unique_generate_call"] = True  # else Whisper continues after a time stamp
    return options


def uses_cache(module: Any) -> bool:
    """Return whether a model uses a cache while it generates, whatever `use_cache` in its config says."""
    return not getattr(module.config, UNCACHED, False)


def settings_of(module: Any, facts: dict[str, str]) -> Any:
    """Return a model's generation config, and note in the facts if it would sample.

    Greedy decoding or beam search is measured, because samples can't be compared.
    """
    settings = module.generation_config
    if settings.do_sample:
        facts["decoding"] = "greedy: the model's own generation settings would sample"
    return settings


class _Marks:
    """Marks the stages of `generate`, which passes its streamer the prompt, and then each token.

    A runtime that generates all tokens in one call calls `whole` after them.
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
        """A layer that starts with existing tensors, and that a tracer can follow."""

        def __init__(self, keys: Any, values: Any) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.keys, self.values = keys, values
            self.dtype, self.device = keys.dtype, keys.device
            self.is_initialized = True

        def get_seq_length(self) -> int:
            assert self.keys is not None
            return self.keys.shape[-2]

    return Filled
