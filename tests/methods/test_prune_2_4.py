"""2:4 sparsity and its kernels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pruned import groups, loaded, method, saved
from torch import nn

from mlflow_compress.compression import pruning
from mlflow_compress.meters import size
from mlflow_compress.methods import prune_2_4


def test_two_of_each_four_stay_and_they_are_the_largest(tmp_path: Path) -> None:
    family, model = loaded(tmp_path)
    before = [layer.weight.clone() for layer in pruning.learned(model.module)]
    method("prune_2_4").compress(model, family)
    assert model.facts["layers"] == "3 of 4 layers pruned"  # the first sees 3 channels
    layers = pruning.learned(model.module)
    assert torch.equal(layers[0].weight, before[0])
    for layer, original in zip(layers[1:], before[1:], strict=True):
        for pruned, dense in zip(groups(layer.weight, 4), groups(original, 4), strict=True):
            is_kept = pruned != 0
            assert is_kept.sum() == 2
            assert torch.equal(pruned[is_kept], dense[is_kept])
            assert dense[is_kept].abs().min() >= dense[~is_kept].abs().max()


def test_sparse_kernels_are_dense_without_a_gpu(tmp_path: Path) -> None:
    _, restored = saved("prune_2_4:kernels=sparse+fp16", tmp_path)
    linear = [layer for layer in restored.model.module if isinstance(layer, nn.Linear)]
    with torch.inference_mode():
        restored.family.forward(restored.model, restored.family.batch(restored.model, 2, 0))
    assert all(type(leaf.weight) is nn.Parameter for leaf in linear)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_sparse_kernels_give_the_same_on_a_gpu() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(256, 128).half().cuda().requires_grad_(False)
    weight = layer.weight.data
    weight.masked_fill_(~pruning.largest(weight.abs(), 2, 4), 0)
    inputs = torch.randn(3, 64, 256, dtype=torch.float16, device="cuda")
    dense = layer(inputs)
    layer.register_forward_pre_hook(prune_2_4._turn_sparse)
    torch.testing.assert_close(layer(inputs), dense, rtol=1e-2, atol=1e-2)
    assert isinstance(layer.weight, torch.sparse.SparseSemiStructuredTensor)
    torch.testing.assert_close(layer(inputs.transpose(0, 1)).transpose(0, 1), dense, rtol=1e-2, atol=1e-2)
    sizes = size.in_memory(layer)
    assert (sizes["size/params"], sizes["size/params_nonzero"]) == (128 * 256 + 128, int(weight.count_nonzero()) + 128)
    assert 0.5 < sizes["size/weights_mib"] / ((128 * 256 + 128) * 2 / 2**20) < 0.65
