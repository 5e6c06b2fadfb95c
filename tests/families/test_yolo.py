"""Compare with ultralytics' validator on a small labelled data set."""

from __future__ import annotations

import dataclasses
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from boxed import write
from ultralytics.models import YOLO
from ultralytics.utils import LOGGER

from mlflow_compress import registry
from mlflow_compress.data import detections
from mlflow_compress.errors import RecipeError, Unsupported, WeightsError
from mlflow_compress.measuring import output_error, worker
from mlflow_compress.networks import model_folder
from mlflow_compress.networks.ultralytics_architecture import Architecture
from mlflow_compress.planning.chains import parse_chain
from mlflow_compress.records import Variant
from mlflow_compress.scoring.hf_evaluate import metrics_of
from mlflow_compress.sockets import Family, Model

SIDE = 64


COUNT = 8


TASKS = {
    "detect": "yolo11n.pt",
    "segment": "yolo11n-seg.pt",
    "classify": "yolo11n-cls.pt",
    "pose": "yolo11n-pose.pt",
    "obb": "yolo11n-obb.pt",
}


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> None:
    LOGGER.setLevel("ERROR")


def loaded(task: str, **options: Any) -> tuple[Family, Model]:
    family: Family = registry.build("families", "yolo", {"image_size": SIDE, **options})
    return family, family.load(TASKS[task], "random", Path(), 0)


def photo(seed: int) -> Any:
    generator = np.random.default_rng(seed)
    height, width = generator.integers(30, 150, 2)
    coarse = generator.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return cv2.resize(coarse, (int(width), int(height)), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def detector() -> tuple[Family, Model]:
    """Return a detector with random weights that finds objects everywhere, in a few classes."""
    return tuned("detect")


def tuned(task: str) -> tuple[Family, Model]:
    """Make random weights react to images: otherwise every image has the same output."""
    family, model = loaded(task)
    generator = torch.Generator().manual_seed(1)
    for layer in model.module.modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.weight.requires_grad is False:
            fan_in = layer.weight[0].numel()
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * (2.2 / fan_in) ** 0.5)
    head = model.module.model[-1]
    head.dfl.conv.weight.copy_(torch.arange(16.0).view(1, 16, 1, 1))
    steep = 0.2 if task == "segment" else 0.7  # masks have a quarter of the pixels
    bins = -steep * torch.arange(16.0).repeat(4)  # distances to the sides, mostly short
    likely = torch.where(torch.arange(head.nc) % 20 == 0, -3.0, -30.0)  # only a few classes
    for branch, bias in (*((part, bins) for part in head.cv2), *((part, likely) for part in head.cv3)):
        branch[-1].bias.copy_(bias)
    if task == "segment":  # masks fill their boxes
        for layer, value in (*((part[-1], 1.0) for part in head.cv4), (head.proto.cv3.conv, 1.0)):
            layer.weight.zero_()
            layer.bias.fill_(value)
    return family, model


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, detector: tuple[Family, Model]) -> Path:
    """Write a data set whose true boxes are near some of the detector's boxes: scores are neither 0 nor 1."""
    folder = tmp_path_factory.mktemp("boxes")
    write_data(folder, *detector, rectangle)
    return folder


Label = Callable[[dict[str, Any], int, Any, np.random.Generator], list[float]]


def rectangle(answer: dict[str, Any], index: int, size: Any, generator: np.random.Generator) -> list[float]:
    """Return the outline of a box, a little moved."""
    x1, y1, x2, y2 = np.clip(np.array(answer["boxes"][index]) / ([*size] * 2), 0, 1)
    x1, y1, x2, y2 = np.clip(np.array([x1, y1, x2, y2]) + generator.normal(0, 0.02, 4), 0, 1).round(6)
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def triangle(answer: dict[str, Any], index: int, size: Any, generator: np.random.Generator) -> list[float]:
    """Return an outline that covers most of a box."""
    corners = np.array(rectangle(answer, index, size, generator)).reshape(4, 2)
    middle = (corners[2] + corners[3]) / 2
    return [float(value) for point in (corners[0], corners[1], corners[2], middle) for value in point]


