"""Layers of bitsandbytes that are filled from plain tensors and report their weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip("bitsandbytes")

from mlflow_compress.compression.bnb import Linear4bit, Linear8bit


def layer(bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(64, 32, bias=bias).requires_grad_(False)


@pytest.mark.parametrize("bias", [True, False])
def test_eight_bits_are_filled_from_what_was_saved(bias: bool) -> None:
    quantised = Linear8bit.of(layer(bias), 6.0)
    empty = Linear8bit(layer(bias), 6.0)
    assert empty.weight.is_meta
    empty.load_state_dict(quantised.state_dict(), assign=True)
    inputs = torch.randn(5, 64)
    assert torch.equal(empty(inputs), quantised(inputs))
    assert quantised(inputs).shape == (5, 32)
    assert sum(part.parameters for part in quantised.held_weights()) == 64 * 32 + (32 if bias else 0)
    assert next(iter(quantised.held_weights())).tensor.dtype == torch.int8


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_four_bits_are_filled_from_what_was_saved(bias: bool, double: bool) -> None:
    quantised = Linear4bit.of(layer(bias), 64, double)
    empty = Linear4bit(layer(bias), 64, double)
    assert empty.weight.is_meta
    empty.load_state_dict(quantised.state_dict())
    inputs = torch.randn(5, 64)
    assert torch.equal(empty.eval()(inputs), quantised(inputs))
    assert sum(part.parameters for part in quantised.held_weights()) == 64 * 32 + (32 if bias else 0)
    codes = next(iter(quantised.held_weights())).tensor
    assert codes.numel() * codes.element_size() == 64 * 32 / 2


def test_weights_of_another_shape_are_refused() -> None:
    quantised = Linear4bit.of(layer(), 64, False)
    narrower = Linear4bit(nn.Linear(64, 16), 64, False)
    with pytest.raises(RuntimeError, match="has another shape"):
        narrower.load_state_dict(quantised.state_dict())
    with pytest.raises(RuntimeError, match="Missing key"):
        narrower.load_state_dict({})
