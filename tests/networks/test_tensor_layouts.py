"""A restored module's tensors have their saved memory layout, and its unsaved buffers their precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mlflow_compress.networks import tensor_layouts
from mlflow_compress.networks.stored_weights import cast, load_weights, save_weights


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 5, 3)
        self.turned = nn.Parameter(torch.rand(4, 6))
        self.register_buffer("mean", torch.rand(3), persistent=False)
        self.register_buffer("count", torch.arange(3), persistent=False)
        self.head = nn.Linear(6, 4)


def test_channels_last_and_transposed_weights_stay_so(tmp_path: Path) -> None:
    first: Any = Net().to(memory_format=torch.channels_last)
    first.turned = nn.Parameter(torch.rand(6, 4).t())
    first.head.weight = first.turned
    save_weights(first, tmp_path)
    tensor_layouts.keep(first, tmp_path)
    second: Any = Net()
    load_weights(second, tmp_path)
    tensor_layouts.apply(second, tmp_path)
    for name, tensor in first.state_dict().items():
        assert second.state_dict()[name].stride() == tensor.stride(), name
        assert torch.equal(second.state_dict()[name], tensor)
    assert second.convolution.weight.stride() == (27, 1, 9, 3)
    assert second.head.weight is second.turned


def test_nothing_is_written_where_all_is_as_usual(tmp_path: Path) -> None:
    module = Net()
    module.turned.data = torch.rand(8, 6)[::2]  # with gaps, which are not saved
    tensor_layouts.keep(module, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_unsaved_buffers_follow_the_weights(dtype: torch.dtype, tmp_path: Path) -> None:
    first: Any = Net()
    second: Any = Net()
    second.mean.copy_(first.mean)
    cast(first, dtype)
    assert (first.mean.dtype, first.count.dtype) == (dtype, torch.int64)
    save_weights(first, tmp_path)
    tensor_layouts.keep(first, tmp_path)
    load_weights(second, tmp_path)
    tensor_layouts.apply(second, tmp_path)
    assert torch.equal(second.mean, first.mean)


def test_those_of_transformers_stay_in_float32() -> None:
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    rotary: Any = LlamaRotaryEmbedding(LlamaConfig(hidden_size=8, num_attention_heads=2))
    module = nn.Sequential(nn.Linear(2, 2), rotary)
    cast(module, torch.bfloat16)
    assert rotary.inv_freq.dtype == torch.float32
