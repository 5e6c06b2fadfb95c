from __future__ import annotations

import json
from pathlib import Path

from torch import nn

from mlflow_compress.measuring import layer_table
from mlflow_compress.measuring.compression_cost import CompressionCost
from mlflow_compress.networks.stored_weights import Held, held, held_with_layers


class Packed(nn.Module):
    """A layer that reports its weights."""

    def held_weights(self) -> list[Held]:
        weight = nn.Parameter()
        return [Held(weight.new_zeros(2, 8), 32)]


def test_parameters_by_type_of_layer(tmp_path: Path) -> None:
    shared = nn.Linear(4, 4, bias=False)
    module = nn.Sequential(shared, nn.Linear(4, 2), nn.BatchNorm1d(2), nn.ReLU(), shared, Packed())
    layer_table.write(module, tmp_path)
    table = json.loads((tmp_path / layer_table.LAYERS).read_text())
    assert table["columns"] == ["layer", "layers", "parameters", "mib"]
    assert [row[:3] for row in table["data"]] == [["Packed", 1, 32], ["Linear", 2, 26], ["BatchNorm1d", 1, 4]]
    assert table["data"][1][3] == 26 * 4 / 2**20


def test_the_weights_are_those_of_the_size(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.LSTM(4, 4))
    with_layers = list(held_with_layers(module))
    assert [part.parameters for _, part in with_layers] == [part.parameters for part in held(module)]
    assert {type(layer).__name__ for layer, _ in with_layers} == {"Linear", "LSTM"}


def test_a_model_without_weights_has_no_table(tmp_path: Path) -> None:
    layer_table.write(nn.ReLU(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_cost_is_that_of_the_steps_alone() -> None:
    cost = CompressionCost()
    assert cost.numbers() == {"prepare/seconds": 0.0, "prepare/ram_peak_mib": 0.0}
    with cost.step():
        large = bytearray(64 * 2**20)
    assert len(large) > 0
    first = cost.numbers()
    assert 0 < first["prepare/seconds"] < 10
    assert first["prepare/ram_peak_mib"] > 64
    with cost.step():
        pass
    second = cost.numbers()
    assert second["prepare/seconds"] > first["prepare/seconds"]
    assert second["prepare/ram_peak_mib"] >= first["prepare/ram_peak_mib"]
