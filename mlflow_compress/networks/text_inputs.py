"""What a transformers model of text takes: which token ids, how many, beside which other inputs.

Models that also see or hear keep what they say of text in a part of their config; some encoders know no attention mask.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from mlflow_compress.error_causes import is_out_of_memory
from mlflow_compress.errors import CompressError, RecipeError, Unsupported, named_line
from mlflow_compress.networks.transformers_models import companions
from mlflow_compress.sockets import Model

USABLE_POSITIONS = "usable_positions"  # a field of ours in the config
_TEXT_PARTS = ("text_config", "decoder", "generator")
_ENDLESS = 10**9  # tokenizers that know no length say 10**30
_STANDS_FOR_OTHERS = re.compile(
    r"(image|video|vision|audio|speech|boi|eoi|boa|eoa|bov|eov|img|patch)\w*_(token|token_id|token_index)"
)


def of_text(config: Any, name: str) -> Any:
    """Return a field of a config, or of its part about text; None where neither says it."""
    for part in (config, *(getattr(config, inner, None) for inner in _TEXT_PARTS)):
        value = getattr(part, name, None)
        if value is not None:
            return value
    return None


def vocabulary(model: Model) -> int:
    """Return how many token ids a model knows; where its config does not say it, those of its tokenizer."""
    size = of_text(model.config, "vocab_size")
    return int(size) if size else len(companions(model).tokenizer)


def note_positions(module: Any, config: Any) -> None:
    """Write into a config how many positions are left to tokens, where a table of them begins behind the padding's.

    RoBERTa and its kin count positions from `padding_idx + 1`: of 514 positions 512 can be used.
    """
    from torch import nn

    tables = [
        each
        for name, each in module.named_modules()
        if isinstance(each, nn.Embedding) and "position" in name.rpartition(".")[2] and each.padding_idx is not None
    ]
    if tables:
        usable = min(each.num_embeddings - int(each.padding_idx or 0) - 1 for each in tables)
        setattr(config, USABLE_POSITIONS, usable)


def positions(config: Any) -> int | None:
    """Return how many tokens a model has positions for, or None where there is no end."""
    usable = getattr(config, USABLE_POSITIONS, None)
    count = of_text(config, "max_position_embeddings") if usable is None else usable
    return count if isinstance(count, int) and count > 0 else None  # XLNet says -1


def longest(model: Model) -> int | None:
    """Return how many tokens a model and its tokenizer can take, or None where there is no end."""
    told = companions(model).tokenizer.model_max_length
    lengths = [length for length in (positions(model.config), told) if length is not None and length < _ENDLESS]
    return min(lengths, default=None)


def must_fit(model: Model, tokens: int, what: str) -> None:
    """Refuse to time a model of learned positions on more tokens than it has positions for.

    Args:
        model: the model.
        tokens: how many tokens a call would be of.
        what: the options that say so.

    Raises:
        RecipeError: they are too many.
    """
    most = positions(model.config)
    if most is not None and tokens > most:
        raise RecipeError(f"The model takes {most} tokens at most, not {tokens} in a call: make {what} smaller.")


def settle_padding(model: Model) -> None:
    """Tell a classifier which token fills texts up, where its config does not.

    GPT-2, LLaMA and their kin read their scores at the last token that is not the padding's. So this must be another
    than the one that ends each text, if the tokenizer puts one there.
    """
    text, tokenizer = model.config.get_text_config(), companions(model).tokenizer
    if getattr(text, "pad_token_id", None) is not None:
        return
    ids = tokenizer("a")["input_ids"]
    if ids and ids[-1] == tokenizer.pad_token_id:
        others = (tokenizer.unk_token, tokenizer.bos_token, tokenizer.convert_ids_to_tokens(0))
        tokenizer.pad_token = next(token for token in others if token and token != tokenizer.pad_token)
    for config in (text, model.config):
        config.pad_token_id = tokenizer.pad_token_id


def settle_start(model: Model) -> None:
    """Tell a classifier with a decoder which token its decoder begins with, where its config does not.

    T5's asks for it, and transformers writes it into the settings of generating only. It is the padding's.

    Source: Raffel et al., Exploring the Limits of Transfer Learning, arXiv 1910.10683, as transformers has it.
    """
    if model.config.is_encoder_decoder and getattr(model.config, "decoder_start_token_id", None) is None:
        model.config.decoder_start_token_id = model.config.pad_token_id


def fill_up(model: Model, encoded: Any) -> Any:
    """Put the padding token that a decoder's config names where its tokenizer filled texts up with another one.

    Args:
        model: a classifier. GPT-2, LLaMA and their kin read their scores at the last token that is not the padding's.
        encoded: its tokenizer's `input_ids` and `attention_mask`, both [batch, tokens].

    Returns:
        The same, with other `input_ids` where the mask is 0.
    """
    pad = getattr(model.config.get_text_config(), "pad_token_id", None)
    if pad is None or pad == companions(model).tokenizer.pad_token_id:
        return encoded
    is_read_at_padding = not getattr(model.config, "is_encoder_decoder", False)  # BART's kin read where a text ends
    if is_read_at_padding and 0 <= pad < vocabulary(model):
        encoded["input_ids"] = encoded["input_ids"].masked_fill(encoded["attention_mask"] == 0, pad)
    return encoded


def token_ids(model: Model, size: int, tokens: int, seed: int) -> Any:
    """Return random token ids [size, tokens], int64, on the model's device.

    None of them stands for a picture or a sound.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, vocabulary(model), (size, tokens), generator=generator)
    others = _ids_of_others(model.config)
    if others:
        plain = next(token for token in range(len(others) + 1) if token not in others)
        ids[torch.isin(ids, torch.tensor(sorted(others)))] = plain
    return ids.to(model.device)


