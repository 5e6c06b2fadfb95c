"""Exports of integer methods and ncnn run in the runtime's own library alone, with the same outputs."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import TINY

from mlflow_compress.measuring import worker
from mlflow_compress.networks import model_folder
from mlflow_compress.planning import chains
from mlflow_compress.records import Variant
from mlflow_compress.tracking.published_models import export

ALONE = """
import sys
sys.modules["mlflow_compress"] = None  # importing it fails
from safetensors.numpy import load_file, save_file
import numpy
folder, given = sys.argv[1], load_file(sys.argv[2])
{body}
assert "torch" not in sys.modules
save_file({{"given": numpy.ascontiguousarray(numpy.asarray(output, dtype=numpy.float32))}}, sys.argv[3])
"""
ONNX = """
import onnxruntime
session = onnxruntime.InferenceSession(folder + "/model.onnx")
output = session.run(None, {each.name: given[each.name] for each in session.get_inputs()})[0]
"""
OPENVINO = """
import openvino
compiled = openvino.compile_model(folder + "/model.xml", "CPU")
output = next(iter(compiled([given["input_ids"], given["attention_mask"]]).values()))
"""
NCNN = """
import ncnn
net = ncnn.Net()
assert not net.load_param(folder + "/model.param") and not net.load_model(folder + "/model.bin")
outputs = []
for sample in given["inputs"]:
    with net.create_extractor() as extractor:
        extractor.input(net.input_names()[0], ncnn.Mat(numpy.ascontiguousarray(sample)))
        outputs.append(numpy.array(extractor.extract(net.output_names()[0])[1]))
output = numpy.stack(outputs)
"""
LLAMA = """
import llama_cpp
model = llama_cpp.Llama(folder + "/model.gguf", logits_all=True, verbose=False, n_ctx=64)
ids = given["input_ids"][0].tolist()
model.eval(ids)
output = numpy.array(model.scores[:len(ids)])[None]
"""
WIDE_TEXT = {
    "tokens": 16,
    "architecture": {**TINY["text_classification"]["architecture"], "dim": 64, "hidden_dim": 128},
}
WIDE_LLAMA = {
    **TINY["causal_lm"],
    "architecture": {**TINY["causal_lm"]["architecture"], "hidden_size": 256, "intermediate_size": 512},
}
OWN = """
import torch
from torch import nn

def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))

def batch(size):
    return torch.rand(size, 8)
"""


def exported(family: str, chain: str, folder: Path, options: dict[str, Any], source: str = "tiny") -> tuple[Path, Path]:
    """Prepare a model like the worker, and export it; return both folders."""
    variant = Variant(
        family,
        chain,
        "t",
        family,
        source,
        "random",
        chain=chains.parse_chain(chain),
        options=options,
        folder=str(folder),
    )
    worker.prepare(variant, folder, worker.Report(io.StringIO()))
    lines = export(str(folder / worker.MODEL_FOLDER), folder / "to", lambda: pytest.fail("no store is needed"))
    assert len(lines) == 3
    return folder / worker.MODEL_FOLDER, folder / "to"


def outputs(saved: Path, to: Path, body: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the outputs of the restored model, and of the library alone for the same inputs."""
    restored = model_folder.restore(saved)
    batch = restored.family.batch(restored.model, 1, 3)
    name = "input_ids" if restored.manifest.family == "causal_lm" else "inputs"
    inputs = dict(batch) if isinstance(batch, dict) else {name: batch[0] if isinstance(batch, list) else batch}
    with torch.inference_mode():
        output = restored.family.forward(restored.model, batch)
    expected = torch.as_tensor(output[0] if isinstance(output, (list, tuple)) else output)
    inputs_file, outputs_file = to.parent / "given.safetensors", to.parent / "found.safetensors"
    save_file({key: value.contiguous() for key, value in inputs.items()}, inputs_file)
    command = [sys.executable, "-c", ALONE.format(body=body), str(to), str(inputs_file), str(outputs_file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return expected.float(), load_file(outputs_file)["given"]


@pytest.mark.parametrize(
    ("chain", "body", "needs"),
    [
        ("onnx_int4", ONNX, ("onnxruntime", "onnxscript")),
        ("onnx_int8:samples=2", ONNX, ("onnxruntime", "onnxscript")),
        ("openvino_int4:group_size=32", OPENVINO, ("openvino", "nncf")),
        ("openvino_int8:samples=2", OPENVINO, ("openvino", "nncf")),
    ],
)
def test_integer_files_are_run_by_their_library_alone(
    chain: str, body: str, needs: tuple[str, ...], tmp_path: Path
) -> None:
    for name in needs:
        pytest.importorskip(name)
    saved, to = exported("text_classification", chain, tmp_path, WIDE_TEXT)
    expected, computed = outputs(saved, to, body)
    assert computed.shape == expected.shape
    assert float((computed - expected).norm() / expected.norm()) < 1e-4
    plain = tmp_path / "plain"
    plain.mkdir()
    before, _ = exported("text_classification", "original", plain, WIDE_TEXT)
    restored = model_folder.restore(before)
    with torch.inference_mode():
        original = restored.family.forward(restored.model, restored.family.batch(restored.model, 1, 3))
    assert 0 < float((expected - original).norm() / original.norm()) < 0.5  # it is rounded


@pytest.mark.parametrize("chain", ["ncnn", "ncnn:precision=fp16"])
def test_ncnn_runs_its_files_alone(chain: str, tmp_path: Path) -> None:
    pytest.importorskip("ncnn")
    pytest.importorskip("pnnx")
    (tmp_path / "own.py").write_text(OWN)
    expected, computed = outputs(*exported("python", chain, tmp_path, {}, "own.py"), NCNN)
    assert float((computed - expected).norm() / expected.norm()) < 1e-5


def test_llama_cpp_runs_the_gguf_file_alone(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    expected, computed = outputs(*exported("causal_lm", "gguf:type=q8_0", tmp_path, WIDE_LLAMA), LLAMA)
    assert float((computed - expected).norm() / expected.norm()) < 0.03  # llama.cpp alone stores the past in float16
    assert float((computed[:, 0] - expected[:, 0]).norm() / expected[:, 0].norm()) < 1e-3
