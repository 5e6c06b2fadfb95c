"""Options of ONNX Runtime: graph optimizations, spinning, providers, fusions, calibration, excluded nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from exported import Running, compress, forward, own, text

from mlflow_compress.compression import onnx_graphs
from mlflow_compress.compression.onnx_gpu_sessions import GpuSession
from mlflow_compress.compression.onnx_graphs import Session
from mlflow_compress.compression.onnx_settings import SessionSettings, require_used
from mlflow_compress.errors import MachineLacks, RecipeError, Unsupported
from mlflow_compress.methods import onnx_int8
from mlflow_compress.networks import stored_weights
from mlflow_compress.networks.export_graphs import graph
from mlflow_compress.planning.chains import parse_chain

CONVOLUTIONS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU())
        self.head = nn.Conv2d(32, 8, 1)

    def forward(self, x):
        return self.head(self.body(x))

model = Net

def batch(size):
    return torch.rand(size, 3, 12, 12)

def training():
    images = torch.rand(64, 3, 12, 12)
    images[:, 0, 0, 0] = SPIKE
    return images
"""


LINEAR = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
        self.head = nn.Linear(32, 4)

    def forward(self, x):
        return self.head(self.body(x))

model = Net

def batch(size):
    return torch.rand(size, 8)
"""


class GpuSessionOnTheCpu(GpuSession):
    """The session for a GPU, with its inputs and outputs in the CPU's memory."""

    device = "cpu"

    def _opened(self, path: Path, settings: SessionSettings) -> Any:
        self._index = 0
        return Session._opened(self, path, settings)

    def _wait(self) -> None:
        pass


def operators(model: Any, name: str = "model") -> dict[str, list[str]]:
    """Return the names of the nodes of an exported model's file, by operator."""
    nodes: dict[str, list[str]] = {}
    for node in onnx.load(str(Path(model.files.name) / f"{name}.onnx")).graph.node:
        nodes.setdefault(node.op_type, []).append(node.name)
    return nodes


@pytest.mark.parametrize(
    ("level", "expected"),
    [("disable", "ORT_DISABLE_ALL"), ("basic", "ORT_ENABLE_BASIC"), ("all", "ORT_ENABLE_ALL")],
)
def test_levels_and_spinning_reach_the_runtime(level: Any, expected: str) -> None:
    options = SessionSettings(level, spinning=level == "all").options()
    assert options.graph_optimization_level == getattr(onnxruntime.GraphOptimizationLevel, expected)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == str(int(level == "all"))


def test_every_level_gives_the_same_numbers(tmp_path: Path) -> None:
    family, model = own(tmp_path)
    batch = family.batch(model, 2, 0)
    want = forward(family, model, batch)
    for level in ("disable", "basic", "extended", "all"):
        family, model = own(tmp_path)
        model = compress(f"onnx:level={level},spinning=false", family, model)
        assert stored_weights.distance(forward(family, model, batch), want) < 1e-4
    with pytest.raises(RecipeError, match="level"):
        parse_chain("onnx:level=99")


def test_bound_inputs_and_outputs_give_the_same_tensors(tmp_path: Path) -> None:
    axes = {"x": {0: "n"}, "y": {0: "n"}}
    adder = graph(lambda parts, x: parts.step(x), {"x": torch.ones(2, 8)}, ["y"], axes, step=Running())
    onnx_graphs.write(adder, tmp_path / "model.onnx")
    plain, bound = Session(tmp_path / "model.onnx", ()), GpuSessionOnTheCpu(tmp_path / "model.onnx", ())
    for x in (torch.rand(3, 8), torch.rand(8, 8)[::2], torch.ones(0, 8)):
        (want,), (output,) = plain(x), bound(x)
        assert torch.equal(output, want)
        assert output.dtype == torch.float32
    kept = [bound(torch.full((1, 8), float(value)))[0] for value in range(4)]
    assert [tensor[0, 0].item() for tensor in kept] == [0.0, 1.0, 2.0, 3.0]  # no output is overwritten by a later call


def test_bound_outputs_can_be_true_or_false(tmp_path: Path) -> None:
    comparison = graph(lambda parts, x: (x > parts.step.step,), {"x": torch.ones(2, 8)}, ["y"], step=Running())
    onnx_graphs.write(comparison, tmp_path / "model.onnx")
    (output,) = GpuSessionOnTheCpu(tmp_path / "model.onnx", ())(torch.full((2, 8), 3.5))
    assert output.dtype == torch.bool
    assert output[0].tolist() == [True] * 4 + [False] * 4


