"""Choice between a packed kernel and a dense product, by the number of rows: measured once for each shape."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from torch import Tensor

Way = Callable[[Tensor], Tensor]

_FEW_ROWS = 4  # a dense product unpacks the whole weight first: for so few rows it is never faster
_TRIES = 3
_fastest: dict[Hashable, Any] = {}  # the fastest type to multiply in, None for the kernel; by shape, machine and rows


class Choice:
    """Choice for one layer; layers of one shape share the measurement.

    Args:
        shape: Key of layers that have the same times.
    """

    def __init__(self, shape: Hashable) -> None:
        self._shape = shape
        self._dense_from: int | None = None

    @property
    def summary(self) -> str:
        """The number of rows above which the dense product was used; empty if it was not."""
        return "" if self._dense_from is None else f"; dense above {self._dense_from // 2} rows"

    def of(self, inputs: Tensor, kernel: Way, dense: Mapping[torch.dtype, Way]) -> Way:
        """Return the fastest way for this number of rows, rounded up to a power of two.

        Args:
            inputs: Inputs [rows, in].
            kernel: Function that multiplies with packed weights.
            dense: Functions that unpack the weight and multiply, by the type they compute in.
        """
        if len(inputs) <= _FEW_ROWS or not dense or torch.compiler.is_compiling():
            return kernel
        rows = 1 << (len(inputs) - 1).bit_length()
        key = self._shape, rows, inputs.dtype, torch.get_num_threads()
        if key not in _fastest:
            kernels: dict[Any, Way] = {None: kernel, **dense}
            _fastest[key] = min(kernels, key=lambda key_of_kernel: _seconds(kernels[key_of_kernel], inputs))
        if (dtype := _fastest[key]) is None:
            return kernel
        self._dense_from = min(rows, self._dense_from or rows)
        return dense[dtype]


def _seconds(multiply: Way, inputs: Tensor) -> float:
    """Return the shortest time of a few calls, after one warm-up call."""
    least = float("inf")
    with torch.no_grad():
        multiply(inputs)
        for _ in range(_TRIES):
            _wait(inputs)
            start = time.perf_counter()
            multiply(inputs)
            _wait(inputs)
            least = min(least, time.perf_counter() - start)
    return least


def _wait(inputs: Tensor) -> None:
    if inputs.device.type == "cuda":
        torch.cuda.synchronize(inputs.device)
