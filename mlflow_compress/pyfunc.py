"""Makes a saved model folder an MLflow model: `mlflow.pyfunc.load_model(uri).predict(...)`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlflow_compress.artifact import Restored, restore


class Predictor:
    """A restored model that predicts for what users and servers send."""

    def __init__(self, restored: Restored) -> None:
        """Wrap a restored model."""
        self._restored = restored

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> list[Any]:
        """Predict, one answer for each input.

        Args:
            data: a list of inputs, an array whose first axis counts them, or a data frame: its first column holds them.
            params: not used.
        """
        return self._restored.family.predict(self._restored.model, _inputs(data))


def _inputs(data: Any) -> Sequence[Any]:
    if hasattr(data, "columns"):
        return list(data.iloc[:, 0])
    if isinstance(data, dict):
        return list(next(iter(data.values())))
    return [data] if isinstance(data, str) else list(data)


def _load_pyfunc(path: str) -> Predictor:
    """Load the model folder; called by MLflow."""
    return Predictor(restore(Path(path)))
