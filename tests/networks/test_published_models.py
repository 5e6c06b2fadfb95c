"""Exports are loaded by their own library alone, in a process that can't import this package."""

from __future__ import annotations

import io
import json
from pathlib import Path

import outsider
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import TINY

from mlflow_compress.errors import RecipeError, WeightsError
from mlflow_compress.measuring import worker
from mlflow_compress.networks import model_folder
from mlflow_compress.networks.compressed_tensors_format import words
from mlflow_compress.planning import chains
from mlflow_compress.records import Variant
from mlflow_compress.tracking.published_models import export

IDS = {"input_ids": torch.arange(5, 13)[None]}
ALONE = """
import sys
from safetensors.torch import load_file, save_file
import torch
given = load_file(sys.argv[2])
{body}
save_file({{"logits": torch.as_tensor(logits).float().contiguous()}}, sys.argv[3])
"""
TRANSFORMERS = """
import transformers
model, told = getattr(transformers, sys.argv[4]).from_pretrained(
    sys.argv[1], dtype="auto", output_loading_info=True)
assert not any(told[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), told
with torch.inference_mode():
    logits = model.eval()(**given).logits
"""
WIDE = {  # groups of 32 in all layers
    **TINY["causal_lm"],
    "architecture": {
        **TINY["causal_lm"]["architecture"],
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}


def saved(name: str, chain: str, folder: Path, options: dict[str, object] | None = None, source: str = "tiny") -> Path:
    """Prepare a tiny model with random weights like the worker, and return its folder."""
    arguments = options or TINY[name]
    variant = Variant(name, chain, "t", name, source, "random", chain=chains.parse_chain(chain), options=arguments)
    worker.prepare(variant, folder, worker.Report(io.StringIO()))
    return folder / worker.MODEL_FOLDER


def run_alone(body: str, model: Path, tensors: dict[str, torch.Tensor], *arguments: str) -> torch.Tensor:
    """Run code on a folder without this package, and return its logits."""
    inputs, outputs = model.parent / "inputs.safetensors", model.parent / "outputs.safetensors"
    save_file(tensors, inputs)
    done = outsider.run(ALONE.format(body=body), str(model), str(inputs), str(outputs), *arguments)
    assert done.returncode == 0, done.output[-3000:]
    logits: torch.Tensor = load_file(outputs)["logits"]
    return logits


def our_logits(model: Path, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the logits of the restored model, with the kernels of this machine."""
    with torch.inference_mode():
        logits: torch.Tensor = model_folder.restore(model).model.module(**inputs).logits.float()
    return logits


def without_kernels(model: Path, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the same with unpacked weights: kernels compute in bfloat16, other libraries in the model's precision."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_folder, "use_kernels", lambda module: None)
        return our_logits(model, inputs)


def exported(model: Path, to: Path) -> Path:
    lines = export(str(model), to, lambda: pytest.fail("no store is needed for a folder"))
    assert len(lines) == 3
    readme = (to / "README.md").read_text(encoding="utf-8")
    assert str(to) not in readme
    assert not list(to.rglob("manifest.json"))
    return to


def distance(logits: torch.Tensor, expected: torch.Tensor) -> float:
    return float((logits - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    "chain",
    [
        "gptq:group_size=32",
        "awq:group_size=32,samples=4,steps=4",  # scales are folded in queries, keys, values; gates; o_proj; down_proj
        "int4_weight_only:group_size=32",
        "int4_weight_only:group_size=128",  # layers with groups of different sizes
        "bf16+int4_weight_only:group_size=32",
        "gptq:bits=8,group_size=32",
        "int8_weight_only",
    ],
)
def test_integer_weights_are_loaded_by_transformers_alone(chain: str, tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors")
    if "int8" in chain:
        pytest.importorskip("torchao")
    model = saved("causal_lm", chain, tmp_path, WIDE)
    to = exported(model, tmp_path / "to")
    config = json.loads((to / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    assert config["format"] == "pack-quantized"
    logits = run_alone(TRANSFORMERS, to, IDS, "AutoModelForCausalLM")
    assert distance(logits, without_kernels(model, IDS)) < (0.02 if "bf16" in chain else 1e-4)
    assert distance(logits, our_logits(model, IDS)) < 0.02
    plain = tmp_path / "plain"
    plain.mkdir()
    assert distance(logits, our_logits(saved("causal_lm", "original", plain, WIDE), IDS)) > 1e-3  # it is rounded


def test_dynamic_int8_is_loaded_by_transformers_alone(tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors")
    model = saved("causal_lm", "int8_dynamic", tmp_path, WIDE)
    to = exported(model, tmp_path / "to")
    config = json.loads((to / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    assert config["config_groups"]["group_0"]["input_activations"]["dynamic"] is True
    assert config["format"] == "int-quantized"
    weights = load_file(to / "model.safetensors")
    assert weights["model.layers.0.self_attn.q_proj.weight"].dtype == torch.int8
    logits = run_alone(TRANSFORMERS, to, IDS, "AutoModelForCausalLM")
    assert distance(logits, our_logits(model, IDS)) < 0.02  # transformers rounds inputs with other scales


@pytest.mark.parametrize("chain", ["original", "bf16", "prune_2_4", "cluster", "wanda"])
def test_float_models_are_loaded_by_transformers_alone(chain: str, tmp_path: Path) -> None:
    model = saved("causal_lm", chain, tmp_path)
    to = exported(model, tmp_path / "to")
    assert torch.equal(run_alone(TRANSFORMERS, to, IDS, "AutoModelForCausalLM"), our_logits(model, IDS))


RUNTIMES = {
    "onnx": """
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1] + "/model.onnx")
logits = session.run(None, {each.name: given[each.name].numpy() for each in session.get_inputs()})[0]
""",
    "openvino": """
