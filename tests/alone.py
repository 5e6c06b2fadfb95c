"""Run code that may crash in a library in its own process: a crash is one failed test, not the end of the suite."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        "torch",
        "transformers.generation.utils",
        "mlflow_compress.measuring.worker",
        "mlflow_compress.compression.openvino_graphs",  # before OpenVINO, whose usage reports it declines
        "openvino",
        "nncf",
    ]
)


def alone(function: Callable[..., Given], *arguments: object) -> Given:
    """Call a function of a module in a fresh process.

    Raises:
        BrokenProcessPool: the process died.
        Exception: what the function raised.
    """
    with ProcessPoolExecutor(1, mp_context=_FORKS) as process:
        return process.submit(function, *arguments).result()
