"""A teacher and its student."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlflow_compress import registry
from mlflow_compress.sockets import Family, Model

NET = """
import torch
from torch import nn

def model():
    return nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Dropout(0.1), nn.Linear(32, 4))

def student(keep):
    return nn.Sequential(nn.Linear(6, round(32 * keep)), nn.BatchNorm1d(round(32 * keep)), nn.Tanh(),
                         nn.Linear(round(32 * keep), 4))

def batch(size):
    return torch.randn(size, 6)

def training():
    return torch.randn(300, 6, generator=torch.Generator().manual_seed(1))
"""


def own(tmp_path: Path, code: str = NET) -> tuple[Family, Model]:
    (tmp_path / "net.py").write_text(code)
    family: Family = registry.build("families", "python")
    return family, family.load("net.py", "random", tmp_path, 0)


def distilled(family: Family, model: Model, **options: Any) -> Model:
    student: Model = registry.build("methods", "distill", options).compress(model, family)
    return student
