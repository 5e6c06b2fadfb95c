"""Static int8: torch's own layers, with calibrated steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from quantised import BRANCHED, Vectors, compressed, round_trip, stack
from torch import nn

from mlflow_compress import registry
from mlflow_compress.errors import Unsupported
from mlflow_compress.networks import stored_weights
from mlflow_compress.sockets import Model


def test_static_int8_layers_are_those_of_torch() -> None:
    from torch.ao.nn import quantized

    module = stack(
        nn.Linear(64, 64), nn.Unflatten(1, (4, 16)), nn.Conv1d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(112, 4)
    )
    model = compressed(module, "int8_static", samples=4)
    kinds = [type(model.module[index].module) for index in (0, 2, 5)]
    assert kinds == [quantized.Linear, quantized.Conv1d, quantized.Linear]
    assert {model.module[index].module.weight().dtype for index in (0, 2)} == {torch.qint8}
    assert model.facts["layers"] == "3 of 3 linear and convolution layers"
    assert model.module[2].stride == (1,)


def test_static_int8_steps_fit_the_data() -> None:
    torch.manual_seed(0)
    module = stack(nn.Linear(64, 8))
    weight, bias = module[0].weight.detach().clone(), module[0].bias.detach().clone()
    family = Vectors()
    family.mix = torch.eye(64)
    quantised = registry.build("methods", "int8_static", {"samples": 50}).compress(Model(module), family).module
    inputs = torch.randn(200, 64).clamp(-2, 2)
    step = float(quantised[0].quant.scale)
    assert 4 / 127 < step < 10 / 127  # 7 bits, over about 4 to 10 standard deviations
    assert stored_weights.distance(quantised(inputs), inputs @ weight.T + bias) < 0.05


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(4, 8, 3, padding="same"), nn.Conv2d(4, 8, 3, padding=1, padding_mode="circular"), nn.Conv2d(1, 2, 2)],
)
def test_convolutions_without_an_int8_kernel_or_a_gain_are_left(layer: nn.Module) -> None:
    with pytest.raises(Unsupported, match="to quantise"):
        compressed(layer, "int8_static")


def test_layers_that_were_never_called_have_no_scales(tmp_path: Path) -> None:
    before, after = round_trip(tmp_path, "int8_static:samples=2", BRANCHED)
    for model in (before, after):
        assert type(model.module.unused) is nn.Linear
        assert type(model.module.shared) is nn.Linear
        assert type(model.module.used) is not nn.Linear
    assert before.facts["layers"] == "2 of 5 linear and convolution layers"
