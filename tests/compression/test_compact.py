"""The smallest form on disk: lossless, of the promised size, and safe to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn

from mlflow_compress.compression import compact
from mlflow_compress.errors import WeightsError


def module_of(**weights: torch.Tensor) -> nn.Module:
    module = nn.Module()
    for name, weight in weights.items():
        module.register_parameter(name, nn.Parameter(weight, requires_grad=False))
    return module


def round_trip(module: nn.Module, folder: Path, coding: compact.Coding = "none") -> dict[str, torch.Tensor]:
    compact.save_compact(module, folder, coding)
    empty = module_of(**{name: torch.empty(0, device="meta") for name in module.state_dict()})
    for name, weight in module.state_dict().items():
        setattr(empty, name, nn.Parameter(torch.empty_like(weight, device="meta"), requires_grad=False))
    compact.load_compact(empty, folder)
    return dict(empty.state_dict())


def file_size(folder: Path) -> int:
    return (folder / compact.COMPACT).stat().st_size


def drawn(distinct: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(distinct)
    values = torch.linspace(-1, 1, distinct).to(dtype)
    codes = torch.arange(torch.Size(shape).numel()) % distinct
    return values[codes[torch.randperm(len(codes), generator=generator)]].view(shape)


@pytest.mark.parametrize("distinct", [1, 2, 3, 4, 5, 16, 17, 100, 256, 257])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_few_values_take_the_bits_that_tell_them_apart(distinct: int, dtype: torch.dtype, tmp_path: Path) -> None:
    weight = drawn(distinct, (101, 103), dtype)
    values = int(weight.unique().numel())  # bfloat16 has fewer than 257 values there
    restored = round_trip(module_of(weight=weight), tmp_path)["weight"]
    assert restored.dtype == dtype
    assert torch.equal(restored, weight)
    with safe_open(tmp_path / compact.COMPACT, framework="pt") as file:
        names = set(file.keys())
        if values <= 256:
            bits = max(1, (values - 1).bit_length())
            assert names == {"weight.codes", "weight.values"}
            assert file.get_tensor("weight.codes").nbytes == -(-weight.numel() * bits // 8)
            assert file.get_tensor("weight.values").numel() == values
        else:
            assert names == {"weight"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_many_zeros_take_a_bit_each(share: float, dtype: torch.dtype, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(200, 77, generator=generator)
    weight[torch.rand(weight.shape, generator=generator) < share] = 0
    weight = weight.to(dtype)
    restored = round_trip(module_of(weight=weight), tmp_path)["weight"]
    assert torch.equal(restored, weight)
    with safe_open(tmp_path / compact.COMPACT, framework="pt") as file:
        stored = sum(file.get_tensor(name).nbytes for name in file.keys())  # noqa: SIM118
    assert stored == min(-(-weight.numel() // 8) + int(weight.count_nonzero()) * weight.itemsize, weight.nbytes)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.integers(1, 9), st.integers(0, 10), st.booleans(), st.booleans())
def test_any_values_are_restored(rows: int, columns: int, distinct: int, half: bool, huffman: bool) -> None:
    import tempfile

    weight = torch.randn(rows, columns) if distinct == 0 else drawn(distinct, (rows, columns))
    weight = weight.half() if half else weight
    with tempfile.TemporaryDirectory() as folder:
        restored = round_trip(module_of(weight=weight), Path(folder), "huffman" if huffman else "none")
    assert torch.equal(restored["weight"], weight)


def test_tensors_longer_than_one_part_are_restored(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(compact, "_PART", 64)
    zeros = torch.randn(100, 33) * (torch.rand(100, 33) < 0.3)
    weights = {"codes": drawn(5, (100, 33)), "zeros": zeros, "plain": torch.randn(100, 33)}
    for name, restored in round_trip(module_of(**weights), tmp_path, "huffman").items():
        assert torch.equal(restored, weights[name])


def test_huffman_follows_the_entropy_and_is_never_longer(tmp_path: Path) -> None:
    sparse = drawn(15, (300, 300)) * (torch.rand(300, 300, generator=torch.Generator().manual_seed(1)) < 0.1)
    sizes = {}
    codings: tuple[compact.Coding, ...] = ("none", "huffman")
    for coding in codings:
        folder = tmp_path / coding
        folder.mkdir()
        restored = round_trip(module_of(weight=sparse), folder, coding)["weight"]
        assert torch.equal(restored, sparse)
        sizes[coding] = file_size(folder)
    shares = torch.bincount(sparse.unique(return_inverse=True)[1].reshape(-1)) / sparse.numel()
    entropy_bytes = float(-(shares * shares.log2()).sum()) * sparse.numel() / 8
    assert entropy_bytes < sizes["huffman"] < 1.25 * entropy_bytes + 500
    assert sizes["huffman"] < 0.3 * sizes["none"]

    even = drawn(16, (300, 300))
    for coding in codings:
        compact.save_compact(module_of(weight=even), tmp_path, coding)
        sizes[coding] = file_size(tmp_path)
    assert sizes["huffman"] <= sizes["none"] + 100


def test_vectors_and_whole_numbers_stay_plain(tmp_path: Path) -> None:
    module = nn.BatchNorm1d(4000)
    compact.save_compact(module, tmp_path)
    with safe_open(tmp_path / compact.COMPACT, framework="pt") as file:
        assert set(file.keys()) == set(module.state_dict())


def test_tied_weights_are_written_once_and_stay_tied(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(500, 64), nn.Linear(64, 500, bias=False)
            self.head.weight = self.embedding.weight

    module, restored = Tied(), Tied()
    module.embedding.weight.data = drawn(16, (500, 64))
    compact.save_compact(module, tmp_path)
    assert file_size(tmp_path) < 500 * 64 / 2 + 700
    compact.load_compact(restored, tmp_path)
    assert restored.head.weight is restored.embedding.weight
    assert torch.equal(restored.head.weight, drawn(16, (500, 64)))


def test_views_of_larger_memory_are_written_without_the_rest(tmp_path: Path) -> None:
    memory = torch.randn(10, 20)
    restored = round_trip(module_of(left=memory[:, :5], right=memory[:, 5:]), tmp_path)
    assert torch.equal(restored["left"], memory[:, :5])
    assert torch.equal(restored["right"], memory[:, 5:])
    assert file_size(tmp_path) < memory.nbytes + 500


@pytest.mark.parametrize("damage", ["cut", "no_form", "other_shape"])
def test_a_damaged_file_is_refused(damage: str, tmp_path: Path) -> None:
    compact.save_compact(module_of(weight=drawn(4, (64, 64))), tmp_path)
    path = tmp_path / compact.COMPACT
    content = path.read_bytes()
    changed = {
        "cut": content[:-10],
        "no_form": content.replace(b'\\"kind\\":\\"codes\\"', b'\\"kind\\":\\"other\\"'),
        "other_shape": content.replace(b"[64,64]", b"[64,65]"),
    }[damage]
    assert changed != content
    path.write_bytes(changed)
    with pytest.raises(WeightsError, match="can't be read"):
        compact.load_compact(module_of(weight=torch.empty(64, 64)), tmp_path)


def test_another_models_weights_are_refused(tmp_path: Path) -> None:
    compact.save_compact(module_of(weight=drawn(4, (64, 64))), tmp_path)
    with pytest.raises(WeightsError, match="are not this model's"):
        compact.load_compact(module_of(weight=torch.empty(64, 65)), tmp_path)
    with pytest.raises(WeightsError, match="no weights"):
        compact.load_compact(module_of(weight=torch.empty(64, 65)), tmp_path / "elsewhere")
