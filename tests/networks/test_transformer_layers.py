"""Stacks of layers: which layers and heads go, and what the config says of it afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mlflow_compress import registry
from mlflow_compress.errors import Unsupported
from mlflow_compress.networks import stored_weights, transformer_layers
from mlflow_compress.sockets import Model

TINY: dict[str, dict[str, Any]] = {
    "text_classification": {
        "tokens": 8,
        "architecture": {
            "model_type": "distilbert",
            "vocab_size": 100,
            "dim": 16,
            "hidden_dim": 24,
            "n_layers": 4,
            "n_heads": 4,
        },
    },
    "causal_lm": {
        "prompt_tokens": 8,
        "new_tokens": 3,
        "architecture": {
            "model_type": "llama",
            "vocab_size": 100,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
        },
    },
    "asr": {
        "new_tokens": 3,
        "architecture": {
            "model_type": "whisper",
            "vocab_size": 100,
            "d_model": 16,
            "encoder_layers": 2,
            "decoder_layers": 4,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 24,
            "decoder_ffn_dim": 20,
            "max_target_positions": 16,
            "bos_token_id": 1,
            "eos_token_id": 1,
            "pad_token_id": 1,
            "decoder_start_token_id": 2,
            "suppress_tokens": [],
            "begin_suppress_tokens": [],
        },
    },
}


def tiny(name: str, **architecture: Any) -> tuple[Any, Model]:
    options = {**TINY[name], "architecture": {**TINY[name]["architecture"], **architecture}}
    family = registry.build("families", name, options)
    return family, family.load("tiny", "random", Path(), 0)


def outputs(family: Any, model: Model) -> torch.Tensor:
    with torch.no_grad():
        given: torch.Tensor = stored_weights.flat(family.forward(model, family.batch(model, 2, 0)))
    return given


@torch.no_grad()
def silence(model: Model, stack: transformer_layers.Stack, unit: int) -> None:
    """Make one unit of heads and one neuron of every layer give nothing, so that removing them changes nothing."""
    for layer in stack.layers(model):
        for each in transformer_layers._attentions(layer):
            width = each.size * each.heads // each.units
            rows = slice(unit * width, (unit + 1) * width)
            for linear in (each.query, each.key, each.value):
                linear.weight *= 9  # so that no other one is as small
            columns = rows if each.units == each.heads else slice(unit * each.size, (unit + 1) * each.size)
            each.query.weight[rows] = each.key.weight[columns] = each.value.weight[columns] = 0
            each.output.weight[:, rows] = 0
        for inputs, output in transformer_layers._feed_forwards(layer):
            for linear in inputs:
                linear.weight *= 9
                linear.weight[unit] = 0
            output.weight[:, unit] = 0


def test_spacing_is_that_of_distilbert_and_keeps_both_ends() -> None:
    assert transformer_layers.spaced(12, 6) == [0, 2, 4, 7, 9, 11]
    assert transformer_layers.spaced(32, 2) == [0, 31]
    assert transformer_layers.spaced(4, 1) == [0]
    assert transformer_layers.spaced(3, 3) == [0, 1, 2]


@pytest.mark.parametrize(
    ("count", "amount", "left"), [(6, 0.5, 3), (3, 0.5, 2), (6, 0.6, 2), (12, 0.3, 8), (1, 0.9, 1), (2, 0.99, 1)]
)
def test_a_share_is_removed_but_never_all(count: int, amount: float, left: int) -> None:
    assert transformer_layers.share(count, amount) == left


def test_the_stacks_of_each_family_are_found() -> None:
    found = {name: [(each.name, each.count) for each in transformer_layers.stacks(tiny(name)[1])] for name in TINY}
    assert found == {
        "text_classification": [("distilbert.transformer.layer", "num_hidden_layers")],
        "causal_lm": [("model.layers", "num_hidden_layers")],
        "asr": [("model.encoder.layers", "encoder_layers"), ("model.decoder.layers", "decoder_layers")],
    }
    with pytest.raises(Unsupported, match="no transformers model"):
        transformer_layers.stacks(Model(torch.nn.Linear(1, 1)))


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("name", TINY)
def test_heads_and_neurons_without_weight_go_first_and_are_not_missed(name: str, power: int) -> None:
    family, model = tiny(name)
    for stack in transformer_layers.stacks(model):
        silence(model, stack, 1)
    before = outputs(family, model)
    assert "heads" in transformer_layers.drop_heads(model, 0.25, power) or name == "causal_lm"
    assert "neurons" in transformer_layers.drop_neurons(model, 0.04, power)
    torch.testing.assert_close(outputs(family, model), before, rtol=1e-4, atol=1e-5)


def test_heads_that_share_a_key_go_together() -> None:
    family, model = tiny("causal_lm")
    silence(model, transformer_layers.stacks(model)[0], 1)
    before = outputs(family, model)
    assert transformer_layers.drop_heads(model, 0.5, 2) == "1 of 2 groups of heads in each attention of model.layers"
    torch.testing.assert_close(outputs(family, model), before, rtol=1e-4, atol=1e-5)
    attention = model.module.model.layers[0].self_attn
    assert attention.q_proj.weight.shape == (8, 16)
    assert attention.k_proj.weight.shape == attention.v_proj.weight.shape == (4, 16)
    config = model.module.config
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (2, 1, 4)
    # One key is left: now single heads of queries go.
    assert "1 of 2 heads" in transformer_layers.drop_heads(model, 0.5, 2)
    assert attention.q_proj.weight.shape == attention.k_proj.weight.shape == (4, 16)


def test_importance_is_the_norm_of_all_that_goes() -> None:
    _, model = tiny("text_classification")
    layer = model.module.distilbert.transformer.layer[0]
    (each,) = transformer_layers._attentions(layer)
    parts = [part.weight for part in (layer.attention.q_lin, layer.attention.k_lin, layer.attention.v_lin)]
    for power in (1, 2):
        expected = [
            sum(float(weight[4 * head : 4 * head + 4].abs().pow(power).sum()) for weight in parts)
            + float(layer.attention.out_lin.weight[:, 4 * head : 4 * head + 4].abs().pow(power).sum())
            for head in range(4)
        ]
        torch.testing.assert_close(each.importance(power), torch.tensor(expected))


def test_dropping_layers_counts_anew() -> None:
    _, model = tiny("causal_lm", model_type="qwen3", layer_types=["full_attention"] * 3 + ["sliding_attention"])
    layers = list(model.module.model.layers)
    (stack,) = transformer_layers.stacks(model)
    transformer_layers.keep_layers(model, stack, [1, 3])
    assert list(model.module.model.layers) == [layers[1], layers[3]]
    assert [layer.self_attn.layer_idx for layer in model.module.model.layers] == [0, 1]
    for config in (model.config, model.module.config):
        assert (config.num_hidden_layers, config.layer_types) == (2, ["full_attention", "sliding_attention"])


def test_a_layer_that_changes_nothing_has_no_influence() -> None:
    family, model = tiny("causal_lm")
    (stack,) = transformer_layers.stacks(model)
    layer = stack.layers(model)[2]
    for linear in (layer.self_attn.o_proj, layer.mlp.down_proj):
        linear.weight.zero_()
    with transformer_layers.watched(model) as seen:
        outputs(family, model)
        outputs(family, model)
    hidden = seen["model.layers"]
    assert [each.shape for each in hidden] == [(2, 8, 16)] * 5
    influence = transformer_layers.influence(hidden)
    assert influence[2] == pytest.approx(0, abs=1e-6)
    assert min(influence[:2] + influence[3:]) > 1e-6
    assert not layer._forward_hooks


def test_a_thinned_copy_leaves_the_original() -> None:
    family, model = tiny("asr")
    before = outputs(family, model)
    thin = transformer_layers.thinned(model, 0.5, "decoder")
    counts = [(each.encoder_layers, each.decoder_layers) for each in (thin.config, model.config)]
    assert counts == [(2, 2), (2, 4)]
    torch.testing.assert_close(outputs(family, model), before)
    ours, theirs = thin.module.model.decoder.layers, model.module.model.decoder.layers
    for mine, index in zip(ours, transformer_layers.spaced(4, 2), strict=True):
        torch.testing.assert_close(mine.state_dict(), theirs[index].state_dict())
    assert thin.module.proj_out.weight is thin.module.model.decoder.embed_tokens.weight
    with pytest.raises(Unsupported, match="too few layers"):
        transformer_layers.thinned(model, 0.9, "encoder")
