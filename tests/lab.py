"""`Lab`: measure variants of one small model in real processes, each once for all test files of a test process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mlflow_compress.measuring import isolate
from mlflow_compress.planning import chains
from mlflow_compress.records import Budget, Result, Variant

BUDGET = Budget(
    min_iterations=6, min_seconds=0.0, max_seconds=2, warmup_max_seconds=1, energy_seconds=0, timeout_seconds=120
)

MODEL = """
import json, os, sys
from pathlib import Path
import torch
from torch import nn

def model():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4), nn.Softmax(-1))

def batch(size):
    work = Path(sys.argv[2]) if len(sys.argv) > 2 else Path()  # of a worker
    if Path(work, "variant.json").exists():
        Path(work, f"environment-{os.getpid()}.json").write_text(json.dumps(dict(os.environ)))
    return torch.rand(size, 8)

def load_weights(module):
    torch.manual_seed(3)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)

def samples():
    torch.manual_seed(5)
    inputs = torch.rand(40, 8)
    torch.manual_seed(3)
    own = model()
    load_weights(own)
    with torch.no_grad():
        return list(zip(inputs, own(inputs).argmax(-1).tolist()))
"""

BROKEN_PREDICT = """
def predict(module, inputs):
    if len(inputs) > 2:  # two are predicted before anything is measured
        raise RuntimeError("no idea")
    return [0] * len(inputs)
"""


class Lab:
    """Measures variants of one small model, and caches their results."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "model.py").write_text(MODEL)
        (folder / "broken.py").write_text(MODEL + BROKEN_PREDICT)
        (folder / "bad.pt").write_bytes(b"PK\x03\x04 cut short")
        self._known: dict[str, Result] = {}
        self._changes: dict[str, Mapping[str, Any]] = {}
        self.events: dict[str, list[Mapping[str, Any]]] = {}

    def folder_of(self, method: str) -> Path:
        return self.folder / "".join(char if char.isalnum() else "_" for char in method)

    def measure(self, method: str, source: str = "model.py", **changes: Any) -> Result:
        key = f"{method} {source} {sorted(changes)}"
        assert self._changes.setdefault(key, changes) == changes, f"{key} was measured with other values"
        if key not in self._known:
            folder = self.folder_of(key)
            folder.mkdir()
            fields: dict[str, Any] = {"data": "own", "budget": BUDGET, **changes}
            variant = Variant(
                "tiny",
                method,
                "alpha",
                "python",
                source,
                chain=chains.parse_chain(method),
                metrics=("accuracy",),
                threads=1,
                folder=str(self.folder),
                **fields,
            )
            events = self.events[key] = []
            self._known[key] = isolate.run(variant, folder, events.append)
        return self._known[key]

    def work(self, method: str, source: str = "model.py", *changes: str) -> Path:
        return self.folder_of(f"{method} {source} {sorted(changes)}")


@pytest.fixture(scope="session")
def _shared_lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="module")
def lab(_shared_lab: Lab, plugin_path: Path) -> Iterator[Lab]:
    """Return the lab, with the environment of a user with secrets and without a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(_shared_lab.folder / "cache"))
        patch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@server")
        patch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
        patch.setenv("DATABRICKS_TOKEN", "secret")
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        yield _shared_lab
