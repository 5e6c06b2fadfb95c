"""Stacks of layers: which layers and heads are removed, and the config afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import DEEPER, tiny_model

from mlflow_compress.errors import Unsupported
from mlflow_compress.networks import stored_weights, transformer_layers
from mlflow_compress.sockets import Family, Model


def deeper(name: str, **architecture: Any) -> tuple[Family, Model]:
    return tiny_model(name, {**DEEPER[name], **architecture})


def outputs(family: Any, model: Model) -> torch.Tensor:
    with torch.no_grad():
        values: torch.Tensor = stored_weights.flat(family.forward(model, family.batch(model, 2, 0)))
    return values


def test_spacing_is_that_of_distilbert_and_keeps_both_ends() -> None:
    assert transformer_layers.spaced(12, 6) == [0, 2, 4, 7, 9, 11]
    assert transformer_layers.spaced(32, 2) == [0, 31]
    assert transformer_layers.spaced(4, 1) == [0]
    assert transformer_layers.spaced(3, 3) == [0, 1, 2]


@pytest.mark.parametrize(
    ("count", "amount", "remaining"), [(6, 0.5, 3), (3, 0.5, 2), (6, 0.6, 2), (12, 0.3, 8), (1, 0.9, 1), (2, 0.99, 1)]
)
def test_a_share_is_removed_but_never_all(count: int, amount: float, remaining: int) -> None:
    assert transformer_layers.share(count, amount) == remaining


def test_the_stacks_of_each_family_are_found() -> None:
    names = {name: [(s.name, s.count) for s in transformer_layers.stacks(deeper(name)[1])] for name in DEEPER}
    assert names == {
        "text_classification": [("distilbert.transformer.layer", "num_hidden_layers")],
        "causal_lm": [("model.layers", "num_hidden_layers")],
        "asr": [("model.encoder.layers", "encoder_layers"), ("model.decoder.layers", "decoder_layers")],
        "asr_ctc": [("wav2vec2.encoder.layers", "num_hidden_layers")],
    }
    with pytest.raises(Unsupported, match=r"not a transformers model.*what=channels"):
        transformer_layers.stacks(Model(torch.nn.Linear(1, 1)))


def test_dropping_layers_updates_the_count() -> None:
    kinds = ["full_attention"] * 3 + ["sliding_attention"]
    _, model = deeper("causal_lm", model_type="qwen3", layer_types=kinds, use_sliding_window=True, sliding_window=4)
    layers = list(model.module.model.layers)
    (stack,) = transformer_layers.stacks(model)
    transformer_layers.keep_layers(model, stack, [1, 3])
    assert list(model.module.model.layers) == [layers[1], layers[3]]
    assert [layer.self_attn.layer_idx for layer in model.module.model.layers] == [0, 1]
    for config in (model.config, model.module.config):
        assert (config.num_hidden_layers, config.layer_types) == (2, ["full_attention", "sliding_attention"])


def test_a_layer_that_changes_nothing_has_no_influence() -> None:
    family, model = deeper("causal_lm")
    (stack,) = transformer_layers.stacks(model)
    layer = stack.layers(model)[2]
    for linear in (layer.self_attn.o_proj, layer.mlp.down_proj):
        linear.weight.zero_()
    with transformer_layers.watched(model) as states:
        outputs(family, model)
        outputs(family, model)
    hidden = states["model.layers"]
    assert [state.shape for state in hidden] == [(2, 8, 16)] * 5
    influence = transformer_layers.influence(hidden)
    assert influence[2] == pytest.approx(0, abs=1e-6)
    assert min(influence[:2] + influence[3:]) > 1e-6
    assert not layer._forward_hooks


def test_a_thinned_copy_leaves_the_original() -> None:
    family, model = deeper("asr")
    before = outputs(family, model)
    thin = transformer_layers.thinned(model, 0.5, "decoder")
    counts = [(config.encoder_layers, config.decoder_layers) for config in (thin.config, model.config)]
    assert counts == [(2, 2), (2, 4)]
    torch.testing.assert_close(outputs(family, model), before)
    ours, theirs = thin.module.model.decoder.layers, model.module.model.decoder.layers
    for mine, index in zip(ours, transformer_layers.spaced(4, 2), strict=True):
        torch.testing.assert_close(mine.state_dict(), theirs[index].state_dict())
    assert thin.module.proj_out.weight is thin.module.model.decoder.embed_tokens.weight
    with pytest.raises(Unsupported, match="too few layers"):
        transformer_layers.thinned(model, 0.9, "encoder")
