from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_model
from torch import nn

from mlflow_compress.compression.packed_layers import PackedLinear
from mlflow_compress.compression.packing import Packed
from mlflow_compress.compression.weight_groups import Grid, fitting, grouped
from mlflow_compress.methods.awq import Awq
from mlflow_compress.methods.gptq import Gptq
from mlflow_compress.methods.int4_weight_only import Int4WeightOnly
from mlflow_compress.networks.stored_weights import distance, load_weights, save_weights


@given(st.integers(8, 300), st.integers(1, 2000))
def test_groups_are_equally_long(requested: int, columns: int) -> None:
    size = fitting(requested, columns)
    assert columns % size == 0
    assert size <= requested or size == columns
    if columns % requested == 0 or columns <= requested:
        assert size == min(requested, columns)


@pytest.mark.parametrize(
    ("requested", "columns", "size"),
    [
        (128, 576, 64),  # SmolLM2: a size of the kernels comes before 96
        (128, 1536, 128),
        (128, 200, 50),
        (64, 100, 25),  # two groups of 50 would be read as 64 and 36 of an earlier version
        (96, 576, 96),
        (100, 101, 101),  # only groups of 1 would divide it
        (128, 27, 27),
    ],
)
def test_the_largest_size_that_divides_is_used(requested: int, columns: int, size: int) -> None:
    assert fitting(requested, columns) == size


@pytest.mark.parametrize(("columns", "groups"), [(100, 2), (576, 9), (200, 4), (101, 2)])
def test_files_of_earlier_versions_keep_their_short_last_group(columns: int, groups: int, tmp_path: Path) -> None:
    weight, bias = torch.randn(8, columns), torch.zeros(8)
    earlier = PackedLinear(Packed((8, columns), 4, columns), bias)
    earlier.packed.group_size = 64
    parts = grouped(weight, 64)
    grid = Grid.over(parts, 4)
    for name in ("scales", "zeros"):
        setattr(earlier.packed, name, getattr(earlier.packed, name).expand(8, 1).repeat(1, parts.shape[1]))
    earlier.packed.fill(grid.encode(parts).view(8, -1)[:, :columns], grid.scales, grid.zeros)
    assert earlier.packed.scales.shape[1] == -(-columns // 64) >= groups - 1
    save_weights(earlier, tmp_path)
    restored = PackedLinear(Packed((8, columns), 4, 64), bias)
    load_weights(restored, tmp_path)
    inputs = torch.randn(3, columns)
    expected = earlier(inputs)
    assert torch.equal(restored(inputs), expected)
    restored.use_kernel()
    assert distance(restored(inputs).flatten(), expected.flatten()) < 0.01
    current = PackedLinear(Packed.of(weight, 4, 64), bias)
    save_weights(current, tmp_path)
    restored = PackedLinear(Packed((8, columns), 4, 64), bias)
    load_weights(restored, tmp_path)
    assert torch.equal(restored(inputs), current(inputs))


@pytest.mark.parametrize("method", [Int4WeightOnly(group_size=24), Gptq(group_size=24), Awq(group_size=24)])
def test_other_group_sizes_have_a_caution(method: Int4WeightOnly | Gptq | Awq) -> None:
    family, model = tiny_model("text_classification")
    model = method.compress(model, family)
    (caution,) = [caution for caution in model.cautions if caution.code == "other_groups"]
    assert re.fullmatch(
        r"group_size=24 does not divide the inputs of \d+ layers: their groups are 8 of 32(, \d+ of \d+)*",
        caution.message,
    )


def test_groups_as_requested_have_no_caution() -> None:
    family, model = tiny_model("text_classification")
    model = Int4WeightOnly(group_size=16).compress(model, family)
    assert not any(caution.code == "other_groups" for caution in model.cautions)
    assert isinstance(model.module.classifier, PackedLinear | nn.Linear)
