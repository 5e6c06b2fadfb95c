"""Weights and activations in half precision (IEEE 754 binary16)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from mlflow_compress.compression.coverage import note_all
from mlflow_compress.networks.stored_weights import cast
from mlflow_compress.sockets import Family, Method, Model, State


@dataclass
class Fp16(Method):
    """Cast all parameters and saved buffers to torch.float16.

    Halves the bytes. Fast on GPUs; on a CPU without AVX512-FP16 or AMX-FP16 it is often slower than float32.

    Source: IEEE 754-2019, binary16.
    """

    changes: ClassVar[Literal["weights"]] = "weights"
    takes: ClassVar[tuple[State, ...]] = ("float",)
    gives: ClassVar[State] = "half"
    revision: ClassVar[int] = 2

    def compress(self, model: Model, family: Family) -> Model:
        """Cast in place.

        Raises:
            Unsupported: No parameter has another floating-point type.
        """
        import torch

        note_all(model)
        cast(model.module, torch.float16)
        return model
