from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from mlflow_compress.compression.packed_layers import (
    CONVOLUTIONS,
    PackedConvolution,
    PackedEmbedding,
    PackedLinear,
    leave_empty,
    pack_layers,
    packable,
)
from mlflow_compress.compression.packing import Packed, pack, unpack
from mlflow_compress.compression.weight_groups import Grid, nearest
from mlflow_compress.meters import size

MIB = 2**20


@given(st.data(), st.integers(1, 8))
def test_what_is_packed_is_unpacked(data: st.DataObject, bits: int) -> None:
    values = data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=100))
    packed = pack(torch.tensor(values, dtype=torch.int64), bits)
    assert packed.dtype == torch.uint8
    assert len(packed) == -(-len(values) * bits // 8)
    assert unpack(packed, bits, len(values)).tolist() == values


@given(st.data(), st.integers(1, 8))
def test_packed_bytes_are_one_long_number(data: st.DataObject, bits: int) -> None:
    values = data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=1, max_size=40))
    number = sum(value << bits * index for index, value in enumerate(values))
    expected = number.to_bytes(-(-len(values) * bits // 8), "little")
    assert bytes(pack(torch.tensor(values, dtype=torch.uint8), bits).tolist()) == expected


@pytest.mark.parametrize("values", [[16], [-1], [3, 255]])
def test_a_value_that_needs_more_bits_is_refused(values: list[int]) -> None:
    with pytest.raises(ValueError, match="do not fit into 4 bits"):
        pack(torch.tensor(values), 4)


def test_any_shape_is_packed_in_order() -> None:
    values = torch.arange(12).view(3, 4)
    assert unpack(pack(values, 4), 4, 12).tolist() == list(range(12))
    assert pack(values.T, 4)[0] == 0x40


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_a_weight_is_rounded_to_the_nearest_of_its_groups_values(bits: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(5, 24)
    packed = Packed.of(weight, bits, 8)
    restored = packed()
    for row in range(5):
        for group, columns in enumerate((slice(0, 8), slice(8, 16), slice(16, 24))):
            part = weight[row, columns]
            scale, zero = float(packed.scales[row, group]), int(packed.zeros[row, group])
            span = max(float(part.max()), 0) - min(float(part.min()), 0)
            assert scale == pytest.approx(span / (2**bits - 1), rel=2**-8)
            values = torch.tensor([(code - zero) * scale for code in range(2**bits)])
            best = (part[:, None] - values).abs().min(1).values
            assert torch.allclose((part - restored[row, columns]).abs(), best, atol=1e-6)
    assert torch.equal(nearest(weight, bits, 8), restored)


def test_zero_stays_zero_with_any_neighbours() -> None:
    weight = torch.tensor([[0.0, 0.9, 0.7, 0.8], [0.0, -3.0, -2.0, 0.0], [0.0, 1e-20, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    restored = Packed.of(weight, 3, 4)()
    assert not restored[weight == 0].any()
    assert restored.isfinite().all()
    assert restored[2, 1] == pytest.approx(1e-20, rel=0.01)


def test_the_weights_own_shape_and_type_are_given() -> None:
    weight = torch.randn(6, 3, 2, 2)
    packed = Packed.of(weight, 4, 128)
    assert packed().shape == weight.shape
    for dtype in (torch.float16, torch.bfloat16):
        assert packed(dtype).dtype == dtype
        assert torch.allclose(packed(dtype).float(), packed(), atol=0.02)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
def test_single_rows_are_those_of_the_whole(bits: int) -> None:
    packed = Packed.of(torch.randn(7, 24), bits, 16)
    indices = torch.tensor([[6, 0], [3, 3]])
    assert torch.equal(packed.rows_at(indices), packed()[indices])


def test_packed_weights_are_counted_as_parameters_and_not_as_bytes() -> None:
    weight = torch.randn(8, 96)
    weight[:, :10] = 0
    module: Any = nn.Sequential(PackedLinear(Packed.of(weight, 3, 32), torch.ones(8)))
    sizes = size.in_memory(module)
    assert sizes["size/params"] == 8 * 96 + 8
    assert sizes["size/params_nonzero"] == int(module[0].packed().count_nonzero()) + 8
    assert sizes["size/params_nonzero"] < 8 * 86 + 8
    assert sizes["size/weights_mib"] == (8 * 96 * 3 / 8 + 8 * 3 * (2 + 1) + 8 * 4) / MIB


def test_a_packed_linear_layer_is_a_linear_layer_of_the_rounded_weight() -> None:
    packed, bias, inputs = Packed.of(torch.randn(4, 10), 4, 8), torch.randn(4), torch.randn(2, 3, 10)
    layer = PackedLinear(packed, bias)
    assert torch.equal(layer(inputs), functional.linear(inputs, packed(), bias))
    assert torch.equal(layer.weight, packed())
    scale = torch.rand(10) + 0.5
    scaled = PackedLinear(packed, None, scale)
    assert torch.allclose(scaled(inputs), (inputs * scale) @ packed().T, atol=1e-6)
    assert torch.allclose(scaled(inputs), inputs @ scaled.weight.T, atol=1e-6)


@pytest.mark.parametrize(
    ("convolution", "shape"),
    [
        (nn.Conv1d(6, 8, 3, stride=2, padding=1), (2, 6, 9)),
        (nn.Conv2d(4, 8, 3, groups=2, padding="same"), (2, 4, 7, 7)),
        (nn.Conv2d(4, 8, 3, padding=1, padding_mode="reflect", bias=False), (2, 4, 7, 7)),
        (nn.Conv3d(2, 4, 2, dilation=2), (1, 2, 5, 5, 5)),
    ],
)
def test_a_packed_convolution_is_one_of_the_rounded_weight(convolution: Any, shape: tuple[int, ...]) -> None:
    inputs, packed = torch.randn(shape), Packed.of(convolution.weight, 8, 10**6)
    plain = convolution(inputs)
    layer = PackedConvolution(packed, convolution)
    assert torch.allclose(layer(inputs), plain, atol=0.05)
    assert layer.stride == convolution.stride
    assert "convolution.weight" not in layer.state_dict()
    with pytest.raises(AttributeError, match="nonsense"):
        _ = layer.nonsense


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 64)
        self.middle = nn.Linear(64, 64)
        self.head = nn.Linear(64, 50, bias=False)
        self.head.weight = self.embedding.weight

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, ids: torch.Tensor) -> Any:
        return self.head(self.middle(self.embedding(ids)))


def test_tied_layers_stay_unchanged_or_are_packed_as_one() -> None:
    kinds, ids = (nn.Linear, *CONVOLUTIONS), torch.arange(20)
    module, count = pack_layers(Tied(), 4, 32, kinds, embeddings=False, filled=True)
    assert count == 1
    assert module.head.weight is module.embedding.weight
    assert type(module.middle) is PackedLinear

    tied = Tied()
    weight = tied.embedding.weight.detach().clone()
    module, count = pack_layers(tied, 4, 32, kinds, embeddings=True, filled=True)
    assert count == 3
    assert type(module.embedding) is PackedEmbedding
    assert module.embedding.packed is module.head.packed
    assert torch.equal(module.embedding(ids), nearest(weight, 4, 32)[ids])
    assert torch.equal(module.embedding.weight, module.head.weight)
    assert size.in_memory(module)["size/params"] == 50 * 64 + 64 * 64 + 64


def test_empty_layers_have_no_memory_and_take_what_was_saved() -> None:
    kinds = (nn.Linear,)
    full, _ = pack_layers(Tied(), 4, 32, kinds, embeddings=True, filled=True)
    empty, _ = pack_layers(Tied(), 4, 32, kinds, embeddings=True, filled=False)
    assert empty.middle.packed.codes.is_meta
    assert empty.middle.packed.scales.is_meta
    empty.load_state_dict(full.state_dict(), assign=True)
    assert torch.equal(full(torch.arange(5)), empty(torch.arange(5)))


def test_an_embedding_keeps_its_type() -> None:
    module, _ = pack_layers(nn.Sequential(nn.Embedding(30, 64)).half(), 8, 64, (), embeddings=True, filled=True)
    restored, _ = pack_layers(nn.Sequential(nn.Embedding(30, 64)), 8, 64, (), embeddings=True, filled=False)
    restored.load_state_dict(module.state_dict(), assign=True)
    assert restored(torch.tensor([3])).dtype == torch.float16


def test_what_packing_would_not_make_smaller_is_left() -> None:
    narrow = nn.Linear(1, 9)  # 4 bits of weight, 24 of scale and zero point
    assert not Packed(narrow.weight.shape, 4, 128).is_worth_it
    module, count = pack_layers(nn.Sequential(narrow), 4, 128, (nn.Linear,), embeddings=False, filled=True)
    assert count == 0
    assert module[0] is narrow
    module, count = pack_layers(
        nn.Sequential(nn.Embedding(8, 7), nn.Embedding(8, 8, max_norm=1.0)), 4, 128, (), embeddings=True, filled=True
    )
    assert count == 0  # rows of half bytes; rows that a lookup changes


def test_the_same_layers_are_found_on_an_unfilled_model() -> None:
    filled, unfilled = Tied(), Tied()
    unfilled.to("meta")
    unfilled.head.weight = unfilled.embedding.weight
    assert packable(filled, 4, 32) == [filled.middle]
    module = leave_empty(unfilled, 4, 32, scaled=True)
    assert module.middle.input_scale.is_meta
    assert not isinstance(module.head, PackedLinear)
    assert leave_empty(nn.Linear(64, 8), 4, 32).packed.codes.is_meta


def test_a_grid_spans_from_the_smallest_to_the_largest() -> None:
    grid = Grid.over(torch.tensor([[-1.0, 2.0, 0.5]]), 2)
    assert grid.scales.item() == 1
    assert grid.zeros.item() == 1
    assert grid.encode(torch.tensor([[-1.0, 2.0, 0.4]])).tolist() == [[0, 3, 1]]
    assert grid.decode(torch.tensor([[0, 3, 1]])).tolist() == [[-1, 2, 0]]
