"""ONNX Runtime and OpenVINO: one file per graph, which gives the module's numbers before and after saving."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from exported import forward, own

from mlflow_compress.compression.exporting import ExportMethod
from mlflow_compress.errors import Unsupported, WeightsError
from mlflow_compress.methods.onnx import Onnx
from mlflow_compress.methods.openvino import Openvino
from mlflow_compress.networks import stored_weights

METHODS = pytest.mark.parametrize("method", [Onnx(), Openvino()])


@pytest.mark.parametrize(("method", "file"), [(Onnx(), "model.onnx"), (Openvino(), "model.xml")])
def test_each_graph_is_a_file_that_gives_the_modules_numbers(method: ExportMethod, file: str, tmp_path: Path) -> None:
    family, model = own(tmp_path)
    batch = family.batch(model, 3, 1)
    want = forward(family, model, batch)
    model = method.compress(model, family)
    assert model.files is not None
    assert {path.name for path in Path(model.files.name).iterdir()} >= {"graphs.json", file}
    assert stored_weights.distance(forward(family, model, batch), want) < 1e-3
    target = tmp_path / "saved"
    method.save(model, family, target)
    family.save(model, target)
    restored = method.load(family.restore_assets(target), family, target)
    assert torch.equal(forward(family, restored, batch), forward(family, model, batch))


@METHODS
def test_a_folder_without_graphs_is_an_error(method: ExportMethod, tmp_path: Path) -> None:
    family, model = own(tmp_path)
    with pytest.raises(WeightsError, match="There are no exported graphs"):
        method.load(model, family, tmp_path)


@METHODS
def test_an_export_that_computes_something_else_is_skipped(
    method: ExportMethod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(method), "tolerance", -1.0)
    family, model = own(tmp_path)
    with pytest.raises(Unsupported, match=r"the model converted by .* differ by"):
        method.compress(model, family)
