"""TensorRT: its message without a GPU, and the families that it excludes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_model

from mlflow_compress import registry
from mlflow_compress.compression.onnx_graphs import Session
from mlflow_compress.errors import RecipeError, Unsupported
from mlflow_compress.methods.tensorrt import Tensorrt
from mlflow_compress.networks.export_graphs import graph
from mlflow_compress.sockets import Graph


def test_without_a_gpu_it_is_unsupported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    family, model = tiny_model("text_classification")
    with pytest.raises(Unsupported, match="torch finds none"):
        Tensorrt().export(model, family, family.graphs(model), tmp_path)
    assert list(tmp_path.iterdir()) == []


def without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace the engine builder; return the list of files that engines are built from."""
    built: list[str] = []

    def build(self: Tensorrt, graph: Graph, path: Path) -> bytes:
        built.append(path.name)
        return b"engine"

    caller = Tensorrt.__module__  # only this module sees a GPU: torch's exporter must not
    monkeypatch.setattr(torch.cuda, "is_available", lambda: sys._getframe(1).f_globals["__name__"] == caller)
    monkeypatch.setattr(Tensorrt, "_build", build)
    return built


def test_what_an_engine_is_built_of_gives_the_modules_numbers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    built = without_a_gpu(monkeypatch)
    family, model = tiny_model("text_classification")
    Tensorrt().export(model, family, family.graphs(model), tmp_path)
    assert (built, sorted(path.name for path in tmp_path.iterdir())) == (
        ["model.onnx"],
        ["model.engine", "model.json"],
    )

    class Wrong(Session):
        def __call__(self, *inputs: Any) -> tuple[Any, ...]:
            return tuple(2 * output for output in super().__call__(*inputs))

    monkeypatch.setattr("mlflow_compress.methods.tensorrt.Session", Wrong)
    with pytest.raises(Unsupported, match="the exported graph differs from the module by 100%"):
        Tensorrt().export(model, family, family.graphs(model), tmp_path)
    assert built == ["model.onnx"]


def test_without_a_weight_to_halve_it_is_unsupported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    built = without_a_gpu(monkeypatch)
    module = graph(lambda parts, x: (parts.net(x),), {"x": torch.rand(2, 4)}, ["y"], {}, net=torch.nn.ReLU())
    family, model = tiny_model("text_classification")
    with pytest.raises(Unsupported, match="no float32 weight to convert to float16"):
        Tensorrt().export(model, family, {"model": module}, tmp_path)
    assert not built
    Tensorrt(precision="fp32").export(model, family, {"model": module}, tmp_path)
    assert built == ["model.onnx"]


NET = """
import torch
from torch import nn

def model():
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 1))

def batch(size):
    return torch.rand(size, 3, 8, 8)
"""


def test_int8_is_calibrated_and_symmetric(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    files: list[Any] = []

    def build(self: Tensorrt, graph: Graph, path: Path) -> bytes:
        files.append(onnx.load(str(path)))
        return b"engine"

    without_a_gpu(monkeypatch)
    monkeypatch.setattr(Tensorrt, "_build", build)
    (tmp_path / "own.py").write_text(NET)
    family = registry.build("families", "python")
    model = family.load("own.py", "random", tmp_path, 0)
    graphs = family.graphs(model)
    (tmp_path / "out").mkdir()
    Tensorrt(precision="int8", samples=2, exclude="2").export(model, family, graphs, tmp_path / "out")
    (file,) = files
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in file.graph.initializer}
    points = [constants[node.input[2]] for node in file.graph.node if node.op_type == "QuantizeLinear"]
    assert points
    assert all(point.dtype == "int8" and not point.any() for point in points)
    weights = [tensor for tensor in constants.values() if tensor.dtype == "int8" and tensor.ndim == 4]
    assert [weight.shape for weight in weights] == [(16, 3, 3, 3)]  # the other convolution is left out
    assert model.facts["reached"] == "reached 432 of 584 weights"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model.engine", "model.json"]
    assert not Tensorrt(precision="int8").converts_all()


def test_decoders_are_excluded_with_a_reason() -> None:
    assert set(Tensorrt.excludes) == {"asr", "causal_lm", "seq2seq"}
    assert all("key-value cache" in reason for reason in Tensorrt.excludes.values())
    assert (Tensorrt.devices, Tensorrt.needs[0]) == (("cuda",), "tensorrt")


@pytest.mark.parametrize(("option", "value"), [("precision", "int4"), ("most", 1)])
def test_options_out_of_range_are_refused(option: str, value: object) -> None:
    with pytest.raises(RecipeError, match=option):
        registry.build("methods", "tensorrt", {option: value})
