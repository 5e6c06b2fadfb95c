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
_HOPELESS, _LONG_SECONDS = 5, 0.2  # a first call that is so many times slower than the best, and so long
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
            _fastest[key] = _fastest_of({None: kernel, **dense}, inputs)
        if (dtype := _fastest[key]) is None:
            return kernel
        self._dense_from = min(rows, self._dense_from or rows)
        return dense[dtype]


def _fastest_of(ways: Mapping[Any, Way], inputs: Tensor) -> Any:
    """Return the key of the way whose best call took the least time.

    A way whose warm-up call is already much slower than the best so far is not called again: a CPU that emulates a
    type takes seconds for a call.
    """
    best, least = None, float("inf")
    with torch.no_grad():
        for key, way in ways.items():
            if _seconds(way, inputs) < max(_HOPELESS * least, _LONG_SECONDS):
                seconds = min(_seconds(way, inputs) for _ in range(_TRIES))
                if seconds < least:
                    best, least = key, seconds
    return best


def _seconds(way: Way, inputs: Tensor) -> float:
    _wait(inputs)
    start = time.perf_counter()
    way(inputs)
    _wait(inputs)
    return time.perf_counter() - start


def _wait(inputs: Tensor) -> None:
    if inputs.device.type != "cpu":
        torch.accelerator.synchronize()
