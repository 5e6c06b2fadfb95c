"""Common part of the exports: any number of graphs, each calibrated on its real inputs; frozen paths are detected."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from exported import PARAMETERS, Running, compress, own, text
from torch import nn

from mlflow_compress import registry
from mlflow_compress.compression import exporting
from mlflow_compress.errors import Unsupported
from mlflow_compress.meters import size
from mlflow_compress.networks import model_folder, stored_weights
from mlflow_compress.networks.export_graphs import graph
from mlflow_compress.planning.chains import parse_chain
from mlflow_compress.sockets import Family, Graph, Method, Model


class Calls(dict[str, Callable[..., tuple[Any, ...]]]):
    """A stand-in for a module of two graphs."""

    def held_weights(self) -> Iterator[Any]:
        for call in self.values():
            yield from stored_weights.held(call)


@dataclass
class Summing(Family):
    """A family of two graphs; one runs several times in a timed call on its own output."""

    timed = "two graphs"

    def load(self, source: str, weights: str, folder: Path, seed: int) -> Model:
        return Model(nn.ModuleDict({"start": nn.Linear(8, 8), "step": Running()}))

    def batch(self, model: Model, size: int, seed: int) -> Any:
        return torch.full((size, 8), float(seed))

    def run(self, model: Model, batch: Any, mark: Callable[[str], None]) -> Any:
        (total,) = model.module["start"](batch)
        for _ in range(5):
            (total,) = model.module["step"](total)
        return total

    def graphs(self, model: Model) -> Mapping[str, Graph]:
        axes = {"x": {0: "batch"}, "y": {0: "batch"}}
        start = graph(
            lambda parts, x: (parts.start(x),), {"x": torch.ones(2, 8)}, ["y"], axes, start=model.module["start"]
        )
        step = graph(lambda parts, x: parts.step(x), {"x": torch.ones(2, 8)}, ["y"], axes, step=model.module["step"])
        return {"start": start, "step": step}

    def attach(self, model: Model, calls: Mapping[str, Callable[..., tuple[Any, ...]]]) -> Model:
        model.module = Calls(calls)
        return model

    def predict(self, model: Model, inputs: Any) -> list[Any]:
        return []

    def save(self, model: Model, folder: Path) -> None:
        pass

    def restore(self, folder: Path) -> Model:
        return self.load("", "random", folder, 0)


@dataclass
class Unexportable(Summing):
    """A family without graphs."""

    def graphs(self, model: Model) -> Mapping[str, Graph]:
        raise Unsupported("no graphs here")


@pytest.mark.parametrize("chain", ["onnx", "openvino"])
def test_all_parameters_are_counted_and_nothing_else(chain: str, tmp_path: Path) -> None:
    for (family, model), parameters in (((own(tmp_path)), PARAMETERS), (text(), None)):
        parameters = parameters or sum(parameter.numel() for parameter in model.module.parameters())
        model = compress(chain, family, model)
        assert model.runtime == {"onnx": "onnxruntime", "openvino": "openvino"}[chain]
        numbers = size.in_memory(model.module)
        assert numbers["size/params"] == parameters
        assert numbers["size/weights_mib"] == parameters * 4 / 2**20


@pytest.mark.parametrize("chain", ["onnx", "openvino", "onnx_int8:samples=3", "openvino_int8:samples=3"])
def test_any_number_of_graphs(chain: str, tmp_path: Path) -> None:
    family = Summing()
    model = family.load("", "random", tmp_path, 0)
    modules = model.module
    want = modules["start"](torch.full((3, 8), 2.0)) + 5 * torch.arange(8.0)
    model.module = {"start": lambda x: (modules["start"](x),), "step": modules["step"]}
    torch_graphs = Summing.graphs(family, Model(modules))
    family.graphs = lambda model: torch_graphs  # type: ignore[method-assign]
    method: Method = model_folder.methods_of(parse_chain(chain))[0]
    model = method.compress(model, family)
    outputs = family.run(model, torch.full((3, 8), 2.0), lambda stage: None)
    assert stored_weights.distance(outputs, want.detach()) < (0.05 if "int8" in chain else 1e-5)


def test_each_graph_is_calibrated_on_what_it_gets() -> None:
    family = Summing()
    model = family.load("", "random", Path(), 0)
    start, step = model.module["start"], model.module["step"]
    recorded = exporting.record(model, family, {"start": lambda x: (start(x),), "step": step}, 3)
    assert [float(inputs[0][0, 0]) for inputs in recorded["start"]] == [1.0, 2.0, 3.0]
    assert len(recorded["step"]) == 6  # the first and the last of five, three times
    first, last = (inputs[0] for inputs in recorded["step"][:2])
    assert torch.allclose(first, start(torch.ones(1, 8)))
    assert torch.allclose(last - first, 4 * torch.arange(8.0).expand(1, 8))
    assert [caution.code for caution in model.cautions] == ["random_calibration"]


@pytest.mark.parametrize(("weights", "kinds", "calls"), [("random", 999, 16), ("local", 999, 128), ("local", 40, 40)])
def test_trained_weights_are_calibrated_on_as_many_samples_as_there_are(weights: Any, kinds: int, calls: int) -> None:
    family = Summing()
    family.calibration = lambda model, count, seed, size=1: [  # type: ignore[method-assign]
        torch.full((size, 8), float(index % kinds)) for index in range(count)
    ]
    model = family.load("", "random", Path(), 0)
    model.weights = weights
    start, step = model.module["start"], model.module["step"]
    recorded = exporting.record(model, family, {"start": lambda x: (start(x),), "step": step}, None)
    assert len(recorded["start"]) == calls


def test_large_inputs_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "_MOST_BYTES", 3 * 8 * 4 * 20)  # 20 calls of three inputs
    family = Summing()
    model = family.load("", "random", Path(), 0)
    model.weights = "local"
    start, step = model.module["start"], model.module["step"]
    recorded = exporting.record(model, family, {"start": lambda x: (start(x),), "step": step}, None)
    assert len(recorded["start"]) == 20


def test_without_graphs_there_is_nothing_to_export(tmp_path: Path) -> None:
    for name in ("onnx_fp16", "onnx_int8", "openvino_int8"):
        with pytest.raises(Unsupported, match="no graphs here"):
            registry.build("methods", name).compress(Unexportable().load("", "random", tmp_path, 0), Unexportable())


@pytest.mark.parametrize(
    ("chain", "reason"),
    [
        ("openvino", "outputs of the model converted by OpenVINO differ by 100.0% from the original's"),
        ("openvino_int8", "for a batch of 3 the exported graph differs from the module by 33%: "),
    ],
)
def test_what_tracing_would_freeze_is_found_out(chain: str, reason: str, tmp_path: Path) -> None:
    code = """
