"""AWQ: only strong channels are scaled; large weights are clipped where this helps."""

from __future__ import annotations

import pytest
import torch
from quantised import Vectors, compressed, error, stack
from torch import nn

from mlflow_compress.compression.calibration import Inputs
from mlflow_compress.compression.packed_layers import PackedLinear
from mlflow_compress.compression.packing import Packed
from mlflow_compress.compression.weight_groups import nearest
from mlflow_compress.methods.awq import best_scale, clipped
from mlflow_compress.sockets import Model


def with_outliers(rows: int, width: int) -> torch.Tensor:
    inputs = torch.randn(rows, width)
    inputs[:, ::24] *= 30
    return inputs


def test_awq_has_less_error_than_the_nearest_with_strong_channels() -> None:
    torch.manual_seed(0)
    weight, inputs = torch.randn(32, 96), with_outliers(4000, 96)
    scale = best_scale(weight, Inputs.of(inputs[:2000]), 4, 32, 20)
    assert set(scale.argsort()[-4:].tolist()) == {0, 24, 48, 72}
    rounded = nearest(weight * scale, 4, 32) / scale
    assert error(weight, rounded, inputs[2000:]) < 0.7 * error(weight, nearest(weight, 4, 32), inputs[2000:])


def test_awq_scales_nothing_without_strong_channels() -> None:
    inputs = Inputs(1, torch.eye(16), torch.ones(16))
    assert torch.equal(best_scale(torch.randn(4, 16), inputs, 4, 8, 20), torch.ones(16))


def test_awq_uses_the_scale_with_the_least_error() -> None:
    torch.manual_seed(0)
    weight, rows = torch.randn(8, 48), with_outliers(500, 48)
    inputs = Inputs.of(rows)
    best = best_scale(weight, inputs, 3, 16, 5)
    errors = {}
    for step in range(5):
        scale = inputs.magnitude ** (step / 5)
        scale = scale / (scale.max() * scale.min()).sqrt()
        errors[error(weight, nearest(weight * scale, 3, 16) / scale, rows)] = scale
    assert torch.allclose(best, errors[min(errors)])


def heavy_tailed(rows: int, width: int) -> torch.Tensor:
    return torch.randn(rows, width) ** 3  # a few large weights stretch the grids of their groups


def test_awq_clips_where_the_outputs_of_a_group_change_least() -> None:
    torch.manual_seed(0)
    weight, rows = heavy_tailed(3, 24), with_outliers(200, 24)
    result = clipped(weight, Inputs.of(rows).gram, 3, 8)
    for row in range(3):
        for start in (0, 8, 16):
            group, inputs = weight[row, start : start + 8], rows[:, start : start + 8]
            errors = {}
            for step in range(10):
                limit = float(group.abs().max()) * (1 - step / 20)
                rounded = nearest(group[None].clamp(-limit, limit), 3, 8)[0]
                errors[float((inputs @ (rounded - group)).square().mean())] = group.clamp(-limit, limit)
            assert torch.allclose(result[row, start : start + 8], errors[min(errors)])


def test_awq_has_less_error_with_clipping() -> None:
    torch.manual_seed(0)
    weight, inputs = torch.randn(64, 96), torch.randn(2000, 96)
    rounded = nearest(clipped(weight, Inputs.of(inputs[:1000]).gram, 2, 96), 2, 96)
    assert error(weight, rounded, inputs[1000:]) < 0.85 * error(weight, nearest(weight, 2, 96), inputs[1000:])


@pytest.mark.parametrize("weight", [torch.zeros(2, 8), torch.arange(8.0).repeat(2, 1)])
def test_awq_clips_nothing_if_the_grid_fits(weight: torch.Tensor) -> None:
    assert torch.equal(clipped(weight, torch.eye(8), 3, 8), weight)


@pytest.mark.parametrize(("name", "is_cut"), [("up_proj", True), ("q_proj", False), ("key", False), ("Wqkv", False)])
def test_awq_clips_no_queries_and_keys(name: str, is_cut: bool) -> None:
    torch.manual_seed(0)
    module = nn.Sequential()
    module.add_module(name, nn.Linear(64, 16))
    layer = module[0]
    assert isinstance(layer, nn.Linear)
    layer.weight.data = heavy_tailed(16, 64)
    weight = layer.weight.detach().clone()
    packed = compressed(module, "awq", bits=3, group_size=32, samples=64).module[0]
    unclipped = Packed.of(weight / packed.input_scale, 3, 32)()
    assert torch.equal(packed.packed(), unclipped) is not is_cut


def test_awq_multiplies_inputs_by_what_weights_are_divided_by() -> None:
    torch.manual_seed(0)
    module, family = stack(nn.Linear(64, 16)), Vectors()
    weight = module[0].weight.detach().clone()
    layer = compressed(module, "awq", samples=64).module[0]
    assert isinstance(layer, PackedLinear)
    assert layer.input_scale is not None
    assert error(weight / layer.input_scale, layer.packed(), torch.randn(50, 64)) < 0.15
    inputs = family.calibration(Model(None), 1, 0, 50)[0]
    assert error(weight, layer.weight, inputs) < 0.2
