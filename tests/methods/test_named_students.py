"""Distillation to another model that the user names, with and without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from taught import NET, own
from tiny import tiny_model
from torch import nn
from words import BAD, GOOD, OTHERS, labelled_folder, labels, saved, word_piece

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError, Unsupported, WeightsError
from mlflow_compress.networks import image_zoos, model_folder, ultralytics_training
from mlflow_compress.networks.transformers_models import companions
from mlflow_compress.networks.ultralytics_architecture import Architecture
from mlflow_compress.planning import chains
from mlflow_compress.records import Variant
from mlflow_compress.sockets import Family, Model


def distilled(family: Family, model: Model, **options: Any) -> Model:
    student: Model = registry.build("methods", "distill", options).compress(model, family)
    return student


def accuracy(family: Family, model: Model) -> float:
    samples = family.samples(model, "data", model.folder, None, 0)
    answers = family.predict(model, [sample.inputs for sample in samples])
    right = [bool(answer == sample.reference) for answer, sample in zip(answers, samples, strict=True)]
    return sum(right) / len(right)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> tuple[Family, Model]:
    """Return a classifier that was trained on reviews, with its data in its folder."""
    folder = tmp_path_factory.mktemp("teacher")
    labelled_folder(folder / "data")
    family: Family = registry.build("families", "text_classification")
    model = family.load(str(saved(folder / "bert", hidden_size=48, **labels())), "auto", folder, 0)
    model.folder = folder
    family.samples(model, "data", folder, None, 0)
    registry.build("methods", "fine_tune", {"steps": 200, "learning_rate": 3e-3}).compress(model, family)
    assert accuracy(family, model) >= 0.95
    return family, model


@pytest.mark.parametrize("weight_of_labels", [0.0, 0.5, 1.0])
def test_a_student_with_its_own_tokenizer_learns(weight_of_labels: float, teacher: tuple[Family, Model]) -> None:
    family, model = teacher
    words = word_piece([*reversed(OTHERS), *BAD, *GOOD])  # other numbers than the teacher's
    place = model.folder / f"student{weight_of_labels}"
    saved(place, "AutoModel", seed=1, num_hidden_layers=1, tokenizer=words)  # without a head
    student = distilled(family, model, student=place.name, steps=150, learning_rate=3e-3, labels=weight_of_labels)
    assert student.config.id2label == {0: "NEGATIVE", 1: "POSITIVE"}
    assert len(companions(student).tokenizer) == len(words)
    assert companions(student).tokenizer("good") != companions(model).tokenizer("good")
    assert accuracy(family, student) >= 0.9
    assert student.facts["student"].startswith(f"{place.name}, ")
    kind = "labelled samples" if weight_of_labels else "inputs"
    assert student.facts["training"].startswith(f"150 steps of 16 {kind}, loss from ")
    assert [caution.code for caution in student.cautions] == []
    assert student.weights == model.weights == "local"


def test_a_head_for_other_classes_is_replaced(teacher: tuple[Family, Model]) -> None:
    family, model = teacher
    saved(model.folder / "three", num_labels=3, num_hidden_layers=1)
    student = distilled(family, model, student="three", steps=0)
    assert student.module.classifier.weight.shape[0] == 2
    assert student.config.id2label == dict(model.config.id2label)
    assert "not_trained" in [caution.code for caution in student.cautions]


def test_a_named_student_is_restored(teacher: tuple[Family, Model], tmp_path: Path) -> None:
    family, model = teacher
    saved(model.folder / "restored", "AutoModel", num_hidden_layers=1)
    student = distilled(family, model, student="restored", steps=2)
    chain = chains.parse_chain("distill:student=restored,steps=2")
    variant = Variant("m", "d", "t", "text_classification", "s", chain=chain)
    model_folder.save(student, family, model_folder.methods_of(chain), variant, tmp_path)
    restored = model_folder.restore(tmp_path)
    texts = ["the film was good", "a dull plot"]
    assert restored.family.predict(restored.model, texts) == family.predict(student, texts)


def test_a_student_must_be_there_and_smaller(teacher: tuple[Family, Model]) -> None:
    family, model = teacher
    with pytest.raises(WeightsError, match="The pretrained weights of nobody/none are not available"):
        distilled(family, model, student="nobody/none")
    saved(model.folder / "larger", num_hidden_layers=8)
    with pytest.raises(Unsupported, match=r"the student has .* parameters, not fewer than the original's"):
        distilled(family, model, student="larger")
    with pytest.raises(Unsupported, match="hidden states are compared only with a student of the original's layers"):
        distilled(family, model, student="larger", hidden=1.0)
    with pytest.raises(Unsupported, match="a named student has its own size: leave out keep"):
        distilled(family, model, student="larger", keep=0.25)


def test_students_of_random_weights_have_the_architecture_in_the_recipe() -> None:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    fields = {"model_type": "bert", "vocab_size": 300, "num_labels": 5, **sizes}
    family, model = tiny_model("text_classification", students={"tiny/bert": fields})
    student = distilled(family, model, student="tiny/bert", steps=2, batch_size=2)
    assert student.config.model_type == "bert"
    assert student.config.num_labels == model.config.num_labels == 2
    assert student.weights == "random"


def test_a_function_of_the_file_builds_a_student(tmp_path: Path) -> None:
    family, model = own(tmp_path, f"{NET}\ndef narrow():\n    return nn.Sequential(nn.Linear(6, 2), nn.Linear(2, 4))")
    student = distilled(family, model, student="narrow", steps=2)
    assert [type(layer) for layer in student.module] == [nn.Linear, nn.Linear]
    with pytest.raises(Unsupported, match=r"net.py defines no wide\(\): define it to build a smaller module"):
        distilled(family, model, student="wide")


def test_a_student_of_torchvision_gets_a_head_for_the_teachers_classes() -> None:
    family, model = tiny_model("image_classification", {"hidden_size": 512, "intermediate_size": 2048})
    student = distilled(family, model, student="torchvision:squeezenet1_1", steps=1, batch_size=2)
    assert student.data_as(image_zoos.ZooModel).labels == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    with torch.no_grad():
        assert family.forward(student, family.batch(student, 1, 0)).shape == (1, 3)


def test_code_of_a_student_must_be_trusted(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text('{"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}')
    family, model = tiny_model("text_classification")
    model.folder = tmp_path
    with pytest.raises(RecipeError, match=r"The student: .*mine holds Python code that builds the model.*say so: "):
        distilled(family, model, student="mine")


# Detectors

SIDE = 64


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write pictures with a bright square each, and its box."""
    folder = tmp_path_factory.mktemp("shapes")
    generator = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for part in ("images", "labels"):
            (folder / part / split).mkdir(parents=True)
        for index in range(count):
            image = np.zeros((48, 64, 3), dtype=np.uint8)
            x, y = (int(value) for value in generator.integers(2, 24, 2))
            image[y : y + 20, x : x + 24] = 255
            cv2.imwrite(str(folder / "images" / split / f"{index}.png"), image)
            box = ((x + 12) / 64, (y + 10) / 48, 24 / 64, 20 / 48)
            (folder / "labels" / split / f"{index}.txt").write_text(f"{index % 2} {' '.join(map(str, box))}\n")
    (folder / "data.yaml").write_text(f"path: {folder}\ntrain: images/train\nval: images/val\nnames: [left, right]\n")
    return folder


