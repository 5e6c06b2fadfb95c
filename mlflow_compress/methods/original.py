"""The model as it is: the baseline of every comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from mlflow_compress.sockets import Family, Method, Model


@dataclass
class Original(Method):
    """No compression. The model is still saved and restored like all others."""

    changes: ClassVar[Literal["nothing"]] = "nothing"

    def compress(self, model: Model, family: Family) -> Model:
        """Return the model unchanged."""
        return model