import torch

class Net(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x) * float(x.shape[0])

def model():
    return Net(8, 8)

def batch(size):
    return torch.rand(size, 8)
"""
    with pytest.raises(Unsupported, match=reason):
        compress(chain, *own(tmp_path, code))


def test_a_path_that_depends_on_values_is_reported_with_its_place(tmp_path: Path) -> None:
    code = """
import torch

class Net(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x if x.sum() > 0 else -x)

def model():
    return Net(8, 8)

def batch(size):
    return torch.rand(size, 8)
"""
    with pytest.raises(Unsupported) as skipped:
        compress("onnx_fp16", *own(tmp_path, code))
    assert str(skipped.value) == (
        "ONNX can't convert the model: its path depends on the values of its inputs, and an export contains only one "
        "path (own.py, line 6, in forward)"
    )


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_path_that_another_batch_of_the_users_takes_is_found(tmp_path: Path) -> None:
    """All ids of a batch are equal, so that another order does not show the path."""
    code = """
import random
import torch

class Net(torch.nn.Embedding):
    def forward(self, ids):
        return super().forward(ids) if ids.max() > 50 else -super().forward(ids)

def model():
    return Net(100, 4)

def batch(size):
    return torch.full((size, 3), int(100 * random.random()))  # 84, then 13
