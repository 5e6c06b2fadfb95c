"""Methods that depend on CPU instructions give the same numbers with fewer of them, where libraries allow a choice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mlflow_compress import registry
from mlflow_compress.compression.openvino_graphs import Compiled
from mlflow_compress.networks import model_folder, stored_weights
from mlflow_compress.planning.chains import parse_chain
from mlflow_compress.sockets import Method

CHAINS = ("bf16", "int8_dynamic", "int8_static", "onnx_int8", "openvino_int8", "openvino:precision=default")
MODEL = """
import torch
from torch import nn

def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 64), nn.ReLU(), nn.Linear(64, 8))

def batch(size):
    return torch.rand(size, 3, 8, 8)
"""
# prints how much each method changes the outputs, and torch's CPU instructions
SCRIPT = """
import json, sys
from pathlib import Path
import torch
from mlflow_compress import registry
from mlflow_compress.networks import model_folder, stored_weights
from mlflow_compress.planning.chains import parse_chain

family = registry.build("families", "python")
moved = {}
for chain in sys.argv[2:]:
    model = family.load("own.py", "random", Path(sys.argv[1]), 0)
    batch = family.batch(model, 4, 1)
    with torch.inference_mode():
        want = stored_weights.flat(family.forward(model, batch))
    (method,) = model_folder.methods_of(parse_chain(chain))
    model = method.compress(model, family)
    with torch.inference_mode():
        given = family.batch(model, 4, 1)
        moved[chain] = stored_weights.distance(stored_weights.flat(family.forward(model, given)), want)
print(json.dumps([torch.backends.cpu.get_cpu_capability(), moved]))
"""


@pytest.mark.parametrize("instructions", ["AVX2", "ALL"])
def test_numbers_are_near_the_originals_on_any_cpu(instructions: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(MODEL)
    limits = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"} if instructions == "AVX2" else {}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), *CHAINS],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **limits},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    capability, moved = json.loads(done.stdout.splitlines()[-1])
    assert set(moved) == set(CHAINS)
    for chain, distance in moved.items():
        assert distance < (0.02 if chain in ("bf16", "openvino:precision=default") else 0.08), (chain, capability)


def test_openvinos_bfloat16_is_within_the_tolerance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`precision=default` uses it on CPUs with AMX or AVX512-BF16."""
    (tmp_path / "own.py").write_text(MODEL)
    family = registry.build("families", "python")
    model = family.load("own.py", "random", tmp_path, 0)
    batch = family.batch(model, 4, 1)
    opened = Compiled.__init__

    def in_bfloat16(self: Compiled, path: Path, buffers: object, precision: str) -> None:
        opened(self, path, buffers, "bf16")  # type: ignore[arg-type]

    monkeypatch.setattr(Compiled, "__init__", in_bfloat16)
    with torch.inference_mode():
        want = stored_weights.flat(family.forward(model, batch))
        method: Method = model_folder.methods_of(parse_chain("openvino:precision=default"))[0]
        outputs = stored_weights.flat(family.forward(method.compress(model, family), batch))
    assert stored_weights.distance(outputs, want) < 0.02
