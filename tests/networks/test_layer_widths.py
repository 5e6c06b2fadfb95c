"""Heads and neurons: which are removed, that nothing else changes, and the config afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import DEEPER, tiny_model

from mlflow_compress.networks import layer_widths, stored_weights, transformer_layers
from mlflow_compress.networks.stored_weights import unfilled
from mlflow_compress.sockets import Family, Model


def deeper(name: str, **architecture: Any) -> tuple[Family, Model]:
    return tiny_model(name, {**DEEPER[name], **architecture})


def outputs(family: Any, model: Model) -> torch.Tensor:
    with torch.no_grad():
        values: torch.Tensor = stored_weights.flat(family.forward(model, family.batch(model, 2, 0)))
    return values


@torch.no_grad()
def silence(model: Model, stack: transformer_layers.Stack, unit: int) -> None:
    """Make one unit of heads and one neuron of every layer output zeros, so that removing them changes nothing."""
    for layer in stack.layers(model):
        for part in layer_widths._attentions(layer):
            width = part.size * part.heads // part.units
            rows = slice(unit * width, (unit + 1) * width)
            for linear in (part.query, part.key, part.value):
                linear.weight *= 9  # so that no other head is as small
            columns = rows if part.units == part.heads else slice(unit * part.size, (unit + 1) * part.size)
            part.query.weight[rows] = part.key.weight[columns] = part.value.weight[columns] = 0
            part.output.weight[:, rows] = 0
        for inputs, output in layer_widths._feed_forwards(layer):
            for linear in inputs:
                linear.weight *= 9
                linear.weight[unit] = 0
            output.weight[:, unit] = 0


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("name", DEEPER)
def test_heads_and_neurons_without_weight_go_first_and_are_not_missed(name: str, power: int) -> None:
    family, model = deeper(name)
    for stack in transformer_layers.stacks(model):
        silence(model, stack, 1)
    before = outputs(family, model)
    assert "heads" in layer_widths.drop_heads(model, 0.25, power) or name == "causal_lm"
    assert "neurons" in layer_widths.drop_neurons(model, 0.04, power)
    torch.testing.assert_close(outputs(family, model), before, rtol=1e-4, atol=1e-5)


def test_heads_that_share_a_key_go_together() -> None:
    family, model = deeper("causal_lm")
    silence(model, transformer_layers.stacks(model)[0], 1)
    before = outputs(family, model)
    assert layer_widths.drop_heads(model, 0.5, 2) == "1 of 2 groups of heads in each attention of model.layers"
    torch.testing.assert_close(outputs(family, model), before, rtol=1e-4, atol=1e-5)
    attention = model.module.model.layers[0].self_attn
    assert attention.q_proj.weight.shape == (8, 16)
    assert attention.k_proj.weight.shape == attention.v_proj.weight.shape == (4, 16)
    config = model.module.config
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (2, 1, 4)
    # One key is left: now single query heads are removed.
    assert "1 of 2 heads" in layer_widths.drop_heads(model, 0.5, 2)
    assert attention.q_proj.weight.shape == attention.k_proj.weight.shape == (4, 16)


def test_importance_is_the_norm_of_all_that_goes() -> None:
    _, model = deeper("text_classification")
    layer = model.module.distilbert.transformer.layer[0]
    (attention,) = layer_widths._attentions(layer)
    parts = [part.weight for part in (layer.attention.q_lin, layer.attention.k_lin, layer.attention.v_lin)]
    for power in (1, 2):
        expected = [
            sum(float(weight[4 * head : 4 * head + 4].abs().pow(power).sum()) for weight in parts)
            + float(layer.attention.out_lin.weight[:, 4 * head : 4 * head + 4].abs().pow(power).sum())
            for head in range(4)
        ]
        torch.testing.assert_close(attention.importance(power), torch.tensor(expected))


@pytest.mark.parametrize("name", DEEPER)
def test_a_model_built_from_the_config_is_narrowed_to_the_same_shapes(name: str) -> None:
    _, model = deeper(name)
    layer_widths.drop_heads(model, 0.5, 2)
    layer_widths.drop_neurons(model, 0.5, 2)
    with unfilled():
        rebuilt = Model(type(model.module)(model.config), config=model.config)
    layer_widths.narrow(rebuilt)
    shapes = {key: tensor.shape for key, tensor in model.module.state_dict().items()}
    assert {key: tensor.shape for key, tensor in rebuilt.module.state_dict().items()} == shapes


def test_a_share_that_removes_nothing_returns_nothing() -> None:
    _, model = deeper("text_classification")
    assert layer_widths.drop_heads(model, 0.1, 2) == ""
    assert layer_widths.drop_neurons(model, 0.01, 2) == ""