"""
    with pytest.raises(Unsupported, match=r"the model converted by TorchScript differ by 200.0% from the original's"):
        compress("torchscript", *own(tmp_path, code))


TWO_TOWERS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(12, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, ids, mask):
        return self.head((self.words(ids) * mask.unsqueeze(-1)).sum(1))

def model():
    return Net()

def batch(size):
    return {"mask": torch.randint(0, 2, (size, 6)), "ids": torch.randint(0, 12, (size, 6))}

def samples():
    return [({"mask": [1, 1, 1, 0, 0, 0], "ids": list(range(i, i + 6))}, 0) for i in range(6)]
"""


@pytest.mark.parametrize("chain", ["onnx", "onnx_int8", "torchscript"])
def test_inputs_by_name_reach_the_graph_in_its_own_order(chain: str, tmp_path: Path) -> None:
    """`batch()` has another order than the parameters of `forward`, with the same shape and type."""
    family, model = own(tmp_path, TWO_TOWERS)
    batch = family.batch(model, 3, 5)
    assert list(batch) == ["ids", "mask"]
    inputs = [sample.inputs for sample in family.samples(model, "own", tmp_path, None, 0)]
    module = model.module
    with torch.no_grad():
        want = module(batch["ids"], batch["mask"])
    labels = family.predict(model, inputs)
    model = compress(chain, family, model)
    allowed = 0.05 if "int8" in chain else 1e-5
    reordered = {name: batch[name] for name in ("mask", "ids")}
    for inputs_by_name in (batch, reordered, family.batch(model, 3, 5)):
        outputs = family.run(model, inputs_by_name, lambda stage: None)
        assert stored_weights.distance(outputs, want) < allowed
    if "int8" not in chain:  # int8 may swap two close scores
        assert family.predict(model, inputs) == labels


MADE = """
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, weight_norm

class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.raw = nn.Parameter(torch.randn(32, 16))
        {hook}
    def make(self, *_):
        self.weight = self.raw * 2
    def forward(self, x):
        {call}
        return nn.functional.linear(x, self.weight)

def model():
    masked = nn.Linear(16, 16)
    prune.l1_unstructured(masked, "weight", 100)
    normed = weight_norm(nn.Linear(16, 16)), parametrizations.weight_norm(nn.Linear(16, 16))
    return nn.Sequential(*normed, masked, Scaled())

def batch(size):
    return torch.rand(size, 16)
"""


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("lines", [("self.register_forward_pre_hook(Scaled.make)", ""), ("", "self.make()")])
@pytest.mark.parametrize("chain", ["onnx", "torchscript"])
def test_weights_that_are_made_before_a_call_are_weights(chain: str, lines: tuple[str, str], tmp_path: Path) -> None:
    hook, call = (line or "pass" for line in lines)
    model = compress(chain, *own(tmp_path, MADE.format(hook=hook, call=call)))
    numbers = size.in_memory(model.module)
    assert numbers["size/params"] == 3 * (256 + 16) + 512
    assert numbers["size/params_nonzero"] == 3 * (256 + 16) + 512 - 100
    assert not model.cautions


def test_weights_that_the_call_does_not_need_have_a_caution(tmp_path: Path) -> None:
    code = """
import torch
from torch import nn

class Net(nn.Linear):
    def __init__(self):
        super().__init__(16, 4)
        self.auxiliary = nn.Linear(16, 400)

def model():
    return Net()

def batch(size):
    return torch.rand(size, 16)
"""
    model = compress("onnx", *own(tmp_path, code))
    assert [caution.message for caution in model.cautions] == [
        "the exported graph holds 68 of the module's 6,868 weights: the exported call does not need the others"
    ]


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("method", ["onnx", "openvino", "torchscript"])
def test_the_divisor_of_an_image_is_not_a_weight(method: str, tmp_path: Path) -> None:
    """The buffer is constant: only a constant parameter of the same value could be confused with it."""
    code = """
import torch

class Net(torch.nn.Conv2d):
    def __init__(self):
        super().__init__(3, 4, 3)
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.full((1, 3, 1, 1), 0.2), persistent=False)

    def forward(self, x):
        return super().forward((x - self.mean) / self.std)

def model():
    return Net()

def batch(size):
    return torch.rand(size, 3, 8, 8)
"""
    model = compress(method, *own(tmp_path, code))
    assert size.in_memory(model.module)["size/params"] == 4 * 3 * 9 + 4
