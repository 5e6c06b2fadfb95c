"""The model as it is: the baseline of every comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from mlflow_compress.sockets import Family, Method, Model


@dataclass
class Original(Method):
    """No compression. The model still goes through the same saving and restoring as all others."""

    changes: ClassVar[Literal["nothing"]] = "nothing"

    def compress(self, model: Model, family: Family) -> Model:
        """Leave the model as it is."""
        return model
