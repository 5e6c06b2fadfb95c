"""The folder of an MLflow model: its content, and whether loading it may run code."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import onnx
import pytest
import torch

from mlflow_compress.errors import WeightsError
from mlflow_compress.networks import mlflow_folders

MAY_UNPICKLE = "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"


def written(folder: Path, loader: str, extra: str = "", *files: str, data: str = "data") -> Path:
    folder.mkdir(exist_ok=True)
    flavors = f"flavors:\n  python_function:\n    loader_module: {loader}\n    data: {data}\n"
    (folder / "MLmodel").write_text(flavors + extra)
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def exported(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.rand(3, 2),)), path)
    return path


def onnx_file(path: Path) -> Path:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [value], [onnx.helper.make_tensor_value_info("y", 1, [1])])
    onnx.save(onnx.helper.make_model(graph), str(path))
    return path


TORCH = "  pytorch:\n    model_data: data\n"


def test_the_source_is_the_folder_unless_other_weights_are_named(tmp_path: Path) -> None:
    source, weights = (written(tmp_path / name, "mlflow.sklearn") for name in ("one", "two"))
    assert mlflow_folders.locate("one", "auto", tmp_path) == source
    assert mlflow_folders.locate("models:/one/1", str(weights), tmp_path) == weights
    with pytest.raises(WeightsError, match="has no file MLmodel"):
        mlflow_folders.locate("three", "auto", tmp_path)
    with pytest.raises(WeightsError, match="weights=random is not available for one"):
        mlflow_folders.locate("one", "random", tmp_path)


ONNX = "  onnx:\n    data: model.onnx\n"


def test_what_is_a_pickle_or_brings_code_may_run_code(tmp_path: Path) -> None:
    pickled = written(tmp_path / "pickled", "mlflow.pytorch", TORCH, "data/model.pth")
    graph = written(tmp_path / "graph", "mlflow.pytorch", TORCH)
    exported(graph / "data/model.pt2")
    onnx = written(tmp_path / "onnx", "mlflow.onnx", ONNX, data="model.onnx")
    onnx_file(onnx / "model.onnx")
    with_code = written(tmp_path / "code", "mlflow.onnx", f"{ONNX}    code: code\n", "model.onnx", data="model.onnx")
    trees = written(tmp_path / "trees", "mlflow.sklearn", "", "data/model.pkl")
    assert mlflow_folders.find_pickle(pickled) == pickled / "data/model.pth"
    assert mlflow_folders.find_pickle(graph) is None
    may = {path.name: mlflow_folders.code_in(path) for path in (pickled, graph, onnx, with_code, trees)}
    assert may == {
        "pickled": "a pickle of torch",
        "graph": "",
        "onnx": "",
        "code": "its own Python code",
        "trees": "files that mlflow.sklearn loads",
    }
    assert mlflow_folders.flavor_of(trees) == "mlflow.sklearn"
    assert "a model of mlflow.sklearn" in mlflow_folders.refusal_of(trees)
    assert "serialization_format='pickle'" in mlflow_folders.refusal_of(graph)


def test_the_flavor_that_is_opened_decides(tmp_path: Path) -> None:
    named_onnx = written(tmp_path / "named", "mlflow.onnx", ONNX + TORCH, "data/model.pth", data="model.onnx")
    onnx_file(named_onnx / "model.onnx")  # opened by its pytorch flavor
    other_data = written(tmp_path / "other", "mlflow.pytorch", TORCH, "more/model.pth", data="more")
    exported(other_data / "data/model.pt2")  # `more` is opened
    two_files = written(tmp_path / "both", "mlflow.pytorch", "", "data/model.pth")
    exported(two_files / "data/model.pt2")  # MLflow prefers the pickle
    file = written(tmp_path / "file", "mlflow.pytorch", "", "data")  # a single file is unpickled
    assert {mlflow_folders.code_in(path) for path in (named_onnx, other_data, two_files, file)} == {"a pickle of torch"}


@pytest.mark.parametrize("data", ["../elsewhere", "/tmp", "deep/model.onnx", ".."])
def test_a_flavor_that_looks_elsewhere_may_run_code(data: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "model", "mlflow.onnx", ONNX, data=data)
    assert mlflow_folders.code_in(folder) == "files that mlflow.onnx loads"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("    providers: [[TensorrtExecutionProvider, {trt_extra_plugin_lib_paths: x.so}]]\n", "libraries"),
        ("    onnx_session_options: {extra_session_config: {a: b}}\n", "libraries"),
        ("    providers: [CPUExecutionProvider]\n    onnx_session_options: {intra_op_num_threads: 1}\n", ""),
    ],
)
def test_settings_of_onnx_may_name_libraries(settings: str, message: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "model", "mlflow.onnx", ONNX + settings, data="model.onnx")
    onnx_file(folder / "model.onnx")
    assert mlflow_folders.code_in(folder).startswith(message)
    assert bool(mlflow_folders.code_in(folder)) is bool(message)


@pytest.mark.parametrize(
    "text",
    ["[", "flavors: 3", "flavors: {a: b}", "flavors: {}\nsaved_input_example_info: {artifact_path: ../../secret}"],
)
def test_an_invalid_description_is_reported(text: str, tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text(text)
    with pytest.raises(WeightsError, match=r"MLmodel (can't be read|names an input example)"):
        mlflow_folders.describe(tmp_path)


@pytest.mark.parametrize("before", [None, "true", "false"])
def test_pickles_are_forbidden_without_trust_and_otherwise_as_mlflow_is_set(
    before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if before is None:
        monkeypatch.delenv(MAY_UNPICKLE, raising=False)
    else:
        monkeypatch.setenv(MAY_UNPICKLE, before)
    with mlflow_folders.unpickling(is_allowed=False):
        assert os.environ[MAY_UNPICKLE] == "false"
        assert mlflow_folders.is_unpickling_forbidden()
    with mlflow_folders.unpickling(is_allowed=True):
        assert os.environ.get(MAY_UNPICKLE) == before
    assert os.environ.get(MAY_UNPICKLE) == before
    assert mlflow_folders.is_unpickling_forbidden() is (before == "false")


def test_code_that_came_with_a_model_can_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = written(tmp_path / "code", "mlflow.onnx", "    code: code\n")
    with mlflow_folders.importable_code(folder):
        assert sys.path[0] == str(folder / "code")
    with mlflow_folders.importable_code(folder):
        assert sys.path.count(str(folder / "code")) == 1
