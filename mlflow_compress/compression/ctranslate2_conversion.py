"""Conversion of transformers models to CTranslate2's format, by its own converter."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mlflow_compress.compression.ctranslate2_whisper import vocabulary
from mlflow_compress.errors import Unsupported
from mlflow_compress.networks.transformers_models import companions
from mlflow_compress.sockets import Model

FOLDER = "ctranslate2"
_CONFIG, _START = "config.json", "decoder_start_token"
_NORMALISED = {  # (before each block, after the embeddings): in transformers the class decides it, not the config
    "bart": (False, True),
    "marian": (False, False),
    "mbart": (True, True),
    "m2m_100": (True, False),
    "pegasus": (True, False),
}
_M2M_PADDING = 1  # in transformers its positions begin after the id of the padding token
_SCALED = ("t5", "mt5", "umt5")


def convert_whisper(model: Model, folder: Path, kind: str) -> None:
    """Write a Whisper model into `FOLDER`, without a second copy of its weights.

    Args:
        model: Model in float32.
        folder: Parent folder of `FOLDER`.
        kind: Type of the weights, as the library names it.
    """
    assets = companions(model)
    names = vocabulary(_tokens(assets.tokenizer), model.config, assets.generation)
    model.config.save_pretrained(folder / "config")
    _convert(model.module, _Tokenizer(names), folder, kind)


def convert_translation(model: Model, folder: Path, kind: str) -> None:
    """Write an encoder-decoder of text into `FOLDER`, with one row of the embedding for each token.

    The decoder begins with the tokens of the call. Marian is converted like BART: the converter's own path for Marian
    drops the last row of the embedding, which is the padding only in models trained with Marian.

    Args:
        model: Model in float32.
        folder: Parent folder of `FOLDER`.
        kind: Type of the weights, as the library names it.

    Raises:
        Unsupported: The library would count its positions differently.
    """
    config, tokenizer = model.config, companions(model).tokenizer
    names = _named(_tokens(tokenizer), config.vocab_size)
    end, unknown = companions(model).generation.eos_token_id, tokenizer.unk_token
    special = {"eos": names[end[0] if isinstance(end, (list, tuple)) else end]}
    special["unk"] = unknown if unknown in names else names[0]
    fields: dict[str, Any] = {}
    if config.model_type == "m2m_100" and config.pad_token_id != _M2M_PADDING:
        raise Unsupported(
            f"its padding is token {config.pad_token_id}, but CTranslate2 counts positions as if it were token 1"
        )
    if config.model_type in _NORMALISED:
        fields["normalize_before"], fields["normalize_embedding"] = _NORMALISED[config.model_type]
    elif config.model_type in _SCALED:
        fields["tie_word_embeddings"] = _scales_outputs(model.module)
    if config.model_type == "marian":
        (folder / "config").mkdir()
        (folder / "config" / _CONFIG).write_text(json.dumps({"model_type": "bart"}), encoding="utf-8")
    else:
        config.save_pretrained(folder / "config")
    with _overridden(model.module.config, fields):
        _convert(model.module, _Tokenizer(names, **special), folder, kind)
    write_start(folder / FOLDER, None)


def write_start(folder: Path, token: str | None) -> None:
    """Write the decoder's start token into a converted model; None: each call gives it."""
    path = folder / _CONFIG
    fields = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**fields, _START: token}, indent=2) + "\n", encoding="utf-8")


def _convert(module: Any, tokenizer: _Tokenizer, folder: Path, kind: str) -> None:
    from ctranslate2.converters import TransformersConverter

    class Converter(TransformersConverter):  # type: ignore[misc]
        """Converter that uses the loaded model instead of loading one."""

        def load_model(self, *arguments: Any, **options: Any) -> Any:
            return module

        def load_tokenizer(self, *arguments: Any, **options: Any) -> Any:
            return tokenizer

    Converter(str(folder / "config")).convert(str(folder / FOLDER), quantization=kind)


class _Tokenizer:
    """Minimal tokenizer for the converter, which only needs the names of tokens.

    Args:
        names: Names of all tokens, by id.
        eos: Name of the end token.
        unk: Name of the unknown token.
    """

    def __init__(self, names: list[str], eos: str = "", unk: str = "") -> None:
        self.names = names
        self.additional_special_tokens: list[str] = []
        self.special_tokens_map: dict[str, Any] = {}
        self.bos_token = self.eos_token = self.pad_token = eos
        self.unk_token = unk
        self.unk_token_id = names.index(unk) if unk else None

    def get_vocab(self) -> dict[str, int]:
        """Return the ids of tokens."""
        return {name: number for number, name in enumerate(self.names)}

    def convert_ids_to_tokens(self, token: int) -> str:
        """Return the name of a token."""
        return self.names[token]


def _tokens(tokenizer: Any) -> list[str]:
    """Return a tokenizer's tokens by id; unused ids get a name."""
    tokens = {number: token for token, number in tokenizer.get_vocab().items()}
    return [tokens.get(number, f"<unused_{number}>") for number in range(max(tokens) + 1)]


def _named(tokens: Sequence[str], count: int) -> list[str]:
    """Return `count` distinct names of tokens."""
    names = list(tokens[:count])
    used_names = set(names)
    for number in range(len(names), count):
        name = f"<unused_{number}>"
        while name in used_names:
            name += "_"
        names.append(name)
    return names


@contextlib.contextmanager
def _overridden(config: Any, fields: dict[str, Any]) -> Iterator[None]:
    """Override fields of a config temporarily."""
    old_values = {name: config.__dict__[name] for name in fields if name in config.__dict__}
    for name, value in fields.items():
        setattr(config, name, value)
    try:
        yield
    finally:
        for name in fields:
            config.__dict__.pop(name, None)
        config.__dict__.update(old_values)


def _scales_outputs(module: Any) -> bool:
    """Return whether a T5 scales its decoder's outputs before the head, as seen in one call.

    Versions of transformers store this setting differently.
    """
    import torch

    states: dict[str, Any] = {}
    hooks = [
        module.decoder.register_forward_hook(lambda layer, inputs, outputs: states.update(decoder=outputs[0])),
        module.lm_head.register_forward_pre_hook(lambda layer, inputs: states.update(head=inputs[0])),
    ]
    try:
        with torch.inference_mode():
            tokens = torch.zeros(1, 1, dtype=torch.int64, device=module.device)
            module(input_ids=tokens, decoder_input_ids=tokens, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return not torch.allclose(states["head"], states["decoder"])
