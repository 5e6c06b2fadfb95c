"""A TensorRT engine in a file, run on the GPU of the machine that it was built for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlflow_compress.compression.exporting import counted
from mlflow_compress.errors import MachineLacks, WeightsError
from mlflow_compress.networks.stored_weights import Held
from mlflow_compress.version import installed


class Engine:
    """A TensorRT engine. It takes tensors and returns tensors on the device of the first one.

    Args:
        path: File (.engine). If a file of `write_counts` lies next to it (.json), its parameters are known.

    Raises:
        MachineLacks: TensorRT is not installed.
        WeightsError: The engine was built by another version of TensorRT, or for another GPU, or is damaged.
    """

    runtime = "tensorrt"

    def __init__(self, path: Path) -> None:
        try:
            import tensorrt
        except ImportError:
            raise MachineLacks("a TensorRT engine needs tensorrt: pip install tensorrt") from None
        self._runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise WeightsError(
                f"TensorRT {installed('tensorrt')} can't load {path}: an engine runs only on the version of TensorRT "
                "and the GPU that it was built for. Build it again on this machine."
            )
        self._context = self._engine.create_execution_context()
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        is_input = {name: self._engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT for name in names}
        self.inputs = [name for name in names if is_input[name]]
        self.outputs = [name for name in names if not is_input[name]]
        self._path = path

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the lengths of a tensor's axes; -1 for a length that may change."""
        return tuple(self._engine.get_tensor_shape(name))

    def dtype(self, name: str) -> str:
        """Return the name of a tensor's type, as numpy names it."""
        import numpy as np
        import tensorrt

        return str(np.dtype(tensorrt.nptype(self._engine.get_tensor_dtype(name))).name)

    def __call__(self, *inputs: Any) -> tuple[Any, ...]:
        """Run the graph, on torch's current stream."""
        import torch

        on_gpu = [tensor.cuda().contiguous() for tensor in inputs]
        for name, tensor in zip(self.inputs, on_gpu, strict=True):
            self._context.set_input_shape(name, tuple(tensor.shape))
            self._context.set_tensor_address(name, tensor.data_ptr())
        outputs = []
        for name in self.outputs:
            shape = tuple(self._context.get_tensor_shape(name))
            output = torch.empty(shape, dtype=getattr(torch, self.dtype(name)), device="cuda")
            self._context.set_tensor_address(name, output.data_ptr())
            outputs.append(output)
        if not self._context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise RuntimeError("TensorRT could not run the engine; the reason is on standard error")
        return tuple(output.to(inputs[0].device) for output in outputs)

    def held_weights(self) -> Iterator[Held]:
        """Return the engine's bytes: its weights can't be read (see `stored_weights.held`). Nothing without counts."""
        if (counts := self._path.with_suffix(".json")).is_file():
            yield from counted(self._path, counts)
