"""The scores that a model card publishes: `model-index` in the YAML part of README.md.

Source: https://huggingface.co/docs/hub/model-cards#evaluation-results
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path

from mlflow_compress.networks import hub
from mlflow_compress.untrusted import Malformed
from mlflow_compress.untrusted_yaml import MOST_BYTES, parse_yaml

_CARD = "README.md"
_FENCE = "---"
_MOST_SCORES = 1000


@dataclass(frozen=True)
class CardScore:
    """One published score.

    Attributes:
        metric: The name of the metric, as the author wrote it.
        value: The score.
        data: The id of the data set on the hub; empty if unknown.
        config: The configuration of the data set; empty if unknown.
        split: The split; empty if unknown.
    """

    metric: str
    value: float
    data: str = ""
    config: str = ""
    split: str = ""

    @property
    def place(self) -> str:
        """The data set as text: `glue, sst2, validation`."""
        return ", ".join(filter(None, (self.data, self.config, self.split)))


def find(source: str, weights: str, folder: Path) -> Path | None:
    """Return the card of a local model, or of a hub model from the cache; None if there is none.

    Args:
        source: The model's source in the recipe.
        weights: `auto`, `pretrained`, `random`, or a local path.
        folder: Base folder of relative paths.
    """
    name = source if weights in ("auto", "pretrained", "random") else weights
    path = folder / name
    with contextlib.suppress(OSError, ValueError):
        if path.is_dir():
            return path / _CARD if (path / _CARD).is_file() else None
    return None if name != source else hub.cached_file(source, _CARD)


def fetch(source: str, weights: str, folder: Path) -> None:
    """Download the card of a hub model into the cache, if the hub answers and the model itself was downloaded."""
    if weights == "random" or find(source, weights, folder) or not hub.is_config_cached(source) or hub.unreachable():
        return
    from huggingface_hub import hf_hub_download

    place = hub.HubPlace.of(source)
    with contextlib.suppress(OSError, ValueError):  # most models have a card, not all
        hf_hub_download(place.id, _CARD, **place.arguments)


def read(path: Path) -> list[CardScore]:
    """Return the scores in a card; empty if it publishes none, or is not valid."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            text = file.read(MOST_BYTES)
        head, _, _ = text.removeprefix(f"{_FENCE}\n").partition(f"\n{_FENCE}")
        data = parse_yaml(head) if text.startswith(f"{_FENCE}\n") else None
    except (OSError, Malformed):
        return []
    index = data.get("model-index") if isinstance(data, dict) else None
    if not index:
        return []
    from huggingface_hub.repocard_data import model_index_to_eval_results

    try:
        _, results = model_index_to_eval_results(index)
    except Exception:  # a card may contain anything
        return []
    scores = []
    for result in results[:_MOST_SCORES]:
        value = result.metric_value
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            names = (result.dataset_type, result.dataset_config, result.dataset_split)
            scores.append(CardScore(str(result.metric_type), float(value), *(str(name or "") for name in names)))
    return scores
