"""Inputs of transformers models for text: which token ids, how many, and which other inputs.

Models with image or audio inputs have the settings for text in a part of their config; some encoders take no mask.
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

USABLE_POSITIONS = "usable_positions"  # our own field in the config
_TEXT_PARTS = ("text_config", "decoder", "generator")
_ENDLESS = 10**9  # tokenizers without a maximum length report 10**30
_STANDS_FOR_OTHERS = re.compile(
    r"(image|video|vision|audio|speech|boi|eoi|boa|eoa|bov|eov|img|patch)\w*_(token|token_id|token_index)"
)


def of_text(config: Any, name: str) -> Any:
    """Return a field of a config, or of its part for text; None if neither has it."""
    for part in (config, *(getattr(config, inner, None) for inner in _TEXT_PARTS)):
        value = getattr(part, name, None)
        if value is not None:
            return value
    return None


def vocabulary(model: Model) -> int:
    """Return the size of a model's vocabulary; if its config does not have it, that of its tokenizer."""
    size = of_text(model.config, "vocab_size")
    return int(size) if size else len(companions(model).tokenizer)


def note_positions(module: Any, config: Any) -> None:
    """Write the number of usable positions into a config, if a position table starts after the padding index.

    RoBERTa and similar models count positions from `padding_idx + 1`: of 514 positions 512 can be used.
    """
    from torch import nn

    tables = [
        layer
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Embedding) and "position" in name.rpartition(".")[2] and layer.padding_idx is not None
    ]
    if tables:
        usable = min(table.num_embeddings - int(table.padding_idx or 0) - 1 for table in tables)
        setattr(config, USABLE_POSITIONS, usable)


def positions(config: Any) -> int | None:
    """Return the number of positions of a model; None: unlimited."""
    usable = getattr(config, USABLE_POSITIONS, None)
    count = of_text(config, "max_position_embeddings") if usable is None else usable
    return count if isinstance(count, int) and count > 0 else None  # -1 in XLNet


def longest(model: Model) -> int | None:
    """Return how many tokens a model and its tokenizer can take; None: unlimited."""
    limits = (positions(model.config), companions(model).tokenizer.model_max_length)
    return min((limit for limit in limits if limit is not None and limit < _ENDLESS), default=None)


def must_fit(model: Model, tokens: int, what: str) -> None:
    """Check that a model has positions for all tokens of a timed call.

    Args:
        model: the model.
        tokens: number of tokens in a call.
        what: the options that set this number.

    Raises:
        RecipeError: there are too many tokens.
    """
    max_tokens = positions(model.config)
    if max_tokens is not None and tokens > max_tokens:
        raise RecipeError(f"The model takes {max_tokens} tokens at most, not {tokens} in a call: make {what} smaller.")


def settle_padding(model: Model) -> None:
    """Set the padding token of a classifier if its config does not.

    GPT-2, LLaMA and similar models read their scores at the last token that is not padding. So the padding token must
    differ from the token with which the tokenizer ends each text, if there is one.
    """
    text, tokenizer = model.config.get_text_config(), companions(model).tokenizer
    if getattr(text, "pad_token_id", None) is not None:
        return
    ids = tokenizer("a")["input_ids"]
    if ids and ids[-1] == tokenizer.pad_token_id:
        candidates = (tokenizer.unk_token, tokenizer.bos_token, tokenizer.convert_ids_to_tokens(0))
        tokenizer.pad_token = next(token for token in candidates if token and token != tokenizer.pad_token)
    for config in (text, model.config):
        config.pad_token_id = tokenizer.pad_token_id


def settle_start(model: Model) -> None:
    """Set the start token of a classifier's decoder if its config does not.

    T5 requires it, but transformers writes it only into the generation config. It is the padding token.

    Source: Raffel et al., Exploring the Limits of Transfer Learning, arXiv 1910.10683, as in transformers.
    """
    if model.config.is_encoder_decoder and getattr(model.config, "decoder_start_token_id", None) is None:
        model.config.decoder_start_token_id = model.config.pad_token_id


