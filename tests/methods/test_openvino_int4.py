"""OpenVINO's 4-bit weights: counted, packed, and near the original's numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import tiny_model

pytest.importorskip("nncf")

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError, Unsupported
from mlflow_compress.networks import stored_weights

pytestmark = pytest.mark.usefixtures("exported_once")

_WIDER = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}
_IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])


def compressed(method: str, **options: Any) -> tuple[Any, float]:
    """Return a compressed model, and the change of its outputs."""
    family, model = tiny_model("causal_lm", architecture=_WIDER)
    with torch.inference_mode():
        want = stored_weights.flat(family.forward(model, _IDS))
    model = registry.build("methods", method, options).compress(model, family)
    return model, stored_weights.distance(stored_weights.flat(family.forward(model, _IDS)), want)


@pytest.mark.parametrize(
    ("options", "groups"),
    [
        ({"mode": "sym", "group_size": 32}, "61,440 in groups of 32"),
        ({"mode": "asym", "group_size": 64}, "49,152 in groups of 64"),
        ({"awq": True, "scale_estimation": True, "samples": 2}, "49,152 in groups of 64"),
    ],
)
def test_weights_have_4_bits_in_groups(options: dict[str, Any], groups: str) -> None:
    model, moved = compressed("openvino_int4", **options)
    assert 0 < moved < 0.25
    assert groups in model.facts["bits"]
    assert "embeddings: 19,200 in 8 bits" in model.facts["bits"]
    parts = list(stored_weights.held(model.module))
    of_4_bits = [part for part in parts if part.parameters and part.parameters == 2 * part.tensor.numel()]
    assert sum(part.parameters for part in of_4_bits) == int(model.facts["bits"].split()[2].replace(",", ""))
    assert all(0 < part.nonzero() <= part.parameters for part in of_4_bits)


def test_groups_too_small_and_models_without_such_matrices_are_refused() -> None:
    with pytest.raises(RecipeError, match="16 or more"):
        compressed("openvino_int4", group_size=8)
    family, model = tiny_model("causal_lm", architecture={**_WIDER, "hidden_size": 8, "intermediate_size": 24})
    with pytest.raises(Unsupported, match="no matrix can have 4 bits"):
        registry.build("methods", "openvino_int4", {}).compress(model, family)


def test_int8_of_a_decoder_quantises_activations_only_on_request() -> None:
    model, moved = compressed("openvino_int8")
    assert model.facts["activations"] == "in floating point"
    assert 0 < moved < 0.02
    assert not model.cautions
    model, _ = compressed("openvino_int8", activations="static", samples=2)
    assert "static_activations" in [caution.code for caution in model.cautions]
