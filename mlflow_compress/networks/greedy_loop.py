"""Greedy decoding for a runtime that stores the past itself: between two tokens it does no more than its own tools do.

`generate` of transformers takes 2 to 3 ms per token in Python, as long as a small low-bit model takes to compute the
token. Users of such a runtime do not run that loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlflow_compress.networks.decoding import ONE_ANSWER, cache_of

_PLAIN = {  # settings that do not change greedy decoding, or that each call sets
    "_from_model_config",
    "bos_token_id",
    "do_sample",
    "eos_token_id",
    "max_length",
    "max_new_tokens",
    "min_length",
    "pad_token_id",
    "temperature",
    "top_k",
    "top_p",
    "transformers_version",
    "typical_p",
    "use_cache",
}
_GIVEN = {"attention_mask", "output_logits", "pad_token_id", "return_dict_in_generate"}
_GREEDY: dict[str, Any] = {
    **ONE_ANSWER,
    "max_length": None,
    "min_length": None,
    "num_beams": 1,
    "output_logits": None,
    "use_cache": True,
    "attention_mask": None,
    "pad_token_id": None,
}


class Greedy:
    """Replaces `generate` of a model: plain greedy decoding runs directly in the runtime, all else in transformers.

    Args:
        advance: computes the tokens that follow a cache: takes the cache and token ids [batch, tokens], returns logits
            of the last token [batch, 1, vocabulary].
        settings: the model's generation config; None: derived from its config.
        whole: `generate` of transformers.
    """

    def __init__(self, advance: Callable[[Any, Any], Any], settings: Any, generate: Callable[..., Any]) -> None:
        self._advance, self._settings, self._whole = advance, settings, generate

    def __call__(
        self,
        input_ids: Any,
        max_new_tokens: int | None = None,
        min_new_tokens: int | None = None,
        streamer: Any = None,
        **options: Any,
    ) -> Any:
        """Continue texts [batch, tokens] (see `generate` of transformers)."""
        if max_new_tokens is None or not self._is_plain(options):
            arguments = {"max_new_tokens": max_new_tokens, "min_new_tokens": min_new_tokens, "streamer": streamer}
            return self._whole(input_ids=input_ids, **arguments, **options)
        steps = self._steps(input_ids, max_new_tokens, min_new_tokens or 0, streamer, options)
        if not options.get("return_dict_in_generate"):
            return steps[0]
        from transformers.generation.utils import GenerateDecoderOnlyOutput

        return GenerateDecoderOnlyOutput(sequences=steps[0], logits=steps[1])

    def _is_plain(self, options: dict[str, Any]) -> bool:
        settings = {} if self._settings is None else self._settings.to_diff_dict()
        active = {name for name, value in settings.items() if value not in (None, False)}
        unsupported = {
            name for name in options if name not in _GIVEN and (name not in _GREEDY or _GREEDY[name] != options[name])
        }
        mask = options.get("attention_mask")
        return active <= _PLAIN and not unsupported and (mask is None or bool(mask.all()))

    def _steps(
        self, ids: Any, max_tokens: int, min_tokens: int, streamer: Any, options: dict[str, Any]
    ) -> tuple[Any, tuple[Any, ...]]:
        import torch

        ends = self._ends()
        pad = options.get("pad_token_id")
        cache, new, raw = cache_of(()), [], []
        is_open = torch.ones(len(ids), dtype=torch.bool)
        inputs = ids
        if streamer is not None:
            streamer.put(ids)
        for step in range(max_tokens):
            logits = self._advance(cache, inputs)[:, -1]
            if options.get("output_logits"):
                raw.append(logits.clone())
            if step < min_tokens and ends:
                logits[:, ends] = -torch.inf
            token = logits.argmax(-1)
            if not bool(is_open.all()) and pad is not None:
                token = torch.where(is_open, token, pad)
            new.append(token)
            if streamer is not None:
                streamer.put(token)
            for end in ends:
                is_open &= token != end
            if not bool(is_open.any()):
                break
            inputs = token[:, None]
        if streamer is not None:
            streamer.end()
        return torch.cat([ids, torch.stack(new, dim=1)], dim=1), tuple(raw)

    def _ends(self) -> list[int]:
        """Return the tokens that end a text."""
        end = getattr(self._settings, "eos_token_id", None)
        return list(end) if isinstance(end, (list, tuple)) else [] if end is None else [int(end)]
