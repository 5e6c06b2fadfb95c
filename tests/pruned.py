"""A module to prune, and its remaining weights."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from mlflow_compress import registry
from mlflow_compress.measuring import worker
from mlflow_compress.networks import model_folder
from mlflow_compress.planning import chains
from mlflow_compress.records import Variant
from mlflow_compress.sockets import Model

OWN = """
import torch
from torch import nn

def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 8, 3, stride=2, groups=2), nn.Flatten(),
        nn.Linear(128, 96), nn.ReLU(), nn.Linear(96, 10),
    )

def batch(size):
    return torch.rand(size, 3, 10, 10)

def training():
    torch.manual_seed(3)
    return torch.rand(40, 3, 10, 10) * torch.tensor([5.0, 1.0, 0.2])[:, None, None]
"""


def loaded(folder: Path, code: str = OWN) -> tuple[Any, Model]:
    (folder / "own.py").write_text(code)
    family = registry.build("families", "python")
    return family, family.load("own.py", "auto", folder, 0)


def method(name: str, **options: Any) -> Any:
    return registry.build("methods", name, options)


def saved(chain: str, folder: Path, weights: str = "auto", code: str = OWN) -> tuple[Any, Any]:
    (folder / "own.py").write_text(code)
    steps = chains.parse_chain(chain)
    variant = Variant("own", chain, "t", "python", "own.py", weights, chain=steps, batch_size=2, folder=str(folder))
    part = worker.prepare(variant, folder, worker.Report(io.StringIO()))
    return part, model_folder.restore(folder / worker.MODEL_FOLDER)


def groups(weight: torch.Tensor, of: int) -> torch.Tensor:
    """Return groups of consecutive weights along the input: [n, of]. Slow and simple."""
    rows = []
    for output in weight:
        for column in output.reshape(len(output), -1).T:
            rows += [column[start : start + of] for start in range(0, len(column), of)]
    return torch.stack(rows)
