"""Zero-shot classifiers: the nearest text, with both encoders compressed, exported and restored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import TINY, tiny_model

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError, Unsupported
from mlflow_compress.networks.transformers_models import companions
from mlflow_compress.sockets import Family, Model

NAME = "zero_shot_image_classification"
NAMES = ["cat", "green bus", "tree"]


def picture(seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def whole(family: Any, model: Model, pictures: list[Any], names: list[str]) -> Any:
    """Return the logits of the whole model of transformers for pictures and the texts of the classes."""
    texts = family._encoded(model, names)
    pixels = companions(model).processor(images=pictures, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        return model.module(pixel_values=pixels, **texts).logits_per_image


def test_the_class_is_that_of_the_whole_model() -> None:
    family, model = tiny_model(NAME, labels=NAMES)
    pictures = [picture(seed) for seed in range(20)]
    logits = whole(family, model, pictures, NAMES)
    rankings = family.answers(model, pictures)
    assert rankings == [[NAMES[index] for index in row] for row in logits.argsort(-1, descending=True).tolist()]
    assert family.predict(model, pictures) == [ranking[0] for ranking in rankings]


def test_a_call_and_a_forward_pass_give_the_same_scores() -> None:
    family, model = tiny_model(NAME, labels=NAMES)
    with torch.no_grad():
        batch = family.batch(model, 2, 0)
        torch.testing.assert_close(family.run(model, batch, lambda stage: None), family.forward(model, batch))
    assert family.classes(model) == 3


def test_many_classes_are_scored_but_few_are_in_a_forward_pass() -> None:
    names = [f"class {number}" for number in range(70)]
    family, model = tiny_model(NAME, labels=names)
    with torch.no_grad():
        batch = family.batch(model, 2, 0)
        assert family.run(model, batch, lambda stage: None).shape == (2, 70)
        assert family.forward(model, batch).shape == (2, 32)
    assert family.classes(model) == 32
    torch.testing.assert_close(
        family.run(model, batch, lambda stage: None)[:, :32], whole_scores(family, model, batch, names[:32])
    )


def whole_scores(family: Any, model: Model, batch: Any, names: list[str]) -> Any:
    with torch.no_grad():
        return model.module(pixel_values=batch["pixel_values"], **family._encoded(model, names)).logits_per_image


def test_siglips_texts_are_filled_up_and_its_offset_counts() -> None:
    part = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**part, "vocab_size": 300, "max_position_embeddings": 32}
    architecture = {
        "model_type": "siglip",
        "text_config": text,
        "vision_config": {**part, "image_size": 32, "patch_size": 8},
    }
    family: Family = registry.build("families", NAME, {"architecture": architecture, "labels": NAMES})
    model = family.load("tiny", "random", Path(), 0)
    model.module.logit_bias.data.fill_(-3.0)
    assert family._encoded(model, NAMES)["input_ids"].shape == (3, 32)  # type: ignore[attr-defined]
    with torch.no_grad():
        batch = family.batch(model, 2, 0)
        scores = family.run(model, batch, lambda stage: None)
    torch.testing.assert_close(scores, whole_scores(family, model, batch, NAMES), atol=1e-4, rtol=1e-4)


def test_both_encoders_are_compressed() -> None:
    family, model = tiny_model(NAME, labels=NAMES)
    registry.build("methods", "prune_magnitude", {"amount": 0.5}).compress(model, family)
    shares = [
        float((weight == 0).float().mean())
        for name, weight in model.module.named_parameters()
        if name.endswith("fc1.weight")
    ]
    assert len(shares) == 4
    assert all(0.4 < share < 0.6 for share in shares)


def test_each_graph_has_only_its_own_encoder() -> None:
    family, model = tiny_model(NAME, labels=NAMES)
    graphs = family.graphs(model)
    counts = {name: sum(weight.numel() for weight in graph.module.parameters()) for name, graph in graphs.items()}
    total = sum(weight.numel() for weight in model.module.parameters())
    assert set(counts) == {"image", "text"}
    assert sum(counts.values()) < 1.3 * total
    assert all(count < 0.8 * total for count in counts.values())


def test_exported_encoders_read_padded_texts() -> None:
    family, model = tiny_model(NAME, labels=["cat", "a very small dog"])
    batch = family.batch(model, 2, 0)
    assert not batch["attention_mask"].all()
    with torch.no_grad():
        expected = family.forward(model, batch)
        exported = registry.build("methods", "onnx").compress(model, family)
        torch.testing.assert_close(family.forward(exported, batch), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"template": "a photo"}, r"options.template has no \{\} for the name of a class"),
        ({"labels": ["cat", "cat"]}, "options.labels names a class twice"),
    ],
)
def test_templates_and_labels_are_checked(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(RecipeError, match=reason):
        registry.build("families", NAME, {**TINY[NAME], **options}).load("tiny", "random", Path(), 0)


def test_labels_are_found_in_the_data_and_others_are_named(tmp_path: Path) -> None:
    import cv2

    for label in ("Cat", "tree"):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "pictures" / label / "0.png"), picture(0))
    family, model = tiny_model(NAME, labels=NAMES)
    samples = family.samples(model, "pictures", tmp_path, None, 0)
    assert sorted(sample.reference for sample in samples) == ["cat", "tree"]
    assert len(family.answers(model, [sample.inputs for sample in samples])) == 2
    family, model = tiny_model(NAME, labels=["dog", "tree"])
    with pytest.raises(RecipeError, match="the label 'Cat' is not one of the model's: dog, tree"):
        family.samples(model, "pictures", tmp_path, None, 0)


def test_pipelines_need_names_with_each_call(tmp_path: Path) -> None:
    family, _ = tiny_model(NAME)
    with pytest.raises(Unsupported, match="needs the names of the classes in each call"):
        family.native_flavor(tmp_path)
