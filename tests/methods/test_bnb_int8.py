"""LLM.int8() of bitsandbytes: its steps, and outliers in floating point."""

from __future__ import annotations

import torch
from quantised import compressed, stack
from torch import nn

from mlflow_compress.networks import stored_weights


def test_llm_int8_rounds_each_output_channel_to_127_steps() -> None:
    torch.manual_seed(0)
    module = stack(nn.Linear(64, 16))
    weight, bias = module[0].weight.detach().half().float(), module[0].bias.detach().clone()
    layer = compressed(module, "bnb_int8").module[0]
    largest = weight.abs().amax(1)
    assert torch.allclose(layer.scales, largest)
    assert (layer.weight.float() - weight / largest[:, None] * 127).abs().max() <= 0.51
    inputs = torch.randn(5, 64)
    with torch.inference_mode():
        assert stored_weights.distance(layer(inputs), inputs @ weight.T + bias) < 0.03


def test_llm_int8_keeps_outliers_in_floating_point() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(5, 64)
    inputs[:, 3] = 200
    distances = {}
    for threshold in (0.0, 6.0):
        torch.manual_seed(1)
        module = stack(nn.Linear(64, 16))
        with torch.inference_mode():
            plain = module(inputs)
            quantised = compressed(module, "bnb_int8", threshold=threshold).module
            distances[threshold] = stored_weights.distance(quantised(inputs), plain)
    assert distances[6.0] < distances[0.0] / 2
