"""Every family under every method: restored equal to what was saved, or skipped with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mlflow_compress import artifact, recipe, registry
from mlflow_compress.errors import Unsupported
from mlflow_compress.records import Variant
from mlflow_compress.sockets import Family

TINY: dict[str, dict[str, Any]] = {
    "text_classification": {
        "tokens": 16,
        "architecture": {
            "model_type": "distilbert",
            "vocab_size": 300,
            "dim": 16,
            "hidden_dim": 32,
            "n_layers": 2,
            "n_heads": 2,
        },
    },
    "causal_lm": {
        "prompt_tokens": 8,
        "new_tokens": 3,
        "architecture": {
            "model_type": "llama",
            "vocab_size": 300,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "tie_word_embeddings": True,
            "eos_token_id": 1,
            "bos_token_id": 1,
        },
    },
    "asr": {
        "new_tokens": 3,
        "architecture": {
            "model_type": "whisper",
            "vocab_size": 300,
            "d_model": 16,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "decoder_ffn_dim": 32,
            "max_target_positions": 16,
            "bos_token_id": 1,
            "eos_token_id": 1,
            "pad_token_id": 1,
            "decoder_start_token_id": 2,
            "suppress_tokens": [],
            "begin_suppress_tokens": [],
        },
    },
    "yolo": {"image_size": 64},
    "python": {},
}
SOURCE = {"yolo": "yolo11n.pt", "python": "own.py"}
INPUTS: dict[str, list[Any]] = {
    "text_classification": ["a fine film", "dull"],
    "causal_lm": ["Once upon a time"],
    "asr": [[0.0] * 16000],
    "yolo": [torch.zeros(40, 60, 3, dtype=torch.uint8).numpy()],
    "python": [[0.1] * 8, [0.9] * 8],
}
CHAINS = [
    "original",
    "fp16",
    "bf16",
    "int8_dynamic",
    "int8_dynamic:per_channel=true",
    "prune_magnitude:amount=0.5",
    "prune_magnitude:amount=0.9,scope=global",
    "prune_magnitude:amount=0.5+int8_dynamic",
    "prune_magnitude:amount=0.5+bf16",
]
OWN = """
import torch
from torch import nn

def model():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.BatchNorm1d(16), nn.Linear(16, 4))

def batch(size):
    return torch.rand(size, 8)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    (folder / "own.py").write_text(OWN)
    return folder


def compressed(name: str, chain: str, folder: Path) -> tuple[Family, Any, list[Any], Variant]:
    family = registry.build("families", name, TINY[name])
    steps = recipe.parse_chain(chain)
    variant = Variant(
        name, chain, "t", name, SOURCE.get(name, "tiny"), "random", chain=steps, options=TINY[name], folder=str(folder)
    )
    model = family.load(variant.source, "random", folder, 0)
    methods = artifact.methods_of(steps)
    with torch.inference_mode(False):
        for method in methods:
            model = method.compress(model, family)
    return family, model, methods, variant


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("name", TINY)
def test_what_is_restored_is_what_was_saved(name: str, chain: str, folder: Path, tmp_path: Path) -> None:
    if name == "yolo" and "int8" in chain:
        with pytest.raises(Unsupported, match="no linear layer"):
            compressed(name, chain, folder)
        return
    family, model, methods, variant = compressed(name, chain, folder)
    with torch.inference_mode():
        before = family.run(model, family.batch(model, 2, 0), lambda stage: None)
    artifact.save(model, family, methods, variant, tmp_path)

    restored = artifact.restore(tmp_path)
    assert restored.manifest.chain == variant.chain
    assert restored.model.weights == "random"
    with torch.inference_mode():
        after = restored.family.run(restored.model, restored.family.batch(restored.model, 2, 0), lambda stage: None)
    torch.testing.assert_close(after, before, rtol=1e-2, atol=1e-2)
    assert not any(parameter.requires_grad for parameter in restored.model.module.parameters())

    predictions = restored.family.predict(restored.model, INPUTS[name])
    assert len(predictions) == len(INPUTS[name])


@pytest.mark.parametrize("name", TINY)
def test_stages_are_marked_and_rates_follow(name: str, folder: Path) -> None:
    family, model, _, _ = compressed(name, "original", folder)
    stages: list[str] = []
    with torch.inference_mode():
        family.run(model, family.batch(model, 1, 0), stages.append)
    assert all(value > 0 for value in family.rates(10.0, dict.fromkeys(stages, 1.0), 1).values())
    if name == "causal_lm":
        assert stages == ["prefill", "token", "token"]
    if name == "asr":
        assert stages == ["features", "encoder", "first_token", "token", "token"]
    for call in family.around(model, 2, 0).values():
        call()


def test_pruned_weights_are_zero_and_no_mask_is_saved(folder: Path, tmp_path: Path) -> None:
    family, model, methods, variant = compressed("python", "prune_magnitude:amount=0.75", folder)
    artifact.save(model, family, methods, variant, tmp_path)
    module = artifact.restore(tmp_path).model.module
    assert set(module.state_dict()) == {
        *(f"{layer}.{part}" for layer in (0, 2, 3) for part in ("weight", "bias")),
        "2.running_mean",
        "2.running_var",
        "2.num_batches_tracked",
    }
    for layer in (module[0], module[3]):
        assert (layer.weight == 0).float().mean() == 0.75


def test_half_precision_of_what_is_half_already_is_skipped(folder: Path) -> None:
    with pytest.raises(Unsupported, match="float16 already"):
        compressed("python", "fp16+fp16", folder)


def test_int8_of_half_precision_is_skipped(folder: Path) -> None:
    with pytest.raises(Unsupported, match="float32"):
        compressed("text_classification", "bf16+int8_dynamic", folder)


def test_int8_refuses_cuda() -> None:
    with pytest.raises(Unsupported, match="CPU only"):
        registry.build("methods", "int8_dynamic").check_device("cuda")
