"""CTranslate2: Whisper in a runtime with its own decoding loop."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exported import compress
from tiny import tiny_model

from mlflow_compress.errors import Unsupported, WeightsError
from mlflow_compress.measuring import worker
from mlflow_compress.meters import size
from mlflow_compress.networks import ctranslate2_files, model_folder
from mlflow_compress.networks.transformers_models import companions
from mlflow_compress.planning.chains import parse_chain
from mlflow_compress.records import Variant
from mlflow_compress.sockets import Family, Model

pytest.importorskip("ctranslate2")

START, LAST, END = 294, 299, 1
ALONE = """
import json, sys, numpy, ctranslate2
folder, prompt = sys.argv[1], json.loads(sys.argv[2])
model = ctranslate2.models.Whisper(folder + "/ctranslate2", device="cpu")
features = ctranslate2.StorageView.from_array(numpy.load(folder + "/features.npy"))
made = model.generate(features, [prompt], beam_size=1, max_length=12, suppress_tokens=[1])
print(json.dumps([made[0].sequences_ids[0], [name for name in sys.modules if name in ("mlflow_compress", "torch")]]))
"""


def whisper(fields: dict[str, Any] | None = None, **settings: Any) -> tuple[Family, Model]:
    """Return a tiny Whisper whose settings name the tokens of prompts, like published models."""
    architecture = {"decoder_start_token_id": START, "max_target_positions": 32, **(fields or {})}
    family, model = tiny_model("asr", architecture, new_tokens=6)
    torch.manual_seed(1)
    for parameter in model.module.parameters():  # the library stores equal tensors once
        parameter.data.add_(torch.randn(parameter.shape), alpha=0.3 if parameter.dim() > 1 else 0.01)
    generation = companions(model).generation
    for name, value in {"no_timestamps_token_id": LAST, "decoder_start_token_id": START, **settings}.items():
        setattr(generation, name, value)
    model.module.generation_config = generation
    return family, model


def generated(family: Family, model: Model, count: int = 2) -> list[list[int]]:
    with torch.inference_mode():
        continuation = family.generate(model, family.batch(model, count, 3), 6)
    assert continuation is not None
    return [list(map(int, row)) for row in continuation.tokens]


@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_it_generates_what_torch_does(kind: str) -> None:
    family, model = whisper()
    with torch.inference_mode():
        want = family.generate(model, family.batch(model, 2, 3), 6)
    made_by_compressed = compress(f"ctranslate2:type={kind}", family, model)
    with torch.inference_mode():
        continuation = family.generate(made_by_compressed, family.batch(model, 2, 3), 6)
    assert want is not None
    assert continuation is not None
    assert torch.equal(continuation.tokens, want.tokens)
    assert len({*continuation.tokens.flatten().tolist()}) > 1
    tolerance = 1e-4 if kind == "float32" else 0.05
    torch.testing.assert_close(continuation.logits, want.logits, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(continuation.at_once, want.at_once, atol=tolerance, rtol=tolerance)


def test_each_call_makes_as_many_tokens_as_asked() -> None:
    family, model = whisper()
    want = [row[-6:] for row in _ran(family, model)[0]]
    model = compress("ctranslate2:type=float32", family, model)
    tokens, stages = _ran(family, model)
    assert tokens == want
    assert stages == ["features", "encoder", "decoder"]
    rates = family.rates(100.0, {"features": 1.0, "encoder": 9.0, "decoder": 60.0}, 1)
    assert rates == {"real_time_factor_estimated": (100 + 94 * 10) / 30_000}


def _ran(family: Family, model: Model) -> tuple[list[list[int]], list[str]]:
    stages: list[str] = []
    with torch.inference_mode():
        tokens = family.run(model, family.batch(model, 2, 0), stages.append)
    return tokens.tolist(), stages


@pytest.mark.parametrize(
    "settings",
    [
        {"lang_to_id": {"<|en|>": 295, "<|de|>": 296}, "language": "<|de|>", "task_to_id": {"transcribe": 297}},
        {"suppress_tokens": [7, 8, 9], "begin_suppress_tokens": [11]},
    ],
)
def test_prompts_and_suppressed_tokens_are_those_of_transformers(settings: dict[str, Any]) -> None:
    family, model = whisper(**settings)
    want = generated(family, model)
    assert generated(family, compress("ctranslate2:type=float32", family, model)) == want


def test_a_model_that_the_library_takes_as_monolingual_is_rejected() -> None:
    family, model = whisper(lang_to_id={"<|en|>": 295, "<|de|>": 296})
    with pytest.raises(Unsupported, match="set language in its generation_config"):
        compress("ctranslate2:type=float32", family, model)


def test_predictions_end_where_torchs_do() -> None:
    family, model = whisper()
    sounds = [np.sin(np.arange(16_000) / step).astype(np.float32) for step in (5, 9, 40)]
    model.module.proj_out.weight.data[END] += 0.5  # so that some end early
    want = family.predict(model, sounds)
    assert family.predict(compress("ctranslate2:type=float32", family, model), sounds) == want


@pytest.mark.parametrize(("kind", "arithmetic"), [("float32", "float32"), ("int8", "int8_float32")])
def test_sizes_are_those_of_its_file(kind: str, arithmetic: str) -> None:
    family, model = whisper()
    total = sum(parameter.numel() for parameter in model.module.parameters())
    model = compress(f"ctranslate2:type={kind}", family, model)
    assert model.facts["arithmetic"].startswith(arithmetic.split("_")[0])
    numbers = size.in_memory(model.module)
    assert numbers["size/params"] - total in range(-200, 200)  # zero biases are added or dropped
    file = Path(model.files.name) / "ctranslate2" / "model.bin" if model.files else Path()
    assert numbers["size/weights_mib"] * 2**20 == pytest.approx(file.stat().st_size, rel=0.1)
    if kind == "int8":
        assert "reached" in model.facts
        assert file.stat().st_size < 0.75 * 4 * total  # positions stay in float32


def test_the_saved_folder_is_opened_by_the_library_without_this_package(tmp_path: Path) -> None:
    options = {"new_tokens": 4, "architecture": tiny_model("asr")[1].config.to_dict()}
    variant = Variant(
        "w", "ctranslate2", "t", "asr", "tiny", "random", chain=parse_chain("ctranslate2"), options=options
    )
    worker.prepare(variant, tmp_path, worker.Report(io.StringIO()))
    folder = tmp_path / worker.MODEL_FOLDER
    restored = model_folder.restore(folder)
    family, model = restored.family, restored.model
    batch = family.batch(model, 1, 0)
    with torch.inference_mode():
        want = family.run(model, batch, lambda stage: None)[0].tolist()
    features = companions(model).features(batch, sampling_rate=16_000, return_tensors="np")["input_features"]
    np.save(folder / "features.npy", features)
    prompt = json.dumps([model.config.decoder_start_token_id, *model.module.special])
    command = [sys.executable, "-c", ALONE, str(folder), prompt]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    tokens, modules = json.loads(ran.stdout.splitlines()[-1])
    assert (tokens[:4], modules) == (want, [])


def test_unsupported_models_and_options_are_rejected() -> None:
    family, model = tiny_model("asr")
    model.weights = "local"
    with pytest.raises(Unsupported, match="no_timestamps_token_id"):
        compress("ctranslate2", family, model)
    family, model = tiny_model("causal_lm")
    with pytest.raises(Unsupported, match="it runs only Whisper and text-to-text models"):
        compress("ctranslate2", family, model)
    family, model = whisper()
    model = compress("ctranslate2", family, model)
    with pytest.raises(Unsupported, match="generate with the options penalty_alpha"):
        model.module.generate(torch.zeros(1, 80, 3000), max_new_tokens=2, penalty_alpha=0.6)


def test_a_file_with_wrong_lengths_is_rejected(tmp_path: Path) -> None:
    family, model = whisper()
    model = compress("ctranslate2:type=float32", family, model)
    assert model.files is not None
    valid = (Path(model.files.name) / "ctranslate2" / "model.bin").read_bytes()
    path = tmp_path / "model.bin"
    path.write_bytes(valid)
    read = ctranslate2_files.variables(path, "WhisperSpec")
    variable = next(candidate for candidate in read if candidate.name.endswith("linear_0/weight"))
    assert variable.read(path).shape == variable.shape
    length = variable.start - 4  # position of its number of elements
    for content in (
        valid[:-40],
        valid + b"0",
        b"\x09" + valid[1:],
        valid[:length] + b"\xff\xff\xff\x7f" + valid[variable.start :],
        valid[:6] + b"Wisp" + valid[10:],
        b"",
    ):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="can't be read as a CTranslate2 model"):
            ctranslate2_files.variables(path, "WhisperSpec")
