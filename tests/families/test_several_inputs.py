"""Custom modules with several inputs: compressed, restored, trained on labels, and called through MLflow."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mlflow_compress import registry
from mlflow_compress.measuring import input_example
from mlflow_compress.networks import model_folder
from mlflow_compress.planning import chains
from mlflow_compress.pyfunc import Predictor
from mlflow_compress.records import Variant
from mlflow_compress.sockets import Family, Model
from mlflow_compress.tracking.models import _shown

CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.of_picture = nn.Sequential(nn.Flatten(), nn.Linear(16, width))
        self.of_numbers = nn.Linear(3, width)
        self.head = nn.Linear(2 * width, 2)

    def forward(self, picture, numbers):
        parts = self.of_picture(picture), self.of_numbers(numbers)
        return self.head(torch.cat(parts, 1).relu())

def model(): return Net()
def student(keep): return Net(round(16 * keep))
def _data(seed, count):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 1, 4, 4, generator=generator), torch.rand(count, 3, generator=generator)
def batch(size): return _data(7, size)
def training(): return _data(1, 200)
def training_labels(): return (training()[1].sum(1) > 1.5).long()
def samples():
    pictures, numbers = _data(2, 50)
    return [((one, two), int(two.sum() > 1.5)) for one, two in zip(pictures, numbers)]
"""
BY_NAME = (
    CODE.replace(
        "def batch(size): return _data(7, size)",
        """
def batch(size): return dict(zip(("picture", "numbers"), _data(7, size)))
""",
    )
    .replace(
        "def training(): return _data(1, 200)",
        """
def training(): return dict(zip(("picture", "numbers"), _data(1, 200)))
""",
    )
    .replace("training()[1]", "training()['numbers']")
    .replace("((one, two), int", "({'picture': one, 'numbers': two}, int")
)
FORMS = {"tuple": CODE, "dictionary": BY_NAME}
CHAINS = (
    "original",
    "int8_dynamic",
    "prune_magnitude:amount=0.3+fine_tune:steps=5",
    "onnx",
    "openvino",
    "distill:steps=5",
)


def loaded(folder: Path, form: str) -> tuple[Family, Model]:
    (folder / "own.py").write_text(FORMS[form])
    family: Family = registry.build("families", "python")
    model = family.load("own.py", "random", folder, 0)
    model.weights = "local"
    return family, model


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("chain", CHAINS)
def test_it_is_compressed_restored_and_called_by_parts(chain: str, form: str, tmp_path: Path) -> None:
    family, model = loaded(tmp_path, form)
    inputs = [sample.inputs for sample in family.samples(model, "own", tmp_path, None, 0)]
    steps = chains.parse_chain(chain)
    methods = model_folder.methods_of(steps)
    for method in methods:
        model = method.compress(model, family)
    answers = family.predict(model, inputs)
    (tmp_path / "saved").mkdir()
    model_folder.save(
        model, family, methods, Variant("m", chain, "t", "python", "own.py", chain=steps), tmp_path / "saved"
    )
    restored = model_folder.restore(tmp_path / "saved")
    assert restored.family.predict(restored.model, inputs) == answers
    input_example.keep(family, model, tmp_path)
    example = input_example.read(tmp_path)
    assert example is not None
    shown = _shown(example)
    names = ["input_0", "input_1"] if form == "tuple" else ["picture", "numbers"]
    assert [(spec.name, spec.shape) for spec in shown["signature"].inputs] == [
        (names[0], (-1, 1, 4, 4)),
        (names[1], (-1, 3)),
    ]
    many = {
        name: np.stack([np.asarray(part) for part in column])
        for name, column in zip(names, _columns(inputs), strict=True)
    }
    assert Predictor(restored).predict(many) == answers
    assert Predictor(restored).predict(shown["input_example"]) == answers[:1]


def _columns(inputs: list[object]) -> list[list[object]]:
    rows = [list(sample.values()) if isinstance(sample, dict) else list(sample) for sample in inputs]  # type: ignore[call-overload]
    return [list(column) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("form", FORMS)
def test_it_learns_from_labels(form: str, tmp_path: Path) -> None:
    family, model = loaded(tmp_path, form)
    registry.build("methods", "fine_tune", {"steps": 200, "learning_rate": 1e-2}).compress(model, family)
    samples = family.samples(model, "own", tmp_path, None, 0)
    answers = family.predict(model, [sample.inputs for sample in samples])
    assert np.mean([answer == sample.reference for answer, sample in zip(answers, samples, strict=True)]) > 0.9


def test_nested_inputs_have_no_example(tmp_path: Path) -> None:
    from mlflow_compress.networks.own_samples import named, unnamed

    assert named({"a": [torch.zeros(1), torch.zeros(2)], "b": torch.zeros(1)}) == {}
    assert named(torch.zeros(3)) == {}
    assert named((torch.zeros(1), 2.0)) == {"input_0": torch.zeros(1), "input_1": 2.0}
    assert unnamed({"input_0": 1, "input_1": 2}) == (1, 2)
    assert unnamed({"a": 1, "input_1": 2}) == {"a": 1, "input_1": 2}
    assert json.loads(json.dumps(named((1, 2)))) == {"input_0": 1, "input_1": 2}
