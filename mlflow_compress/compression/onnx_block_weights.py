"""Graphs as ONNX files with weights in blocks of few bits, and the summary of these weights in a model's row."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mlflow_compress.compression import onnx_blocks
from mlflow_compress.compression.coverage import HELD_TWICE
from mlflow_compress.compression.export_check import require_alike
from mlflow_compress.compression.onnx_blocks import BLOCKS, Blocks, Count
from mlflow_compress.compression.onnx_graphs import TOLERANCE, Session, change, write
from mlflow_compress.errors import Unsupported
from mlflow_compress.sockets import Graph, Model


def checked(graphs: Mapping[str, Graph], folder: Path) -> dict[str, Path]:
    """Export graphs in float32, and return their files by name.

    Raises:
        Unsupported: A graph computes something else than its module.
    """
    paths = {name: folder / f"{name}.onnx" for name in graphs}
    for name, graph in graphs.items():
        write(graph, paths[name])
        require_alike(graph, Session(paths[name], ()), TOLERANCE)
    return paths


def quantise(model: Model, paths: Mapping[str, Path], blocks: Blocks, embeddings: bool, folder: Path) -> Model:
    """Quantise the weights of exported files into `NAME.onnx` of a folder, and record them in the model's facts.

    Args:
        model: Model.
        paths: Files, by the graph's name.
        blocks: Quantisation settings.
        embeddings: Whether embeddings are quantised too.
        folder: Folder for the new files.

    Raises:
        Unsupported: No block divides any matrix.
    """
    count = Count()
    for name, path in paths.items():
        count += change(path, folder / f"{name}.onnx", lambda graph: onnx_blocks.quantise(graph, blocks, embeddings))
    if not count.products:
        raise Unsupported(_no_matrix(count, blocks))
    model.facts["weights"] = _summary(count, blocks)
    if count.tied:
        model.cautions.append(HELD_TWICE.of(parameters=f"{count.tied:,}"))
    return model


def _no_matrix(count: Count, blocks: Blocks) -> str:
    if not count.whole:
        return "there is no layer that the method quantises"
    lengths = ", ".join(str(length) for length in reversed(BLOCKS) if length <= blocks.length)
    rows = ", ".join(str(length) for length in sorted({shape[0] for shape in count.whole})[:8])
    return f"no block of {lengths} weights divides the inputs of a layer: their lengths are {rows}"


def _summary(count: Count, blocks: Blocks) -> str:
    """Describe the bits and the block lengths of the weights."""
    lengths = f"blocks of {blocks.length}"
    if shorter := [f"of {length} in {n}" for length, n in sorted(count.lengths.items()) if length != blocks.length]:
        matrices = sum(count.lengths.values())
        lengths += f" ({', '.join(shorter)} of {matrices} matrices: {blocks.length} does not divide their inputs)"
    kind = "symmetric" if blocks.symmetric else "with zero points"
    parts = [f"{count.products:,} weights of products in {blocks.bits} bits, {lengths}, {kind}"]
    parts += [f"{size:,} of embeddings in {bits}" for bits, size in sorted(count.embeddings.items()) if size]
    if count.shared:
        parts.append(f"{count.shared:,} of the products' shared with an embedding")
    if count.whole:
        parts.append(f"{len(count.whole)} matrices in float32: no block divides them")
    return "; ".join(parts)
