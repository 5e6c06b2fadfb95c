"""The memory of weights is computed from headers and architectures, and equals what they take."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import save_file
from tiny import gguf_file

from mlflow_compress import registry
from mlflow_compress.errors import MachineLacks
from mlflow_compress.measuring import model_trial
from mlflow_compress.networks import memory_need
from mlflow_compress.networks.gguf_header import read_header

LLAMA = {
    "model_type": "llama",
    "dtype": "bfloat16",
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "tie_word_embeddings": True,
}


def test_files_take_what_their_headers_say(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3, 5, dtype=torch.bfloat16), "b": torch.zeros(7)}, str(tmp_path / "model.safetensors"))
    assert memory_need.of_files(tmp_path, "", "native") == 15 * 2 + 7 * 4
    assert memory_need.of_files(tmp_path, "", "float32") == 22 * 4
    (tmp_path / "model.safetensors").unlink()
    assert memory_need.of_files(tmp_path, "", "native") is None


def test_packed_weights_count_as_stored(tmp_path: Path) -> None:
    tensors = {"codes": torch.zeros(3, 5, dtype=torch.int32), "scales": torch.zeros(7, dtype=torch.bfloat16)}
    save_file(tensors | {"small": torch.zeros(9, dtype=torch.uint8)}, str(tmp_path / "model.safetensors"))
    assert memory_need.of_files(tmp_path, "", "native") == 15 * 4 + 7 * 2 + 9


def test_a_gguf_file_takes_its_tensors_or_their_unpacked_numbers(tmp_path: Path) -> None:
    path = gguf_file(tmp_path / "model.gguf")
    tensors = read_header(path).tensors
    numbers = sum(tensor.elements for tensor in tensors)
    assert memory_need.of_gguf(path, "native") == sum(tensor.bytes for tensor in tensors) < numbers * 4
    assert memory_need.of_gguf(path, "float32") == numbers * 4
    family = registry.build("families", "causal_lm", {"dtype": "float32"})
    assert family.weights_bytes("model.gguf", "auto", tmp_path) == numbers * 4


def test_an_architecture_is_counted_without_memory_and_draws_no_random_numbers() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert memory_need.of_architecture("AutoModelForCausalLM", LLAMA, "native") == 1_235_814_400 * 2
    assert torch.equal(torch.rand(2), expected)
    assert memory_need.of_architecture("AutoModelForCausalLM", {"model_type": "none"}, "native") is None


def test_weights_that_do_not_fit_are_refused_with_both_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    model_trial._require_memory(None, "m")
    model_trial._require_memory(2**20, "m")
    free = psutil.virtual_memory()._replace(available=2 * 2**30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    with pytest.raises(MachineLacks, match=r"m need 3\.0 GiB, but only 2\.0 GiB of memory are free"):
        model_trial._require_memory(3 * 2**30, "m")
