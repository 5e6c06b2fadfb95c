"""What sentence-transformers does after the encoder: pooling, normalising, prompts, as its files beside a model say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from mlflow_compress.errors import RecipeError, WeightsError, one_line
from mlflow_compress.networks.hub import HubPlace, Origin, cached_file
from mlflow_compress.networks.weight_files import SENTENCE_MODULES

Pooling = Literal["mean", "cls", "max", "last"]
_POOLING_FILE, _SETTINGS_FILE = "config.json", "config_sentence_transformers.json"
_LENGTH_FILES = ("sentence_bert_config.json", "sentence_roberta_config.json", "sentence_distilbert_config.json")
_KEYS: Mapping[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}
_NAMES: Mapping[str, Pooling] = {"lasttoken": "last"}
_FIELD = "sentence_embedding"  # our own field in the config of a model


@dataclass(frozen=True)
class Sentences:
    """How the states of tokens become the embedding of a text.

    Attributes:
        pooling: mean of the tokens, the first token, the maximum, or the last token.
        normalize: whether the vector is divided by its length.
        prompt: text before every text.
        query_prompt: text before every query of a retrieval.
        tokens: maximum number of tokens in a text; None: that of the model.
    """

    pooling: Pooling = "mean"
    normalize: bool = False
    prompt: str = ""
    query_prompt: str = ""
    tokens: int | None = None

    def keep(self, config: Any) -> None:
        """Write it into a model's config."""
        setattr(config, _FIELD, asdict(self))

    @classmethod
    def of(cls, config: Any) -> Sentences:
        """Read it from a model's config."""
        return cls(**getattr(config, _FIELD))


def described(origin: Origin) -> Sentences:
    """Read the files of sentence-transformers beside a model; without them, it is the mean of the tokens.

    Raises:
        RecipeError: the model has other modules, or another pooling.
        WeightsError: a file is damaged.
    """
    modules = _read(origin, SENTENCE_MODULES)
    if not isinstance(modules, list):
        return Sentences()
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
    if unknown := [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]:
        raise RecipeError(
            f"{origin.source} has a module {unknown[0]} after its encoder, which this family does not run. Measure it "
            "as a custom model (compress-bench init): its modules are torch modules."
        )
    if str(modules[0].get("path", "")):
        raise RecipeError(
            f"The encoder of {origin.source} is in its folder {modules[0]['path']}: give that folder, and set "
            "options.pooling."
        )
    sentences = Sentences(normalize="Normalize" in kinds)
    if "Pooling" in kinds:
        place = str(modules[kinds.index("Pooling")].get("path", "1_Pooling"))
        sentences = replace(sentences, pooling=_pooling(_read(origin, f"{place}/{_POOLING_FILE}"), origin))
    lengths = [_read(origin, name) for name in _LENGTH_FILES]
    length = next((values["max_seq_length"] for values in lengths if values and values.get("max_seq_length")), None)
    settings = _read(origin, _SETTINGS_FILE) or {}
    prompts = settings.get("prompts") or {}
    default = prompts.get(settings.get("default_prompt_name") or "", "")
    return replace(sentences, tokens=length, prompt=default, query_prompt=prompts.get("query") or default)


def pooled(states: Any, mask: Any, sentences: Sentences) -> Any:
    """Return the embedding of each text [batch, width] from the states of its tokens [batch, tokens, width].

    Source: the modules Pooling and Normalize of sentence-transformers; Reimers and Gurevych, arXiv 1908.10084.

    Args:
        states: the encoder's last hidden states.
        mask: 1 for tokens, 0 for padding, [batch, tokens].
        sentences: the pooling.
    """
    import torch

    is_token = mask.unsqueeze(-1).to(states.dtype)
    if sentences.pooling == "cls":
        vectors = states[:, 0]
    elif sentences.pooling == "max":
        vectors = (states + (1 - is_token) * torch.finfo(states.dtype).min).amax(1)
    elif sentences.pooling == "last":
        places = torch.arange(mask.shape[1], device=mask.device)
        last = (mask * places).argmax(1)
        vectors = states[torch.arange(len(states), device=states.device), last]
    else:
        vectors = (states * is_token).sum(1) / is_token.sum(1).clamp_min(1e-9)
    return torch.nn.functional.normalize(vectors, dim=-1) if sentences.normalize else vectors


def _pooling(values: Any, origin: Origin) -> Pooling:
    """Return the pooling that a file describes.

    Raises:
        RecipeError: it is of another kind, or a combination.
    """
    values = values or {}
    name = values.get("pooling_mode")
    modes = [key for key, value in values.items() if key.startswith("pooling_mode_") and value is True]
    kinds: list[Any] = [_KEYS.get(mode) for mode in modes] or [_NAMES.get(str(name), name)]
    if len(kinds) != 1 or kinds[0] not in get_args(Pooling):
        raise RecipeError(
            f"{origin.source} pools by {', '.join(modes) or name}; this family pools by "
            f"{', '.join(get_args(Pooling))}. Measure it as a custom model (compress-bench init)."
        )
    kind: Pooling = kinds[0]
    return kind


def _read(origin: Origin, name: str) -> Any:
    """Return the content of a JSON file beside a model; None if there is none."""
    path = _find(origin, name)
    if path is None:
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} can't be read: {one_line(error)}") from error


def _find(origin: Origin, name: str) -> Path | None:
    """Find a file in a local folder, in the cache of the hub, or on the hub."""
    folder = Path(origin.location)
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    if (cached := cached_file(origin.source, name)) is not None or origin.offline:
        return cached
    import huggingface_hub

    place = HubPlace.of(origin.source)
    try:
        if not huggingface_hub.file_exists(place.id, place.path_of(name), **place.arguments):
            return None
        return Path(huggingface_hub.hf_hub_download(place.id, place.path_of(name), **place.arguments))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{name} of {origin.source} can't be read: {one_line(error)}") from error
