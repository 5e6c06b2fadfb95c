"""Small modules to quantise, and the error of the quantised ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from mlflow_compress import registry
from mlflow_compress.networks import kernels, model_folder, stored_weights
from mlflow_compress.planning import chains
from mlflow_compress.records import Variant
from mlflow_compress.sockets import Model

BRANCHED = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.used, self.unused = nn.Conv1d(4, 8, 3, padding=1), nn.Linear(16, 16), nn.Linear(16, 16)
        self.shared = nn.Linear(16, 16)
        self.shared_too = nn.Linear(16, 16)
        self.shared_too.weight = self.shared.weight

    def forward(self, inputs):
        return self.shared_too(self.shared(self.used(self.body(inputs))))

def model():
    return Net()

def batch(size):
    return torch.randn(size, 4, 16)
"""


def stack(*layers: nn.Module) -> Any:
    return nn.Sequential(*layers)


def compressed(module: Any, name: str, **options: Any) -> Model:
    """Compress a module whose family provides random vectors of 64 values."""
    model = Model(module.eval().requires_grad_(False))
    compressed_model: Model = registry.build("methods", name, options).compress(model, Vectors())
    return compressed_model


class Vectors:
    """A fake family whose calibration data are correlated vectors."""

    def __init__(self, width: int = 64) -> None:
        self.mix: torch.Tensor = torch.linalg.qr(torch.randn(width, width))[0] * (1 / torch.arange(1, width + 1))

    def calibration(self, model: Model, count: int, seed: int, size: int = 1) -> list[Any]:
        return [torch.randn(size, len(self.mix)) @ self.mix.T for _ in range(count)]

    def forward(self, model: Model, batch: Any) -> Any:
        return model.module(batch)


def round_trip(folder: Path, chain: str, code: str = "", family: str = "python", **options: Any) -> tuple[Any, Any]:
    """Compress, save and restore; return the model before and after saving, checked to be equivalent."""
    if code:
        (folder / "own.py").write_text(code)
    built_family = registry.build("families", family, options)
    source = "own.py" if code else "tiny"
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
    model = built_family.load(source, "random", folder, 0)
    methods = model_folder.methods_of(variant.chain)
    for method in methods:
        model = method.compress(model, built_family)
    (folder / "model").mkdir()
    model_folder.save(model, built_family, methods, variant, folder / "model")
    restored = model_folder.restore(folder / "model").model
    with torch.inference_mode():
        batch = built_family.batch(model, 2, 1)
        before, after = (
            stored_weights.flat(built_family.forward(checked_model, batch)) for checked_model in (model, restored)
        )
    assert stored_weights.distance(before, after) < (0.02 if kernels.rounds_inputs(restored.module) else 1e-5)
    return model, restored


def error(weight: torch.Tensor, other: torch.Tensor, inputs: torch.Tensor) -> float:
    return float(((other - weight) @ inputs.T).norm() / (weight @ inputs.T).norm())
