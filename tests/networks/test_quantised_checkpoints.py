"""Checkpoints that others quantised are measured as they are, restored from their own files, or rejected."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TINY, tiny_model

from mlflow_compress import registry
from mlflow_compress.errors import MachineLacks, Unsupported, WeightsError
from mlflow_compress.measuring import worker
from mlflow_compress.meters.size import in_memory
from mlflow_compress.networks import model_folder, native_precision, quantised_checkpoints
from mlflow_compress.networks.transformers_models import companions
from mlflow_compress.planning import chains
from mlflow_compress.records import Variant

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True, "desc_act": False}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}


def checkpoint(folder: Path, **arguments: Any) -> int:
    """Save a tiny language model, quantised by transformers, and return the number of its float parameters."""
    import transformers

    _, model = tiny_model("causal_lm", architecture={"dtype": "bfloat16", "hidden_size": 64, "intermediate_size": 128})
    model.module.save_pretrained(folder / "float")
    companions(model).tokenizer.save_pretrained(folder)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder / "float", dtype="auto", **arguments)
    loaded.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.module.parameters())


def loaded(folder: Path) -> tuple[Any, Any]:
    family = registry.build("families", "causal_lm", TINY["causal_lm"])
    return family, family.load(str(folder), "auto", folder, 0)


def by_bitsandbytes(folder: Path, **options: Any) -> int:
    pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    return checkpoint(folder, quantization_config=BitsAndBytesConfig(**options), device_map="cpu")


def by_nf4(folder: Path) -> int:
    return by_bitsandbytes(folder, load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)


def by_int8(folder: Path) -> int:
    return by_bitsandbytes(folder, load_in_8bit=True)


def by_torchao(folder: Path) -> int:
    quantization = pytest.importorskip("torchao.quantization")
    from transformers import TorchAoConfig

    return checkpoint(folder, quantization_config=TorchAoConfig(quantization.Int8WeightOnlyConfig(version=2)))


def by_compressed_tensors(folder: Path) -> int:
    pytest.importorskip("compressed_tensors")
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config, preset_name_to_scheme
    from compressed_tensors.quantization.utils import calculate_qparams

    _, model = tiny_model("causal_lm", architecture={"dtype": "bfloat16", "hidden_size": 64, "intermediate_size": 128})
    count: int = sum(parameter.numel() for parameter in model.module.parameters())
    scheme = preset_name_to_scheme("W4A16", ["Linear"])
    scheme.weights.group_size = 32
    config = QuantizationConfig(config_groups={"group_0": scheme}, ignore=["lm_head"])
    apply_quantization_config(model.module, config)
    for layer in model.module.modules():
        if hasattr(layer, "weight_scale"):
            groups = layer.weight.data.reshape(layer.weight.shape[0], -1, 32)
            scale, _ = calculate_qparams(groups.amin(-1), groups.amax(-1), scheme.weights)
            layer.weight_scale.data = scale.to(layer.weight_scale.dtype)
    compressor = ModelCompressor.from_pretrained_model(model.module)
    compressor.compress_model(model.module)
    model.module.save_pretrained(folder)
    compressor.update_config(str(folder))
    companions(model).tokenizer.save_pretrained(folder)
    return count


def unpacked_while_loading(folder: Path) -> int:
    """Write a checkpoint as `compress-bench export` does for asymmetric weights; transformers unpacks it."""
    count = by_compressed_tensors(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"]["dequantize"] = True
    path.write_text(json.dumps(config))
    return count


def described(folder: Path, method: str) -> Variant:
    options, chain = TINY["causal_lm"], chains.parse_chain(method)
    return Variant("tiny", method, "t", "causal_lm", str(folder), options=options, chain=chain)


@pytest.mark.parametrize(
    ("make", "packed"),
    [
        (by_nf4, "bitsandbytes nf4"),
        (by_int8, "bitsandbytes int8"),
        (by_torchao, "torchao Int8WeightOnly"),
        (by_compressed_tensors, "compressed-tensors int4, computed in bfloat16"),
        (unpacked_while_loading, "compressed-tensors int4, computed in bfloat16"),
    ],
)
def test_a_checkpoint_is_measured_saved_and_restored_as_it_is(tmp_path: Path, make: Any, packed: str) -> None:
    count = make(tmp_path)
    variant = described(tmp_path, "original")
    work = tmp_path / "work"
    work.mkdir()
    part = worker.prepare(variant, work, worker.Report(io.StringIO()))
    assert part.outcome.status == "ok"
    assert part.facts["packed"] == packed
    original, stored = (folder / "model.safetensors" for folder in (tmp_path, work / "model"))
    assert original.read_bytes() == stored.read_bytes()  # nothing was encoded again
    family, model = loaded(tmp_path)
    restored = model_folder.restore(work / "model")
    assert in_memory(restored.model.module)["size/params"] == count
    batch = family.batch(model, 1, 0)
    assert torch.equal(family.forward(model, batch), family.forward(restored.model, batch))
    assert in_memory(restored.model.module)["size/params"] == count  # unpacked by now, or as before
    (tmp_path / "more").mkdir()
    compressed = described(tmp_path, "int8_weight_only")
    with pytest.raises(Unsupported, match=rf"already quantised \({packed.partition(',')[0]}\)"):
        worker.prepare(compressed, tmp_path / "more", worker.Report(io.StringIO()))


def with_config(folder: Path, settings: object) -> None:
    _, model = tiny_model("causal_lm")
    model.module.save_pretrained(folder)
    companions(model).tokenizer.save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": settings}))


@pytest.mark.parametrize(
    ("settings", "command"),
    [
        (GPTQ, r"\(gptq 4 bit\).*pip install optimum gptqmodel"),
        (AWQ, r"\(awq 4 bit\).*pip install gptqmodel"),
    ],
)
def test_what_no_library_runs_here_is_skipped_before_weights_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: object, command: str
) -> None:
    with_config(tmp_path, settings)
    (tmp_path / "model.safetensors").write_bytes(b"not read")
    monkeypatch.setattr(quantised_checkpoints, "_is_there", lambda name: False)
    with pytest.raises(MachineLacks, match=command):
        loaded(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({**GPTQ, "bits": 0}, "bits=0"),
        ({**GPTQ, "bits": True}, "bits=True"),
        ({**GPTQ, "bits": "4"}, "bits='4'"),
        ({**GPTQ, "group_size": -7}, "group_size=-7"),
        ({"quant_method": "evil"}, "quant_method 'evil', which transformers does not know"),
        ({"quant_method": ["gptq"]}, "does not know"),
        ("gptq", "must be a mapping"),
        ({"quant_method": "compressed-tensors", "config_groups": {}}, "names no weights"),
        ({"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": {"num_bits": 99}}}}, "num_bits=99"),
    ],
)
def test_a_contradictory_config_is_reported(tmp_path: Path, settings: object, message: str) -> None:
    with_config(tmp_path, settings)
    with pytest.raises(WeightsError, match=message) as error:
        loaded(tmp_path)
    assert "\n" not in str(error.value)


def test_what_is_not_served_is_skipped(tmp_path: Path) -> None:
    with_config(tmp_path, {"quant_method": "mxfp4"})
    with pytest.raises(Unsupported, match="quantised with mxfp4"):
        loaded(tmp_path)


def test_weights_that_do_not_fit_their_config_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    with_config(tmp_path, {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"})
    with pytest.raises(WeightsError, match="not 4-bit"):
        loaded(tmp_path)


def test_a_precision_that_quantised_weights_cannot_have_is_refused(tmp_path: Path) -> None:
    by_compressed_tensors(tmp_path)
    family = registry.build("families", "causal_lm", {**TINY["causal_lm"], "dtype": "float32"})
    model = family.load(str(tmp_path), "auto", tmp_path, 0)
    with pytest.raises(Unsupported, match=r"dtype=float32 can't cast them: leave dtype out"):
        native_precision.settle(model, family)
