"""A module that torch exports, saved and restored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mlflow_compress import registry
from mlflow_compress.networks import model_folder, stored_weights
from mlflow_compress.planning.chains import parse_chain
from mlflow_compress.records import Variant
from mlflow_compress.sockets import Family, Method, Model

NET = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 64), nn.Linear(64, 8)
        self.second.weight = nn.Parameter(self.first.weight.detach().t().clone())
        self.register_buffer("scale", torch.full((8,), 2.0))
    def forward(self, x):
        return self.second(torch.relu(self.first(x * self.scale))) + torch.arange(8, device=x.device)

def model():
    return Net()

def batch(size):
    return torch.rand(size, 8)
"""


def loaded(folder: Path, code: str = NET) -> tuple[Family, Model, Variant]:
    (folder / "own.py").write_text("import torch\nfrom torch import nn\n" + code)
    family: Family = registry.build("families", "python")
    model = family.load("own.py", "random", folder, 0)
    return family, model, Variant("own", "x", "t", "python", "own.py", "random", folder=str(folder))


def saved(chain: str, folder: Path, code: str = NET) -> tuple[Any, torch.Tensor, Path]:
    """Compress and save; return the outputs of the original and the compressed model, and the model's folder."""
    family, model, variant = loaded(folder, code)
    steps = parse_chain(chain)
    methods: list[Method] = model_folder.methods_of(steps)
    batch = family.batch(model, 3, 0)
    with torch.inference_mode():
        want = stored_weights.flat(family.forward(model, batch))
    for method in methods:
        model = method.compress(model, family)
    target = folder / "model"
    target.mkdir()
    model_folder.save(model, family, methods, Variant(**{**vars(variant), "chain": steps}), target)
    return model, want, target


def outputs(restored: model_folder.Restored, size: int = 3) -> torch.Tensor:
    with torch.inference_mode():
        flat_outputs: torch.Tensor = stored_weights.flat(
            restored.family.forward(restored.model, restored.family.batch(restored.model, size, 0))
        )
    return flat_outputs
