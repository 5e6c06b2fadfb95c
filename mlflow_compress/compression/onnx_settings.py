"""Settings of an ONNX Runtime session: graph optimizations, spinning threads, and the execution provider."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from mlflow_compress.errors import MachineLacks

Level = Literal["disable", "basic", "extended", "all"]
Provider = Literal["cuda", "tensorrt"]

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_INSTALL = "pip uninstall onnxruntime; pip install onnxruntime-gpu"


@dataclass(frozen=True)
class SessionSettings:
    """How ONNX Runtime opens a file.

    Attributes:
        level: Graph optimizations that it applies when it opens the file.
        spinning: Whether its threads spin between operators.
        provider: Execution provider on a GPU.
    """

    level: Level = "all"
    spinning: bool = True
    provider: Provider = "cuda"

    def options(self) -> Any:
        """Return ONNX Runtime's session options, with as many threads as torch has."""
        import onnxruntime
        import torch

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors
        name = "ORT_DISABLE_ALL" if self.level == "disable" else f"ORT_ENABLE_{self.level.upper()}"
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, name)
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(self.spinning)))
        return options

    def provider_name(self, device: str) -> str:
        """Return ONNX Runtime's name of the provider on a device."""
        return _PROVIDERS["cpu" if device == "cpu" else self.provider]


def require_provider(name: str) -> None:
    """Check that the installed ONNX Runtime has an execution provider.

    Raises:
        MachineLacks: It does not have it.
    """
    import onnxruntime

    if name not in (available := onnxruntime.get_available_providers()):
        raise MachineLacks(
            f"the installed onnxruntime has no {name}, only {', '.join(available)}. The package onnxruntime-gpu has "
            f"the providers for NVIDIA GPUs: {_INSTALL}"
        )


def require_used(name: str, session: Any) -> None:
    """Check that a session runs on the requested provider: ONNX Runtime falls back to the CPU without an error.

    Raises:
        MachineLacks: It runs on another provider.
    """
    if (first := session.get_providers()[0]) != name:
        raise MachineLacks(
            f"ONNX Runtime could not load {name} and would run on {first}: a library of CUDA, cuDNN or TensorRT is "
            "missing or has another version than this onnxruntime-gpu was built for; the reason is on standard error"
        )
