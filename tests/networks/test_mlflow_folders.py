"""The folder of an MLflow model: what it is, and whether loading it may run code."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from mlflow_compress.errors import WeightsError
from mlflow_compress.networks import mlflow_folders

MAY_UNPICKLE = "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"


def written(folder: Path, loader: str, more: str = "", *files: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "MLmodel").write_text(f"flavors:\n  python_function:\n    loader_module: {loader}\n{more}")
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


TORCH = "  pytorch:\n    model_data: data\n"


def test_the_source_is_the_folder_unless_other_weights_are_named(tmp_path: Path) -> None:
    one, two = (written(tmp_path / name, "mlflow.sklearn") for name in ("one", "two"))
    assert mlflow_folders.locate("one", "auto", tmp_path) == one
    assert mlflow_folders.locate("models:/one/1", str(two), tmp_path) == two
    with pytest.raises(WeightsError, match="has no file MLmodel"):
        mlflow_folders.locate("three", "auto", tmp_path)
    with pytest.raises(WeightsError, match="weights=random can't be had of one"):
        mlflow_folders.locate("one", "random", tmp_path)


def test_what_is_a_pickle_or_brings_code_may_run_code(tmp_path: Path) -> None:
    pickled = written(tmp_path / "pickled", "mlflow.pytorch", TORCH, "data/model.pth")
    graph = written(tmp_path / "graph", "mlflow.pytorch", TORCH, "data/model.pt2")
    onnx = written(tmp_path / "onnx", "mlflow.onnx")
    with_code = written(tmp_path / "code", "mlflow.onnx", "    code: code\n")
    trees = written(tmp_path / "trees", "mlflow.sklearn")
    assert mlflow_folders.find_pickle(pickled) == pickled / "data/model.pth"
    assert mlflow_folders.find_pickle(graph) is None
    may = {path.name: mlflow_folders.may_hold_code(path) for path in (pickled, graph, onnx, with_code, trees)}
    assert may == {"pickled": True, "graph": False, "onnx": False, "code": True, "trees": True}
    assert mlflow_folders.flavor_of(trees) == "mlflow.sklearn"
    assert "a model of mlflow.sklearn" in mlflow_folders.refusal_of(trees)
    assert "serialization_format='pickle'" in mlflow_folders.refusal_of(graph)


@pytest.mark.parametrize("before", [None, "true"])
def test_the_setting_for_pickles_is_put_back(before: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if before is None:
        monkeypatch.delenv(MAY_UNPICKLE, raising=False)
    else:
        monkeypatch.setenv(MAY_UNPICKLE, before)
    with mlflow_folders.unpickling(is_allowed=False):
        assert os.environ[MAY_UNPICKLE] == "false"
    assert os.environ.get(MAY_UNPICKLE) == before


def test_code_that_came_with_a_model_can_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = written(tmp_path / "code", "mlflow.onnx", "    code: code\n")
    with mlflow_folders.importable_code(folder):
        assert sys.path[0] == str(folder / "code")
    with mlflow_folders.importable_code(folder):
        assert sys.path.count(str(folder / "code")) == 1
