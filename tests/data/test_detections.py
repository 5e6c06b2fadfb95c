"""Data sets of boxes: descriptions, labels, and errors for wrong ones."""

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
    ("labels", "message"),
    [
        ("0 0.5 0.5 0.2", "line 1: after the class, a box has four numbers"),
        ("0 0.5 0.5 0.2 0.1\n0 x 0 0 0", "line 2: '0 x 0 0 0' are not all numbers"),
        ("2 0.5 0.5 0.2 0.4", "there is no class 2"),
        ("0.5 0.5 0.5 0.2 0.4", "there is no class 0.5"),
        ("nan 0.5 0.5 0.2 0.4", "there is no class nan"),
        ("inf 0.5 0.5 0.2 0.4", "there is no class inf"),
        ("0 50 50 20 40", "from 0 to 1"),
        (None, "has a box"),
    ],
)
def test_invalid_labels_are_reported(tmp_path: Path, labels: str | None, message: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        detections.read("d.yaml", write(tmp_path, labels), None, 0)


@pytest.mark.parametrize(
    ("text", "data", "message"),
    [
        ("val: gone\nnames: [a]", "d.yaml", "not exist"),
        ("val: [5]\nnames: [a]", "d.yaml", "not exist"),
        ("val: images\nnames: dog", "d.yaml", "'dog', not a list"),
        ("val: images\nnames: {a: dog}", "d.yaml", "'a'"),
        ("val: images\nnames: {.inf: dog}", "d.yaml", "infinity"),
        ("val: images\nnames: [a]\nkpt_shape: [-1, 3]", "d.yaml", "kpt_shape is [-1, 3]"),
        ("val: images\nnames: [a]\nkpt_shape: [2, 7]", "d.yaml", "kpt_shape is [2, 7]"),
        ("val: images\nnames: [a]\nkpt_shape: [2, 3]\nkpt_oks_sigmas: [1]", "d.yaml", "must be 2 positive numbers"),
        ("val: images\nnames: [a]\nkpt_shape: [1, 3]\nkpt_oks_sigmas: [0]", "d.yaml", "must be 1 positive numbers"),
        ("names: [a]", "d.yaml", "has no split 'test'"),
        ("val: images\nnames: [a]", "d.yaml:split=train", "has no split 'train'"),
        ("val: images", "d.yaml", "is not a data.yaml"),
        ("[1, 2]", "d.yaml", "is not a data.yaml"),
        ("a: [", "d.yaml", "is not a data.yaml"),
        ("", "gone.yaml", "not exist"),
        ("", "images", "is not one"),
    ],
)
def test_invalid_descriptions_are_reported(tmp_path: Path, text: str, data: str, message: str) -> None:
    write(tmp_path)
    (tmp_path / "d.yaml").write_text(text)
    with pytest.raises(RecipeError, match=re.escape(message)):
        detections.read(data, tmp_path, None, 0)


def test_the_test_split_is_used_if_it_has_labels(tmp_path: Path) -> None:
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


def with_second(folder: Path, picture: bytes | None = None, labels: str = "1 0.5 0.5 1 1") -> Path:
    """Add a second picture, `b.png`, to the data set with one picture."""
    write(folder)
    valid = cv2.imencode(".png", np.zeros((40, 80, 3), dtype=np.uint8))[1].tobytes()
    (folder / "images" / "b.png").write_bytes(valid if picture is None else picture)
    (folder / "labels" / "b.txt").write_text(labels, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("picture", "labels", "message"),
    [
        (b"no picture", "1 0.5 0.5 1 1", "b.png can't be read as a picture: it is empty, damaged"),
        (b"", "1 0.5 0.5 1 1", "b.png can't be read as a picture: it is empty, damaged"),
        (None, "7 0.5 0.5 1 1", "b.txt, line 1: there is no class 7; data.yaml names 2, from 0 to 1"),
        (None, "1 0.5 0.5 3 1\n", "b.txt, line 1: coordinates must be fractions"),
    ],
)
def test_bad_pictures_and_labels_are_reported_or_skipped(
    tmp_path: Path, picture: bytes | None, labels: str, message: str
) -> None:
    with_second(tmp_path, picture, labels)
    with pytest.raises(RecipeError, match=re.escape(message) + r".*skip_bad=true\."):
        detections.read("d.yaml", tmp_path, None, 0)
    table, _ = detections.read("d.yaml:skip_bad=true", tmp_path, None, 0)
    assert [Path(row.where).name for row in table.rows] == ["a.png"]
    assert len(table.skipped) == 1
    assert message in table.skipped[0]


def test_a_picture_that_ends_early_is_skipped(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8)
    with_second(tmp_path, cv2.imencode(".png", noise)[1].tobytes()[:2000])
    table, _ = detections.read("d.yaml:skip_bad=true,limit=1", tmp_path, None, 1)  # whichever comes first
    assert [Path(row.where).name for row in table.rows] == ["a.png"]


@pytest.mark.parametrize("place", [".ipynb_checkpoints/a-checkpoint.png", "._a.png", "__MACOSX/a.png", ".hidden/a.png"])
def test_files_of_editors_and_systems_are_not_pictures(tmp_path: Path, place: str) -> None:
    write(tmp_path)
    stray = tmp_path / "images" / place
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes((tmp_path / "images" / "a.png").read_bytes())
    table, _ = detections.read("d.yaml", tmp_path, None, 0)
    assert [row.where for row in table.rows] == [str(tmp_path / "images" / "a.png")]


def test_a_list_names_the_line_of_a_picture_that_is_not_there(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "d.yaml").write_text("val: val.txt\nnames: [cat, dog]\n")
    (tmp_path / "val.txt").write_text("./images/a.png\n\n./images/gone.png\n")
    with pytest.raises(RecipeError, match=r"val\.txt, line 3: there is no picture .*gone\.png"):
        detections.read("d.yaml", tmp_path, None, 0)


def test_a_list_with_a_missing_picture_stays_the_split_that_is_scored(tmp_path: Path) -> None:
    with_second(tmp_path)
    (tmp_path / "d.yaml").write_text("train: t.txt\nval: images\ntest: t.txt\nnames: [cat, dog]\n")
    (tmp_path / "t.txt").write_text("./images/gone.png\n./images/b.png\n")
    with pytest.raises(RecipeError, match=r"t\.txt, line 1: there is no picture .*gone\.png.*skip_bad=true"):
        detections.read("d.yaml", tmp_path, None, 0)
    with pytest.raises(RecipeError, match=r"t\.txt, line 1: there is no picture"):
        detections.training("d.yaml", tmp_path, frozenset(), 2, 0)
    table, _ = detections.read("d.yaml:skip_bad=true", tmp_path, None, 0)
    assert [Path(row.where).name for row in table.rows] == ["b.png"]
    assert "split=val" not in table.source
    assert "gone.png" in table.skipped[0]
    drawn = detections.training("d.yaml:skip_bad=true", tmp_path, frozenset(), 2, 0)
    assert [path.name for path in drawn] == ["b.png", "b.png"]


def test_a_list_may_name_pictures_below_a_hidden_folder(tmp_path: Path) -> None:
    (tmp_path / ".cache").mkdir()
    write(tmp_path / ".cache")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "val.txt").write_text(f"{tmp_path}/.cache/images/a.png\n")
    (tmp_path / "d.yaml").write_text("val: lists/val.txt\nnames: [cat, dog]\n")
    table, _ = detections.read("d.yaml", tmp_path, None, 0)
    assert [Path(row.where).name for row in table.rows] == ["a.png"]


def test_labels_in_another_encoding_are_reported(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "labels" / "a.txt").write_bytes(b"0 0.5 0.5 0.2 0.4\n\xff\n")
    with pytest.raises(RecipeError, match=r"a\.txt, line 2: it is not UTF-8"):
        detections.read("d.yaml", tmp_path, None, 0)


def test_folders_that_roboflow_writes_as_above_are_found_beside(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "valid").mkdir()
    for part in ("images", "labels"):
        (tmp_path / part).rename(tmp_path / "valid" / part)
    (tmp_path / "d.yaml").write_text("val: ../valid/images\nnames: [cat, dog]\n")
    table, _ = detections.read("d.yaml", tmp_path, None, 0)
    assert table.rows[0].values["boxes"] == [pytest.approx([0, 0.4, 0.3, 0.6, 0.7])]
