"""The predictions of next tokens in the file of statistics, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlflow_compress.networks.next_tokens import BINS, MOST_COMPARED, TOP, NextTokens
from mlflow_compress.scoring.statistics_file import Statistics

TOKENS, SCORES = "next_tokens", "next_token_scores"  # names of the tables
_ROUNDED = 1e-3  # tolerated above 0
_MOST_IDS = 2**24  # float32 has all integers below


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
    scores: Any = kept[SCORES].values if SCORES in kept else np.zeros((0, BINS), np.float32)
    count, is_odd = divmod(scores.shape[1] - BINS, 2)
    if tokens.shape[1] != 2 or is_odd or not 0 <= count <= TOP or len(scores) > min(MOST_COMPARED, len(tokens)):
        raise ValueError("the tables of predicted tokens are not valid")
    ids = scores[:, BINS : BINS + count]
    if (np.delete(scores, slice(BINS, BINS + count), axis=1) > _ROUNDED).any() or (
        (ids < 0) | (ids >= _MOST_IDS)
    ).any():
        raise ValueError("a log-probability of a predicted token is above 0, or its id is not valid")
    return NextTokens(tokens[:, 0], tokens[:, 1], scores)
