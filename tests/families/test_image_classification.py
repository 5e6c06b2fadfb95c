"""Image classifiers: the same answers as transformers and torchvision on the same files."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import loaded, picture
from PIL import Image
from tiny import TINY

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError, Unsupported
from mlflow_compress.families.image_classification import ImageClassification
from mlflow_compress.networks import transformer_layers
from mlflow_compress.networks.transformers_models import companions

NAMES = ["ant", "bee", "crane", "dog", "eel", "fox", "crane"]


VIT = {
    **{key: value for key, value in TINY["image_classification"]["architecture"].items() if key != "num_labels"},
    "id2label": dict(enumerate(NAMES)),
}


RESNET = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 16],
    "depths": [1, 1],
    "layer_type": "basic",
    "num_labels": 6,
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that save_pretrained wrote, with a processor unlike the default one."""
    from transformers import ViTImageProcessor

    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    _, model = loaded(architecture={**VIT, "initializer_range": 0.5})
    model.module.save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.4] * 3, image_std=[0.3] * 3).save_pretrained(
        folder
    )
    return folder


def test_accuracy_is_that_of_transformers_and_scikit_learn(saved: Path, tmp_path: Path) -> None:
    from sklearn.metrics import accuracy_score, f1_score, top_k_accuracy_score
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    module = AutoModelForImageClassification.from_pretrained(saved).eval()
    processor = AutoImageProcessor.from_pretrained(saved)
    scores, labels = [], []
    for index in range(24):
        picture(path := tmp_path / "all" / f"{index}.png", index)
        with Image.open(path) as image, torch.no_grad():
            logits = module(**processor(images=image.convert("RGB"), return_tensors="pt")).logits[0]
        labels.append(int(logits.argsort(descending=True)[index % 7]))
        scores.append(logits.softmax(-1).numpy())
        path.rename(picture(tmp_path / "data" / str(labels[-1]) / f"{index}.png", index))
    family, model = loaded(str(saved), "auto")
    samples = family.samples(model, "data", tmp_path, None, 0)
    answers = family.answers(model, [sample.inputs for sample in samples])
    references = [sample.reference for sample in samples]
    assert set(references) <= {"ant", "bee", "crane (2)", "dog", "eel", "fox", "crane (6)"}

    metrics = {
        name: registry.build("metrics", name).compute(references, answers)
        for name in ("accuracy", "top5_accuracy", "f1")
    }
    best = [int(sample.argmax()) for sample in scores]
    assert 0 < metrics["accuracy"] < metrics["top5_accuracy"] < 1
    assert metrics["accuracy"] == pytest.approx(accuracy_score(labels, best))
    assert metrics["f1"] == pytest.approx(f1_score(labels, best, average="macro"))
    assert metrics["top5_accuracy"] == pytest.approx(top_k_accuracy_score(labels, scores, k=5, labels=range(7)))


def test_a_label_that_is_not_the_models_names_the_file(saved: Path, tmp_path: Path) -> None:
    family, model = loaded(str(saved), "auto")
    picture(tmp_path / "data" / "ant" / "1.png", 0)
    picture(tmp_path / "data" / "cat" / "2.png", 0)
    with pytest.raises(RecipeError, match=r"cat/2\.png: the label 'cat' is not one of the model's: ant, bee"):
        family.samples(model, "data", tmp_path, None, 0)
    samples = family.samples(model, "data:labels=cat=dog", tmp_path, None, 0)
    assert [sample.reference for sample in samples] == ["ant", "dog"]


def test_labels_can_be_named_by_the_recipe(tmp_path: Path) -> None:
    names = ["a", "b", "c", "d", "e", "f"]
    family, model = loaded(architecture=RESNET, labels=names)
    picture(tmp_path / "data" / "e" / "1.png", 0)
    assert family.samples(model, "data", tmp_path, None, 0)[0].reference == "e"
    assert set(family.answers(model, [np.zeros((8, 8, 3), np.uint8)])[0]) < set(names)
    with pytest.raises(RecipeError, match=r"names 2 classes; tiny has 6"):
        loaded(architecture=RESNET, labels=["a", "b"])


def test_a_broken_picture_is_reported(saved: Path, tmp_path: Path) -> None:
    family, model = loaded(str(saved), "auto")
    picture(tmp_path / "data" / "ant" / "1.png", 0).write_bytes(b"no picture")
    with pytest.raises(RecipeError, match=r"1\.png can't be read as a picture"):
        family.samples(model, "data", tmp_path, None, 0)


