"""The input example of a logged model, and invalid files in its place."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from mlflow_compress import registry
from mlflow_compress.measuring import input_example
from mlflow_compress.sockets import Model


def test_a_family_without_an_example_leaves_none(tmp_path: Path) -> None:
    family = registry.build("families", "mlflow_model")
    input_example.keep(family, Model(torch.nn.Linear(1, 1)), tmp_path)
    assert input_example.read(tmp_path) is None
    for text in ("{", "[" * 200_000, "[1]", '{"inputs": 3, "shape": 3}', '{"other": 1}'):
        (tmp_path / "example.json").write_text(text)
        assert input_example.read(tmp_path) is None
    (tmp_path / "example.json").unlink()
    os.mkfifo(tmp_path / "example.json")  # reading it would block
    assert input_example.read(tmp_path) is None
