"""Runtimes of phones: LiteRT, ExecuTorch and Core ML."""

from __future__ import annotations

import io
import sys
import types
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from exported import PARAMETERS, WEIGHTS, compress, forward, own, text
from tiny import SOURCE, TINY

from mlflow_compress import registry
from mlflow_compress.errors import MachineLacks, Unsupported
from mlflow_compress.measuring import worker
from mlflow_compress.measuring.combine import combine
from mlflow_compress.meters import size
from mlflow_compress.methods.coreml import Coreml
from mlflow_compress.networks import model_folder, stored_weights
from mlflow_compress.planning.chains import parse_chain
from mlflow_compress.records import Outcome, Variant
from mlflow_compress.sockets import Family, Method

DETECTOR = """
import torch
from torch import nn

class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 5, 1))

    def forward(self, x):
        boxes, score = self.body(x).split((4, 1), 1)
        return torch.cat([boxes * 640, score.sigmoid()], 1)  # pixels beside probabilities

model = Detector

def batch(size):
    return torch.rand(size, 3, 8, 8)

def training():
    return torch.rand(64, 3, 8, 8)
"""

DEAD_CHANNELS = """
import torch
from torch import nn

def model():
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.ReLU(),
        nn.ConvTranspose2d(16, 16, 2, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 256, 10),
    )
    with torch.no_grad():  # as batch normalisation leaves them, when it is folded
        for layer in (net[0], net[2], net[4], net[7]):
            channels = layer.weight.swapaxes(0, 1) if layer is net[4] else layer.weight
            channels[3] = 1e-30
            layer.bias[3] = 0.5
    return net

def batch(size):
    return torch.rand(size, 3, 8, 8)

def training():
    return torch.rand(64, 3, 8, 8)
"""


LAST_LAYER = """
import torch
from torch import nn

def model():
    return nn.Sequential(nn.LAYER(3, 16, 2, stride=2), nn.ReLU(), nn.Flatten())

def batch(size):
    return torch.rand(size, 3, 8, 8)

def training():
    return torch.rand(64, 3, 8, 8)
"""


def needed(chain: str) -> None:
    """Skip a test whose libraries are not installed."""
    module = {"litert": "litert_torch", "executorch": "executorch"}[chain.partition(":")[0].partition("_")[0]]
    pytest.importorskip(module)


@pytest.mark.parametrize("chain", ["litert", "executorch"])
def test_float_gives_the_modules_numbers(chain: str, tmp_path: Path) -> None:
    needed(chain)
    family, model = own(tmp_path)
    batch = family.batch(model, 3, 5)
    want = forward(family, model, batch)
    model = compress(chain, family, model)
    assert stored_weights.distance(forward(family, model, batch), want) < 1e-4
    numbers = size.in_memory(model.module)
    assert numbers["size/params"] == PARAMETERS
    assert 0 <= numbers["size/weights_mib"] * 2**20 - 4 * PARAMETERS < 40_000  # the graph of ExecuTorch's program
    if chain == "executorch":
        assert model.facts["delegated"].endswith("parts")


@pytest.mark.parametrize(
    "chain",
    ["litert_int8", "litert_int8:mode=static,samples=4", "executorch_int8:samples=4"],
)
def test_int8_is_a_quarter_of_the_bytes(chain: str, tmp_path: Path) -> None:
    needed(chain)
    family, model = own(tmp_path)
    batch = family.batch(model, 3, 5)
    want = forward(family, model, batch)
    model = compress(chain, family, model)
    assert stored_weights.distance(forward(family, model, batch), want) < 0.05
    is_static = "samples" in chain
    assert model.facts["activations"] == ("ranges from calibration" if is_static else "ranges found at each call")
    reached = int(model.facts["reached"].split()[1].replace(",", ""))
    assert WEIGHTS <= reached <= PARAMETERS
    graph_bytes = 40_000 if chain.startswith("executorch") else 0  # of a program, besides its weights
    assert size.in_memory(model.module)["size/weights_mib"] * 2**20 < 1.1 * PARAMETERS + graph_bytes


@pytest.mark.parametrize("chain", ["litert", "litert_int8", "executorch", "executorch_int8:mode=dynamic"])
def test_shorter_texts_give_the_numbers_of_the_module(chain: str) -> None:
    needed(chain)
    family, model = text()
    batch = {"input_ids": torch.randint(0, 300, (3, 7)), "attention_mask": torch.ones(3, 7, dtype=torch.long)}
    want = forward(family, model, batch)
    model = compress(chain, family, model)
    tolerance = 0.1 if "int8" in chain else 1e-3
    assert stored_weights.distance(forward(family, model, batch), want) < tolerance


@pytest.mark.parametrize("chain", ["litert_int8:mode=static,samples=4", "executorch_int8:samples=4"])
def test_a_detectors_scores_are_not_rounded_with_its_boxes(chain: str, tmp_path: Path) -> None:
    needed(chain)
    family, model = own(tmp_path, DETECTOR)
    batch = family.batch(model, 2, 5)
    want = forward(family, model, batch).reshape(2, 5, 8, 8)
    got = forward(family, compress(chain, family, model), batch).reshape(2, 5, 8, 8)
    assert (got[:, 4] - want[:, 4]).abs().max() < 0.02  # one step of pixels in int8 would be 2.5


