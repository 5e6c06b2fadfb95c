"""Weights in int4, of linear layers and convolutions."""

from __future__ import annotations

import torch
from quantised import compressed, stack
from torch import nn

from mlflow_compress.compression.weight_groups import nearest


def test_int4_serves_linear_and_convolution_layers() -> None:
    module = stack(nn.Conv1d(16, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 62, 4))
    convolution, linear = (module[index].weight.detach().clone() for index in (0, 3))
    model = compressed(module, "int4_weight_only", group_size=32)
    assert torch.equal(model.module[0].packed().view(8, -1), nearest(convolution.view(8, -1), 4, 32))
    assert torch.equal(model.module[3].packed(), nearest(linear, 4, 32))
    assert model.facts["layers"] == "2 of 2 linear, convolution and embedding layers"
