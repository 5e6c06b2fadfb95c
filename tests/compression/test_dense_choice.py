"""Choice between a kernel and a dense product, with a clock of its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mlflow_compress.compression import dense_choice
from mlflow_compress.compression.dense_choice import Choice


class _Clock:
    """A clock that only `Timed` moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class _Timed:
    """A way to multiply that takes some seconds, and more at its first call."""

    def __init__(self, clock: _Clock, seconds: float, first_seconds: float | None = None) -> None:
        self._clock, self._seconds, self._first_seconds = clock, seconds, first_seconds
        self.calls = 0

    def __call__(self, inputs: Tensor) -> Tensor:
        self._clock.now += self._seconds if self.calls or self._first_seconds is None else self._first_seconds
        self.calls += 1
        return inputs


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    monkeypatch.setattr(dense_choice, "time", clock)
    monkeypatch.setattr(dense_choice, "_fastest", {})
    return clock


def test_the_fastest_way_is_chosen_and_measured_once(clock: _Clock) -> None:
    kernel, half, full = _Timed(clock, 0.03), _Timed(clock, 0.02), _Timed(clock, 0.01, first_seconds=0.15)
    choice = Choice("layer")
    inputs = torch.ones(100, 4)
    dense = {torch.bfloat16: half, torch.float32: full}
    assert choice.of(inputs, kernel, dense) is full
    assert choice.summary == "; dense above 64 rows"
    calls = kernel.calls, half.calls, full.calls
    assert Choice("layer").of(inputs, kernel, dense) is full
    assert (kernel.calls, half.calls, full.calls) == calls


def test_few_rows_use_the_kernel(clock: _Clock) -> None:
    kernel, dense = _Timed(clock, 0.03), _Timed(clock, 0.01)
    choice = Choice("layer")
    assert choice.of(torch.ones(4, 4), kernel, {torch.float32: dense}) is kernel
    assert choice.summary == ""
    assert dense.calls == 0


def test_a_type_that_the_cpu_emulates_is_called_once(clock: _Clock) -> None:
    kernel, emulated, full = _Timed(clock, 0.3), _Timed(clock, 6.0), _Timed(clock, 0.1)
    dense = {torch.bfloat16: emulated, torch.float32: full}
    assert Choice("layer").of(torch.ones(16, 4), kernel, dense) is full
    assert emulated.calls == 1