@pytest.mark.parametrize("chain", ["litert_int8:mode=static,samples=16", "executorch_int8:samples=16"])
def test_ranges_cover_all_calibration_samples(chain: str, tmp_path: Path) -> None:
    needed(chain)
    growing = "torch.rand(64, 3, 8, 8) * torch.linspace(0, 1, 64).view(-1, 1, 1, 1)"
    family, model = own(tmp_path, DETECTOR.replace("torch.rand(64, 3, 8, 8)", growing))
    batch = family.batch(model, 2, 5)
    want = forward(family, model, batch)
    assert stored_weights.distance(forward(family, compress(chain, family, model), batch), want) < 0.05


@pytest.mark.parametrize("chain", ["litert_int8:mode=static,samples=4", "executorch_int8:samples=4"])
def test_dead_channels_keep_their_bias(chain: str, tmp_path: Path) -> None:
    needed(chain)
    family, model = own(tmp_path, DEAD_CHANNELS)
    batch = family.batch(model, 2, 5)
    want = forward(family, model, batch)
    assert stored_weights.distance(forward(family, compress(chain, family, model), batch), want) < 0.02


@pytest.mark.parametrize("layer", ["Conv2d", "ConvTranspose2d"])
@pytest.mark.parametrize("chain", ["litert_int8:mode=static,samples=4", "executorch_int8:samples=4"])
def test_a_layer_just_before_the_outputs_is_quantised(chain: str, layer: str, tmp_path: Path) -> None:
    """ExecuTorch computes it with its ReLU; in LiteRT its name begins with the name of the transposed output."""
    needed(chain)
    family, model = own(tmp_path, LAST_LAYER.replace("LAYER", layer))
    batch = family.batch(model, 2, 5)
    want = forward(family, model, batch)
    model = compress(chain, family, model)
    assert 0 < stored_weights.distance(forward(family, model, batch), want) < 0.02


@pytest.mark.parametrize("chain", ["litert_int8", "litert_int8:mode=static,samples=2"])
def test_a_product_of_constants_and_a_division_stay_in_float(chain: str) -> None:
    """DETR multiplies its queries, which are constants, and divides where a rounded divisor may be 0."""
    needed(chain)
    family: Family = registry.build("families", "object_detection", TINY["object_detection"])
    model = family.load("tiny", "random", Path(), 0)
    batch = family.batch(model, 2, 5)
    want = forward(family, model, batch)
    assert stored_weights.distance(forward(family, compress(chain, family, model), batch), want) < 0.05


@pytest.mark.parametrize("chain", ["litert", "litert_int8", "executorch", "executorch_int8:samples=2"])
def test_saved_and_restored(chain: str, tmp_path: Path) -> None:
    needed(chain)
    family, model = own(tmp_path)
    batch = family.batch(model, 2, 5)
    steps = parse_chain(chain)
    methods: list[Method] = model_folder.methods_of(steps)
    model = methods[0].compress(model, family)
    want = forward(family, model, batch)
    variant = Variant("own", chain, "t", "python", "own.py", "random", chain=steps, folder=str(tmp_path))
    target = tmp_path / "model"
    target.mkdir()
    model_folder.save(model, family, methods, variant, target)
    restored = model_folder.restore(target)
    assert torch.equal(forward(restored.family, restored.model, batch), want)
    with pytest.raises(Unsupported, match="runs on cpu only"):
        model_folder.restore(target, "cuda")


@pytest.mark.parametrize("chain", ["litert", "executorch"])
def test_an_operator_that_a_runtime_lacks_is_named(chain: str, tmp_path: Path) -> None:
    needed(chain)
    code = """
import torch

class Spectral(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.rand(8, 8))

    def forward(self, x):
        return torch.linalg.eigvals(x @ self.weight).real

model = Spectral

def batch(size):
    return torch.rand(size, 8, 8)
"""
    with pytest.raises(Unsupported, match=r"aten\.linalg_eig"):
        compress(chain, *own(tmp_path, code))


@pytest.mark.parametrize("name", ["litert", "litert_int8", "executorch", "executorch_int8", "coreml"])
def test_decoders_are_excluded_with_a_reason(name: str) -> None:
    excludes = registry.find("methods", name).excludes
    assert set(excludes) == {"asr", "causal_lm", "seq2seq"}
    assert all("key-value cache" in reason for reason in excludes.values())


