"""AWQ: channels that are strong are scaled, others are not."""

from __future__ import annotations

import torch
from quantised import Vectors, compressed, error, stack
from torch import nn

from mlflow_compress.compression.calibration import Inputs
from mlflow_compress.compression.packing import Packed, PackedLinear, nearest
from mlflow_compress.methods.awq import best_scale
from mlflow_compress.sockets import Model


def with_outliers(rows: int, width: int) -> torch.Tensor:
    inputs = torch.randn(rows, width)
    inputs[:, ::24] *= 30
    return inputs


def test_awq_errs_less_than_the_nearest_where_some_channels_are_strong() -> None:
    torch.manual_seed(0)
    weight, inputs = torch.randn(32, 96), with_outliers(4000, 96)
    scale = best_scale(weight, Inputs.of(inputs[:2000]), 4, 32, 20)
    assert set(scale.argsort()[-4:].tolist()) == {0, 24, 48, 72}
    made = nearest(weight * scale, 4, 32) / scale
    assert error(weight, made, inputs[2000:]) < 0.7 * error(weight, nearest(weight, 4, 32), inputs[2000:])


def test_awq_scales_nothing_where_no_channel_is_stronger() -> None:
    inputs = Inputs(1, torch.eye(16), torch.ones(16))
    assert torch.equal(best_scale(torch.randn(4, 16), inputs, 4, 8, 20), torch.ones(16))


def test_awq_takes_the_scale_that_errs_least() -> None:
    torch.manual_seed(0)
    weight, rows = torch.randn(8, 48), with_outliers(500, 48)
    inputs = Inputs.of(rows)
    found = best_scale(weight, inputs, 3, 16, 5)
    errors = {}
    for step in range(5):
        scale = inputs.magnitude ** (step / 5)
        scale = scale / (scale.max() * scale.min()).sqrt()
        errors[error(weight, nearest(weight * scale, 3, 16) / scale, rows)] = scale
    assert torch.allclose(found, errors[min(errors)])


def test_awq_multiplies_inputs_by_what_weights_are_divided_by() -> None:
    torch.manual_seed(0)
    module, family = stack(nn.Linear(64, 16)), Vectors()
    weight = module[0].weight.detach().clone()
    layer = compressed(module, "awq", samples=64).module[0]
    assert isinstance(layer, PackedLinear)
    assert layer.input_scale is not None
    assert torch.equal(layer.packed(), Packed.of(weight / layer.input_scale, 4, 128)())
    inputs = family.calibration(Model(None), 1, 0, 50)[0]
    assert error(weight, layer.weight, inputs) < 0.2
