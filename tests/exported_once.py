"""`exported_once`: a graph of a transformers or ultralytics model is exported once for all tests that use the fixture.

Most methods for another runtime begin with the same export, which takes seconds even for a tiny model. Two graphs are
equal if their modules print the same, with equal configs and tensors, and they have equal inputs and outputs. Graphs of
a test's own code are always exported. The test processes of one run share the files.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mlflow_compress.sockets import Graph

WRITERS = (  # modules whose `write` exports a graph
    "mlflow_compress.compression.onnx_block_weights",
    "mlflow_compress.compression.openvino_graphs",
    "mlflow_compress.methods.onnx",
    "mlflow_compress.methods.onnx_fp16",
    "mlflow_compress.methods.openvino",
)
PACKAGES = frozenset({"mlflow_compress", "torch", "transformers", "ultralytics"})


@pytest.fixture(scope="session")
def _kept_exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "exports"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def exported_once(_kept_exports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy the files of a graph that was exported before."""
    import importlib

    for name in WRITERS:
        module = importlib.import_module(name)
        monkeypatch.setattr(module, "write", _remembering(module.write, _kept_exports))


def _remembering(write: Callable[..., None], folder: Path) -> Callable[..., None]:
    def once(graph: Graph, path: Path, *settings: object) -> None:
        if not all(type(part).__module__.partition(".")[0] in PACKAGES for part in graph.module.modules()):
            write(graph, path, *settings)
            return
        kept = folder / _digest(graph, write.__module__, path.suffix, *settings)
        if not kept.is_dir():
            write(graph, path, *settings)
            unfinished = Path(tempfile.mkdtemp(dir=folder))
            for file in path.parent.glob(f"{path.stem}.*"):
                shutil.copy(file, unfinished / f"graph{file.name.removeprefix(path.stem)}")
            with suppress(OSError):  # another process was faster
                unfinished.rename(kept)
        else:
            for file in kept.iterdir():
                shutil.copy(file, path.parent / f"{path.stem}{file.name.removeprefix('graph')}")

    return once


def _digest(graph: Graph, *settings: object) -> str:
    """Return a digest of all that an export depends on."""
    facts: list[object] = [settings, str(graph.module), graph.outputs, {**graph.dynamic}]
    for name, part in graph.module.named_modules():
        config = getattr(part, "config", None)
        as_json = getattr(config, "to_json_string", None)
        facts.append((name, type(part), as_json() if as_json else repr(config)))
    weights = [*graph.module.named_parameters(remove_duplicate=False), *graph.module.named_buffers()]
    first: dict[int, str] = {}
    digest = hashlib.sha256()
    for name, tensor in [*graph.inputs.items(), *weights]:
        facts.append((name, first.setdefault(id(tensor), name), str(tensor.dtype), tuple(tensor.shape)))
        digest.update(_bytes(tensor))
    digest.update(repr(facts).encode())
    return digest.hexdigest()


def _bytes(tensor: Any) -> bytes:
    import torch

    plain: bytes = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return plain
