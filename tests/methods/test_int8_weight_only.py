"""Weights in int8: rounded to the nearest step of each output channel."""

from __future__ import annotations

import torch
from quantised import compressed, stack
from torch import nn

from mlflow_compress.networks import stored_weights


def test_int8_rounds_to_one_of_255_steps_of_each_output_channel() -> None:
    module = stack(nn.Linear(64, 16))
    weight = module[0].weight.detach().clone()
    quantised = compressed(module, "int8_weight_only").module
    steps = weight.abs().amax(1, keepdim=True) / 127.5
    assert (quantised[0].weight.dequantize() - weight).abs().max() <= steps.max() / 2 * 1.01
    inputs = torch.randn(3, 64)
    assert stored_weights.distance(quantised(inputs), inputs @ weight.T + module[0].bias) < 0.01
