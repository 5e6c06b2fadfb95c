"""What a generation config of transformers means to the translator of CTranslate2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlflow_compress.errors import Unsupported

_TAKEN = {  # what `Settings` holds, or a call gives
    "bad_words_ids",
    "decoder_start_token_id",
    "eos_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "length_penalty",
    "max_length",
    "max_new_tokens",
    "min_length",
    "min_new_tokens",
    "no_repeat_ngram_size",
    "num_beams",
    "pad_token_id",
    "suppress_tokens",
}
_PLAIN = {  # what changes no token of greedy decoding and beam search, or only which finished beams are waited for
    "_from_model_config",
    "bos_token_id",
    "compile_config",
    "do_sample",
    "early_stopping",
    "low_memory",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_logits",
    "output_scores",
    "remove_invalid_values",
    "renormalize_logits",
    "return_dict_in_generate",
    "temperature",
    "top_k",
    "top_p",
    "transformers_version",
    "typical_p",
    "use_cache",
}


@dataclass(frozen=True)
class Settings:
    """How texts are generated, whatever their lengths.

    Attributes:
        start: the token that a decoder begins with.
        first: the token that each text begins with, a language's for one; None: the model chooses it.
        last: the token that takes the last place of a text that fills its length; None: the model chooses it.
        ends: the tokens that end a text.
        fill: what follows on the end of a text in a batch.
        beams: width of the beam search, 1 for greedy decoding.
        least: how many tokens a text has before it may end.
        options: what the library's `translate_batch` takes as it is.
        never: sequences of tokens that are not generated.
    """

    start: int
    first: int | None
    last: int | None
    ends: tuple[int, ...]
    fill: int
    beams: int
    least: int
    options: Mapping[str, Any]
    never: tuple[tuple[int, ...], ...]


def settings_of(generation: Any) -> Settings:
    """Read a generation config.

    Raises:
        Unsupported: the library has no setting for one of its own; the sentence names it.
    """
    own = {name: value for name, value in generation.to_diff_dict().items() if value not in (None, False, [])}
    others = sorted(set(own) - _TAKEN - _PLAIN)
    if others:
        raise Unsupported(
            f"its generation settings have {', '.join(f'{name}={own[name]!r:.40}' for name in others)}; CTranslate2 "
            "does not support this, or applies it to other values than transformers"
        )
    start, ends = _first(generation.decoder_start_token_id), _all(generation.eos_token_id)
    if start is None:
        start = _first(generation.bos_token_id)
    if start is None or not ends:
        raise Unsupported("its generation settings do not define the start token or the end token of a text")
    length = int(generation.min_length or 0)  # counts the start, and the end that may come next
    least = max(int(generation.min_new_tokens or 0), length - 1, 0)
    never = [tuple(words) for words in generation.bad_words_ids or ()]
    never += [(token,) for token in _all(generation.suppress_tokens)]
    penalty = getattr(generation, "length_penalty", None)
    return Settings(
        start=start,
        first=_first(generation.forced_bos_token_id),
        last=_first(generation.forced_eos_token_id),
        ends=ends,
        fill=ends[0] if generation.pad_token_id is None else int(generation.pad_token_id),
        beams=int(generation.num_beams or 1),
        least=least,
        options={
            "length_penalty": 1.0 if penalty is None else float(penalty),
            "no_repeat_ngram_size": int(generation.no_repeat_ngram_size or 0),
        },
        never=tuple(never),
    )


def _all(tokens: Any) -> tuple[int, ...]:
    """Return token ids that a setting names: several, one, or none."""
    if tokens is None:
        return ()
    return tuple(int(token) for token in (tokens if isinstance(tokens, (list, tuple)) else [tokens]))


def _first(tokens: Any) -> int | None:
    """Return the one token that a setting names; None: it names none.

    Raises:
        Unsupported: it names several.
    """
    named = _all(tokens)
    if len(set(named)) > 1:
        raise Unsupported("its generation settings name a different first or last token for each text of a batch")
    return named[0] if named else None