def fill_up(model: Model, encoded: Any) -> Any:
    """Replace the tokenizer's padding token by the one in a decoder's config, if they differ.

    Args:
        model: a classifier. GPT-2, LLaMA and similar models read their scores at the last token that is not padding.
        encoded: its tokenizer's `input_ids` and `attention_mask`, both [batch, tokens].

    Returns:
        The same, with other `input_ids` where the mask is 0.
    """
    pad = getattr(model.config.get_text_config(), "pad_token_id", None)
    if pad is None or pad == companions(model).tokenizer.pad_token_id:
        return encoded
    is_read_at_padding = not getattr(
        model.config, "is_encoder_decoder", False
    )  # BART and similar models read at the end of a text
    if is_read_at_padding and 0 <= pad < vocabulary(model):
        encoded["input_ids"] = encoded["input_ids"].masked_fill(encoded["attention_mask"] == 0, pad)
    return encoded


def token_ids(model: Model, size: int, tokens: int, seed: int) -> Any:
    """Return random token ids [size, tokens], int64, on the model's device, without placeholders for image or sound."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, vocabulary(model), (size, tokens), generator=generator)
    special_ids = _ids_of_others(model.config)
    if special_ids:
        plain = next(token for token in range(len(special_ids) + 1) if token not in special_ids)
        ids[torch.isin(ids, torch.tensor(sorted(special_ids)))] = plain
    return ids.to(model.device)


def _ids_of_others(config: Any) -> set[int]:
    """Return the ids of placeholder tokens for images or sound."""
    return {
        value
        for name, value in vars(config).items()
        if _STANDS_FOR_OTHERS.fullmatch(name) and isinstance(value, int) and not isinstance(value, bool)
    }


def taken(module: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs that a module's `forward` takes: FNet, for example, takes no attention mask."""
    forward = getattr(type(module), "forward", None)
    if forward is None:  # an exported replacement
        return dict(inputs)
    parameters = _parameters(forward)
    if parameters is None:
        return dict(inputs)
    main = getattr(module, "main_input_name", "input_ids")  # Perceiver's is `inputs`
    renamed = {main if name == "input_ids" else name: value for name, value in inputs.items()}
    return {name: value for name, value in renamed.items() if name in parameters}


@functools.cache  # inspecting takes 40 us, and timed calls need it
def _parameters(forward: Callable[..., object]) -> frozenset[str] | None:
    """Return the names of the parameters of a `forward`; None if it takes any name."""
    parameters = inspect.signature(forward).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return None
    return frozenset(parameters)


def require_two_parts(model: Model, what: str) -> None:
    """Check that a model has an encoder and a decoder, which are timed separately.

    Args:
        model: the model.
        what: the input of its encoder, for messages.

    Raises:
        RecipeError: it is a language model with an audio or image encoder before it.
    """
    if not model.config.is_encoder_decoder:
        raise RecipeError(
            f"{type(model.module).__name__} is a language model with an audio or image encoder before it, not an "
            f"encoder of {what} with a decoder: this family can't measure it. Save its language model and tokenizer in "
            "a separate folder, and measure that with family: causal_lm."
        )


def require_pass(model: Model, call: Callable[[], object], what: str) -> None:
    """Run a model once after loading it, so that a model that needs other inputs is rejected before the measurement.

    Args:
        model: the model.
        call: runs the model.
        what: the inputs of the call, for messages.

    Raises:
        RecipeError: it does not run on these inputs.
    """
    import torch

    try:
        with torch.inference_mode():
            call()
    except (CompressError, Unsupported):
        raise
    except Exception as error:  # the model's own code may raise anything
        if is_out_of_memory(error):
            raise
        name = type(model.module).__name__
        raise RecipeError(
            f"{name} can't be measured here: this family calls a model with {what}, and the call fails without other "
            f"inputs ({named_line(error, 160)})."
        ) from error