def _ids_of_others(config: Any) -> set[int]:
    """Return the ids of tokens in whose place a model puts what it sees or hears."""
    return {
        value
        for name, value in vars(config).items()
        if _STANDS_FOR_OTHERS.fullmatch(name) and isinstance(value, int) and not isinstance(value, bool)
    }


def taken(module: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the inputs that a module's `forward` takes: FNet's, for one, takes no attention mask."""
    forward = getattr(type(module), "forward", None)
    if forward is None:  # what an exporter put in its place
        return dict(inputs)
    parameters = _parameters(forward)
    if parameters is None:
        return dict(inputs)
    main = getattr(module, "main_input_name", "input_ids")  # Perceiver's is `inputs`
    named = {main if name == "input_ids" else name: value for name, value in inputs.items()}
    return {name: value for name, value in named.items() if name in parameters}


@functools.cache  # asking takes 40 us, and timed calls ask
def _parameters(forward: Callable[..., object]) -> frozenset[str] | None:
    """Return the names of what a `forward` takes, or None where it takes any name."""
    parameters = inspect.signature(forward).parameters
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
        return None
    return frozenset(parameters)


def require_two_parts(model: Model, what: str) -> None:
    """Check that a model has an encoder and a decoder, which are timed apart.

    Args:
        model: the model.
        what: what its encoder is to read, in words.

    Raises:
        RecipeError: it is one language model, with something before it that makes tokens of sounds or pictures.
    """
    if not model.config.is_encoder_decoder:
        raise RecipeError(
            f"{type(model.module).__name__} is a language model with an audio or image encoder before it, not an "
            f"encoder of {what} with a decoder: this family can't measure it. Save its language model and tokenizer in "
            "a separate folder, and measure that with family: causal_lm."
        )


def require_pass(model: Model, call: Callable[[], object], what: str) -> None:
    """Run a model once after loading it, so that one that needs other inputs is refused before anything is measured.

    Args:
        model: the model.
        call: runs it.
        what: what it is given, in words.

    Raises:
        RecipeError: it does not run on that.
    """
    import torch

    try:
        with torch.inference_mode():
            call()
    except (CompressError, Unsupported):
        raise
    except Exception as error:  # whatever the model's own code raises
        if is_out_of_memory(error):
            raise
        name = type(model.module).__name__
        raise RecipeError(
            f"{name} can't be measured here: this family calls a model with {what}, and the call fails without other "
            f"inputs ({named_line(error, 160)})."
        ) from error
