"""Translation of a transformers generation config into settings of CTranslate2's translator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlflow_compress.errors import Unsupported

_TAKEN = {  # read into `Settings`, or given by a call
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
_PLAIN = {  # changes no token of greedy decoding or beam search, or only when a beam search ends
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
    """Settings of generation, independent of the length of a text.

    Attributes:
        start: Start token of the decoder.
        first: Forced first token of each text, such as a language; None: the model chooses it.
        last: Forced last token of a text of maximum length; None: the model chooses it.
        ends: Tokens that end a text.
        fill: Token that pads a text after its end in a batch.
        beams: Width of the beam search, 1 for greedy decoding.
        least: Minimum number of tokens before a text may end.
        options: Options passed unchanged to the library's `translate_batch`.
        never: Sequences of tokens that are never generated.
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
        Unsupported: The library has no equivalent of a setting, which the message names.
    """
    changed = {name: value for name, value in generation.to_diff_dict().items() if value not in (None, False, [])}
    unsupported = sorted(set(changed) - _TAKEN - _PLAIN)
    if unsupported:
        listed = ", ".join(f"{name}={changed[name]!r:.40}" for name in unsupported)
        raise Unsupported(
            f"its generation settings have {listed}; CTranslate2 does not support this, or applies it to different "
            "values than transformers"
        )
    start, ends = _first(generation.decoder_start_token_id), _all(generation.eos_token_id)
    if start is None:
        start = _first(generation.bos_token_id)
    if start is None or not ends:
        raise Unsupported("its generation settings do not define the start token or the end token of a text")
    length = int(generation.min_length or 0)  # counts the start token, and the end token that may follow
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
    """Return the token ids of a setting that names several, one or none."""
    if tokens is None:
        return ()
    return tuple(int(token) for token in (tokens if isinstance(tokens, (list, tuple)) else [tokens]))


def _first(tokens: Any) -> int | None:
    """Return the single token that a setting names, or None.

    Raises:
        Unsupported: The setting names several tokens.
    """
    ids = _all(tokens)
    if len(set(ids)) > 1:
        raise Unsupported("its generation settings name a different first or last token for each text of a batch")
    return ids[0] if ids else None
