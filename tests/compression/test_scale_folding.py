"""Scales of inputs are folded only where the model computes the same with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from quantised import Vectors, round_trip
from tiny import TINY, tiny_model
from torch import nn

from mlflow_compress.compression import scale_folding
from mlflow_compress.compression.packed_layers import PackedLinear, packable
from mlflow_compress.methods.awq import Awq
from mlflow_compress.networks import stored_weights
from mlflow_compress.sockets import Family, Model

WIDE = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_hidden_layers": 1}
QKV = ("q_proj", "k_proj", "v_proj")


def shaken(model: Model) -> Model:
    torch.manual_seed(0)
    for name, parameter in model.module.named_parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, 0.3)
        elif "bias" not in name:
            parameter.data.uniform_(0.5, 1.5)
    return model


def consumers(family: Any, model: Model) -> dict[str, tuple[str, ...]]:
    """Return the consumers of each fold by its producer, as the last parts of their names."""
    names = {module: name.rpartition(".")[2] for name, module in model.module.named_modules()}
    before = {name: parameter.clone() for name, parameter in model.module.named_parameters()}
    folds = scale_folding.find(model, family, packable(model.module, 4, 32))
    assert all(torch.equal(before[name], parameter) for name, parameter in model.module.named_parameters())
    return {names[fold.producer]: tuple(names[layer] for layer in fold.consumers) for fold in folds}


@pytest.mark.parametrize("key_value_heads", [2, 4])
def test_all_layers_of_a_llama_are_served(key_value_heads: int) -> None:
    family, model = tiny_model("causal_lm", {**WIDE, "num_key_value_heads": key_value_heads})
    assert consumers(family, shaken(model)) == {
        "input_layernorm": QKV,
        "post_attention_layernorm": ("gate_proj", "up_proj"),
        "v_proj": ("o_proj",),
        "up_proj": ("down_proj",),
    }


def test_a_norm_that_adds_one_to_its_weight_takes_no_scale() -> None:
    fields = {**WIDE, "num_key_value_heads": 4, "model_type": "gemma", "head_dim": 16}
    family, model = tiny_model("causal_lm", fields)
    assert consumers(family, shaken(model)) == {"v_proj": ("o_proj",), "up_proj": ("down_proj",)}


def test_a_norm_whose_outputs_are_used_elsewhere_takes_no_scale() -> None:
    family, model = tiny_model("text_classification", {"dim": 64, "hidden_dim": 128})  # norms after the sums
    folds = consumers(family, shaken(model))
    assert folds == {"v_lin": ("out_lin",), "pre_classifier": ("classifier",)}


class Net(nn.Module):
    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.norm, self.first, self.between, self.last = nn.LayerNorm(64), nn.Linear(64, 64), middle, nn.Linear(64, 8)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.last(self.between(self.first(self.norm(inputs))))
        return outputs


@pytest.mark.parametrize(("middle", "is_folded"), [(nn.ReLU(), True), (nn.Identity(), True), (nn.GELU(), False)])
def test_a_scale_passes_what_it_commutes_with(middle: nn.Module, is_folded: bool) -> None:
    torch.manual_seed(0)
    folds = consumers(Vectors(), Model(Net(middle).eval().requires_grad_(False)))
    assert folds == {"norm": ("first",), **({"first": ("last",)} if is_folded else {})}


def fitted(fields: dict[str, Any]) -> tuple[Family, Model, Model]:
    models = []
    for _ in range(2):
        family, model = tiny_model("causal_lm", fields)
        shaken(model).module.model.layers[0].input_layernorm.weight.data[::16] *= 20
        models.append(model)
    return family, models[0], Awq(group_size=32, samples=4).compress(models[1], family)


def test_awq_computes_the_same_as_with_scales_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {**WIDE, "num_key_value_heads": 2}
    family, plain, model = fitted(fields)
    packed = [layer for layer in model.module.modules() if isinstance(layer, PackedLinear)]
    assert len(packed) == 7
    assert not any(layer.scales_inputs for layer in packed)
    norm = plain.module.model.layers[0].input_layernorm.weight / model.module.model.layers[0].input_layernorm.weight
    assert norm.max() > 1.2 * norm.min()  # a scale was folded into it
    monkeypatch.setattr(scale_folding, "find", lambda *args: [])
    _, _, scaled = fitted(fields)
    assert all(layer.scales_inputs for layer in scaled.module.modules() if isinstance(layer, PackedLinear))
    batch = family.batch(plain, 2, 3)
    with torch.inference_mode():
        want, folded, unfolded = (stored_weights.flat(family.forward(net, batch)) for net in (plain, model, scaled))
    assert stored_weights.distance(folded, want) < 1.3 * stored_weights.distance(unfolded, want) < 0.5


def test_a_model_that_was_saved_before_scales_were_folded_is_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale_folding, "find", lambda *args: [])
    chain = "awq:group_size=32,samples=4,steps=4"
    options = TINY["causal_lm"]
    options = {**options, "architecture": {**options["architecture"], **WIDE}}
    _, restored = round_trip(tmp_path, chain, family="causal_lm", **options)
    layers = [layer for layer in restored.module.modules() if isinstance(layer, PackedLinear)]
    assert len(layers) == 7
    assert any(layer.scales_inputs for layer in layers)  # the best scale of some layers is 1


def test_a_scale_goes_through_grouped_heads() -> None:
    fold = scale_folding.Fold(nn.Linear(1, 4), (nn.Linear(8, 1),), times=2, width=2)
    scale = torch.tensor([1.0, 2.0, 3.0, 4.0])
    spread = fold.spread(scale)
    assert spread.tolist() == [1, 2, 1, 2, 3, 4, 3, 4]
    assert torch.equal(fold.channels(spread), scale)
    assert torch.equal(fold.pooled(spread), scale)
