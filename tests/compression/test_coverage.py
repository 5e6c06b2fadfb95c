"""The share of a model that a method reached: the count, its caution, and each method's cautions about kernels."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_model
from torch import nn

from mlflow_compress import registry
from mlflow_compress.compression import coverage
from mlflow_compress.sockets import Model


def test_shared_weights_are_counted_once() -> None:
    first, second = nn.Linear(8, 8), nn.Linear(8, 8)
    second.weight = first.weight
    model = Model(nn.Sequential(first, second, nn.Embedding(10, 8)))
    coverage.note(model, [first.weight, second.weight])
    assert model.facts["reached"] == "reached 64 of 160 weights"
    (caution,) = model.cautions
    assert caution.code == "small_coverage"
    assert caution.message == "the method reached 64 of 160 weights (40%)"
    assert caution.texts["message"]["ru"] == "метод затронул 64 из 160 весов (40%)"


@pytest.mark.parametrize(("reached", "is_told"), [(50, False), (49, True)])
def test_half_of_the_weights_is_enough(reached: int, is_told: bool) -> None:
    model = Model(None)
    coverage.record(model, reached, 100)
    assert bool(model.cautions) is is_told


def test_a_small_share_is_not_rounded_to_nothing() -> None:
    model = Model(None)
    coverage.record(model, 96, 64_322)
    assert model.cautions[0].message == "the method reached 96 of 64,322 weights (0.15%)"


def test_each_step_of_a_chain_is_recorded() -> None:
    family, model = tiny_model("text_classification")
    for name in ("prune_magnitude", "int8_dynamic"):
        model = registry.build("methods", name).compress(model, family)
    first, second = model.facts["reached"].split("; then ")
    assert first.startswith("reached ")
    assert second.startswith("reached ")
    assert first.split(" of ")[1] == second.split(" of ")[1]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("gptq", None),
        ("awq", None),
        ("int4_weight_only", None),
        ("int8_weight_only", None),
        ("cluster", "stored_only"),
        ("prune_magnitude", "dense_zeros"),
        ("prune_2_4", "dense_zeros"),
        ("wanda", "dense_zeros"),
        ("int8_dynamic", None),
        ("bf16", None),
    ],
)
def test_methods_without_a_speedup_have_a_caution(name: str, code: str | None) -> None:
    family, model = tiny_model("causal_lm")
    compressed = registry.build("methods", name).compress(model, family)
    codes = {"no_kernel", "stored_only", "dense_zeros"} & {caution.code for caution in compressed.cautions}
    assert codes == ({code} if code else set())
    assert compressed.facts["reached"].startswith("reached ")
    for caution in compressed.cautions:
        assert set(caution.texts["short"]) >= {"en", "ru"}


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_pruning_reaches_recurrent_layers_and_attention(scope: str) -> None:
    lstm, gru, attention, head = nn.LSTM(6, 8), nn.GRU(8, 8), nn.MultiheadAttention(8, 2), nn.Linear(8, 3)
    module = nn.ModuleList([lstm, gru, attention, head]).requires_grad_(False)
    weights = [parameter for name, parameter in module.named_parameters() if "weight" in name]
    total = sum(weight.numel() for weight in weights)
    model = Model(module)
    method = registry.build("methods", "prune_magnitude", {"amount": 0.5, "scope": scope})
    module = method.compress(model, registry.build("families", "python")).module
    assert sum(int((weight == 0).sum()) for weight in weights) == total // 2
    parameters = sum(parameter.numel() for parameter in module.parameters())
    assert model.facts["reached"] == f"reached {total:,} of {parameters:,} weights"
    with torch.no_grad():  # the kernels read the pruned weights
        assert not lstm(torch.zeros(2, 1, 6))[0].isnan().any()
    assert all(any(flat is weight for weight in weights) for flat in lstm._flat_weights[:2])
