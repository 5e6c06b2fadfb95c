"""Magnitude pruning: which weights are pruned, and how their zeros are stored."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pruned import method, saved
from torch import nn

from mlflow_compress import registry
from mlflow_compress.compression import pruning
from mlflow_compress.measuring import worker
from mlflow_compress.sockets import Model


def test_unstructured_zeros_are_stored_as_they_are(tmp_path: Path) -> None:
    part, restored = saved("wanda", tmp_path)
    assert (tmp_path / worker.MODEL_FOLDER / "model.safetensors").is_file()
    assert part.measurements["size/disk_gzip_mib"] < 0.75 * part.measurements["size/disk_mib"]
    for layer in pruning.learned(restored.model.module):
        share = float((layer.weight == 0).float().mean())
        assert share == pytest.approx(0.5, abs=0.05)


def test_magnitude_pruning_does_not_change_fixed_weights(tmp_path: Path) -> None:
    bins, linear = nn.Conv2d(16, 1, 1, bias=False), nn.Linear(8, 8)
    bins.weight.data = torch.arange(16.0).view(1, 16, 1, 1)
    method("prune_magnitude").compress(Model(nn.ModuleList([bins, linear])), registry.build("families", "python"))
    assert torch.equal(bins.weight.view(-1), torch.arange(16.0))
    assert int((linear.weight == 0).sum()) == 32
