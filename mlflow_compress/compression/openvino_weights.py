"""Few-bit weights of an OpenVINO graph by NNCF, and the summary of which weights have how many bits."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mlflow_compress.compression.openvino_graphs import is_scale
from mlflow_compress.errors import Unsupported
from mlflow_compress.sockets import Model

_BITS = {"i4": 4, "u4": 4, "i8": 8, "u8": 8}


def compress(source: Path, path: Path, **settings: Any) -> None:
    """Write a graph with compressed weights.

    Source: nncf.compress_weights.

    Args:
        source: File of the float32 graph (.xml).
        path: File to write (.xml).
        settings: Arguments of `nncf.compress_weights`.
    """
    import nncf
    import openvino

    compressed = nncf.compress_weights(openvino.Core().read_model(str(source)), **settings)
    openvino.save_model(compressed, str(path), compress_to_fp16=False)


def record_bits(model: Model, paths: Iterable[Path], group_size: int) -> None:
    """Record in a model's facts how many weights have 4 bits, by group size, and how many have 8.

    Args:
        model: Model whose facts get the counts.
        paths: Files of all graphs (.xml).
        group_size: Requested group size.

    Raises:
        Unsupported: No weight has 4 bits.
    """
    import openvino

    counts: collections.Counter[int] = collections.Counter()
    groups: collections.Counter[int] = collections.Counter()
    embeddings: collections.Counter[int] = collections.Counter()
    for path in paths:
        for node in openvino.Core().read_model(str(path)).get_ops():
            kind = node.get_element_type().get_type_name() if node.get_type_name() == "Constant" else ""
            if kind not in _BITS or is_scale(node):
                continue
            bits, count = _BITS[kind], math.prod(node.shape)
            counts[bits] += count
            if bits == 4:
                groups[node.shape[-1]] += count
            if _is_embedding(node):
                embeddings[bits] += count
    if not counts[4]:
        raise Unsupported(
            f"no matrix can have 4 bits in groups of {group_size}, or of half, a quarter and so on of it (down to 16): "
            "set group_size=-1 for one group per row, or all_layers=true if only embeddings and the head are left"
        )
    in_groups = ", ".join(f"{count:,} in groups of {size}" for size, count in sorted(groups.items()))
    parts = [f"4 bits: {counts[4]:,} weights ({in_groups})"]
    if counts[8]:
        parts.append(f"8 bits: {counts[8]:,}")
    parts += [f"embeddings: {count:,} in {bits} bits" for bits, count in sorted(embeddings.items())]
    model.facts["bits"] = "; ".join(parts)


def _readers(node: Any) -> list[Any]:
    return [port.get_node() for output in node.outputs() for port in output.get_target_inputs()]


def _is_embedding(node: Any) -> bool:
    """Return whether a constant, possibly converted, is a lookup table for integer inputs."""
    for reader in _readers(node):
        kind = reader.get_type_name()
        if kind == "Gather" and reader.input_value(0).get_node() == node:
            return True
        if kind in ("Convert", "Subtract", "Multiply", "Reshape") and _is_embedding(reader):
            return True
    return False
