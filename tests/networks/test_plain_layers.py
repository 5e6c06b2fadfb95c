"""Weights that hooks compute, and transposed linear layers: converted, recorded, and converted again."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

from mlflow_compress.networks import plain_layers
from mlflow_compress.sockets import Model


def normed() -> nn.Module:
    return nn.Sequential(weight_norm(nn.Linear(6, 8)), parametrizations.weight_norm(nn.Linear(8, 4)))


def masked() -> nn.Module:
    layer = nn.Linear(6, 4)
    prune.l1_unstructured(layer, "weight", amount=0.5)
    return layer


def spectral() -> nn.Module:
    return nn.Sequential(spectral_norm(nn.Linear(6, 8)), parametrizations.spectral_norm(nn.Linear(8, 4))).eval()


def transposed() -> nn.Module:
    return nn.Sequential(Conv1D(8, 6), nn.ReLU(), Conv1D(4, 8))


def one_transposed() -> nn.Module:
    layer: nn.Module = Conv1D(4, 6)
    return layer


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")  # the old form is still in use
@pytest.mark.parametrize("build", [normed, masked, spectral, transposed, one_transposed])
def test_it_computes_the_same_with_plain_layers_and_the_note_makes_a_new_one_plain(build: object) -> None:
    assert callable(build)
    model, anew = Model(build().requires_grad_(False)), Model(build().requires_grad_(False))
    inputs = torch.rand(3, 6)
    before = model.module(inputs)
    plain_layers.make_plain(model)
    assert torch.allclose(model.module(inputs), before, atol=1e-6)
    assert all(name.rpartition(".")[2] in ("weight", "bias") for name, _ in model.module.named_parameters())
    assert {type(layer) for layer in model.module.modules()} <= {nn.Sequential, nn.Linear, nn.ReLU}
    anew.structure = model.structure
    plain_layers.make_plain_again(anew)
    anew.module.load_state_dict(model.module.state_dict())
    assert torch.equal(anew.module(inputs), model.module(inputs))


def test_what_is_plain_is_left_alone_and_nothing_is_noted() -> None:
    model = Model(nn.Sequential(nn.Linear(6, 4)))
    layer = model.module[0]
    plain_layers.make_plain(model)
    assert model.module[0] is layer
    assert model.structure == {}


def test_a_transformer_notes_it_in_its_config() -> None:
    config = GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=50, n_positions=16)
    module = GPT2LMHeadModel(config).eval()
    model = Model(module, config=config)
    tokens = torch.randint(0, 50, (1, 5))
    with torch.no_grad():
        before = module(tokens).logits
        plain_layers.make_plain(model)
        assert torch.allclose(module(tokens).logits, before, atol=1e-5)
    assert not plain_layers.transposed(module)
    assert GPT2Config.from_dict(config.to_dict()).plain_layers == ["transposed linear layers"]
