"""Packed layers give the same on a kernel as unpacked, and report their kernel."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from alone import alone
from torch import nn

from mlflow_compress.compression import int4_kernel, packing
from mlflow_compress.compression.packed_layers import PackedEmbedding, PackedLinear
from mlflow_compress.compression.packing import Packed
from mlflow_compress.measuring import output_error
from mlflow_compress.networks.kernels import bits_without_kernel, kernels_of, rounding, use_kernels
from mlflow_compress.networks.stored_weights import distance, held
from mlflow_compress.sockets import Model

_ROW = 2**31


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("rows", "columns", "group", "bits", "name"),
    [
        (64, 576, 64, 4, "int4pack"),
        (64, 192, 128, 4, "int4pack"),
        (50, 96, 32, 3, "int4pack"),
        (32, 48, 128, 2, "int4pack"),
        (48, 288, 96, 4, "int4pack"),
        (50, 100, _ROW, 8, "int8pack"),
        (64, 200, _ROW, 6, "int8pack"),
    ],
)
def test_a_kernel_multiplies_with_the_weight(
    rows: int, columns: int, group: int, bits: int, name: str, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    weight = torch.randn(rows, columns) + 0.3  # moves zero points away from the middle
    module = nn.Sequential(PackedLinear(Packed.of(weight, bits, group), torch.randn(rows).to(dtype)))
    single, batch = torch.randn(2, columns).to(dtype), torch.randn(3, 40, columns).to(dtype)
    dense: Any = module[0].weight
    dense = dense.float()
    expected = [module(single), module(batch)]
    use_kernels(module)
    assert name in kernels_of(module)
    assert not bits_without_kernel(module)
    assert rounding(module, "cpu") == (0.04 if dtype == torch.float32 else 0.15)
    for inputs, target in zip((single, batch), expected, strict=True):
        outputs = module(inputs)
        assert outputs.dtype == dtype
        assert outputs.shape == target.shape
        assert distance(outputs.float().flatten(), target.float().flatten()) < 0.01
    layer: Any = module[0]
    kernel = layer.packed.kernel
    for multiply in (kernel._packed, lambda flat: kernel._densely(flat, torch.float32)):
        assert distance(multiply(batch.view(-1, columns)).float(), batch.view(-1, columns).float() @ dense.T) < 0.01
    assert distance(layer.weight.float(), dense) < 0.01
    assert sum(part.parameters for part in held(module)) == rows * columns + rows


def test_a_large_weight_is_unpacked_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(PackedLinear(Packed.of(torch.randn(1090, 128), 4, 64), None))
    use_kernels(module)
    layer: Any = module[0]
    kernel = layer.packed.kernel
    if not kernel.block:
        pytest.skip("torch packs weights in an unknown order here")
    inputs = torch.randn(9, 128)
    weight, product = kernel.weight(torch.float32), kernel._densely(inputs, torch.float32)
    most_bytes = 2**16
    monkeypatch.setattr(int4_kernel, "_DENSE_BYTES", most_bytes)
    parts = [(part, turned.nbytes) for part, turned, _ in kernel._parts(torch.float32)]
    assert len(parts) > 5
    assert max(size for _, size in parts) <= most_bytes
    assert torch.equal(kernel.weight(torch.float32), weight)
    torch.testing.assert_close(kernel._densely(inputs, torch.float32), product)


def test_groups_of_eight_bits_have_no_kernel() -> None:
    module = nn.Sequential(PackedLinear(Packed.of(torch.randn(32, 128), 8, 64), None))
    before = module(torch.ones(1, 128))
    use_kernels(module)
    assert bits_without_kernel(module) == [8]
    assert kernels_of(module) == "no kernel, 1 of 1 linear layers"
    assert rounding(module, "cpu") == 0.02
    assert torch.equal(module(torch.ones(1, 128)), before)


def test_a_machine_without_kernels_unpacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "kernel_for", lambda *_: None)
    module = nn.Sequential(PackedLinear(Packed.of(torch.randn(32, 128), 4, 64), None))
    before = module(torch.ones(1, 128))
    use_kernels(module)
    assert bits_without_kernel(module) == [4]
    assert torch.equal(module(torch.ones(1, 128)), before)


@pytest.mark.parametrize(("bits", "group"), [(4, 32), (3, 64), (8, _ROW)])
def test_a_tied_head_and_its_embedding_share_one_kernel(bits: int, group: int) -> None:
    packed = Packed.of(torch.randn(80, 64), bits, group)
    embedding, head = PackedEmbedding(packed, torch.ones(1)), PackedLinear(packed, None)
    module = nn.ModuleList([embedding, head])
    ids = torch.tensor([[3, 79, 0], [41, 40, 39]])
    rows, outputs = embedding(ids), head(torch.ones(1, 64))
    use_kernels(module)
    assert packed.codes is None
    assert distance(embedding(ids).flatten(), rows.flatten()) < 0.01
    assert distance(head(torch.ones(1, 64)), outputs) < 0.01


def anonymous_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) / 1024


def memory_of_many_layers() -> tuple[float, float]:
    torch.manual_seed(0)
    widths = (1024, 2048) * 20
    layers = nn.Sequential(*(PackedLinear(Packed.of(torch.randn(1024, width), 4, 64), None) for width in widths))
    before = anonymous_mib()
    use_kernels(layers)
    return before, anonymous_mib()


@pytest.mark.skipif(sys.platform != "linux", reason="another C library")
def test_repacking_keeps_no_freed_memory() -> None:
    """Check in a fresh process, since memory that other tests freed would be returned too."""
    before, after = alone(memory_of_many_layers)
    assert after < before + 10  # kernels take as much as the codes; what glibc kept was 30 to 180 MiB


def test_what_a_kernel_holds_is_not_named_as_unsaved() -> None:
    module = nn.Sequential(PackedLinear(Packed.of(torch.randn(64, 64), 4, 32), None))
    use_kernels(module)
    assert module[0].kernel_name
    assert output_error._unsaved(Model(module)) == ""
