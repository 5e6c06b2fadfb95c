"""An encoder and a decoder as two graphs: their inputs and outputs, and that the decoder uses all inputs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny import TINY
from torch import nn

from mlflow_compress import registry
from mlflow_compress.networks.encoder_decoder_graphs import take_projections
from mlflow_compress.sockets import Family, Graph, Model


def graphs_of(name: str) -> tuple[Model, dict[str, Graph]]:
    family: Family = registry.build("families", name, TINY[name])
    model = family.load("tiny", "random", Path(), 0)
    return model, dict(family.graphs(model))


def test_projections_are_taken_out_of_the_attentions() -> None:
    def attention() -> nn.Module:
        layer = nn.Module()
        layer.k_proj, layer.v_proj, layer.count = nn.Linear(6, 8), nn.Linear(6, 8), 2  # type: ignore[assignment]
        return layer

    attentions = [attention(), attention()]
    projections = [projection for layer in attentions for projection in (layer.k_proj, layer.v_proj)]
    cross = take_projections(attentions, "k_proj", "v_proj", "count")
    assert list(cross.projections) == projections
    assert (cross.layers, cross.heads, cross.width, cross.cache_shape) == (2, 2, 4, [2, 2, 4])
    assert all(isinstance(layer.k_proj, nn.Identity) for layer in attentions)
    with pytest.raises(AttributeError):
        take_projections([SimpleNamespace(k=nn.Linear(1, 1))], "k", "v", "count")


@pytest.mark.parametrize(
    ("name", "inputs", "heeded", "source"),
    [("asr", ["input_features"], [], None), ("seq2seq", ["input_ids", "attention_mask"], ["attention_mask"], "source")],
)
def test_what_the_graphs_take_and_give(name: str, inputs: list[str], heeded: list[str], source: str | None) -> None:
    model, graphs = graphs_of(name)
    encode, decode = graphs["encoder"], graphs["decoder"]
    cross = ("cross_key_0", "cross_value_0", "cross_key_1", "cross_value_1")
    past, present = ([key.replace("cross", word) for key in cross] for word in ("past", "present"))
    assert (list(encode.inputs), encode.outputs) == (inputs, cross)
    assert list(decode.inputs) == ["input_ids", *heeded, *past, *cross]
    assert decode.outputs == ("logits", *present)
    assert [encode.dynamic[key].get(2) for key in cross] == [source] * 4
    assert decode.dynamic["past_key_0"] == {0: "batch", 2: "past"}
    assert model.config.cache_shape == [2, 2, 8]
    with torch.no_grad():
        crossed = encode.module(*encode.inputs.values())
        logits, *states = decode.module(*decode.inputs.values())
    assert all(map(torch.equal, crossed, (decode.inputs[key] for key in cross)))
    assert logits.shape == (2, 3, 300)
    assert all(state.shape == (2, 2, 5 + 3, 8) for state in states)


@pytest.mark.parametrize("name", ["asr", "seq2seq"])
def test_the_decoder_uses_its_past_and_its_source(name: str) -> None:
    decode = graphs_of(name)[1]["decoder"]
    with torch.no_grad():
        logits = decode.module(*decode.inputs.values())[0]
        for changed in ("past_value_0", "cross_value_0"):
            inputs = {**decode.inputs, changed: decode.inputs[changed] + 1}
            assert not torch.allclose(decode.module(*inputs.values())[0], logits)