def detector(folder: Path, source: str = "yolo11s.pt") -> tuple[Family, Model]:
    family: Family = registry.build("families", "yolo", {"image_size": SIDE})
    model = family.load(source, "random", folder, 0)
    module = ultralytics_training.with_classes(model.module, {0: "left", 1: "right"})
    module.fuse(verbose=False)
    model.module = module.float().eval().requires_grad_(False)
    model.family_data = Architecture.of(model.module)
    model.weights = "local"
    model.folder = folder
    family.samples(model, "data.yaml", folder, None, 0)
    return family, model


def test_boxes_are_where_the_squares_are(shapes: Path) -> None:
    family, model = detector(shapes, "yolo11n.pt")
    (batch,) = family.labelled(model, 1, 0, 4)
    assert batch.batch.shape == (4, 3, SIDE, SIDE)
    for index, (x, y, width, height) in enumerate(batch.targets["bboxes"].tolist()):
        x1, x2 = (round((x + side * width / 2) * SIDE) for side in (-1, 1))
        y1, y2 = (round((y + side * height / 2) * SIDE) for side in (-1, 1))
        inside = batch.batch[index, 0, y1 + 1 : y2 - 1, x1 + 1 : x2 - 1]
        assert float(inside.min()) > 0.9
    assert batch.targets["batch_idx"].tolist() == [0, 1, 2, 3]
    assert set(batch.targets["cls"].flatten().tolist()) <= {0.0, 1.0}


