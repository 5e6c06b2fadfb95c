"""The predictions of next tokens in the file of statistics, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlflow_compress.networks.next_tokens import MOST_COMPARED, TOP, NextTokens
from mlflow_compress.scoring.statistics_file import Statistics

TOKENS, SCORES = "next_tokens", "next_token_scores"  # names of the tables


def statistics(predicted: NextTokens | None) -> dict[str, Statistics]:
    """Return the tables of predictions, by name: the tokens and the likeliest ones, and the log-probabilities."""
    import numpy as np

    if predicted is None:
        return {}
    tables = {TOKENS: Statistics(np.column_stack([predicted.targets, predicted.best]))}
    if len(predicted.scores) and bool(np.isfinite(predicted.scores).all()):
        tables[SCORES] = Statistics(predicted.scores)
    return tables


def read(kept: Mapping[str, Statistics]) -> NextTokens | None:
    """Return the predictions from an untrusted file; None if it has none.

    Raises:
        ValueError: They are not valid.
    """
    import numpy as np

    if TOKENS not in kept:
        return None
    tokens = kept[TOKENS].values
    scores: Any = kept[SCORES].values if SCORES in kept else np.zeros((0, 1), np.float32)
    is_small = len(scores) <= min(MOST_COMPARED, len(tokens)) and scores.shape[1] <= 1 + 2 * TOP
    if tokens.shape[1] != 2 or scores.shape[1] % 2 != 1 or not is_small:
        raise ValueError("the tables of predicted tokens are not valid")
    if (scores[:, :1] > 1e-3).any() or (scores[:, 1 + scores.shape[1] // 2 :] > 1e-3).any():
        raise ValueError("a log-probability of a predicted token is above 0")
    return NextTokens(tokens[:, 0], tokens[:, 1], scores)
