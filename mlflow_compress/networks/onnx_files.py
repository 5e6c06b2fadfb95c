"""Finds which other files an ONNX file reads, without reading them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from mlflow_compress.errors import WeightsError, first_line


def require_own_weights(path: Path) -> None:
    """Check that the weights of an ONNX file are in it, or in a file beside it.

    Runtimes follow any path that it names, in some versions also outside its folder.

    Raises:
        WeightsError: they are elsewhere, or the file can't be checked.
    """
    try:
        import onnx
    except ImportError:
        raise WeightsError(f"{path} can't be checked without the package onnx: pip install onnx") from None
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # from protocol buffers
        raise WeightsError(f"{path} is not a valid ONNX file: {first_line(error)}") from error
    for tensor in _tensors(model):
        for name in (entry.value for entry in tensor.external_data if entry.key == "location"):
            parts = {*PurePosixPath(name).parts, *PureWindowsPath(name).parts}
            is_outside = ".." in parts or PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive
            if is_outside or (path.parent / name).is_symlink():
                raise WeightsError(f"{path} reads weights from a file outside its folder: {name!r:.100}.")


def names_of_weights(path: Path) -> list[str]:
    """Return the names of the files beside an ONNX file that hold its weights, each once."""
    import onnx

    tensors = _tensors(onnx.load(str(path), load_external_data=False))
    names = (entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location")
    return list(dict.fromkeys(names))


def _tensors(model: Any) -> Iterator[Any]:
    """Yield all tensors of a model, including those of subgraphs in its nodes."""
    graphs, nodes = [model.graph], [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            yield from (part for sparse in graph.sparse_initializer for part in (sparse.values, sparse.indices))
            nodes += graph.node
            continue
        for attribute in nodes.pop().attribute:
            yield attribute.t
            yield from attribute.tensors
            yield from (part for sparse in _sparse(attribute) for part in (sparse.values, sparse.indices))
            graphs += [attribute.g, *attribute.graphs] if attribute.HasField("g") else attribute.graphs


def _sparse(attribute: Any) -> list[Any]:
    return [attribute.sparse_tensor, *attribute.sparse_tensors]
