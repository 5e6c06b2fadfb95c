"""Checks a newly loaded language model on a few random tokens: is it causal, and is its cache correct?

A model whose tokens attend to later tokens has no perplexity. A model whose cache gives other tokens than a pass over
the whole text is timed without the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlflow_compress.error_causes import is_out_of_memory
from mlflow_compress.errors import RecipeError
from mlflow_compress.networks.decoding import UNCACHED
from mlflow_compress.networks.export_graphs import dtype_of
from mlflow_compress.networks.generation_check import agrees
from mlflow_compress.networks.stored_weights import distance
from mlflow_compress.networks.text_inputs import require_pass, taken, token_ids, vocabulary
from mlflow_compress.records import CautionKind
from mlflow_compress.sockets import Continuation, Model

NO_CACHE = CautionKind(
    "no_cache",
    short={"en": "decodes without a cache", "ru": "генерирует без кэша"},
    message={
        "en": "this architecture has no working cache of past tokens: each new token requires a pass over the whole "
        "text",
        "ru": "у этой архитектуры нет работающего кэша прошлых токенов: каждый новый токен требует прохода по всему "
        "тексту",
    },
    advice={
        "en": "Its time per token grows with the length of the text: compare it only at the same new_tokens.",
        "ru": "Время на токен растёт с длиной текста: сравнивайте только при одинаковом new_tokens.",
    },
)
_TOKENS = 6
_SEED = 17
_SAME = 1e-3  # relative; observed: 5e-7 from rounding, 0.01 and more from a lost past or a token seen too early
_ROUNDINGS = 4  # tolerated difference of logits, in rounding steps of half precision
_NOT_OF_THE_PAST = ("logits", "loss", "hidden_states", "attentions", "router_logits", "aux_loss")


def settle_decoder(model: Model, forward: Callable[[Any], Any], generate: Callable[[Any], Continuation]) -> None:
    """Run a newly loaded decoder, and choose how it generates: with its cache, or without one.

    Args:
        model: the model.
        forward: returns logits [batch, tokens, vocabulary] for token ids [batch, tokens].
        generate: continues token ids by a few tokens, as the config says.

    Raises:
        RecipeError: it does not run on token ids alone, can't generate, or is not a causal language model.
    """
    ids = token_ids(model, 1, _TOKENS, _SEED)
    require_pass(model, lambda: _require_causal(model, forward, ids), "token ids")
    try:
        is_right = _keeps_past(model.module, ids) and agrees(generate(ids), _alike(model.module))
    except Exception as error:  # the model's own code may raise anything: then try without a cache
        if is_out_of_memory(error):
            raise
        is_right = False
    if is_right:
        return
    setattr(model.config, UNCACHED, True)
    require_pass(model, lambda: generate(ids), "token ids to continue")
    model.cautions.append(NO_CACHE.of())


def _alike(module: Any) -> float:
    """Return the tolerated difference of logits that should be equal: more in half precision than in float32."""
    import torch

    dtype = dtype_of(module)
    return _SAME if dtype is None else max(_SAME, _ROUNDINGS * torch.finfo(dtype).eps)


def _keeps_past(module: Any, ids: Any) -> bool:
    """Return whether a model returns a cache or a state when `use_cache` is set."""
    import torch

    with torch.inference_mode():
        output = module(**taken(module, {"input_ids": ids, "use_cache": True}))
    return any(value is not None for name, value in output.items() if name not in _NOT_OF_THE_PAST)


def _require_causal(model: Model, forward: Callable[[Any], Any], ids: Any) -> None:
    """Check that changing the last token does not change the logits before it.

    Raises:
        RecipeError: it changes them.
    """
    import torch

    changed_ids = ids.clone()
    changed_ids[:, -1] = (changed_ids[:, -1] + 1) % vocabulary(model)
    logits, moved = forward(ids)[:, :-1].float().flatten(), forward(changed_ids)[:, :-1].float().flatten()
    if distance(moved, logits) > _alike(model.module) and torch.equal(forward(ids)[:, :-1].float().flatten(), logits):
        raise RecipeError(
            f"{type(model.module).__name__} is not a causal language model with this config.json: its tokens attend to "
            "later tokens, so its perplexity would mean nothing. If it was trained as a decoder, set "
            '"is_decoder": true in its config.json.'
        )
