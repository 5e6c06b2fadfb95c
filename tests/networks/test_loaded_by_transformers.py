"""Saved float models are loaded by transformers alone, without this package."""

from __future__ import annotations

import io
from pathlib import Path

import outsider
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import TINY, tiny_model

from mlflow_compress.errors import Unsupported
from mlflow_compress.measuring import worker
from mlflow_compress.networks import model_folder, stored_weights
from mlflow_compress.planning import chains
from mlflow_compress.records import Variant

CHAINS = ("original", "bf16", "fp16", "prune_magnitude:amount=0.5")
ALONE = """
import sys
import torch, transformers
from safetensors.torch import load_file, save_file
auto_class, answer, folder = sys.argv[1:]
model, told = getattr(transformers, auto_class).from_pretrained(folder, output_loading_info=True)
assert not any(told[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), told
reads = set(load_file(folder + "/../inputs.safetensors"))
if "input_ids" in reads:
    assert transformers.AutoTokenizer.from_pretrained(folder)("a boat")["input_ids"]
if auto_class == "AutoModelForSpeechSeq2Seq":
    assert transformers.AutoFeatureExtractor.from_pretrained(folder).sampling_rate == 16000
with torch.inference_mode():
    given = load_file(folder + "/../inputs.safetensors")
    output = model.eval()(**given)
save_file({"output": output[answer].contiguous()}, folder + "/../outputs.safetensors")
"""
ANSWERS = {"text_embedding": "last_hidden_state", "zero_shot_image_classification": "logits_per_image"}
FOLDED = ("asr_ctc", CHAINS[-1])  # pruning replaces a weight norm by its product
TRANSFORMERS = [name for name in TINY if name not in ("yolo", "python")]


def inputs_of(name: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    ids = torch.arange(5, 13)[None]
    pixels = {"pixel_values": torch.ones(1, 3, 32, 32, dtype=dtype)}
    if name in ("image_classification", "object_detection", "semantic_segmentation"):
        return pixels
    if name == "zero_shot_image_classification":
        return {"input_ids": ids, **pixels}
    if name == "asr_ctc":
        return {"input_values": torch.linspace(-1, 1, 4000, dtype=dtype)[None]}
    if name == "asr":
        return {"input_features": torch.ones(1, 80, 3000, dtype=dtype), "decoder_input_ids": ids}
    return {"input_ids": ids, **({"decoder_input_ids": ids.clone()} if name == "seq2seq" else {})}


def saved(name: str, chain: str, folder: Path) -> Path:
    """Prepare a tiny model with random weights like the worker, and return its folder."""
    variant = Variant(name, chain, "t", name, "tiny", "random", chain=chains.parse_chain(chain), options=TINY[name])
    worker.prepare(variant, folder, worker.Report(io.StringIO()))
    return folder / worker.MODEL_FOLDER


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers_alone_computes_the_same(name: str, chain: str, tmp_path: Path) -> None:
    model = saved(name, chain, tmp_path)
    if (name, chain) == FOLDED:
        with pytest.raises(Unsupported, match="only this package loads them"):
            tiny_model(name)[0].publish(model, tmp_path)
        return
    module = model_folder.restore(model).model.module
    inputs, answer = inputs_of(name, next(module.parameters()).dtype), ANSWERS.get(name, "logits")
    save_file(inputs, tmp_path / "inputs.safetensors")
    auto_class = tiny_model(name)[0].auto_class  # type: ignore[attr-defined]
    done = outsider.run(ALONE, auto_class, answer, str(model))
    assert done.returncode == 0, done.output[-2000:]
    with torch.inference_mode():
        expected = module(**inputs)[answer]
    output = load_file(tmp_path / "outputs.safetensors")["output"]
    assert output.dtype == expected.dtype
    assert torch.equal(output, expected)


def test_large_weights_are_written_in_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_weights, "_MOST_SHARD_BYTES", 10_000)
    model = saved("causal_lm", "original", tmp_path)
    shards = sorted(path.name for path in model.glob("*.safetensors"))
    assert len(shards) > 1
    assert shards[0] == f"model-00001-of-0000{len(shards)}.safetensors"
    assert (model / "model.safetensors.index.json").is_file()
    module = model_folder.restore(model).model.module
    assert module.lm_head.weight is module.model.embed_tokens.weight  # tied again, across shards
    inputs = inputs_of("causal_lm", torch.float32)
    save_file(inputs, tmp_path / "inputs.safetensors")
    done = outsider.run(ALONE, "AutoModelForCausalLM", "logits", str(model))
    assert done.returncode == 0, done.output[-2000:]
    with torch.inference_mode():
        assert torch.equal(load_file(tmp_path / "outputs.safetensors")["output"], module(**inputs).logits)
