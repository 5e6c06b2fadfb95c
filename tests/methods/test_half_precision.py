"""Half precision: every parameter is cast, half of the bytes, nearly the same outputs."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_model

from mlflow_compress.errors import Unsupported
from mlflow_compress.meters import size
from mlflow_compress.methods.bf16 import Bf16
from mlflow_compress.methods.fp16 import Fp16
from mlflow_compress.networks import stored_weights
from mlflow_compress.sockets import Method

METHODS = pytest.mark.parametrize(("method", "dtype"), [(Bf16(), torch.bfloat16), (Fp16(), torch.float16)])


@METHODS
def test_all_weights_are_cast_and_outputs_stay_near(method: Method, dtype: torch.dtype) -> None:
    family, model = tiny_model("text_classification")
    batch = family.batch(model, 2, 0)
    with torch.no_grad():
        before = stored_weights.flat(family.forward(model, batch))
        bytes_before = size.in_memory(model.module)["size/weights_mib"]
        model = method.compress(model, family)
        after = stored_weights.flat(family.forward(model, batch))
    assert {parameter.dtype for parameter in model.module.parameters()} == {dtype}
    assert size.in_memory(model.module)["size/weights_mib"] == bytes_before / 2
    assert 0 < stored_weights.distance(after, before) < 0.02


@METHODS
def test_what_is_cast_already_is_left(method: Method, dtype: torch.dtype) -> None:
    family, model = tiny_model("text_classification")
    model = method.compress(model, family)
    with pytest.raises(Unsupported):
        method.compress(model, family)