import openvino
compiled = openvino.compile_model(sys.argv[1] + "/model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
logits = next(iter(compiled([given[name] for name in ("input_ids", "attention_mask")]).values()))
""",
    "torchscript": """
logits = torch.jit.load(sys.argv[1] + "/model.ts")(given["input_ids"], given["attention_mask"])[0]
""",
    "torch_export": """
logits = torch.export.load(sys.argv[1] + "/model.pt2").module()(given["input_ids"], given["attention_mask"])[0]
""",
}


@pytest.mark.parametrize("chain", sorted(RUNTIMES))
def test_the_files_of_a_runtime_are_loaded_by_it_alone(chain: str, tmp_path: Path) -> None:
    for name in {"onnx": ("onnxruntime", "onnxscript"), "openvino": ("openvino",)}.get(chain, ()):
        pytest.importorskip(name)
    model = saved("text_classification", chain, tmp_path)
    to = exported(model, tmp_path / "to")
    inputs = {"input_ids": torch.arange(5, 21)[None], "attention_mask": torch.ones(1, 16, dtype=torch.long)}
    logits = run_alone("with torch.no_grad():\n " + RUNTIMES[chain].strip().replace("\n", "\n "), to, inputs)
    plain = tmp_path / "plain"
    plain.mkdir()
    expected = our_logits(saved("text_classification", "original", plain), inputs)
    assert distance(logits.reshape(expected.shape), expected) < 1e-3


@pytest.mark.parametrize(
    ("name", "chain", "reason"),
    [
        ("causal_lm", "gptq:bits=3,group_size=32", "has 3 bits"),
        ("causal_lm", "int4_weight_only:group_size=32,embeddings=true", "is not a linear layer"),
        ("text_classification", "awq:group_size=16,samples=4,steps=4", r"of 14 layers, including \S+, scale"),
        ("causal_lm", "low_rank", "no other program knows them"),
    ],
)
def test_what_no_other_program_loads_is_rejected_with_a_message(
    name: str, chain: str, reason: str, tmp_path: Path
) -> None:
    model = saved(name, chain, tmp_path, WIDE if name == "causal_lm" else None)
    with pytest.raises(RecipeError, match=reason):
        export(str(model), tmp_path / "to", lambda: pytest.fail("no store"))
    assert not (tmp_path / "to").exists()
    assert not list(tmp_path.glob(".to-*"))


def test_invalid_sources_and_targets_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(RecipeError, match="is not empty"):
        export(str(tmp_path), tmp_path / "full", lambda: pytest.fail("no store"))
    with pytest.raises(WeightsError, match="not a model that mlflow-compress saved"):
        export(str(tmp_path), tmp_path / "to", lambda: pytest.fail("no store"))


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_codes_are_packed_as_the_package_packs_them(bits: int) -> None:
    helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    codes = torch.randint(0, 2**bits, (5, 37), dtype=torch.uint8)
    signed = (codes.to(torch.int16) - 2 ** (bits - 1)).to(torch.int8)
    assert torch.equal(words(codes, bits), helpers.pack_to_int32(signed, bits))
