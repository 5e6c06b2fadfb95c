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
    made: Model = registry.build("methods", name, options).compress(model, Vectors())
    return made


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
    made = registry.build("families", family, options)
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
    model = made.load(source, "random", folder, 0)
    methods = model_folder.methods_of(variant.chain)
    for method in methods:
        model = method.compress(model, made)
    (folder / "model").mkdir()
    model_folder.save(model, made, methods, variant, folder / "model")
    restored = model_folder.restore(folder / "model").model
    with torch.inference_mode():
        batch = made.batch(model, 2, 1)
        one, other = (stored_weights.flat(made.forward(each, batch)) for each in (model, restored))
    runs_on_kernels = bool(kernels.kernels_of(restored.module))  # they round activations to bfloat16
    assert stored_weights.distance(one, other) < (0.02 if runs_on_kernels else 1e-5)
    return model, restored


def error(weight: torch.Tensor, other: torch.Tensor, inputs: torch.Tensor) -> float:
    return float(((other - weight) @ inputs.T).norm() / (weight @ inputs.T).norm())
