"""Families with models to export, and the runtimes that open them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mlflow_compress import registry
from mlflow_compress.compression import onnx_graphs, openvino_graphs
from mlflow_compress.compression.onnx_graphs import Session
from mlflow_compress.compression.openvino_graphs import Compiled
from mlflow_compress.networks import model_folder, stored_weights
from mlflow_compress.planning.chains import parse_chain
from mlflow_compress.sockets import Family, Graph, Model

SUFFIX = {"onnx": ".onnx", "openvino": ".xml"}

pytest.importorskip("onnxruntime")
pytest.importorskip("nncf")


NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1), nn.SiLU(), nn.Conv2d(32, 64, 3, padding=1), nn.SiLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
        )
        self.register_buffer("shift", torch.linspace(-1, 1, 24).reshape(1, 3, 8, 1))
        self.scale = torch.linspace(1, 2, 10)
    def forward(self, x):
        return self.layers(x + self.shift) * self.scale

def model():
    return Net()

def batch(size):
    return torch.rand(size, 3, 8, 8)

def training():
    return torch.rand(64, 3, 8, 8)
"""


WEIGHTS = 32 * 27 + 64 * 288 + 640


PARAMETERS = WEIGHTS + 32 + 64 + 10


TEXT = {"model_type": "distilbert", "vocab_size": 300, "dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2}


class Running(nn.Module):
    """Adds a weight vector to a sum that is fed back."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Parameter(torch.arange(8.0))

    def forward(self, total: torch.Tensor) -> tuple[torch.Tensor]:
        return (total + self.step,)


def opened(runtime: str, graph: Graph, folder: Path, buffers: Any = ()) -> Any:
    path = folder / f"model{SUFFIX[runtime]}"
    if runtime == "onnx":
        onnx_graphs.write(graph, path)
        return Session(path, buffers)
    openvino_graphs.write(graph, path)
    return Compiled(path, buffers, "f32")


def own(folder: Path, code: str = NET) -> tuple[Family, Model]:
    (folder / "own.py").write_text(code)
    family: Family = registry.build("families", "python")
    return family, family.load("own.py", "random", folder, 0)


def text() -> tuple[Family, Model]:
    """A classifier with only different weights: exporters store equal ones once."""
    family: Family = registry.build("families", "text_classification", {"tokens": 12, "architecture": TEXT})
    model = family.load("tiny", "random", Path(), 0)
    torch.manual_seed(0)
    for parameter in model.module.parameters():
        parameter.data.normal_(0, 0.2)
    return family, model


def compress(chain: str, family: Family, model: Model) -> Model:
    for method in model_folder.methods_of(parse_chain(chain)):
        model = method.compress(model, family)
    return model


def forward(family: Family, model: Model, batch: Any) -> torch.Tensor:
    with torch.inference_mode():
        return torch.as_tensor(stored_weights.flat(family.forward(model, batch)))
