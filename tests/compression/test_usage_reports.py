"""Libraries that compress send no usage reports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("openvino_telemetry")

CONVERTS = """
import sys
from pathlib import Path

from openvino_telemetry.utils.sender import TelemetrySender

sent = []
TelemetrySender.send = lambda self, backend, message: sent.append(message)

import torch

if sys.argv[1] == "ours":
    from mlflow_compress.compression import openvino_graphs, openvino_weights
    from mlflow_compress.sockets import Graph

    module, folder = torch.nn.Linear(64, 64), Path()
    openvino_graphs.write(Graph(module, {"x": torch.rand(1, 64)}, ("y",)), folder / "plain.xml")
    openvino_weights.compress(folder / "plain.xml", folder / "int8.xml")
else:
    import openvino

    openvino.convert_model(torch.nn.Linear(64, 64), example_input=torch.rand(1, 64))
print(len(sent))
"""


@pytest.mark.parametrize(("whose", "is_sent"), [("ours", False), ("openvino's own", True)])
def test_openvino_and_nncf_send_nothing(whose: str, is_sent: bool, tmp_path: Path) -> None:
    variables = {name: value for name, value in os.environ.items() if name not in ("CI", "TF_BUILD", "JENKINS_URL")}
    finished = subprocess.run(
        [sys.executable, "-c", CONVERTS, whose],
        cwd=tmp_path,
        env={**variables, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (int(finished.stdout.splitlines()[-1]) > 0) is is_sent
    assert (tmp_path / "intel").exists() is is_sent
