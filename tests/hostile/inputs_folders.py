"""Hostile folders: MLflow models of another team, whose `MLmodel` and files contradict each other."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

_PICKLE_MODULE = "pickle_module_info.txt"


class _Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def _mlflow_model(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "MLmodel").write_text(text, encoding="utf-8")
    return folder


def _flavors(loader: str, data: str, more_flavors: str = "") -> str:
    return f"flavors:\n  python_function: {{loader_module: {loader}, data: {data}}}\n{more_flavors}"


def _torch(data: str = "data") -> str:
    return f"  pytorch: {{model_data: {data}, pytorch_version: {torch.__version__}}}\n"


def _pickle(folder: Path, command: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(_Call(os.system, command), folder / "model.pth")
    (folder / _PICKLE_MODULE).write_text("pickle", encoding="utf-8")


def _own_model(folder: Path, family: str, **fields: Any) -> Path:
    """Write the description of a model of this package, in the folder that MLflow gives its loader."""
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    manifest = {"family": family, "options": {}, "chain": [], "weights": "local", "model": "m", "method": "original"}
    (data / "manifest.json").write_text(json.dumps({**manifest, **fields}), encoding="utf-8")
    _mlflow_model(folder, _flavors("mlflow_compress.pyfunc", "data"))
    return data


def named_onnx_opened_as_torch(folder: Path, command: str) -> Path:
    """Write a model whose python_function is ONNX, and whose pytorch flavor is a pickle that calls a shell."""
    _pickle(folder / "data", command)
    (folder / "model.onnx").write_bytes(b"")
    return _mlflow_model(folder, _flavors("mlflow.onnx", "model.onnx", f"  onnx: {{data: model.onnx}}\n{_torch()}"))


def graph_beside_a_pickle(folder: Path, command: str) -> Path:
    """Write a model whose pytorch flavor names a graph, and whose python_function a folder with a pickle."""
    _pickle(folder / "more", command)
    (folder / "data").mkdir()
    torch.export.save(torch.export.export(torch.nn.ReLU(), (torch.rand(2),)), folder / "data" / "model.pt2")
    return _mlflow_model(folder, _flavors("mlflow.pytorch", "more", _torch()))


def data_elsewhere(folder: Path, command: str) -> Path:
    """Write a model whose data is outside of its folder, and a pickle."""
    _pickle(folder / "beside", command)
    return _mlflow_model(folder / "model", _flavors("mlflow.pytorch", "../beside"))


def module_of_its_own(folder: Path, command: str) -> Path:
    """Write a model that contains its own loader module."""
    (folder / "code").mkdir()
    (folder / "code" / "hostile_loader.py").write_text(f"import os\nos.system({command!r})\n", encoding="utf-8")
    flavor = "{loader_module: hostile_loader, data: code, code: code}"
    return _mlflow_model(folder, f"flavors:\n  python_function: {flavor}\n")


def activation_that_is_evaluated(folder: Path, command: str) -> Path:
    """Write a detector of this package whose architecture has an activation that calls a shell."""
    activation = f"(__import__('os').system({command!r}), torch.nn.SiLU())[1]"
    yaml = {"nc": 1, "activation": activation, "backbone": [[-1, 1, "Conv", [8, 3, 2]]], "head": []}
    described = {"yaml": yaml, "names": {"0": "a"}, "task": "detect", "structure": {}}
    data = _own_model(folder, "yolo")
    (data / "architecture.json").write_text(json.dumps(described), encoding="utf-8")
    return folder


def layer_that_loads_a_pickle(folder: Path, command: str) -> Path:
    """Write a detector of this package whose architecture names a function that unpickles a file as its layer."""
    data = _own_model(folder, "yolo")
    torch.save(_Call(os.system, command), data / "evil.pt")
    yaml = {"nc": 1, "backbone": [[-1, 1, "torch_safe_load", [str(data / "evil.pt")]]], "head": []}
    described = {"yaml": yaml, "names": {"0": "a"}, "task": "detect", "structure": {}}
    (data / "architecture.json").write_text(json.dumps(described), encoding="utf-8")
    return folder


def structure_beside_a_harmless_copy(folder: Path, command: str) -> Path:
    """Write a compressed MLflow model without trust whose copy is a graph, and whose structure is a pickle."""
    data = _own_model(folder, "mlflow_model", options={"trust": False})
    torch.save(_Call(os.system, command), data / "structure.pt")
    copy = _mlflow_model(data / "mlflow", _flavors("mlflow.pytorch", "data", _torch()))
    (copy / "data").mkdir()
    torch.export.save(torch.export.export(torch.nn.ReLU(), (torch.rand(2),)), copy / "data" / "model.pt2")
    return folder


def graph_with_a_guard(folder: Path, command: str) -> Path:
    """Write an exported detector of this package whose graph has a guard that calls a shell."""
    from .inputs_programs import guard_in_python

    chain = [{"method": "torch_export", "options": {}}]
    data = _own_model(folder, "yolo", options={"trust": True}, chain=chain)
    guard_in_python(data, command)
    return folder


def script_that_writes(folder: Path, command: str) -> Path:
    """Write an exported detector of this package whose TorchScript writes into a file when it is loaded."""
    from .inputs_scripts import state_that_writes

    data = _own_model(folder, "yolo", chain=[{"method": "torchscript", "options": {}}])
    state_that_writes(data, command)
    _exported_detector(data, "model")
    return folder


def graph_of_another_folder(folder: Path, command: str) -> Path:
    """Write an exported detector of this package whose graph is outside its folder."""
    from .inputs_scripts import state_that_writes

    data = _own_model(folder / "model", "yolo", chain=[{"method": "torchscript", "options": {}}])
    (folder / "beside").mkdir()
    script = state_that_writes(folder / "beside", command)
    _exported_detector(data, str(script.with_suffix("")))
    return folder / "model"


def _exported_detector(data: Path, graph: str) -> None:
    yaml = {"nc": 1, "backbone": [[-1, 1, "Conv", [8, 3, 2]]], "head": [[[0], 1, "Detect", ["nc"]]]}
    described = {"yaml": yaml, "names": {"0": "a"}, "task": "detect", "structure": {}}
    (data / "architecture.json").write_text(json.dumps(described), encoding="utf-8")
    (data / "graphs.json").write_text(json.dumps({graph: []}), encoding="utf-8")


def weights_that_are_a_pickle(folder: Path, command: str) -> Path:
    """Write a classifier of this package whose weights are a pickle that calls a shell."""
    data = _own_model(folder, "image_classification")
    torch.save(_Call(os.system, command), data / "weights.pt")
    (data / "config.json").write_text("{}", encoding="utf-8")
    return folder


def remote_code_in_a_config(folder: Path, command: str) -> Path:
    """Write a classifier of this package whose config names classes in a file that calls a shell."""
    data = _own_model(folder, "text_classification")
    (data / "hostile.py").write_text(f"import os\nos.system({command!r})\nclass Net: pass\n", encoding="utf-8")
    classes = {"AutoConfig": "hostile.Net", "AutoModelForSequenceClassification": "hostile.Net"}
    (data / "config.json").write_text(json.dumps({"model_type": "hostile", "auto_map": classes}), encoding="utf-8")
    return folder


def link_to_a_file_of_this_machine(folder: Path, command: str) -> Path:
    """Write a model with a file that is a link to the outside."""
    _own_model(folder, "yolo")
    (folder / "data" / "notes.txt").symlink_to("/etc/passwd")
    return folder


def pipe_instead_of_a_file(folder: Path, command: str) -> Path:
    """Write a model with a file that is a pipe without a writer."""
    _own_model(folder, "yolo")
    os.mkfifo(folder / "data" / "architecture.json")
    return folder


def aliases_that_multiply(folder: Path, command: str) -> Path:
    """Write a model whose description has nine aliases of nine aliases, and so on."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 12)]
    return _mlflow_model(folder, "\n".join([*lines, "flavors: {python_function: {loader_module: x, data: *a11}}"]))