class FakePackage:
    """A model of Core ML: it runs the exported program that it was converted from."""

    kept: ClassVar[dict[str, Any]] = {}

    def __init__(self, path: str = "", compute_units: str = "") -> None:
        self.units = compute_units
        self.module, self.names = FakePackage.kept.get(path, (None, ((), ())))

    def save(self, path: str) -> None:
        Path(path, "weights").mkdir(parents=True)
        Path(path, "weights", "weight.bin").write_bytes(bytes(200))
        FakePackage.kept[path] = self.module, self.names

    def get_spec(self) -> Any:
        inputs, outputs = ([types.SimpleNamespace(name=name) for name in names] for names in self.names)
        return types.SimpleNamespace(description=types.SimpleNamespace(input=inputs, output=outputs))

    def predict(self, feed: dict[str, Any]) -> dict[str, Any]:
        outputs = self.module(*map(torch.from_numpy, feed.values()))
        return {name: output.numpy() for name, output in zip(self.names[1], outputs, strict=True)}


def fake_coremltools() -> Any:
    def convert(program: Any, outputs: Any, **settings: Any) -> FakePackage:
        package = FakePackage()
        package.module = program.module()
        package.names = program.graph_signature.user_inputs, [one.name for one in outputs]
        FakePackage.kept["settings"] = settings
        return package

    return types.SimpleNamespace(
        convert=convert,
        TensorType=lambda name, **details: types.SimpleNamespace(name=name, **details),
        precision=types.SimpleNamespace(FLOAT16="half", FLOAT32="single"),
        ComputeUnit=types.SimpleNamespace(CPU_ONLY="CPU_ONLY", ALL="ALL"),
        models=types.SimpleNamespace(MLModel=FakePackage),
    )


@pytest.mark.parametrize(("precision", "name"), [("fp16", "half"), ("fp32", "single")])
def test_core_ml_converts_runs_and_restores(
    precision: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlflow_compress.methods.coreml.Coreml.elsewhere", lambda method: "")
    monkeypatch.setitem(sys.modules, "coremltools", fake_coremltools())
    family, model = own(tmp_path)
    batch = family.batch(model, 3, 5)
    want = forward(family, model, batch)
    model = Coreml(precision=precision).compress(model, family)
    assert FakePackage.kept["settings"]["compute_precision"] == name
    assert stored_weights.distance(forward(family, model, batch), want) < 1e-6
    assert model.runtime == "coremltools"
    numbers = size.in_memory(model.module)
    assert numbers["size/params"] == PARAMETERS
    assert numbers["size/weights_mib"] * 2**20 == 200  # the package's weight file


@pytest.mark.parametrize("is_real", [False, True])
def test_without_macos_core_ml_is_sized_and_its_measuring_is_skipped(
    is_real: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_real:
        monkeypatch.setitem(sys.modules, "coremltools", fake_coremltools())
        monkeypatch.setattr(Coreml, "needs", ())
    elif sys.platform == "darwin":
        pytest.skip("Core ML runs here")
    else:
        pytest.importorskip("coremltools")
    reason = "Core ML runs on macOS only, and this is linux: measure this row on a Mac"
    monkeypatch.setattr("mlflow_compress.methods.coreml.Coreml.elsewhere", lambda method: reason)
    own(tmp_path)
    chain = parse_chain("coreml")
    variant = Variant("own", "coreml", "t", "python", "own.py", "random", chain=chain, folder=str(tmp_path))
    work = tmp_path / "work"
    work.mkdir()
    report = worker.Report(io.StringIO())
    prepared = worker._outcome(lambda: worker.prepare(variant, work, report))
    assert prepared.outcome == Outcome("ok")
    measured = worker._outcome(lambda: worker.measure(variant, work, "cpu", True, report))
    assert measured.outcome == Outcome("skipped", reason, "machine")
    result = combine(variant, {"prepare": prepared, "cpu": measured}, 0.0)
    assert (result.status, result.cause) == ("skipped", "machine")
    numbers = result.measurements
    assert numbers["size/params"] == PARAMETERS
    assert result.facts["reached"].startswith(f"reached {PARAMETERS:,} of")
    weights = numbers["size/weights_mib"] * 2**20
    assert 2 * WEIGHTS <= weights < 2.2 * PARAMETERS if is_real else weights == 200
    assert numbers["size/disk_mib"] * 2**20 > weights
    restored = model_folder.restore(work / worker.MODEL_FOLDER)
    batch = restored.family.batch(restored.model, 1, 0)
    with pytest.raises(MachineLacks, match="on a Mac"):
        forward(restored.family, restored.model, batch)


@pytest.mark.parametrize("family_name", ["text_classification", "yolo"])
def test_core_ml_converts_attention_masks_and_detectors(family_name: str, tmp_path: Path) -> None:
    pytest.importorskip("coremltools")
    family: Family = registry.build("families", family_name, TINY[family_name])
    model = family.load(SOURCE.get(family_name, "tiny"), "random", tmp_path, 0)
    graphs = family.graphs(model)
    Coreml().export(model, family, graphs, tmp_path)
    for name, graph in graphs.items():
        parameters = sum(weight.numel() for weight in graph.module.parameters())
        weights = tmp_path / f"{name}.mlpackage" / "Data/com.apple.CoreML/weights/weight.bin"
        assert parameters < weights.stat().st_size < 2.4 * parameters  # float16; unused positions are left out
