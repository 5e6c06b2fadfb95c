"""Common part of the pruning methods: learned layers, their inputs and outputs, and masks of the largest scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import OWN, tiny_model
from torch import nn

from mlflow_compress import registry
from mlflow_compress.compression import pruning


def test_layers_of_integers_are_not_learned() -> None:
    bins = nn.Conv1d(4, 1, 1, bias=False)
    bins.weight = nn.Parameter(torch.arange(4.0).reshape(1, 4, 1))
    module = nn.Sequential(nn.Conv1d(2, 4, 1), bins, nn.BatchNorm1d(1), nn.Linear(3, 3))
    assert pruning.learned(module) == [module[0], module[3]]
    assert pruning.learned(module, nn.Linear) == [module[3]]


def test_a_head_and_what_shares_its_weight_are_not_inner() -> None:
    _, model = tiny_model("causal_lm")
    inner = pruning.inner(model.module)
    assert model.module.lm_head not in inner
    assert model.module.model.embed_tokens not in inner
    assert len(inner) == 2 * 7  # of each layer: query, key, value, output, gate, up, down
    _, untied = tiny_model("causal_lm", {"tie_word_embeddings": False})
    assert untied.module.lm_head not in pruning.inner(untied.module)


def test_observers_see_each_call_and_are_removed_again(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    family = registry.build("families", "python")
    model = family.load("own.py", "random", tmp_path, 0)
    layer, shapes = model.module[0], list[tuple[Any, ...]]()

    def see(layer: Any, inputs: Any, output: Any) -> None:
        shapes.append((inputs[0].shape, output.shape))

    pruning.observe(model, family, [layer], 3, see)
    assert shapes == [((1, 8), (1, 16))] * 3
    model.module(torch.rand(1, 8))
    assert len(shapes) == 3

    def fail(layer: Any, inputs: Any, output: Any) -> None:
        raise RuntimeError("seen")

    with pytest.raises(RuntimeError, match="seen"):
        pruning.observe(model, family, [layer], 1, fail)
    model.module(torch.rand(1, 8))  # the hook that failed is removed too


def test_inputs_are_the_last_axis() -> None:
    weight = torch.arange(24).reshape(2, 3, 2, 2)
    assert pruning.by_input(weight).shape == (2, 2, 2, 3)
    assert pruning.by_input(weight)[1, 0, 1].tolist() == weight[1, :, 0, 1].tolist()


def test_the_largest_of_each_group_are_marked() -> None:
    scores = torch.tensor([[1.0, 4.0, 3.0, 2.0, 9.0, 8.0, 7.0, 10.0]])
    assert pruning.largest(scores, 2, 4).int().tolist() == [[0, 1, 1, 0, 1, 0, 0, 1]]
    assert pruning.largest(scores, 1, 2).int().tolist() == [[0, 1, 1, 0, 1, 0, 0, 1]]
