"""The model in ONNX Runtime, with 4-bit weights."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from annotated_types import Ge, Le

from mlflow_compress.compression import onnx_block_weights
from mlflow_compress.compression.exporting import require_integers
from mlflow_compress.compression.onnx_blocks import Blocks
from mlflow_compress.compression.onnx_method import OnnxMethod
from mlflow_compress.sockets import Family, Graph, Model


@dataclass
class OnnxInt4(OnnxMethod):
    """ONNX Runtime with 4-bit weights: its `MatMulNBits` kernels multiply them without unpacking.

    Matrices of all products, including the head's, in blocks of weights that share a scale, rounded to the nearest; no
    data is needed. Blocks lie along the inputs of a product: a matrix that they do not divide has shorter blocks.
    Biases and norms stay in float32, and so do embeddings unless `embeddings` is set; a head tied to an embedding then
    has its own weights. Activations are rounded to 8 bits at each call (`accuracy_level`).

    The files are plain ONNX, with operators of ONNX Runtime's domain `com.microsoft`: `model.onnx` of a language model
    takes `input_ids`, `kept` and `past_key_0`, `past_value_0` and so on.

    Source: onnxruntime.quantization.matmul_nbits_quantizer.MatMulNBitsQuantizer.

    Attributes:
        block_size: Largest number of weights that share a scale (and a zero point if asymmetric). For each matrix the
            largest of 16, 32, 64, 128 and 256 that divides its inputs and is not above this.
        symmetric: 0 is in the middle of the 16 values; otherwise each block has a zero point.
        accuracy_level: Precision in which the kernel multiplies: 4: int8 (fastest), 1: float32, 0: its own choice.
        embeddings: Whether embeddings have 4 bits too; an embedding tied to the head shares its weights.
    """

    excludes: ClassVar[Mapping[str, str]] = {"yolo": "its weights belong to convolutions: it has no matrix products"}
    converts: ClassVar[bool] = False

    block_size: Annotated[int, Ge(16), Le(256)] = 32
    symmetric: bool = True
    accuracy_level: Annotated[int, Ge(0), Le(4)] = 4
    embeddings: bool = False

    def compress(self, model: Model, family: Family) -> Model:
        """Export and quantise.

        Raises:
            Unsupported: The family gives no graphs of the model, or there is no product that a block divides.
        """
        return require_integers(super().compress(model, family))

    def export(self, model: Model, family: Family, graphs: Mapping[str, Graph], folder: Path) -> Model:
        """Export in float32, and write `NAME.onnx` in 4 bits for each graph."""
        blocks = Blocks(4, self.block_size, self.symmetric, self.accuracy_level)
        with tempfile.TemporaryDirectory(prefix="mlflow-compress-") as plain:
            paths = onnx_block_weights.checked(graphs, Path(plain))
            return onnx_block_weights.quantise(model, paths, blocks, self.embeddings, folder)
