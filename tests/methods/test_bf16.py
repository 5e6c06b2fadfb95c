"""Half precision: every parameter in torch.bfloat16, half of the bytes, nearly the same outputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import tiny_model

from mlflow_compress.errors import Unsupported
from mlflow_compress.meters import size
from mlflow_compress.methods.bf16 import Bf16
from mlflow_compress.networks import stored_weights


def test_all_weights_are_cast_and_outputs_stay_near(tmp_path: Path) -> None:
    family, model = tiny_model("text_classification")
    batch = family.batch(model, 2, 0)
    with torch.no_grad():
        before = stored_weights.flat(family.forward(model, batch))
        bytes_before = size.in_memory(model.module)["size/weights_mib"]
        model = Bf16().compress(model, family)
        after = stored_weights.flat(family.forward(model, batch))
    assert {parameter.dtype for parameter in model.module.parameters()} == {torch.bfloat16}
    assert size.in_memory(model.module)["size/weights_mib"] == bytes_before / 2
    assert 0 < stored_weights.distance(after, before) < 0.02


def test_what_is_cast_already_is_left(tmp_path: Path) -> None:
    family, model = tiny_model("text_classification")
    model = Bf16().compress(model, family)
    with pytest.raises(Unsupported):
        Bf16().compress(model, family)
