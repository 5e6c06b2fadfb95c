"""Weights that are computed before each call become parameters, and the module computes the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from mlflow_compress.networks.made_weights import fold


def masked(layer: nn.Module) -> nn.Module:
    prune.l1_unstructured(layer, "weight", 5)
    prune.random_unstructured(layer, "weight", 3)
    prune.l1_unstructured(layer, "bias", 1)
    return layer


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize(
    "wrap",
    [
        weight_norm,
        spectral_norm,
        masked,
        lambda layer: weight_norm(weight_norm(layer), "bias"),
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        parametrizations.orthogonal,
    ],
)
def test_what_is_made_becomes_a_parameter(wrap: Callable[[nn.Module], nn.Module]) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(wrap(nn.Linear(4, 4)), nn.ReLU(), nn.Linear(4, 2)).eval()
    module.requires_grad_(False)
    batch = torch.rand(3, 4)
    want = module(batch)
    assert fold(module)
    assert torch.allclose(module(batch), want, atol=1e-6)
    assert sorted(name for name, _ in module.named_parameters()) == ["0.bias", "0.weight", "2.bias", "2.weight"]
    assert not list(module.buffers())
    assert not any(isinstance(value, torch.Tensor) for layer in module for value in vars(layer).values())
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_a_recurrent_layer_is_folded_too() -> None:
    layer = parametrizations.weight_norm(nn.LSTM(4, 4), "weight_hh_l0").eval()
    batch = torch.rand(2, 3, 4)
    with torch.no_grad():
        want = layer(batch)[0]
        assert fold(layer)
        assert torch.allclose(layer(batch)[0], want, atol=1e-6)


def test_where_nothing_is_made_nothing_is_done() -> None:
    module = nn.Linear(4, 4)
    module.register_forward_pre_hook(lambda layer, inputs: None)
    assert not fold(module)
    assert len(module._forward_pre_hooks) == 1
    assert not fold({"start": module})
