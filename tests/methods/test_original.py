"""The original: nothing is changed or reported as changed."""

from __future__ import annotations

import torch
from tiny import tiny_model

from mlflow_compress.methods.original import Original


def test_nothing_is_changed() -> None:
    family, model = tiny_model("text_classification")
    module, state = model.module, {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    result = Original().compress(model, family)
    assert result is model
    assert result.module is module
    assert (result.facts, result.cautions) == ({}, [])
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())
    assert Original.changes == "nothing"
