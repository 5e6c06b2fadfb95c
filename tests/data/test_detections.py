"""A data set of boxes: its description, its labels, and what is told of wrong ones."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from boxed import write
from ultralytics.utils import LOGGER

from mlflow_compress.data import detections
from mlflow_compress.errors import RecipeError


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> None:
    LOGGER.setLevel("ERROR")


@pytest.mark.parametrize(
    ("labels", "boxes"),
    [
        ("0 0.5 0.5 0.2 0.4\n1 0.25 0.5 0.5 1\n", [[0, 0.4, 0.3, 0.6, 0.7], [1, 0, 0, 0.5, 1]]),
        ("1 0.1 0.2 0.5 0.2 0.3 0.9", [[1, 0.1, 0.2, 0.5, 0.9]]),
        ("\ufeff0 0.5 0.5 0.2 0.4\n\n0 0.5 0.5 0.2 0.4", [[0, 0.4, 0.3, 0.6, 0.7]]),
    ],
)
def test_boxes_and_outlines_are_read(tmp_path: Path, labels: str, boxes: list[list[float]]) -> None:
    table, names = detections.read("d.yaml", write(tmp_path, labels), None, 0)
    assert names == {0: "cat", 1: "dog"}
    assert table.rows[0].values["image"].size == (80, 40)
    assert table.rows[0].values["boxes"] == [pytest.approx(box) for box in boxes]


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ("0 0.5 0.5 0.2", "line 1: a box is four numbers"),
        ("0 0.5 0.5 0.2 0.1\n0 x 0 0 0", "line 2: '0 x 0 0 0' are not all numbers"),
        ("2 0.5 0.5 0.2 0.4", "there is no class 2"),
        ("0.5 0.5 0.5 0.2 0.4", "there is no class 0.5"),
        ("0 50 50 20 40", "from 0 to 1"),
        (None, "has a box"),
    ],
)
def test_labels_that_are_none_are_told(tmp_path: Path, labels: str | None, told: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(told)):
        detections.read("d.yaml", write(tmp_path, labels), None, 0)


@pytest.mark.parametrize(
    ("text", "data", "told"),
    [
        ("val: gone\nnames: [a]", "d.yaml", "not there"),
        ("names: [a]", "d.yaml", "has no split 'test'"),
        ("val: images\nnames: [a]", "d.yaml:split=train", "has no split 'train'"),
        ("val: images", "d.yaml", "is no data.yaml"),
        ("[1, 2]", "d.yaml", "is no data.yaml"),
        ("a: [", "d.yaml", "is no data.yaml"),
        ("", "gone.yaml", "not there"),
        ("", "images", "is none"),
    ],
)
def test_descriptions_that_are_none_are_told(tmp_path: Path, text: str, data: str, told: str) -> None:
    write(tmp_path)
    (tmp_path / "d.yaml").write_text(text)
    with pytest.raises(RecipeError, match=re.escape(told)):
        detections.read(data, tmp_path, None, 0)


def test_the_test_split_is_taken_where_it_has_labels(tmp_path: Path) -> None:
    write(tmp_path, more="test: held.txt")
    (tmp_path / "held.txt").write_text("./other/b.png\n")
    (tmp_path / "other").mkdir()
    cv2.imwrite(str(tmp_path / "other" / "b.png"), np.zeros((9, 9, 3), dtype=np.uint8))
    assert detections.read("d.yaml", tmp_path, None, 0)[0].source == "d.yaml:split=val"
    (tmp_path / "other" / "b.txt").write_text("1 0.5 0.5 1 1")
    assert detections.read("d.yaml", tmp_path, None, 0)[0].source == "d.yaml"


def test_code_in_a_description_is_not_run(tmp_path: Path) -> None:
    write(tmp_path, more=f"download: open('{tmp_path}/run', 'w')\n")
    detections.read("d.yaml", tmp_path, None, 0)
    assert not (tmp_path / "run").exists()
