"""Onnx: a file for each graph, which gives the module's numbers, alone and after a restore."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from exported import forward, own

from mlflow_compress.errors import WeightsError, WorkerError
from mlflow_compress.methods.onnx import Onnx
from mlflow_compress.networks import stored_weights


def test_each_graph_is_a_file_that_gives_the_modules_numbers(tmp_path: Path) -> None:
    family, model = own(tmp_path)
    batch = family.batch(model, 3, 1)
    want = forward(family, model, batch)
    model = Onnx().compress(model, family)
    assert model.files is not None
    assert {path.name for path in Path(model.files.name).iterdir()} >= {"graphs.json", "model.onnx"}
    assert stored_weights.distance(forward(family, model, batch), want) < 1e-3
    target = tmp_path / "saved"
    Onnx().save(model, family, target)
    family.save(model, target)
    restored = Onnx().load(family.restore_assets(target), family, target)
    assert torch.equal(forward(family, restored, batch), forward(family, model, batch))


def test_a_folder_without_graphs_is_told(tmp_path: Path) -> None:
    family, model = own(tmp_path)
    with pytest.raises(WeightsError, match="There are no exported graphs"):
        Onnx().load(model, family, tmp_path)


def test_an_export_that_computes_something_else_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Onnx, "tolerance", -1.0)
    family, model = own(tmp_path)
    with pytest.raises(WorkerError, match="the exported model's outputs differ by"):
        Onnx().compress(model, family)


def test_it_runs_on_the_cpu_and_takes_no_packed_weights() -> None:
    assert (Onnx.devices, Onnx.takes, Onnx.gives, Onnx.changes) == (("cpu",), ("float",), "runtime", "runtime")
