"""Text encoders: their timed call, and the same call as a graph."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TINY

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError, Unsupported
from mlflow_compress.networks.export_graphs import TorchCall
from mlflow_compress.networks.stored_weights import load_weights, save_weights
from mlflow_compress.networks.text_encoders import TextEncoder
from mlflow_compress.sockets import Model

NAMES = ["text_classification", "token_classification"]


def loaded(name: str, **options: Any) -> tuple[TextEncoder, Model]:
    family: TextEncoder = registry.build("families", name, {**TINY[name], **options})
    return family, family.load("tiny", "random", Path(), 0)


@pytest.mark.parametrize(("name", "shape"), [(NAMES[0], (3, 2)), (NAMES[1], (3, 16, 5))])
def test_a_call_gives_a_score_for_each_label(name: str, shape: tuple[int, ...]) -> None:
    family, model = loaded(name)
    batch = family.batch(model, 3, 0)
    assert {key: (value.shape, value.dtype) for key, value in batch.items()} == {
        "input_ids": ((3, 16), torch.int64),
        "attention_mask": ((3, 16), torch.int64),
    }
    assert bool((batch["attention_mask"] == 1).all())
    logits = family.run(model, batch, lambda stage: None)
    assert logits.shape == shape
    assert family.classes(model) == shape[-1]
    assert family.outputs_are_scores(model)


@pytest.mark.parametrize("name", NAMES)
def test_the_graph_takes_other_lengths_and_gives_the_same(name: str) -> None:
    family, model = loaded(name)
    calls = {key: TorchCall(graph.module) for key, graph in family.graphs(model).items()}
    exported = family.attach(dataclasses.replace(model, module=None), calls)
    longer, _ = loaded(name, tokens=23)
    batch = longer.batch(model, 3, 1)
    quiet = lambda stage: None  # noqa: E731
    assert torch.equal(family.run(exported, batch, quiet), family.run(model, batch, quiet))


@pytest.mark.parametrize("name", NAMES)
def test_more_tokens_than_positions_are_refused(name: str) -> None:
    family, model = loaded(name, tokens=600)
    with pytest.raises(RecipeError, match="takes 512 tokens at most, not 600 in a call: make tokens smaller"):
        family.batch(model, 1, 0)


@pytest.mark.parametrize("name", NAMES)
def test_a_student_has_half_of_the_layers(name: str) -> None:
    family, model = loaded(name)
    assert (model.config.num_hidden_layers, family.student(model, 0.5).config.num_hidden_layers) == (2, 1)
    with pytest.raises(Unsupported, match="too few layers"):
        family.student(model, 0.9)


def test_a_classifier_with_a_decoder_starts_it_with_the_padding(tmp_path: Path) -> None:
    sizes = {"d_model": 16, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 384}
    fields = {"model_type": "t5", "pad_token_id": 0, "eos_token_id": 1, **sizes}
    family = registry.build("families", "text_classification", {"tokens": 8, "architecture": fields})
    model = family.load("tiny", "random", tmp_path, 0)
    family.save(model, tmp_path)
    save_weights(model.module, tmp_path)
    restored = family.restore(tmp_path)
    load_weights(restored.module.eval(), tmp_path)
    assert restored.config.decoder_start_token_id == 0
    batch = family.batch(model, 2, 0)
    quiet = lambda stage: None  # noqa: E731
    assert torch.equal(family.run(restored, batch, quiet), family.run(model, batch, quiet))
