"""OpenVINO's int8 by NNCF: integer weights, and numbers near the original's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from alone import alone
from exported import WEIGHTS, forward, own

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError
from mlflow_compress.methods.openvino_int8 import OpenvinoInt8
from mlflow_compress.networks import stored_weights


def check(folder: Path) -> None:
    family, model = own(folder)
    batch = family.batch(model, 4, 1)
    want = forward(family, model, batch)
    model = OpenvinoInt8(samples=8).compress(model, family)
    assert 0 < stored_weights.distance(forward(family, model, batch), want) < 0.1
    integers = [part for part in stored_weights.held(model.module) if part.tensor.dtype == torch.int8]
    assert sum(part.parameters for part in integers) >= WEIGHTS
    assert model.facts["reached"].endswith("weights")


def test_weights_are_integers_and_the_numbers_near(tmp_path: Path) -> None:
    alone(check, tmp_path)  # on CPUs with AMX its runtime ended with a segmentation fault


def test_it_needs_a_sample_to_calibrate_on() -> None:
    with pytest.raises(RecipeError, match="samples"):
        registry.build("methods", "openvino_int8", {"samples": 0})
