"""Semantic segmentation: classes of pixels, mIoU, and data."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TINY, tiny_model

from mlflow_compress import registry
from mlflow_compress.data import segmentations
from mlflow_compress.errors import RecipeError
from mlflow_compress.measuring import output_error, worker
from mlflow_compress.networks import model_folder
from mlflow_compress.planning.chains import parse_chain
from mlflow_compress.records import Variant
from mlflow_compress.scoring import bootstrap
from mlflow_compress.scoring.pixels import decoded, encoded

CLASSES = 3


def write(folder: Path, *, masks: str = "masks", split: str = "", count: int = 3) -> list[Any]:
    """Write pictures with masks of random classes; return the masks."""
    generator = np.random.default_rng(0)
    written = []
    for index in range(count):
        picture, mask = folder / "images" / split / f"{index}.jpg", folder / masks / split / f"{index}.png"
        for path in (picture, mask):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (24, 40, 3), dtype=np.uint8)).save(picture)
        pixels = np.kron(generator.integers(0, CLASSES, (3, 4)), np.ones((8, 10))).astype(np.uint8)
        pixels[0, :5] = 255
        Image.fromarray(pixels).save(mask)
        written.append(pixels)
    return written


def test_miou_is_that_of_the_whole_data() -> None:
    true = [np.array([[0, 0], [1, 255]]), np.array([[2, 2], [1, 1]])]
    predicted = [np.array([[0, 1], [1, 1]]), np.array([[2, 0], [1, 1]])]
    metric = registry.build("metrics", "miou")
    references = [{"pixels": pixels} for pixels in true]
    predictions = [{"pixels": encoded(pixels)} for pixels in predicted]
    # class 0: 1 of 3, class 1: 3 of 4, class 2: 1 of 2
    assert metric.compute(references, predictions) == pytest.approx((1 / 3 + 3 / 4 + 1 / 2) / 3)
    assert registry.build("metrics", "pixel_accuracy").compute(references, predictions) == pytest.approx(5 / 7)
    scores = bootstrap.score({"miou": metric}, references, predictions, 0)
    assert scores.numbers()["quality/miou"] == pytest.approx((1 / 3 + 3 / 4 + 1 / 2) / 3)
    with pytest.raises(ValueError, match="every pixel of the references is left out"):
        metric.compute([{"pixels": [[255]]}], [{"pixels": [[0]]}])
    with pytest.raises(ValueError, match=r"a reference of \(1, 1\) pixels, but a prediction of \(2, 2\)"):
        metric.compute([{"pixels": [[0]]}], [{"pixels": predicted[0]}])


@pytest.mark.parametrize("pixels", [[[1, 1], [2, 0]], [[7]], np.zeros((3, 4)), np.arange(12).reshape(3, 4)])
def test_runs_hold_every_pixel(pixels: Any) -> None:
    assert np.array_equal(decoded(encoded(pixels)), pixels)
    with pytest.raises(ValueError, match="in its runs"):
        decoded({"size": [9, 9], "runs": [1, 2]})


def test_a_model_is_scored_on_pictures_and_masks(tmp_path: Path) -> None:
    family, model = tiny_model("semantic_segmentation")
    masks = write(tmp_path / "data")
    samples = family.samples(model, "data", tmp_path, None, 0)
    pairs = zip(samples, masks, strict=True)
    assert all(np.array_equal(decoded(sample.reference["pixels"]), mask) for sample, mask in pairs)
    answers = family.answers(model, [sample.inputs for sample in samples])
    predicted = np.stack([decoded(answer["pixels"]) for answer in answers])
    assert predicted.shape == (3, 24, 40)
    true = np.stack(masks)
    is_scored = true != 255
    unions = [((true == number) | (predicted == number)) & is_scored for number in range(CLASSES)]
    shared = [((true == number) & (predicted == number)) & is_scored for number in range(CLASSES)]
    expected = np.mean([part.sum() / whole.sum() for part, whole in zip(shared, unions, strict=True) if whole.any()])
    metric = registry.build("metrics", "miou")
    assert metric.compute([sample.reference for sample in samples], answers) == pytest.approx(expected)


def test_predictions_are_those_of_transformers(tmp_path: Path) -> None:
    family, model = tiny_model("semantic_segmentation")
    write(tmp_path)
    path = tmp_path / "images" / "0.jpg"
    (prediction,) = family.predict(model, [path])
    processor = model.family_data.processor  # type: ignore[attr-defined]
    size = {"height": 64, "width": 64}
    inputs = processor(images=Image.open(path).convert("RGB"), return_tensors="pt", size=size)
    with torch.inference_mode():
        output = model.module(inputs["pixel_values"])
    (expected,) = processor.post_process_semantic_segmentation(output, target_sizes=[(24, 40)])
    assert np.array_equal(prediction, expected.numpy())


def test_reduced_labels_are_one_less(tmp_path: Path) -> None:
    family, model = tiny_model("semantic_segmentation")
    (mask, *_) = write(tmp_path, masks="annotations", split="validation")
    (tmp_path / "images" / "training").mkdir()
    (tmp_path / "annotations" / "training").mkdir()
    model.family_data.processor.do_reduce_labels = True  # type: ignore[attr-defined]
    samples = family.samples(model, ".:split=val", tmp_path, None, 0)
    pixels = decoded(samples[0].reference["pixels"])
    assert np.array_equal(pixels, np.where((mask == 0) | (mask == 255), 255, mask.astype(int) - 1))


def test_bad_masks_are_rejected(tmp_path: Path) -> None:
    family, model = tiny_model("semantic_segmentation")
    write(tmp_path, count=1)
    path = tmp_path / "masks" / "0.png"
    Image.fromarray(np.full((24, 40), 9, np.uint8)).save(path)
    with pytest.raises(RecipeError, match=r"0.png has pixels of the class 9; the model has 3 classes, from 0 to 2"):
        family.samples(model, ".", tmp_path, None, 0)
    Image.fromarray(np.zeros((24, 41), np.uint8)).save(path)
    with pytest.raises(RecipeError, match="has 41 x 24 pixels, but its picture has 40 x 24"):
        segmentations.read(".", tmp_path, None, 0)
    Image.fromarray(np.zeros((24, 40, 3), np.uint8)).save(path)
    with pytest.raises(RecipeError, match="its pixels have mode RGB: a mask has one channel"):
        segmentations.read(".", tmp_path, None, 0)
    path.rename(tmp_path / "masks" / "other.png")
    with pytest.raises(RecipeError, match="has a mask with its name"):
        segmentations.read(".", tmp_path, None, 0)
    (tmp_path / "masks" / "other.png").unlink()
    (tmp_path / "masks").rmdir()
    with pytest.raises(RecipeError, match="needs a folder of pictures"):
        segmentations.read(".", tmp_path, None, 0)
    with pytest.raises(RecipeError, match="is not a folder"):
        segmentations.read("gone", tmp_path, None, 0)


def test_training_pictures_calibrate(tmp_path: Path) -> None:
    family, model = tiny_model("semantic_segmentation")
    write(tmp_path, split="val")
    write(tmp_path, split="train", count=5)
    family.samples(model, ".:split=val", tmp_path, 2, 0)
    assert [batch.shape for batch in family.calibration(model, 2, 0, size=2)] == [(2, 3, 64, 64)] * 2
    assert not model.cautions


@pytest.mark.parametrize("chain", ["bf16", "onnx", "openvino", "prune_magnitude:amount=0.5"])
def test_what_is_restored_is_what_was_saved(chain: str, tmp_path: Path) -> None:
    options = TINY["semantic_segmentation"]
    variant = Variant(
        "s", chain, "t", "semantic_segmentation", "tiny", "random", chain=parse_chain(chain), options=options
    )
    worker.prepare(variant, tmp_path, worker.Report(io.StringIO()))
    restored = model_folder.restore(tmp_path / worker.MODEL_FOLDER)
    output_error.compare(restored.family, restored.model, variant, tmp_path / worker.OUTPUTS, "cpu")
    (prediction,) = restored.family.predict(restored.model, [np.zeros((20, 40, 3), np.uint8)])
    assert prediction.shape == (20, 40)


def test_masks_that_are_no_pictures_are_named(tmp_path: Path) -> None:
    write(tmp_path / "data", count=1)
    (tmp_path / "data" / "masks" / "0.png").write_bytes(b"none")
    with pytest.raises(RecipeError, match=r"0\.png can't be read as a mask: it is empty, damaged, or in a format"):
        segmentations.read("data", tmp_path, None, 0)
    with pytest.raises(RecipeError, match=r"no sample in data:skip_bad=true: the first of 1 reasons: .*0\.png"):
        segmentations.read("data:skip_bad=true", tmp_path, None, 0)
    with pytest.raises(RecipeError, match="data is not divided into splits: leave out split=train"):
        segmentations.read("data:split=train", tmp_path, None, 0)
