"""A cache is split into keys and values, or the model is not exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TINY

from mlflow_compress import registry
from mlflow_compress.errors import Unsupported
from mlflow_compress.networks.decoding import cache_of, tensors_of
from mlflow_compress.sockets import Family

STATE_SPACE = {"model_type": "mamba", "vocab_size": 300, "hidden_size": 16, "state_size": 4, "num_hidden_layers": 2}


def test_keys_and_values_come_back_as_they_were_put_in() -> None:
    tensors = [torch.full((1, 2, 3, 4), float(number)) for number in range(4)]
    assert [tensor.mean().item() for tensor in tensors_of(cache_of(tensors))] == [0, 1, 2, 3]


@pytest.mark.parametrize("cache", [None, (), object()])
def test_what_is_not_a_cache_is_refused(cache: Any) -> None:
    with pytest.raises(Unsupported, match="its cache does not hold the keys and values"):
        tensors_of(cache)


def test_a_model_that_keeps_states_instead_of_keys_is_skipped_by_exports() -> None:
    options = {**TINY["causal_lm"], "architecture": STATE_SPACE}
    family: Family = registry.build("families", "causal_lm", options)
    model = family.load("tiny", "random", Path(), 0)
    with pytest.raises(Unsupported, match="its cache does not hold the keys and values"):
        family.graphs(model)
