from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from mlflow_compress.compression import calibration
from mlflow_compress.compression.calibration import Inputs, fit_in_order
from mlflow_compress.sockets import Model


class Family:
    """A family that calls the module on one batch: the given one, or random vectors."""

    def __init__(self, batch: torch.Tensor | None = None) -> None:
        self.batch = batch
        self.request: tuple[int, int, int] | None = None

    def calibration(self, model: Model, count: int, seed: int, size: int = 1) -> list[Any]:
        self.request = (count, seed, size)
        return [torch.randn(size, 4) if self.batch is None else self.batch]

    def forward(self, model: Model, batch: Any) -> Any:
        return model.module(batch)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last, self.first = nn.Linear(4, 4), nn.Linear(4, 4)
        self.left, self.right = nn.Linear(4, 4), nn.Linear(4, 4)
        self.unused = nn.Linear(4, 4)

    def forward(self, inputs: torch.Tensor) -> Any:
        hidden = self.first(inputs)
        return self.last(self.left(hidden) + self.right(hidden))


def fit(net: Any, layers: list[nn.Linear], family: Any) -> tuple[Model, list[Any]]:
    calls: list[Any] = []

    def double(layer: Any, inputs: Inputs | None) -> Any:
        calls.append((layer, inputs))
        doubled = nn.Linear(4, 4)
        doubled.weight.data, doubled.bias.data = layer.weight.data * 2, layer.bias.data
        return doubled

    model = Model(net)
    fit_in_order(model, family, layers, 3, 5, double)
    return model, calls


def test_layers_are_fitted_in_the_order_of_execution_to_what_they_will_be_fed() -> None:
    net, batch = Net().eval(), torch.randn(3, 4)
    first, left, right, last = net.first, net.left, net.right, net.last
    before = first.weight.detach().clone()
    model, calls = fit(net, [last, right, left, first], Family(batch))
    assert [layer for layer, _ in calls] == [first, left, right, last]
    fitted = model.module
    hidden = fitted.first(batch)
    summed = fitted.left(hidden) + fitted.right(hidden)
    for (_, inputs), rows in zip(calls, (batch, hidden, hidden, summed), strict=True):
        assert torch.allclose(inputs.gram, rows.T @ rows / 3, atol=1e-5)
        assert torch.allclose(inputs.magnitude, rows.abs().mean(0), atol=1e-6)
        assert inputs.rows == 3
    assert calls[1][1] is calls[2][1]  # equal inputs are summarised once
    assert torch.equal(fitted.first.weight, before * 2)
    assert all(layer.weight is None for layer in (first, left, right, last))  # old weights are freed
    assert torch.equal(first(batch), hidden)  # an old layer calls the new one


def test_all_samples_are_one_batch() -> None:
    family, net = Family(), Net()
    fit(net, [net.first], family)
    assert family.request == (1, 5, 3)


def test_the_pass_ends_with_the_last_layer() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 4)

        def forward(self, inputs: torch.Tensor) -> Any:
            self.first(inputs)
            raise AssertionError("a costly head")

    net = Net()
    model, calls = fit(net, [net.first], Family())
    assert len(calls) == 1
    assert model.module.first is not calls[0][0]


def test_a_layer_that_is_called_twice_is_fitted_once() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.again, self.last = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, inputs: torch.Tensor) -> Any:
            return self.last(self.again(self.again(inputs)))

    net = Net()
    model, calls = fit(net, [net.again, net.last], Family(torch.ones(2, 4)))
    assert len(calls) == 2
    fitted = model.module
    twice = fitted.again(fitted.again(torch.ones(2, 4)))
    assert torch.allclose(calls[1][1].gram, twice.T @ twice / 2)


def test_a_layer_that_is_never_called_has_a_caution() -> None:
    net = Net()
    model, calls = fit(net, [net.first, net.unused], Family())
    assert calls[-1][1] is None
    assert [caution.code for caution in model.cautions] == ["uncalibrated_layers"]
    assert "1 of 2 layers" in str(model.cautions[0])


def test_torchs_own_transformer_layers_are_called_layer_by_layer() -> None:
    encoder = nn.TransformerEncoderLayer(4, 2, 4, batch_first=True).eval()
    before = torch.backends.mha.get_fastpath_enabled()
    _, calls = fit(encoder, [encoder.linear1, encoder.linear2], Family(torch.randn(3, 2, 4)))
    assert [inputs is None for _, inputs in calls] == [False, False]
    assert torch.backends.mha.get_fastpath_enabled() is before


def test_a_pass_that_fails_leaves_the_layers_as_they_were() -> None:
    net = Net()
    with pytest.raises(RuntimeError):
        fit(net, [net.first, net.last], Family(torch.randn(2, 7)))
    assert not any("forward" in vars(layer) for layer in net.modules())


def test_very_many_inputs_are_sampled_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_MOST_ROWS", 4)
    rows = torch.arange(20.0).view(2, 5, 2).half()
    inputs = Inputs.of(rows)
    sampled = rows.view(-1, 2)[::3].float()
    assert inputs.rows == 4
    assert torch.equal(inputs.gram, sampled.T @ sampled / 4)
    assert inputs.gram.dtype == torch.float32
