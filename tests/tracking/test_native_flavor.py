"""MLflow's own flavor also loads a logged model, in a process where this package can't be imported."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file, save_file
from tiny import INPUTS, TINY

from mlflow_compress import registry
from mlflow_compress.errors import Unsupported
from mlflow_compress.measuring import worker
from mlflow_compress.networks import model_folder
from mlflow_compress.planning import chains
from mlflow_compress.records import Variant
from mlflow_compress.tracking import models, writing
from mlflow_compress.tracking.connection import Store

pytestmark = pytest.mark.slow

ALONE = """
import json, sys
sys.modules["mlflow_compress"] = None  # importing it fails
import mlflow, torch
from safetensors.torch import load_file, save_file
mlflow.set_tracking_uri(sys.argv[1])
for place, uri in json.loads(sys.argv[2]).items():
    given = load_file(place + "/given.safetensors")
    with torch.no_grad():
        found = answer(uri, given)
    save_file({"found": torch.as_tensor(found).float().contiguous()}, place + "/found.safetensors")
"""
ANSWERS = {
    "transformers": """
import mlflow.transformers
def answer(uri, given):
    parts = mlflow.transformers.load_model(uri, return_type="components")
    assert any("tokenizer" in key or "process" in key or "extract" in key for key in parts), parts
    return parts["model"](**given).logits
""",
    "onnx": """
import mlflow.onnx, onnxruntime
def answer(uri, given):
    model = mlflow.onnx.load_model(uri)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {each.name: given[each.name].numpy() for each in session.get_inputs()})[0]
""",
    "pytorch": """
import mlflow.pytorch
def answer(uri, given):
    return mlflow.pytorch.load_model(uri)(given["input_ids"], given["attention_mask"])[0]
""",
}
IDS = {"input_ids": torch.arange(5, 21)[None]}
MASKED = {"input_ids": torch.arange(5, 21)[None], "attention_mask": torch.ones(1, 16, dtype=torch.long)}
PIXELS = {"pixel_values": torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 32, 32)}
SOUND = {
    "input_features": torch.linspace(-1, 1, 80 * 3000).view(1, 80, 3000),
    "decoder_input_ids": torch.arange(2, 6)[None],
}
GIVEN = {
    "text_classification": MASKED,
    "token_classification": MASKED,
    "causal_lm": IDS,
    "image_classification": PIXELS,
    "seq2seq": {**IDS, "decoder_input_ids": torch.arange(2, 6)[None]},
    "asr": SOUND,
    "asr_ctc": {"input_values": torch.linspace(-1, 1, 4000)[None]},
}


def saved(name: str, chain: str, folder: Path) -> Path:
    """Prepare a tiny model with random weights as the worker does; return its folder."""
    folder.mkdir()
    parsed = chains.parse_chain(chain)
    variant = Variant(name, chain, "t", name, "tiny", "random", chain=parsed, options=TINY[name])
    worker.prepare(variant, folder, worker.Report(io.StringIO()))
    return folder / worker.MODEL_FOLDER


def logged(store: Store, model: Path) -> str:
    run_id = writing.start(store, writing.experiment_id(store, "flavors"), model.parent.name, {})
    return models.write_model(store, run_id, model, ["mlflow-compress"])


def told(store: Store, model_id: str) -> str:
    """Return the logged model's tag about its flavor."""
    return str(MlflowClient(store.uri).get_logged_model(model_id).tags["compress.native_flavor"])


def files(store: Store, model_id: str) -> Path:
    return Path(mlflow.artifacts.download_artifacts(f"models:/{model_id}", tracking_uri=store.uri))


def alone(store: Store, flavor: str, models: Mapping[str, Path], inputs: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Load logged models by one of MLflow's flavors, without this package; return their outputs."""
    uris = {}
    for model_id, model in models.items():
        save_file(inputs[model_id], model.parent / "given.safetensors")
        uris[str(model.parent)] = f"models:/{model_id}"
    code = ALONE.replace("for place", ANSWERS[flavor] + "\nfor place", 1)
    command = [sys.executable, "-c", code, store.uri, json.dumps(uris)]
    process = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert process.returncode == 0, process.stderr[-3000:]
    return {flavor: load_file(model.parent / "found.safetensors")["found"] for flavor, model in models.items()}


def distance(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual.reshape(expected.shape) - expected).norm() / expected.norm())


def ours(model: Path, inputs: Mapping[str, Any]) -> torch.Tensor:
    with torch.inference_mode():
        return torch.as_tensor(model_folder.restore(model).model.module(**inputs).logits.float())


def test_transformers_loads_what_it_built(store: Store, tmp_path: Path) -> None:
    chains_of = dict.fromkeys(GIVEN, "original") | {"causal_lm ": "bf16", "text_classification ": "distill"}
    models, inputs = {}, {}
    for name, chain in chains_of.items():
        model = saved(name.strip(), chain, tmp_path / f"{name.strip()} {chain}")
        model_id = logged(store, model)
        models[model_id], inputs[model_id] = model, GIVEN[name.strip()]
        assert told(store, model_id) == "transformers"
    for model_id, output in alone(store, "transformers", models, inputs).items():
        assert torch.equal(output, ours(models[model_id], inputs[model_id])), models[model_id]
        files_beside = [path for path in files(store, model_id).rglob("*") if "data" not in path.parts]
        assert not [
            path for path in files_beside if path.suffix in (".safetensors", ".bin", ".pt")
        ]  # weights are stored once


