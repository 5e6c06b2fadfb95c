"""The model compiled by torch while it runs."""

from __future__ import annotations

import os
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from mlflow_compress.compression.coverage import note_all
from mlflow_compress.error_causes import cause_line, is_out_of_memory, own_place
from mlflow_compress.errors import MachineLacks, UnknownName, Unsupported
from mlflow_compress.sockets import Family, Method, Model, State

_WITH_CUDA_GRAPHS = ("reduce-overhead", "max-autotune")
_MOST_VARIANTS = 64  # compiled variants of one function, for the lengths and caches of decoders and scoring


@dataclass
class TorchCompile(Method):
    """torch.compile: the model's graphs compiled to fused kernels in its first calls.

    Every layer is compiled, and the weights are saved unchanged. Compilation is not part of the latency: it takes a
    minute or so, counted in `first_call_ms`, and memory, counted in the peak of the whole process but not in that of
    the timed phase (`ram_peak_run_mib`): the compiling processes, one per core, end with the warm-up. The first call
    runs uncompiled, so that values that a model makes only once (a detector's anchors) are not compiled in; the second
    call compiles. Code that can't be captured breaks the graph.

    It needs a C++ compiler and Python's headers, for CUDA too.

    Source: torch.compile; Ansel et al., PyTorch 2, ASPLOS 2024.

    Attributes:
        mode: `reduce-overhead` replays CUDA graphs, `max-autotune` also chooses kernels by timing them; neither
            supports the caches of models that decode.
        backend: Compiler of the captured graph: `inductor`, or another backend of torch.
    """

    changes: ClassVar[Literal["architecture"]] = "architecture"
    takes: ClassVar[tuple[State, ...]] = ("float", "half", "packed")
    gives: ClassVar[State] = "runtime"

    mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] = "default"
    backend: str = "inductor"

    def compress(self, model: Model, family: Family) -> Model:
        """Check that the model can be compiled; it is compiled only after it is restored.

        Raises:
            MachineLacks: There is no compiler.
            Unsupported: The mode does not support this model.
            UnknownName: torch has no such backend.
        """
        import torch

        backends = torch.compiler.list_backends(exclude_tags=())
        if self.backend not in backends:
            raise UnknownName("backend", self.backend, backends)
        if self.backend == "inductor":
            _require_compiler()
        if self.mode in _WITH_CUDA_GRAPHS and getattr(model.module, "can_generate", lambda: False)():
            raise Unsupported(
                f"mode {self.mode} keeps the outputs of a call in a CUDA graph's memory, which the next call "
                "overwrites: a key-value cache can't be kept there. Use default or max-autotune-no-cudagraphs."
            )
        note_all(model)
        model.facts["compiled"] = f"by {self.backend} in the warm-up, in mode {self.mode}"
        return model

    def rebuild(self, model: Model, family: Family) -> Model:
        """Compile the module after its first call."""
        from torch._dynamo import config

        config.recompile_limit = max(config.recompile_limit, _MOST_VARIANTS)
        model.warmed = _end_compiling_processes
        model.first_calls = 2  # the second compiles
        self._compile_later(model.module)
        if getattr(getattr(model.module, "config", None), "is_encoder_decoder", False):
            self._compile_later(model.module.get_encoder())  # it is also called separately
        return model

    def _compile_later(self, module: Any) -> None:
        def after_first_call(module: Any, inputs: Any, output: Any) -> None:
            hook.remove()
            options = {} if self.mode == "default" else {"mode": self.mode}
            module.compile(backend=self.backend, **options)
            module._compiled_call_impl = _with_reason(module._compiled_call_impl)

        hook = module.register_forward_hook(after_first_call)


def _with_reason(compiled: Any) -> Any:
    """Make a compiled call raise `Unsupported` with a reason if compilation fails, which only its first call shows."""
    from torch._dynamo.exc import TorchDynamoException

    def call(*inputs: Any, **keywords: Any) -> Any:
        try:
            return compiled(*inputs, **keywords)
        except TorchDynamoException as error:
            if is_out_of_memory(error):
                raise
            code_line = own_place(error)
            suffix = f" ({code_line})" if code_line else ""
            raise Unsupported(f"torch.compile can't compile the model: {cause_line(error)}{suffix}") from error

    return call


def _end_compiling_processes() -> None:
    """End the compiling processes to free their memory, half a gigabyte each.

    Later compilations start them again.
    """
    from torch._inductor import async_compile

    async_compile.shutdown_compile_workers()


def _require_compiler() -> None:
    """Check that Inductor finds a compiler and Python's headers.

    Raises:
        MachineLacks: There is no C++ compiler, or Python's headers are missing.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        compiler = os.environ.get("CXX", "g++")
        raise MachineLacks(
            f"Inductor needs a C++ compiler, but {compiler} can't be run: install g++, or set CXX"
        ) from None
    headers = Path(sysconfig.get_paths()["include"], "Python.h")
    if not headers.is_file():
        raise MachineLacks(f"Inductor needs Python's headers, but {headers} does not exist: install python3-dev")
