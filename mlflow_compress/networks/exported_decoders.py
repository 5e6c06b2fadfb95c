"""Exported graphs that replace a transformers decoder: `generate` of transformers calls them.

They accept a cache under any name that transformers uses, and reject arguments that they have no input for: ignoring
them would generate wrong text at the right speed.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlflow_compress.errors import WorkerError
from mlflow_compress.networks.decoding import CACHE_NAMES, cache_keyword, cache_of, refill, tensors_of
from mlflow_compress.networks.export_graphs import Attached, Calls
from mlflow_compress.networks.greedy_loop import Greedy
from mlflow_compress.networks.transformers_models import built

_POSITIONS = ("position_ids", "decoder_position_ids", "cache_position")
_MASKS = ("attention_mask", "decoder_attention_mask")
_OPTIONS = {"return_dict": True, "output_attentions": False, "output_hidden_states": False}  # the default output


class Decoder(Attached, ABC):
    """An exported decoder that replaces a transformers model: its outputs and caches are transformers' own.

    Args:
        calls: the callable that runs each graph, by its name.
        auto_class: the transformers class that builds the model (`AutoModelForCausalLM`).
        config: config of the model; its `cache_shape` is layers, heads and width of the cache.
        device: device of the tokens.
    """

    def __init__(self, calls: Calls, auto_class: str, config: Any, device: str) -> None:
        super().__init__(calls)
        self.auto_class, self.config, self.device = auto_class, config, device

    @abstractmethod
    def __call__(self, *inputs: Any, **arguments: Any) -> Any:
        """Take what the model's `forward` takes, and return its output."""

    @functools.cached_property
    def generate(self) -> Any:
        """The `generate` of the model's class, which calls this decoder for logits."""
        return self._generator().generate

    def _generator(self) -> Any:
        """Make a module of the model's class, without weights, that calls this decoder for logits."""
        import torch

        from mlflow_compress.networks.stored_weights import unfilled

        with unfilled():
            module = built(self.auto_class, self.config).eval()
        placed = {
            "device": property(lambda generator: torch.device(self.device)),
            "dtype": property(lambda generator: self.dtype),
        }  # the originals would look at its parameters
        module.__class__ = type(type(module).__name__, (type(module),), placed)
        module.forward = self.__call__
        return module

    def _advance(self, name: str, cache: Any, inputs_before: Sequence[Any], inputs_after: Sequence[Any] = ()) -> Any:
        """Run a graph on the tokens that follow those in a cache, and add them to the cache.

        If the graph's runtime stores keys and values itself (its call has `advance`), the cache holds only their
        places (see `kept_places`).

        Args:
            name: name of the graph.
            cache: a transformers cache; empty for a new text.
            inputs_before: the graph's inputs before the past; the first are token ids [batch, tokens].
            inputs_after: the graph's inputs after the past.

        Returns:
            Logits [batch, kept, vocabulary].
        """
        call: Any = self.calls[name]
        if hasattr(call, "advance"):
            return call.advance(cache, inputs_before, inputs_after)
        past = tensors_of(cache) if cache.get_seq_length() else self.empty_past(len(inputs_before[0]))
        logits, *present = call(*inputs_before, *past, *inputs_after)
        refill(cache, present)
        return logits

    def empty_past(self, batch: int) -> list[Any]:
        """Return empty keys and values for each layer [batch, heads, 0, width]."""
        import torch

        layers, heads, width = self.config.cache_shape
        return [torch.zeros((batch, heads, 0, width), dtype=self.dtype, device=self.device)] * (2 * layers)


class DecoderOnly(Decoder):
    """A language model whose graph `model` takes token ids, the positions whose logits are needed, and the past.

    Args:
        calls: the callable that runs each graph, by its name.
        auto_class: the transformers class that builds the model.
        config: config of the model (see `Decoder`).
        device: device of the tokens.
        generation: generation config; None: derived from the config.
    """

    def __init__(self, calls: Calls, auto_class: str, config: Any, device: str, generation: Any = None) -> None:
        super().__init__(calls, auto_class, config, device)
        self.generation = generation

    def _generator(self) -> Any:
        module = super()._generator()
        if self.generation is not None:
            module.generation_config = self.generation
        return module

    @functools.cached_property
    def generate(self) -> Any:
        """The `generate` of the model's class; a runtime with its own loop runs greedy decoding directly."""
        module = self._generator()
        if not getattr(self.calls["model"], "own_loop", False):
            return module.generate
        return Greedy(self._last_logits, module.generation_config, module.generate)

    def _last_logits(self, cache: Any, input_ids: Any) -> Any:
        import torch

        return self._advance("model", cache, (input_ids, torch.tensor([input_ids.shape[1] - 1])))

    def __call__(self, input_ids: Any, logits_to_keep: int = 0, **arguments: Any) -> Any:
        """Run the graph (see `forward` of the model)."""
        import torch
        from transformers.modeling_outputs import CausalLMOutputWithPast

        length = input_ids.shape[1]
        passed = take_cache(arguments)
        cache = cache_of(()) if passed is None else passed
        past_length = cache.get_seq_length()
        require_plain(arguments, past_length, length)
        positions = torch.arange(length - (logits_to_keep or length), length, device=input_ids.device)
        logits = self._advance("model", cache, (input_ids, positions))
        returned: dict[str, Any] = {cache_keyword(): cache}
        return CausalLMOutputWithPast(logits=logits, **returned)


