"""torch.ao's dynamic int8: only linear layers are packed, and the packed layers are rebuilt empty."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from quantised import round_trip
from tiny import TINY, tiny_model
from torch import nn
from torch.ao.nn.quantized.dynamic import Linear

from mlflow_compress.errors import Unsupported
from mlflow_compress.methods.int8_dynamic_torch import Int8DynamicTorch
from mlflow_compress.networks import model_folder, stored_weights
from mlflow_compress.sockets import Model


@pytest.mark.parametrize(
    ("per_channel", "scheme"), [(False, torch.per_tensor_affine), (True, torch.per_channel_affine)]
)
def test_linear_layers_are_packed_and_nothing_else(per_channel: bool, scheme: torch.qscheme) -> None:
    family, model = tiny_model("text_classification")
    batch = family.batch(model, 2, 0)
    linears = sum(type(layer) is nn.Linear for layer in model.module.modules())
    with torch.no_grad():
        before = stored_weights.flat(family.forward(model, batch))
        model = Int8DynamicTorch(per_channel).compress(model, family)
        after = stored_weights.flat(family.forward(model, batch))
    packed = [layer for layer in model.module.modules() if isinstance(layer, Linear)]
    assert len(packed) == linears == 2 * 6 + 2
    assert {layer.weight().qscheme() for layer in packed} == {scheme}
    assert not any(type(layer) is nn.Linear for layer in model.module.modules())
    assert model.module.distilbert.embeddings.word_embeddings.weight.dtype == torch.float32
    assert stored_weights.distance(after, before) < 0.1


def test_a_rebuilt_model_has_packed_layers_of_the_same_shapes() -> None:
    family, model = tiny_model("text_classification")
    _, empty = tiny_model("text_classification")
    packed, rebuilt = Int8DynamicTorch().compress(model, family), Int8DynamicTorch().rebuild(empty, family)
    shapes = [
        [layer.weight().shape for layer in variant.module.modules() if isinstance(layer, Linear)]
        for variant in (packed, rebuilt)
    ]
    assert shapes[0] == shapes[1]
    assert len(shapes[0]) == 14


def test_a_module_that_is_one_linear_layer_is_packed() -> None:
    family, _ = tiny_model("text_classification")
    packed = Int8DynamicTorch().compress(Model(nn.Linear(16, 8).eval()), family)
    rebuilt = Int8DynamicTorch().rebuild(Model(nn.Linear(16, 8)), family)
    assert isinstance(packed.module, Linear)
    assert isinstance(rebuilt.module, Linear)


def test_layers_of_torchs_own_encoder_are_not_packed() -> None:
    family, _ = tiny_model("text_classification")
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 1)
    module = nn.Sequential(encoder, nn.Linear(16, 4)).eval().requires_grad_(False)
    packed = Int8DynamicTorch().compress(Model(module), family)
    with torch.no_grad():
        assert packed.module(torch.rand(2, 3, 16)).shape == (2, 3, 4)
    assert [type(layer) for layer in packed.module.modules() if isinstance(layer, Linear)] == [Linear]


def test_without_linear_layers_it_is_unsupported() -> None:
    family, _ = tiny_model("text_classification")
    with pytest.raises(Unsupported, match="no linear layer to quantise"):
        Int8DynamicTorch().compress(Model(nn.Conv2d(3, 3, 1)), family)


def test_a_tied_head_that_is_stored_twice_has_a_caution() -> None:
    family, model = tiny_model("causal_lm")
    assert model.module.lm_head.weight is model.module.model.embed_tokens.weight
    rows, columns = model.module.lm_head.weight.shape
    packed = Int8DynamicTorch().compress(model, family)
    (caution,) = (caution for caution in packed.cautions if caution.code == "tied_held_twice")
    assert f"{rows * columns:,} more weights are stored" in caution.message


@pytest.mark.parametrize("method", ["int8_dynamic", "int8_dynamic_torch"])
def test_a_model_that_0_1_logged_is_restored(method: str, tmp_path: Path) -> None:
    """In version 0.1 this method was called int8_dynamic, and folders had no format."""
    before, _ = round_trip(
        tmp_path, "int8_dynamic_torch:per_channel=true", family="text_classification", **TINY["text_classification"]
    )
    path = tmp_path / "model" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["chain"][0]["method"] = method
    del manifest["format"]
    path.write_text(json.dumps(manifest))
    after = model_folder.restore(tmp_path / "model").model
    assert isinstance(after.module.classifier, Linear)
    assert torch.equal(after.module.classifier.weight().int_repr(), before.module.classifier.weight().int_repr())