class Fake:
    """Stands for a session of onnxruntime-gpu."""

    made: tuple[str, list[Any]] = ("", [])
    used = "CUDAExecutionProvider"

    def __init__(self, path: str, options: Any, providers: list[Any]) -> None:
        Fake.made = path, providers

    def get_providers(self) -> list[str]:
        return [self.used, "CPUExecutionProvider"]

    def get_inputs(self) -> list[Any]:
        return []

    get_outputs = get_inputs


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Pretend that onnxruntime-gpu is installed; return a file in float32."""
    adder = graph(lambda parts, x: parts.step(x), {"x": torch.ones(2, 8)}, ["y"], step=Running())
    onnx_graphs.write(adder, tmp_path / "model.onnx")
    names = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Fake)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(Fake, "used", names[1])
    return tmp_path / "model.onnx"


def test_a_gpu_needs_a_runtime_with_its_provider(tmp_path: Path) -> None:
    with pytest.raises(MachineLacks, match=r"has no CUDAExecutionProvider, only .*pip install onnxruntime-gpu"):
        GpuSession(tmp_path / "model.onnx", ())


def test_the_provider_of_the_gpu_is_requested_first(gpu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    GpuSession(gpu, ())
    assert Fake.made == (str(gpu), [("CUDAExecutionProvider", {"device_id": "1"}), "CPUExecutionProvider"])
    monkeypatch.setattr(Fake, "used", "TensorrtExecutionProvider")
    GpuSession(gpu, (), SessionSettings(provider="tensorrt"))
    providers: list[Any] = Fake.made[1]
    (name, options), *others = providers
    assert (name, others) == ("TensorrtExecutionProvider", ["CUDAExecutionProvider", "CPUExecutionProvider"])
    assert (options["trt_int8_enable"], options["trt_fp16_enable"]) == ("0", "0")


def test_a_silent_fallback_to_the_cpu_is_not_measured(gpu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fake, "used", "CPUExecutionProvider")
    with pytest.raises(MachineLacks, match="would run on CPUExecutionProvider"):
        GpuSession(gpu, ())
    require_used("CPUExecutionProvider", Fake("", None, []))


def test_int8_on_a_gpu_needs_tensorrt(gpu: Path) -> None:
    model = onnx.load(str(gpu))
    one = onnx.helper.make_tensor("one", onnx.TensorProto.FLOAT, [], [1.0])
    model.graph.initializer.append(one)
    model.graph.node.append(onnx.helper.make_node("QuantizeLinear", ["y", "one"], ["z"]))
    onnx.save(model, str(gpu))
    with pytest.raises(Unsupported, match="set provider=tensorrt"):
        GpuSession(gpu, ())


def test_tensorrt_does_not_take_models_that_generate() -> None:
    from tiny import tiny_model

    for chain in ("onnx:provider=tensorrt", "onnx_int8:provider=tensorrt"):
        family, model = tiny_model("causal_lm")
        with pytest.raises(Unsupported, match="key-value cache grows with each token"):
            compress(chain, family, model)


@pytest.mark.parametrize("fusions", ["transformer", "approximate"])
def test_transformer_operators_are_fused(fusions: str) -> None:
    family, model = text()
    batch = family.batch(model, 2, 0)
    want = forward(family, model, batch)
    plain = operators(compress("onnx", *text()))
    model = compress(f"onnx:fusions={fusions}", family, model)
    assert stored_weights.distance(forward(family, model, batch), want) < 0.01
    fused = operators(model)
    assert len(fused["SkipLayerNormalization"]) >= 2
    assert sum(map(len, fused.values())) < sum(map(len, plain.values()))
    assert f"{len(fused['SkipLayerNormalization'])} SkipLayerNormalization" in model.facts["fusions"]
    assert ("FastGelu" in fused) == (fusions == "approximate")


def test_a_graph_without_transformer_operators_has_nothing_to_fuse(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="no operators of the graph match"):
        compress("onnx:fusions=transformer", *own(tmp_path, CONVOLUTIONS.replace("SPIKE", "1.0")))


def scales_of_inputs(model: Any) -> list[float]:
    """Return the scales of the input's quantisation in a static file."""
    proto = onnx.load(str(Path(model.files.name) / "model.onnx"))
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    (source,) = [value.name for value in proto.graph.input]
    nodes = [node for node in proto.graph.node if node.op_type == "QuantizeLinear" and node.input[0] == source]
    return [float(constants[node.input[1]]) for node in nodes]


