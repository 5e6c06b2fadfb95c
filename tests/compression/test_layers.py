from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mlflow_compress.compression.layers import called, count, head_of, linear, replace, sharing


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.first = nn.Linear(4, 4)
        self.twin = nn.Linear(4, 4)
        self.twin.weight = self.first.weight
        self.alone = nn.Linear(4, 4)
        self.again = self.alone
        self.table = nn.Parameter(torch.zeros(4, 4))
        self.reader = nn.Linear(4, 4)
        self.reader.weight = self.table
        self.head = nn.Linear(4, 10)
        self.attention = nn.MultiheadAttention(4, 2)  # its linear layer has another class and is not called

    def get_output_embeddings(self) -> Any:
        return self.head


def test_layers_are_grouped_by_the_weight_they_share() -> None:
    model = Model()
    groups = [set(group) for group in sharing(model)]
    assert {model.first, model.twin} in groups
    assert {model.alone} in groups
    assert not any(model.reader in group for group in groups)  # the model itself holds that weight too


def test_linear_layers_with_weights_of_their_own_are_found() -> None:
    model = Model()
    assert linear(model) == [model.alone]
    assert head_of(model) is model.head
    assert head_of(nn.Linear(2, 2)) is None
    assert called(model, nn.Linear) == [model.alone]
    assert called(model, nn.Linear, head=True) == [model.alone, model.head]
    assert count(model, nn.Linear, nn.Embedding) == 6


def test_weights_that_a_fused_kernel_reads_are_not_called() -> None:
    encoder = nn.TransformerEncoderLayer(8, 2, 16)
    module = nn.Sequential(encoder, nn.Linear(8, 2))
    assert called(module, nn.Linear) == [module[1]]
    assert set(linear(module)) == {encoder.linear1, encoder.linear2, module[1]}


def test_a_layer_is_replaced_wherever_it_is_held() -> None:
    model, replacement = Model(), nn.Identity()
    assert replace(model, {model.alone: replacement}) is model
    assert model.alone is replacement
    assert model.again is replacement
    root = nn.Linear(2, 2)
    assert replace(root, {root: replacement}) is replacement
