"""The parameters of a model by type of layer, as a table beside its result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlflow_compress.files import whole_file
from mlflow_compress.networks.stored_weights import held_with_layers

LAYERS = "layers.json"
_MIB = 2**20


def write(module: Any, folder: Path) -> None:
    """Write the table, if the module has weights: type, layers, parameters and MiB in memory; the largest first."""
    layers: dict[str, set[int]] = {}
    parameters: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for layer, weight in held_with_layers(module):
        kind = type(layer).__name__
        layers.setdefault(kind, set()).add(id(layer))
        parameters[kind] = parameters.get(kind, 0) + weight.parameters
        sizes[kind] = sizes.get(kind, 0) + weight.tensor.numel() * weight.tensor.element_size()
    if not layers:
        return
    kinds = sorted(layers, key=lambda kind: (-parameters[kind], kind))
    rows = [[kind, len(layers[kind]), parameters[kind], sizes[kind] / _MIB] for kind in kinds]
    table = {"columns": ["layer", "layers", "parameters", "mib"], "data": rows}
    with whole_file(folder / LAYERS) as partial_path:
        partial_path.write_text(json.dumps(table), encoding="utf-8")
