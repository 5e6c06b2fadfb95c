"""ONNX files in ONNX Runtime on an NVIDIA GPU: inputs and outputs stay in GPU memory (IO binding)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow_compress.compression.exporting import Call, Values
from mlflow_compress.compression.onnx_graphs import Session, has_operator
from mlflow_compress.compression.onnx_settings import SessionSettings, require_provider, require_used
from mlflow_compress.errors import MachineLacks, Unsupported

_QUANTISED = ("QuantizeLinear", "DequantizeLinear", "MatMulInteger", "ConvInteger", "DynamicQuantizeLinear")


def opened(path: Path, buffers: Sequence[Values], device: str, settings: SessionSettings) -> Call:
    """Open a file on a device.

    Args:
        path: File.
        buffers: Constants that are not weights (see `has_weights`).
        device: `cpu` or `cuda`.
        settings: How ONNX Runtime opens it.

    Raises:
        MachineLacks: The installed ONNX Runtime has no provider for the GPU.
        Unsupported: The provider has no kernels for the file's operators.
    """
    return Session(path, buffers, settings) if device == "cpu" else GpuSession(path, buffers, settings)


class GpuSession(Session):
    """An ONNX file in ONNX Runtime on a GPU. It takes and returns tensors in the GPU's memory without copies.

    A call waits for torch's work on the inputs, and returns when the outputs are complete.
    """

    device = "cuda"

    def _opened(self, path: Path, settings: SessionSettings) -> Any:
        import onnxruntime
        import torch

        name = settings.provider_name(self.device)
        require_provider(name)
        if name.startswith("CUDA") and any(has_operator(path, operator) for operator in _QUANTISED):
            raise Unsupported(
                "ONNX Runtime's CUDA provider has no kernels for quantised convolutions and products, and converts "
                "them back to float: set provider=tensorrt"
            )
        onnxruntime.preload_dlls()  # those that torch's packages brought
        self._index = torch.cuda.current_device()
        provider = (name, self._provider_options(name, path))
        fallbacks = ["CUDAExecutionProvider", "CPUExecutionProvider"]
        providers = [provider, *(fallback for fallback in fallbacks if fallback != name)]
        session = onnxruntime.InferenceSession(str(path), settings.options(), providers=providers)
        require_used(name, session)
        return session

    def _provider_options(self, name: str, path: Path) -> Mapping[str, str]:
        if name.startswith("CUDA"):
            return {"device_id": str(self._index)}
        return {
            "device_id": str(self._index),
            "trt_int8_enable": str(int(has_operator(path, "DequantizeLinear"))),
            "trt_fp16_enable": str(int(_has_half(path))),
        }

    def __call__(self, *inputs: Any) -> tuple[Any, ...]:
        """Run the graph."""
        import torch

        binding = self._session.io_binding()
        tensors = [tensor.detach().to(self.device).contiguous() for tensor in inputs]
        for name, tensor in zip(self._inputs, tensors, strict=True):
            place = tensor if tensor.numel() else torch.empty(1, dtype=tensor.dtype, device=self.device)
            element_type = torch.empty(0, dtype=tensor.dtype).numpy().dtype.type
            binding.bind_input(name, self.device, self._index, element_type, tuple(tensor.shape), place.data_ptr())
        for name in self._outputs:
            binding.bind_output(name, self.device, self._index)
        self._wait()
        self._session.run_with_iobinding(binding)
        return tuple(_tensor(value).to(inputs[0].device) for value in binding.get_outputs())

    def _wait(self) -> None:
        """Wait for torch's stream: ONNX Runtime reads the inputs on another stream."""
        import torch

        torch.cuda.current_stream().synchronize()


def _tensor(value: Any) -> Any:
    """Return an output as a tensor that shares its memory."""
    from torch.utils.dlpack import from_dlpack

    if not hasattr(value, "__dlpack__"):
        raise MachineLacks(
            "this onnxruntime can't share its outputs with torch: install a newer one, pip install -U onnxruntime-gpu"
        )
    tensor: Any = from_dlpack(value)
    return tensor.bool() if value.data_type() == "tensor(bool)" else tensor


def _has_half(path: Path) -> bool:
    """Return whether an ONNX file has float16 weights."""
    import onnx

    constants = onnx.load(str(path), load_external_data=False).graph.initializer
    return any(constant.data_type == onnx.TensorProto.FLOAT16 for constant in constants)