def test_a_percentile_cuts_outliers_and_the_extremes_do_not(tmp_path: Path) -> None:
    code = CONVOLUTIONS.replace("SPIKE", "100.0")
    scales = {}
    for calibration in ("minmax", "percentile,percentile=99", "entropy"):
        model = compress(f"onnx_int8:samples=8,calibration={calibration}", *own(tmp_path, code))
        (scales[calibration],) = scales_of_inputs(model)
        assert ("(" in model.facts["activations"]) == (calibration != "minmax")
    assert scales["minmax"] == pytest.approx(100 / 255, rel=0.01)
    assert scales["percentile,percentile=99"] < 0.02  # the values without the spike are below 1
    assert scales["entropy"] < scales["minmax"]


def test_tensorrt_gets_ranges_that_are_symmetric_around_0(tmp_path: Path) -> None:
    model = compress("onnx_int8:samples=4,provider=tensorrt", *own(tmp_path, CONVOLUTIONS.replace("SPIKE", "1.0")))
    assert model.files is not None
    proto = onnx.load(str(Path(model.files.name) / "model.onnx"))
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    points = [constants[node.input[2]] for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    assert points
    assert all(point.dtype == "int8" and not point.any() for point in points)


def quantised_convolutions(model: Any) -> int:
    """Count the convolutions whose weight is in int8."""
    proto = onnx.load(str(Path(model.files.name) / "model.onnx"))
    made_by = {name: node.op_type for node in proto.graph.node for name in node.output}
    return sum(made_by.get(node.input[1]) == "DequantizeLinear" for node in proto.graph.node if node.op_type == "Conv")


@pytest.mark.parametrize(("pattern", "left"), [("", 3), ("body*", 1), ("head", 2), ("head;body.0", 1)])
def test_modules_and_operators_can_be_left_out(pattern: str, left: int, tmp_path: Path) -> None:
    code = CONVOLUTIONS.replace("SPIKE", "1.0")
    chain = f"onnx_int8:samples=2,mode=static,exclude={pattern}" if pattern else "onnx_int8:samples=2,mode=static"
    assert quantised_convolutions(compress(chain, *own(tmp_path, code))) == left
    with pytest.raises(Unsupported, match="no layer that the method quantises"):
        compress("onnx_int8:samples=2,exclude=Conv", *own(tmp_path, code))


def test_a_pattern_that_matches_nothing_is_named_before_calibration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_int8, "record", lambda *_: pytest.fail("it was calibrated"))
    with pytest.raises(Unsupported, match=r"matches 'tail'\. The types are Conv"):
        compress("onnx_int8:samples=2,exclude=head;tail", *own(tmp_path, CONVOLUTIONS.replace("SPIKE", "1.0")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("mode=dynamic,calibration=entropy", "calibration=entropy requires static ranges: remove mode=dynamic"),
        ("mode=weights,provider=tensorrt", "provider=tensorrt requires static ranges: remove mode=weights"),
        ("mode=weights,exclude=head", "exclude applies to mode=static and mode=dynamic"),
        ("percentile=99", "percentile=99 needs calibration=percentile"),
    ],
)
def test_options_that_contradict_each_other(options: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=message):
        compress(f"onnx_int8:{options}", *own(tmp_path, CONVOLUTIONS.replace("SPIKE", "1.0")))


@pytest.mark.parametrize(("pattern", "left"), [("none", 3), ("body*", 1), ("head", 2), ("Gemm;head", 0)])
def test_layers_are_left_out_of_dynamic_int8(pattern: str, left: int, tmp_path: Path) -> None:
    chain = "onnx_int8:mode=dynamic" if pattern == "none" else f"onnx_int8:mode=dynamic,exclude={pattern}"
    if not left:
        with pytest.raises(Unsupported, match="no layer that the method quantises"):
            compress(chain, *own(tmp_path, LINEAR))
        return
    model = compress(chain, *own(tmp_path, LINEAR))
    assert model.files is not None
    proto = onnx.load(str(Path(model.files.name) / "model.onnx"))
    assert sum(node.op_type in ("MatMulInteger", "DynamicQuantizeMatMul") for node in proto.graph.node) == left