class EncoderDecoder(Decoder):
    """An exported encoder and decoder that replace a transformers model.

    The graph `encoder` returns the keys and values that each layer of the decoder attends to; the graph `decoder` takes
    token ids, the encoder's attention mask if it uses one, the keys and values of the past, and those of the encoder.

    Args:
        calls: the callable that runs each graph, by its name.
        auto_class: the transformers class that builds the model.
        config: config of the model (see `Decoder`).
        generation: generation config of the model.
        device: device of the tokens.
        heeds_mask: whether the decoder's graph takes the encoder's attention mask [batch, source].
    """

    def __init__(
        self, calls: Calls, auto_class: str, config: Any, generation: Any, device: str, heeds_mask: bool
    ) -> None:
        super().__init__(calls, auto_class, config, device)
        self.generation, self.heeds_mask = generation, heeds_mask

    def get_encoder(self) -> Encoder:
        """Return the encoder, as transformers' models do."""
        return Encoder(self.calls["encoder"], self.heeds_mask)

    def _generator(self) -> Any:
        module = super()._generator()
        module.generation_config, module.get_encoder = self.generation, self.get_encoder
        return module

    def __call__(
        self,
        input_features: Any = None,
        input_ids: Any = None,
        attention_mask: Any = None,
        decoder_input_ids: Any = None,
        encoder_outputs: Any = None,
        **arguments: Any,
    ) -> Any:
        """Run the decoder, after the encoder if its outputs are not passed (see `forward` of the model)."""
        from transformers import EncoderDecoderCache
        from transformers.modeling_outputs import Seq2SeqLMOutput

        passed = take_cache(arguments)
        cache = EncoderDecoderCache(cache_of(()), cache_of(())) if passed is None else passed
        past_length = cache.get_seq_length()
        require_plain(arguments, past_length, decoder_input_ids.shape[1])
        encoded = encoder_outputs or self.get_encoder()(input_features, input_ids, attention_mask)
        cross = encoded.hidden_states
        if (beams := len(decoder_input_ids) // len(cross[0])) > 1:  # the beams of a text are neighbours
            cross = tuple(states.repeat_interleave(beams, dim=0) for states in cross)
        if not past_length:
            refill(cache.cross_attention_cache, cross)  # transformers looks for them there
        mask = (attention_mask,) if self.heeds_mask else ()
        logits = self._advance("decoder", cache.self_attention_cache, (decoder_input_ids, *mask), cross)
        returned: dict[str, Any] = {cache_keyword(): cache}
        return Seq2SeqLMOutput(logits=logits, **returned)


class Encoder:
    """An exported encoder: called like the model's, it returns the decoder's keys and values as hidden states.

    Args:
        call: runs the graph.
        heeds_mask: whether the graph takes an attention mask; Whisper's does not.
    """

    def __init__(self, call: Callable[..., tuple[Any, ...]], heeds_mask: bool) -> None:
        self.call, self.heeds_mask = call, heeds_mask

    def __call__(
        self, input_features: Any = None, input_ids: Any = None, attention_mask: Any = None, **arguments: Any
    ) -> Any:
        """Run the graph."""
        from transformers.modeling_outputs import BaseModelOutput

        require_plain(arguments, 0, 0)
        inputs = input_ids if input_features is None else input_features
        cross = tuple(self.call(inputs, *((attention_mask,) if self.heeds_mask else ())))
        states = cross[0][:, 0]  # [batch, source, width of a head]: transformers reads only their length
        return BaseModelOutput(last_hidden_state=states, hidden_states=cross)

    forward = __call__  # transformers inspects its signature


def take_cache(arguments: dict[str, Any]) -> Any:
    """Remove the cache from a call's arguments, under any name that transformers uses, and return it; None without one.

    Raises:
        WorkerError: there are caches under two names.
    """
    caches = [cache for name in CACHE_NAMES if (cache := arguments.pop(name, None)) is not None]
    if len(caches) > 1:
        raise WorkerError(f"transformers passed a cache under two names: {' and '.join(CACHE_NAMES)}")
    return caches[0] if caches else None


def require_plain(arguments: Mapping[str, Any], past: int, tokens: int) -> None:
    """Raise for arguments that an exported decoder has no input for and that would change its result.

    Args:
        arguments: the remaining arguments from transformers.
        past: number of tokens in the cache.
        tokens: number of tokens that the call adds.

    Raises:
        WorkerError: positions are not consecutive, there is padding, or an argument is unknown.
    """
    import torch

    for name, value in arguments.items():
        if value is None or name == "use_cache" or _OPTIONS.get(name) is value:
            continue
        if name in _POSITIONS:
            plain = torch.arange(past, past + tokens, device=value.device)
            if value.shape[-1:] != plain.shape or not torch.equal(value, plain.expand_as(value)):
                raise WorkerError(f"an exported decoder can't use {name}: positions must be consecutive")
        elif name in _MASKS:
            if not isinstance(value, torch.Tensor) or value.dim() != 2:
                raise WorkerError(
                    f"an exported decoder can't use {name}: the only mask is one of padding [batch, tokens]"
                )
            if not value.all():
                raise WorkerError(f"an exported decoder can't use padding ({name}): pass one text at a time")
        else:
            import transformers

            raise WorkerError(
                f"transformers {transformers.__version__} passes {name!r} to the decoder, but the exported graph has "
                "no such input. Install a tested version: pip install -c constraints/newest.txt transformers"
            )