def test_pyfunc_loads_ours_and_transformers_a_pipeline(store: Store, tmp_path: Path) -> None:
    model = saved("text_classification", "original", tmp_path / "model folder")
    uri = f"models:/{logged(store, model)}"
    mlflow.set_tracking_uri(store.uri)
    texts = INPUTS["text_classification"]
    loaded = mlflow.pyfunc.load_model(uri)
    assert loaded.metadata.flavors["python_function"]["loader_module"] == "mlflow_compress.pyfunc"
    predictions = loaded.predict(texts)
    restored = model_folder.restore(model)
    assert predictions == restored.family.predict(restored.model, texts)
    pipeline = mlflow.transformers.load_model(uri)
    assert pipeline.task == "text-classification"
    labels = [answer["label"] for answer in pipeline(texts)]
    assert labels == [restored.model.config.id2label[int(ours_.argmax())] for ours_ in _logits(restored, texts)]


def _logits(restored: model_folder.Restored, texts: list[str]) -> list[torch.Tensor]:
    from mlflow_compress.networks.transformers_models import companions

    tokenizer = companions(restored.model).tokenizer
    with torch.inference_mode():
        return [restored.model.module(**tokenizer(text, return_tensors="pt")).logits[0] for text in texts]


def test_a_model_without_a_pipeline_says_how_it_is_loaded(store: Store, tmp_path: Path) -> None:
    uri = f"models:/{logged(store, saved('seq2seq', 'original', tmp_path / 'model'))}"
    mlflow.set_tracking_uri(store.uri)
    with pytest.raises(mlflow.MlflowException, match="'return_type'='components'"):
        mlflow.transformers.load_model(uri)
    parts = mlflow.transformers.load_model(uri, return_type="components")
    assert parts["processor"]("At dawn.")["input_ids"]


@pytest.mark.usefixtures("exported_once")
@pytest.mark.parametrize("chain", ["onnx", "onnx_int8", "onnx_int4:block_size=16"])
def test_onnx_loads_the_runtimes_own_file(chain: str, store: Store, tmp_path: Path) -> None:
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name)
    model = saved("text_classification", chain, tmp_path / "saved")
    model_id = logged(store, model)
    assert told(store, model_id) == "onnx"
    outputs = alone(store, "onnx", {model_id: model}, {model_id: MASKED})[model_id]
    restored = model_folder.restore(model)
    expected = torch.as_tensor(restored.family.forward(restored.model, MASKED))
    assert distance(outputs, expected) < 1e-5
    assert len(list(files(store, model_id).rglob("*.onnx"))) == 1


@pytest.mark.parametrize("chain", ["torch_export", "bf16+torch_export"])
def test_pytorch_loads_a_graph(chain: str, store: Store, tmp_path: Path) -> None:
    model = saved("text_classification", chain, tmp_path / "saved")
    model_id = logged(store, model)
    assert told(store, model_id) == "pytorch"
    described = mlflow.models.Model.load(str(files(store, model_id))).flavors["pytorch"]
    assert described["pytorch_version"] == torch.__version__
    outputs = alone(store, "pytorch", {model_id: model}, {model_id: MASKED})[model_id]
    restored = model_folder.restore(model)
    expected = torch.as_tensor(restored.family.forward(restored.model, MASKED).float())
    assert torch.equal(outputs.reshape(expected.shape), expected)


@pytest.mark.parametrize(
    ("name", "chain", "reason"),
    [
        ("causal_lm", "int8_dynamic", "none: its layers are saved in a format of this package"),
        ("causal_lm", "prune_2_4", "none: its weights have a compact form"),
        ("causal_lm", "torchscript", "none: MLflow's pytorch flavor reads TorchScript only as it reads pickles"),
        ("asr", "torch_export", "none: MLflow's pytorch flavor loads one graph, but this model has 2"),
    ],
)
def test_a_tag_says_why_there_is_none(name: str, chain: str, reason: str, store: Store, tmp_path: Path) -> None:
    model_id = logged(store, saved(name, chain, tmp_path / "saved"))
    assert told(store, model_id).startswith(reason)
    mlflow.set_tracking_uri(store.uri)
    loaded = mlflow.pyfunc.load_model(f"models:/{model_id}")
    assert set(loaded.metadata.flavors) == {"python_function"}


def test_what_is_damaged_or_unknown_here_is_logged_all_the_same(store: Store, tmp_path: Path) -> None:
    model = saved("causal_lm", "original", tmp_path / "saved")
    manifest = json.loads((model / "manifest.json").read_text())
    manifest["chain"][0]["method"] = "of_somebodys_plugin"
    (model / "manifest.json").write_text(json.dumps(manifest))
    assert "of_somebodys_plugin" in told(store, logged(store, model))
    (model / "manifest.json").unlink()
    assert "not a model folder" in told(store, logged(store, model))


def test_code_beside_a_model_is_left_to_this_package(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({
        "model_type": "of_somebody", "auto_map": {"AutoModelForCausalLM": "modeling.Model"},
    }))  # fmt: skip
    with pytest.raises(Unsupported, match="would run without asking"):
        registry.build("families", "causal_lm").native_flavor(tmp_path)
