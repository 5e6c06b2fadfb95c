"""Constants of an exported graph that are buffers of the module, not weights, also after they were rounded."""

from __future__ import annotations

import numpy as np
import pytest

from mlflow_compress.compression.exporting import _values, has_weights

BUFFER = np.linspace(-1, 1, 24)


@pytest.mark.parametrize("step", [2 / 255, 0.1])
def test_a_rounded_buffer_is_found_by_its_step(step: float) -> None:
    rounded = np.round((BUFFER + 1) / step) * step - 1
    assert not has_weights(rounded.reshape(2, 12).T, [_values(BUFFER)], step)
    assert has_weights(rounded * 0.8, [_values(BUFFER)], step)
    assert has_weights(rounded[:-1], [_values(BUFFER)], step)


def test_numbers_that_are_not_rounded_must_be_equal() -> None:
    assert not has_weights(BUFFER.astype(np.float32), [_values(BUFFER)])
    assert has_weights(BUFFER + 0.001, [_values(BUFFER)])
    assert not has_weights(np.ones(1), [])  # one element belongs to the arithmetic