def test_the_loss_on_true_boxes_is_that_of_ultralytics(shapes: Path) -> None:
    from ultralytics.utils import DEFAULT_CFG
    from ultralytics.utils.loss import v8DetectionLoss

    family, model = detector(shapes, "yolo11n.pt")
    (batch,) = family.labelled(model, 1, 0, 4)
    with torch.no_grad():
        output, loss = family.forward_labelled(model, batch)
        model.module.args = DEFAULT_CFG
        predicted = model.module(batch.batch)
        expected, _ = v8DetectionLoss(model.module)(predicted, dict(batch.targets))
    torch.testing.assert_close(loss, expected.sum() / 4)
    torch.testing.assert_close(output, predicted[0])


def test_a_detector_learns_true_boxes(shapes: Path) -> None:
    family, model = detector(shapes, "yolo11n.pt")
    (batch,) = family.labelled(model, 1, 0, 8)
    losses = []
    for _ in range(2):  # at first no place is assigned to a box, and the loss is small
        registry.build("methods", "fine_tune", {"steps": 25, "learning_rate": 1e-3, "batch_size": 8}).compress(
            model, family
        )
        with torch.no_grad():
            losses.append(float(family.forward_labelled(model, batch)[1]))
    assert losses[1] < losses[0]


@pytest.mark.parametrize("weight_of_labels", [0.0, 0.5])
def test_a_smaller_detector_learns_from_a_larger_one(weight_of_labels: float, shapes: Path) -> None:
    family, model = detector(shapes)
    student = distilled(
        family, model, student="yolo11n.pt", student_weights="random", steps=3, batch_size=2, labels=weight_of_labels
    )
    assert student.data_as(Architecture).names == {0: "left", 1: "right"}
    with torch.no_grad():
        assert family.forward(student, family.batch(student, 1, 0)).shape[1] == 6
    assert student.facts["student"].startswith("yolo11n.pt, ")
    assert student.facts["training"].startswith("3 steps of 2 ")


def test_the_loss_on_another_detector_is_0_for_its_own_output() -> None:
    raw = torch.rand(2, 6, 21)
    raw[:, 2:4] += 1
    assert float(ultralytics_training.imitation_loss(raw, raw, 2)) == pytest.approx(0, abs=1e-4)
    moved = raw.clone()
    moved[:, 0] += 0.3
    assert float(ultralytics_training.imitation_loss(moved, raw, 2)) > 0.1
    unsure = raw.clone()
    unsure[:, 4:] = 1e-6
    assert float(ultralytics_training.imitation_loss(moved, unsure, 2)) < float("inf")


def test_where_a_detector_has_no_student_the_reason_is_given(shapes: Path) -> None:
    family, model = detector(shapes, "yolo11n.pt")
    with pytest.raises(Unsupported, match=r"name another model, student=yolo11n.pt. Or use prune_structured"):
        distilled(family, model)
    with pytest.raises(Unsupported, match=r"the student yolo11n-seg.pt has the task segment, the original detect"):
        distilled(family, model, student="yolo11n-seg.pt", student_weights="random")
