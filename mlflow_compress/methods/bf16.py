"""Weights and activations in bfloat16 (8 bits of exponent, 8 of precision)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from mlflow_compress.compression.coverage import note_all
from mlflow_compress.networks.stored_weights import cast
from mlflow_compress.sockets import Family, Method, Model, State


@dataclass
class Bf16(Method):
    """Cast all parameters and saved buffers to torch.bfloat16.

    Halves the bytes. Fast on GPUs since Ampere and on CPUs with AMX or AVX512-BF16.

    Source: Kalamkar et al., A Study of BFLOAT16 for Deep Learning Training, arXiv 1905.12322.
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
        cast(model.module, torch.bfloat16)
        return model
