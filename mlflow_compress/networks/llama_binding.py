"""The binding of llama.cpp: its functions, its messages, and its quantisation of files."""

from __future__ import annotations

import collections
import ctypes
import functools
from pathlib import Path
from typing import Any

from mlflow_compress.errors import MachineLacks, WorkerError, one_line

DISTRIBUTION = "llama-cpp-python"
INSTALL = 'pip install "mlflow-compress[gguf]" (the build takes a few minutes and requires cmake and a C++ compiler)'
_KEPT_LINES = 20
_WARNING = 3  # llama.cpp's level


def quantize(source: Path, target: Path, kind: str, threads: int) -> None:
    """Convert a float file to another type with llama.cpp, as its own tool `llama-quantize` does.

    Args:
        source: a file that this package wrote.
        target: the file to write.
        kind: the type, as llama.cpp names it (`Q4_K_M`).
        threads: number of threads.

    Raises:
        WorkerError: llama.cpp failed.
    """
    lib = binding()
    parameters = lib.llama_model_quantize_default_params()
    parameters.nthread, parameters.ftype = threads, getattr(lib, f"LLAMA_FTYPE_MOSTLY_{kind}")
    if lib.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(parameters)):
        raise WorkerError(f"llama.cpp could not quantise to {kind}: {reason()}")


@functools.cache
def binding() -> Any:
    """Return the functions of llama.cpp, and keep its messages away from standard error.

    Raises:
        MachineLacks: the binding is not installed, or can't be loaded here.
    """
    try:
        from llama_cpp import llama_cpp
    except (ImportError, OSError, RuntimeError) as error:  # it, or a library that it needs, is missing
        raise MachineLacks(f"{DISTRIBUTION} can't be loaded ({one_line(error)}): {INSTALL}") from error
    llama_cpp.llama_log_set(_LISTENER, None)
    llama_cpp.llama_backend_init()
    return llama_cpp


_MESSAGES: collections.deque[str] = collections.deque(maxlen=_KEPT_LINES)


def _hear(level: int, text: bytes, _: Any) -> None:
    if level >= _WARNING:
        _MESSAGES.append(text.decode("utf-8", "replace").strip())


_LISTENER = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(
    _hear
)  # must live as long as the process


def reason() -> str:
    """Return the last message of llama.cpp."""
    return next((line for line in reversed(_MESSAGES) if line), "it gives no reason")[:300]