def test_a_path_an_array_and_a_picture_are_alike(saved: Path, tmp_path: Path) -> None:
    family, model = loaded(str(saved), "auto")
    path = picture(tmp_path / "1.png", 3)
    with Image.open(path) as image:
        inputs = [str(path), path, np.asarray(image), np.asarray(image).tolist(), image.convert("RGB")]
        assert len({tuple(labels) for labels in family.answers(model, inputs)}) == 1


def test_images_of_several_sizes_have_the_same_answers_as_alone() -> None:
    from transformers import ViTImageProcessor

    family, model = loaded(architecture=RESNET)
    companions(model).processor = Sized(ViTImageProcessor(do_resize=False))
    images = [
        np.random.default_rng(index).integers(0, 256, (32 + 8 * (index // 2), 32, 3), np.uint8) for index in range(5)
    ]
    assert family.answers(model, images) == [family.answers(model, [image])[0] for image in images]


@dataclasses.dataclass
class Sized:
    """A processor that does not change sizes."""

    processor: Any

    def __call__(self, **inputs: Any) -> Any:
        return self.processor(**inputs)


def test_pictures_to_calibrate_on_are_not_those_that_are_scored(saved: Path, tmp_path: Path) -> None:
    family, model = loaded(str(saved), "auto")
    for index in range(8):
        picture(tmp_path / "data" / "ant" / f"{index}.png", index)
    scored = [family._prepared(model, sample.inputs) for sample in family.samples(model, "data", tmp_path, 5, 0)]  # type: ignore[attr-defined]
    batches = family.calibration(model, 1, 0, size=3)
    assert batches[0].shape == (3, 3, 32, 32)
    assert not any(torch.equal(image, drawn) for image in scored for drawn in batches[0])
    assert not model.cautions
    _, without_data = loaded(str(saved), "auto")
    family.calibration(without_data, 1, 0)
    assert [caution.code for caution in without_data.cautions] == ["random_calibration"]


@pytest.mark.parametrize("architecture", [VIT, RESNET])
def test_a_student_keeps_layers_of_equal_shape(architecture: dict[str, Any]) -> None:
    family, model = loaded(architecture=architecture)
    if architecture is RESNET:
        with pytest.raises(
            Unsupported, match=r"a ResNetForImageClassification has no stack .* or timm:NAME.* student\(\)"
        ):
            family.student(model, 0.5)
    else:
        student = family.student(model, 0.5)
        assert [len(stack.layers(student)) for stack in transformer_layers.stacks(student)] == [1]


def test_models_that_are_not_image_classifiers_are_rejected(saved: Path, tmp_path: Path) -> None:
    from transformers import ImageGPTImageProcessor

    folder = tmp_path / "ids"
    shutil.copytree(saved, folder)
    ImageGPTImageProcessor(clusters=[[0.0] * 3], size={"height": 32, "width": 32}).save_pretrained(folder)
    family = registry.build("families", "image_classification", {})
    with pytest.raises(RecipeError, match="image processor returns input_ids; this family needs pixel_values"):
        family.load(str(folder), "auto", tmp_path, 0)


def test_scores_under_another_name_and_classes_without_names(monkeypatch: pytest.MonkeyPatch) -> None:
    family, model = loaded(architecture=VIT)
    forward = model.module.forward
    monkeypatch.setattr(model.module, "forward", lambda pixels: {"last_hidden_state": forward(pixels)["logits"]})
    batch = family.batch(model, 2, 0)
    assert torch.equal(family.run(model, batch, lambda stage: None), forward(batch)["logits"])
    model.config.id2label = None
    monkeypatch.setattr(type(model.config), "num_labels", 7)
    assert family.predict(model, family.example(model))[0].startswith("LABEL_")
    monkeypatch.setattr(model.module, "forward", lambda pixels: {"last_hidden_state": pixels})
    with pytest.raises(RecipeError, match=r"for one picture, not one score for each of its 7 classes"):
        ImageClassification()._require_scores(model)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (3, 3)])
def test_pictures_of_one_pixel_are_classified(saved: Path, tmp_path: Path, shape: tuple[int, int]) -> None:
    family, model = loaded(str(saved), "auto")
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    enlarged = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR))
    label, same_label, expected = family.predict(model, [pixels, str(tmp_path / "a.png"), enlarged])
    assert label == same_label == expected
