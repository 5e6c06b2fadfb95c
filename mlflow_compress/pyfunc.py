"""Load a saved model folder as an MLflow model: `mlflow.pyfunc.load_model(uri).predict(...)`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlflow_compress.networks.model_folder import Restored, restore_others


class Predictor:
    """A restored model that predicts for the inputs of users and servers."""

    def __init__(self, restored: Restored) -> None:
        """Wrap a restored model."""
        self._restored = restored

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> list[Any]:
        """Return one answer for each input.

        Args:
            data: A list of inputs, an array whose first axis counts the inputs, a data frame, or columns by name. For a
                family that takes rows, each row is an input; for others, the first column contains the inputs. Several
                arrays by name are the parts of inputs with several parts.
            params: Not used.
        """
        family = self._restored.family
        return family.predict(self._restored.model, _inputs(data, family.takes_rows))


def _inputs(data: Any, as_rows: bool) -> Sequence[Any]:
    if isinstance(data, dict):
        if len(data) > 1 and not as_rows and all(getattr(column, "ndim", 0) for column in data.values()):
            return [dict(zip(data, row, strict=True)) for row in zip(*data.values(), strict=True)]
        import pandas as pd

        data = pd.DataFrame(data)
    if hasattr(data, "columns"):
        return list(data.to_dict("records")) if as_rows else list(data.iloc[:, 0])
    return [data] if isinstance(data, str) else list(data)


def _load_pyfunc(path: str) -> Predictor:
    """Load the model folder; called by MLflow."""
    return Predictor(restore_others(Path(path)))
