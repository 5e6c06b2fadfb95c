"""The model in ONNX Runtime, with weights of 4 bits."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from annotated_types import Ge, Le

from mlflow_compress.compression import onnx_block_weights
from mlflow_compress.compression.exporting import Call, ExportMethod, Values, require_integers
from mlflow_compress.compression.onnx_blocks import Blocks
from mlflow_compress.compression.onnx_graphs import Session
from mlflow_compress.networks.native_flavors import GraphFlavor
from mlflow_compress.sockets import Family, Graph, Model


@dataclass
class OnnxInt4(ExportMethod):
    """ONNX Runtime on the CPU with weights of 4 bits: its `MatMulNBits` kernels multiply them as they are.

    Matrices of all products, the head's among them, in blocks of weights that share a scale, rounded to the nearest;
    no data are needed. Blocks lie along the inputs of a product: of a matrix that they do not divide they are shorter.
    Biases, norms, and embeddings unless they are wanted too, stay in float32. A head tied to an embedding has
    weights of its own then. Activations are rounded to 8 bits at each call (`accuracy_level`).

    The files are plain ONNX, with operators of the domain `com.microsoft` that ONNX Runtime has: `model.onnx` of a
    language model takes `input_ids`, `kept` and `past_key_0`, `past_value_0` and so on.

    Source: onnxruntime.quantization.matmul_nbits_quantizer.MatMulNBitsQuantizer.

    Attributes:
        block_size: weights that share a scale, and a zero point if there are any: 16, 32, 64, 128 or 256, of which the
            largest that divides is taken, and none that is larger than this.
        symmetric: 0 is in the middle of the 16 values; otherwise each block has a zero point.
        accuracy_level: in which precision the kernel multiplies: 4 int8 (the fastest), 1 float32, 0 as it likes.
        embeddings: whether embeddings have 4 bits too; one that is tied to the head shares its weights.
    """

    excludes: ClassVar[Mapping[str, str]] = {"yolo": "its weights are those of convolutions: it has no matrix products"}
    needs: ClassVar[tuple[str, ...]] = ("onnx", "onnxruntime", "onnxscript")
    converts: ClassVar[bool] = False
    extra: ClassVar[str] = "onnx"
    exporter: ClassVar[str] = "ONNX"
    loaded_by: ClassVar[str] = 'onnxruntime.InferenceSession("*.onnx")'
    flavor: ClassVar[GraphFlavor] = "onnx"

    block_size: Annotated[int, Ge(16), Le(256)] = 32
    symmetric: bool = True
    accuracy_level: Annotated[int, Ge(0), Le(4)] = 4
    embeddings: bool = False

    def compress(self, model: Model, family: Family) -> Model:
        """Export and quantise.

        Raises:
            Unsupported: the family gives no graphs of the model, or there is no product that a block divides.
        """
        return require_integers(super().compress(model, family))

    def export(self, model: Model, family: Family, graphs: Mapping[str, Graph], folder: Path) -> Model:
        """Export in float32, and write `NAME.onnx` in 4 bits for each graph."""
        blocks = Blocks(4, self.block_size, self.symmetric, self.accuracy_level)
        with tempfile.TemporaryDirectory(prefix="mlflow-compress-") as plain:
            paths = onnx_block_weights.checked(graphs, Path(plain))
            return onnx_block_weights.quantise(model, paths, blocks, self.embeddings, folder)

    def open(self, name: str, buffers: Sequence[Values], model: Model, folder: Path) -> Call:
        """Open a file in ONNX Runtime."""
        return Session(folder / f"{name}.onnx", buffers)