def skeleton(answer: dict[str, Any], index: int, size: Any, generator: np.random.Generator) -> list[float]:
    """Return a box with its keypoints, a little moved; some are not visible."""
    corners = np.array(rectangle(answer, index, size, generator)).reshape(4, 2)
    box = [*corners[[0, 2]].mean(0), *np.abs(corners[2] - corners[0])]
    points = np.array(answer["keypoints"][index])
    points[:, :2] = np.clip(points[:, :2] / [*size] + generator.normal(0, 0.004, (len(points), 2)), 0, 1)
    points[:, 2] = generator.integers(0, 3, len(points))
    return [*box, *points.ravel().round(6)]


def corners_of(answer: dict[str, Any], index: int, size: Any, generator: np.random.Generator) -> list[float]:
    """Return the corners of a rotated box, a little moved."""
    x, y, width, height, angle = np.array(answer["rotated_boxes"][index])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [width / 2, height / 2] @ turn + [x, y]
    return list(np.clip(corners / [*size] + generator.normal(0, 0.01, 2), 0, 1).ravel().round(6))


def even_photo(seed: int) -> Any:
    """Return a photo whose sides are whole pixels in the square, too."""
    return cv2.resize(photo(seed), (SIDE, SIDE // 2 + seed % 20) if seed % 2 else (SIDE + 2 * (seed % 20), 2 * SIDE))


def write_data(
    folder: Path, family: Family, model: Model, label: Label, more: str = "", drawn: Callable[[int], Any] = photo
) -> None:
    """Write a data set whose labels are near some of a model's answers."""
    generator = np.random.default_rng(0)
    names = model.data_as(Architecture).names
    numbers = {name: number for number, name in names.items()}
    for split in ("train", "val"):
        for part in ("images", "labels"):
            (folder / part / split).mkdir(parents=True)
        for index in range(COUNT):
            image = drawn(index + 100 * (split == "train"))
            path = folder / "images" / split / f"{index}.png"
            cv2.imwrite(str(path), image)
            (answer,) = family.answers(model, [str(path)])
            lines = []
            for box in range(0, min(12, len(answer["labels"]) * (index % 4)), 3):
                values = label(answer, box, image.shape[1::-1], generator)
                lines.append(" ".join(map(str, [numbers[answer["labels"][box]], *values])))
            if lines:
                (folder / "labels" / split / f"{index}.txt").write_text("\n".join([*lines, lines[0]]))
    listed = "".join(f"  {number}: {name}\n" for number, name in names.items())
    (folder / "data.yaml").write_text(f"path: {folder}\ntrain: images/train\nval: images/val\nnames:\n{listed}{more}")


def validated(model: Model, task: str, data: Path, folder: Path) -> dict[str, float]:
    """Return the results of ultralytics' validator for a model."""
    yolo: Any = YOLO(TASKS[task].replace(".pt", ".yaml"), task=task)
    yolo.model = model.module
    yolo.model.args = {"task": task}
    results = yolo.val(
        data=str(data),
        imgsz=SIDE,
        rect=False,
        batch=1,
        plots=False,
        verbose=False,
        device="cpu",
        project=str(folder),
    )
    return dict(results.results_dict)


def scores(family: Family, model: Model, data: str, folder: Path, *names: str) -> dict[str, float]:
    samples = family.samples(model, data, folder, None, 0)
    predictions = family.answers(model, [sample.inputs for sample in samples])
    references = [sample.reference for sample in samples]
    return {name: metric.compute(references, predictions) for name, metric in metrics_of(names, folder).items()}


@pytest.mark.parametrize(
    ("task", "label", "more", "letter", "prefix"),
    [
        ("segment", triangle, "", "M", "mask"),
        ("pose", skeleton, "kpt_shape: [17, 3]\n", "P", "keypoint"),
        ("pose", skeleton, f"kpt_shape: [17, 3]\nkpt_oks_sigmas: {[0.2] * 17}\n", "P", "keypoint"),
        ("obb", corners_of, "", "B", "obb"),
    ],
)
def test_further_shapes_are_scored_like_ultralytics(
    task: str, label: Label, more: str, letter: str, prefix: str, tmp_path: Path
) -> None:
    family, model = tuned(task)
    # ultralytics measures the distances of keypoints in the square, where it rounds the sides of a photo; this package
    # measures them in the photo
    write_data(tmp_path, family, model, label, more, even_photo if task == "pose" else photo)
    ours = scores(family, model, "data.yaml", tmp_path, *family.metrics_for(model))
    theirs = validated(model, task, tmp_path / "data.yaml", tmp_path)
    expected = {
        f"{prefix}_map50": theirs[f"metrics/mAP50({letter})"],
        f"{prefix}_map50_95": theirs[f"metrics/mAP50-95({letter})"],
    }
    assert {name: ours[name] for name in expected} == pytest.approx(expected, abs=1e-3)
    assert 0.01 < ours[f"{prefix}_map50_95"] < ours[f"{prefix}_map50"] < 0.98
    if prefix != "obb":
        assert ours["map50"] == pytest.approx(theirs["metrics/mAP50(B)"], abs=1e-3)


def test_labels_of_another_shape_are_rejected(tmp_path: Path) -> None:
    family, model = tuned("pose")
    folder = write(tmp_path, "0 0.5 0.5 0.2 0.4")
    model.data_as(Architecture).names = {0: "cat", 1: "dog"}
    with pytest.raises(RecipeError, match=r"a.txt, line 1: 0 numbers .* kpt_shape of data.yaml, which is missing"):
        family.samples(model, "d.yaml", folder, None, 0)
    (folder / "d.yaml").write_text("val: images\nnames: [cat, dog]\nkpt_shape: [2, 2]")
    (folder / "labels" / "a.txt").write_text("0 0.5 0.5 0.2 0.4 0.1 0.2 -0.005 0.4")
    with pytest.raises(RecipeError, match=r"its objects have 2 keypoints \(kpt_shape\), the model finds 17"):
        family.samples(model, "d.yaml", folder, None, 0)
    row = detections.read("d.yaml", folder, None, 0, "keypoints")[0].rows[0]
    assert row.values["keypoints"] == [[0.1, 0.2, 1.0, -0.005, 0.4, 0.0]]
    [box] = detections.read("d.yaml", folder, None, 0)[0].rows[0].values["boxes"]
    assert box == pytest.approx([0, 0.4, 0.3, 0.6, 0.7])
    (folder / "labels" / "a.txt").write_text("0 0.1 0.1 0.2 0.1 0.2 0.2")
    with pytest.raises(RecipeError, match="a rotated box four pairs"):
        detections.read("d.yaml", folder, None, 0, "corners")
    (folder / "labels" / "a.txt").write_text("0 0.5 0.5 0.2 0.4")
    with pytest.raises(RecipeError, match=r"needs its outline \(x y x y ...\), not a box"):
        detections.read("d.yaml", folder, None, 0, "outlines")


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_boxes_are_scored_like_ultralytics(
    task: str, detector: tuple[Family, Model], data: Path, tmp_path: Path
) -> None:
    family, model = detector if task == "detect" else tuned(task)
    ours = scores(family, model, "data.yaml", data, "map50", "map50_95", "box_precision", "box_recall")
    theirs = validated(model, task, data / "data.yaml", tmp_path)
    expected = {
        "map50": theirs["metrics/mAP50(B)"],
        "map50_95": theirs["metrics/mAP50-95(B)"],
        "box_precision": theirs["metrics/precision(B)"],
        "box_recall": theirs["metrics/recall(B)"],
    }
    assert ours == pytest.approx(expected, abs=1e-3)
    if task == "detect":
        assert 0.05 < ours["map50_95"] < ours["map50"] < 0.95


def test_a_classifier_is_scored_like_ultralytics(tmp_path: Path) -> None:
    family, model = loaded("classify")
    names = model.data_as(Architecture).names
    answered = {index: family.answers(model, [photo(index)])[0] for index in range(12)}
    numbers = {name: number for number, name in names.items()}
    for index, ranking in answered.items():
        label = ranking[0] if index % 3 == 0 else ranking[3] if index % 3 == 1 else names[0]
        folder = tmp_path / "data" / "val" / f"{numbers[label]}"
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{index}.png"), photo(index))
    shutil.copytree(tmp_path / "data" / "val", tmp_path / "data" / "train")  # the validator requires one
    model.module.names = {number: str(number) for number in names}
    model.data_as(Architecture).names = dict(model.module.names)
    ours = scores(family, model, "data:split=val", tmp_path, "accuracy", "top5_accuracy")
    theirs = validated(model, "classify", tmp_path / "data", tmp_path)
    expected = {"accuracy": theirs["metrics/accuracy_top1"], "top5_accuracy": theirs["metrics/accuracy_top5"]}
    assert ours == pytest.approx(expected, abs=1e-3)
    assert 0 < ours["accuracy"] < ours["top5_accuracy"] < 1


@pytest.mark.parametrize(
    ("task", "classes", "parameters"),
    [("detect", 80, 2_616_248), ("segment", 80, 2_868_664), ("pose", 1, 2_866_468), ("obb", 15, 2_656_648)],
)
def test_random_weights_have_the_classes_of_the_released_ones(task: str, classes: int, parameters: int) -> None:
    _, model = loaded(task)
    assert len(model.data_as(Architecture).names) == model.module.model[-1].nc == classes
    assert sum(weight.numel() for weight in model.module.parameters()) == parameters  # as in the recipes


@pytest.mark.parametrize("task", TASKS)
def test_outlines_and_labels(task: str) -> None:
    family, model = loaded(task) if task == "classify" else tuned(task)
    family.confidence = 0.01  # type: ignore[attr-defined]
    (prediction,) = family.predict(model, [photo(3)])
    if task == "classify":
        assert prediction in model.data_as(Architecture).names.values()
        assert family.classes(model) == 1000
        return
    shapes = {"detect": {"boxes"}, "segment": {"boxes", "outlines"}, "pose": {"boxes", "keypoints"}}
    assert set(prediction) == {"scores", "labels"} | shapes.get(task, {"rotated_boxes"})
    assert len({len(values) for values in prediction.values()}) == 1
    if task == "pose":
        assert np.shape(prediction["keypoints"])[1:] == (17, 3)
    if task == "obb":
        assert np.shape(prediction["rotated_boxes"])[1:] == (5,)


def test_calibration_is_the_training_split(detector: tuple[Family, Model], data: Path) -> None:
    family, model = detector
    (data / "images" / "train" / "copy.png").write_bytes((data / "images" / "val" / "0.png").read_bytes())
    family.samples(model, "data.yaml", data, None, 0)
    batches = family.calibration(model, 3, 0, size=4)
    assert [batch.shape for batch in batches] == [(4, 3, SIDE, SIDE)] * 3
    assert not model.cautions
    drawn = detections.training("data.yaml", data, frozenset(), 99, 0)
    assert len(set(drawn)) == COUNT + 1
    held_out = frozenset(row.values["image"].digest() for row in detections.read("data.yaml", data, None, 0)[0].rows)
    sampled = detections.training("data.yaml", data, held_out, 99, 0)
    assert len(sampled) == 99
    assert {path.name for path in set(sampled)} == {f"{index}.png" for index in range(COUNT)}
    assert {path.parent.name for path in sampled} == {"train"}


def test_without_training_images_calibration_is_random_and_says_so(detector: tuple[Family, Model], data: Path) -> None:
    family, model = detector
    text = (data / "data.yaml").read_text().replace("train: images/train\n", "")
    (data / "untrained.yaml").write_text(text)
    family.samples(model, "untrained.yaml", data, None, 0)
    family.calibration(model, 1, 0)
    assert [caution.code for caution in model.cautions] == ["random_calibration"]
    model.cautions.clear()


def test_a_limit_takes_a_part(detector: tuple[Family, Model], data: Path) -> None:
    family, model = detector
    inputs = [sample.inputs for sample in family.samples(model, "data.yaml", data, None, 0)]
    digest = model.facts["data_digest"]
    limited = [sample.inputs for sample in family.samples(model, "data.yaml", data, 5, 0)]
    assert len(inputs) == COUNT
    assert len(limited) == 5
    assert set(limited) < set(inputs)
    assert limited == [sample.inputs for sample in family.samples(model, "data.yaml", data, 6, 0)][:5]
    assert model.facts["data_digest"] != digest
    assert model.facts["data_source"] == "data.yaml:split=val"


def test_classes_of_the_data_are_the_models(tmp_path: Path, detector: tuple[Family, Model]) -> None:
    family, trained = detector
    data = dataclasses.replace(trained.data_as(Architecture), names={0: "person", 1: "dog", 2: "cat"})
    model = dataclasses.replace(trained, family_data=data, facts={})
    (sample,) = family.samples(model, "d.yaml", write(tmp_path), None, 0)
    assert sample.reference["labels"] == ["cat"]  # number 0 of the data, 2 of the model
    assert sample.reference["boxes"] == [pytest.approx([32, 12, 48, 28])]
    (tmp_path / "d.yaml").write_text("val: images\nnames: [cat, unicorn]")
    with pytest.raises(RecipeError, match="they do not match"):
        family.samples(model, "d.yaml", tmp_path, None, 0)
    (tmp_path / "d.yaml").write_text("val: images\nnames: [katze, hund, pferd]")  # as many: by their numbers
    (sample,) = family.samples(model, "d.yaml", tmp_path, None, 0)
    assert sample.reference["labels"] == ["person"]


@pytest.mark.parametrize(
    "task", ["segment", "classify", *(pytest.param(task, marks=pytest.mark.extra) for task in ("pose", "obb"))]
)
@pytest.mark.parametrize("chain", ["bf16", "onnx", "torchscript", "int8_weight_only", "prune_structured"])
def test_what_is_restored_is_what_was_saved(task: str, chain: str, tmp_path: Path) -> None:
    options = {"image_size": SIDE}
    variant = Variant("y", chain, "t", "yolo", TASKS[task], "random", chain=parse_chain(chain), options=options)
    if chain == "prune_structured":
        with pytest.raises(Unsupported, match="only detectors of plain boxes"):
            worker.prepare(variant, tmp_path, worker.Report(io.StringIO()))
        return
    worker.prepare(variant, tmp_path, worker.Report(io.StringIO()))
    restored = model_folder.restore(tmp_path / worker.MODEL_FOLDER)
    output_error.compare(restored.family, restored.model, variant, tmp_path / worker.OUTPUTS, "cpu")
    assert len(restored.family.predict(restored.model, [photo(0), photo(1)])) == 2
    with torch.inference_mode():
        for call in restored.family.around(restored.model, 2, 0).values():
            call()


def test_other_tasks_are_rejected() -> None:
    with pytest.raises(WeightsError, match="has the task depth"):
        registry.build("families", "yolo").load("yolo26n-depth.pt", "random", Path(), 0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 90), (90, 1)])
def test_pictures_of_one_pixel_are_detected_in(detector: tuple[Family, Model], shape: tuple[int, int]) -> None:
    family, model = detector
    photos = [np.full((*shape, 3), 90, np.uint8)]
    (answer,) = family.answers(model, photos)  # for scoring, boxes are not cut at the border
    assert len(answer["boxes"]) == len(answer["scores"]) > 0
    assert np.isfinite(answer["boxes"]).all()
    reporting: Family = registry.build("families", "yolo", {"image_size": SIDE, "confidence": 0.001})
    (prediction,) = reporting.predict(model, photos)
    boxes = np.array(prediction["boxes"])
    assert len(boxes) > 0
    assert (boxes >= -1e-3).all()
    assert (boxes <= np.array([shape[1], shape[0]] * 2) + 1e-3).all()
