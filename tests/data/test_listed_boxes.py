"""Data sets of boxes in the layouts of COCO, Pascal VOC and WIDER FACE: the same picture and boxes in each."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datafiles import write
from PIL import Image

from mlflow_compress.data import detections
from mlflow_compress.errors import RecipeError

WIDTH, HEIGHT = 80, 40
DOG, CAT = [8, 4, 40, 20], [0, 0, 80, 40]  # left, top, right, bottom


def photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(path)


def annotation(box: list[int], category: int, image: int = 1, **fields: Any) -> dict[str, Any]:
    left, top, right, bottom = box
    return {"image_id": image, "category_id": category, "bbox": [left, top, right - left, bottom - top], **fields}


def coco_json(*annotations: dict[str, Any], **fields: Any) -> str:
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}]
    categories = [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}]
    return json.dumps({"images": images, "categories": categories, "annotations": list(annotations), **fields})


def coco(folder: Path) -> str:
    for split in ("train", "val"):
        for name in ("a", "b"):
            photo(folder / "coco" / f"{split}2017" / f"{name}.jpg")
        kept = [annotation(DOG, 18), annotation(CAT, 17)] if split == "val" else [annotation(CAT, 18)]
        crowd = annotation([1, 1, 9, 9], 18, iscrowd=1)
        text = coco_json(*kept, crowd, annotation([5, 5, 5, 9], 17))
        write(folder / "coco" / "annotations" / f"instances_{split}2017.json", text)
        write(folder / "coco" / "annotations" / f"captions_{split}2017.json", "{}")
    return "coco"


def roboflow(folder: Path) -> str:
    for split in ("train", "valid"):
        for name in ("a", "b"):
            photo(folder / "rf" / split / f"{name}.jpg")
        kept = [annotation(DOG, 18), annotation(CAT, 17)] if split == "valid" else [annotation(CAT, 18)]
        write(folder / "rf" / split / "_annotations.coco.json", coco_json(*kept))
    return "rf"


def voc_xml(*objects: tuple[str, list[int], int]) -> str:
    texts = [
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{left + 1}</xmin><ymin>{top + 1}"
        f"</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
        for name, (left, top, right, bottom), difficult in objects
    ]
    return f"<annotation><folder>VOC2007</folder><!-- by hand -->{''.join(texts)}</annotation>"


def voc(folder: Path) -> str:
    root = folder / "VOC2007"
    for name in ("a", "b", "c"):
        photo(root / "JPEGImages" / f"{name}.jpg")
    write(root / "Annotations" / "a.xml", voc_xml(("dog", DOG, 0), ("cat", CAT, 0), ("dog", [1, 1, 9, 9], 1)))
    write(root / "Annotations" / "b.xml", voc_xml())
    write(root / "Annotations" / "c.xml", voc_xml(("dog", CAT, 0)))
    write(root / "ImageSets" / "Main" / "val.txt", "a\nb\n")
    write(root / "ImageSets" / "Main" / "train.txt", "c\n")
    write(root / "ImageSets" / "Main" / "dog_val.txt", "a 1\nb -1\n")
    return "VOC2007"


@pytest.mark.parametrize("layout", [coco, roboflow, voc])
def test_pictures_and_boxes_are_read(tmp_path: Path, layout: Callable[[Path], str]) -> None:
    source = layout(tmp_path)
    table, names = detections.read(source, tmp_path, None, 0)
    assert sorted(names.values()) == ["cat", "dog"]
    assert sorted(names) == [0, 1]
    assert [Path(row.values["path"]).name for row in table.rows] == ["a.jpg", "b.jpg"]
    boxes = {names[number]: places for number, *places in table.rows[0].values["boxes"]}
    assert boxes == {"dog": pytest.approx([0.1, 0.1, 0.5, 0.5]), "cat": [0, 0, 1, 1]}
    assert table.rows[1].values["boxes"] == []
    assert table.source == f"{source}:split=val"
    assert len(detections.read(f"{source}:limit=1", tmp_path, None, 0)[0].rows) == 1
    drawn = detections.training(source, tmp_path, frozenset(), 3, 0)
    assert {path.name for path in drawn} <= {"a.jpg", "b.jpg", "c.jpg"}
    assert {"train" in path.parts[-2] or path.name == "c.jpg" for path in drawn} == {True}
    with pytest.raises(RecipeError, match=r"has no split 'nope'\. Use one of split=train, split=val"):
        detections.read(f"{source}:split=nope", tmp_path, None, 0)


def test_one_file_of_coco_is_a_data_set(tmp_path: Path) -> None:
    coco(tmp_path)
    table, _ = detections.read("coco/annotations/instances_val2017.json", tmp_path, None, 0)
    assert [len(row.values["boxes"]) for row in table.rows] == [2, 0]
    photo(tmp_path / "mine" / "images" / "a.jpg")
    photo(tmp_path / "mine" / "b.jpg")
    write(tmp_path / "mine" / "labels.json", coco_json(annotation(DOG, 18)))
    table, _ = detections.read("mine/labels.json", tmp_path, None, 0)
    assert sorted(len(row.values["boxes"]) for row in table.rows) == [0, 1]
    assert detections.training("mine/labels.json", tmp_path, frozenset(), 2, 0) == []


WIDER = """0--Parade/0_Parade_1.jpg
2
8 4 32 16 0 0 0 0 0 0
1 1 8 8 2 0 0 1 2 0
1--Handshaking/b.jpg
0
0 0 0 0 0 0 0 0 0 0
1--Handshaking/c.jpg
1
0 0 80 40 0 0 0 0 0 0
"""


@pytest.mark.parametrize("source", ["wider", "wider/wider_face_split/wider_face_val_bbx_gt.txt"])
def test_faces_are_read(tmp_path: Path, source: str) -> None:
    for name in ("0--Parade/0_Parade_1.jpg", "1--Handshaking/b.jpg", "1--Handshaking/c.jpg"):
        photo(tmp_path / "wider" / "WIDER_val" / "images" / name)
    write(tmp_path / "wider" / "wider_face_split" / "wider_face_val_bbx_gt.txt", WIDER)
    table, names = detections.read(source, tmp_path, None, 0)
    assert names == {0: "face"}
    assert [row.values["boxes"] for row in table.rows] == [
        [[0, *map(pytest.approx, (0.1, 0.1, 0.5, 0.5))]],
        [],
        [[0, 0, 0, 1, 1]],
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", r"a\.json is not in COCO's format \(images, annotations, categories\)"),
        ('{"images": [{"id": 1}]}', "is not in COCO's format"),
        (
            coco_json({"image_id": 9, "category_id": 18, "bbox": [0, 0, 1, 1]}),
            "annotation 1: it must have the image_id",
        ),
        (coco_json({"image_id": 1, "category_id": 18, "bbox": [0, 0, 1]}), "annotation 1: it must have the image_id"),
        (coco_json(annotation(DOG, 99)), r"annotation 1: there is no category 99; the file names 2\. Fix it"),
        (coco_json(), "no picture in its split 'val' has a box"),
    ],
)
def test_invalid_files_of_coco_are_reported(tmp_path: Path, text: str, message: str) -> None:
    photo(tmp_path / "a.jpg")
    photo(tmp_path / "b.jpg")
    write(tmp_path / "a.json", text)
    with pytest.raises(RecipeError, match=message):
        detections.read("a.json", tmp_path, None, 0)


def test_a_picture_that_is_missing_is_reported_or_skipped(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    write(tmp_path / "a.json", coco_json(annotation(DOG, 18)))
    with pytest.raises(RecipeError, match=r"a\.json: there is no picture .*b\.jpg.*skip_bad=true"):
        detections.read("a.json", tmp_path, None, 0)
    table, _ = detections.read("a.json:skip_bad=true", tmp_path, None, 0)
    assert (len(table.rows), len(table.skipped)) == (1, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation>", r"a\.xml is not in the format of Pascal VOC"),
        ("<annotation><object><name>dog</name></object></annotation>", r"a\.xml is not in the format of Pascal VOC"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', r"a\.xml: it is too large, or has a document type, which may"),
    ],
)
def test_invalid_files_of_voc_are_reported(tmp_path: Path, text: str, message: str) -> None:
    voc(tmp_path)
    write(tmp_path / "VOC2007" / "Annotations" / "a.xml", text)
    with pytest.raises(RecipeError, match=message):
        detections.read("VOC2007", tmp_path, None, 0)


def test_voc_without_lists_and_without_a_label(tmp_path: Path) -> None:
    voc(tmp_path)
    for path in (tmp_path / "VOC2007" / "ImageSets" / "Main").iterdir():
        path.unlink()
    assert len(detections.read("VOC2007", tmp_path, None, 0)[0].rows) == 3
    write(tmp_path / "VOC2007" / "ImageSets" / "Main" / "test.txt", "a\nb\n")
    (tmp_path / "VOC2007" / "Annotations" / "b.xml").unlink()
    with pytest.raises(RecipeError, match=r"b\.jpg: there is no .*b\.xml"):
        detections.read("VOC2007", tmp_path, None, 0)


@pytest.mark.parametrize("text", ["a.jpg\nx\n", "a.jpg\n", "a.jpg\n2\n1 2 3 4\n", "a.jpg\n1\n1 2 3\n"])
def test_invalid_lists_of_faces_are_reported(tmp_path: Path, text: str) -> None:
    photo(tmp_path / "a.jpg")
    write(tmp_path / "wider_face_val_bbx_gt.txt", text)
    with pytest.raises(RecipeError, match=r"gt\.txt, line 1: after a picture come the number of its faces"):
        detections.read("wider_face_val_bbx_gt.txt", tmp_path, None, 0)


ANNOTATION = annotation(DOG, 18)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"annotations": None}, r"not in COCO's format .*NoneType"),
        ({"annotations": 5}, r"not in COCO's format .*int"),
        ({"categories": [{"id": float("inf"), "name": "dog"}]}, r"not in COCO's format .*infinity"),
        ({"annotations": [{**ANNOTATION, "category_id": float("inf")}]}, r"annotation 1: .*infinity"),
        ({"annotations": [{**ANNOTATION, "bbox": [float("nan"), 1, 2, 2]}]}, r"annotation 1: .*not all finite"),
        ({"annotations": [{**ANNOTATION, "bbox": [1, 1, float("inf"), 2]}]}, r"annotation 1: .*not all finite"),
        ({"annotations": [{**ANNOTATION, "bbox": [1, 1, 10**400, 2]}]}, r"annotation 1: .*too large"),
        ({"annotations": [{**ANNOTATION, "bbox": "1234"}]}, r"annotation 1: .*'1234' is not a list"),
        (
            {"annotations": [{**ANNOTATION, "bbox": [80, 4, 9, 9]}]},
            r"\(80, 4\) to \(89, 13\) lies outside",
        ),
        ({"images": [{"id": 1, "file_name": "a" * 5000}]}, "there is no picture"),
    ],
)
def test_annotations_that_are_not_boxes_are_named(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    photo(tmp_path / "a.jpg")
    photo(tmp_path / "b.jpg")
    write(tmp_path / "x.json", coco_json(**{"annotations": [ANNOTATION], **fields}))
    with pytest.raises(RecipeError, match=message):
        detections.read("x.json", tmp_path, None, 0)


def test_a_crowd_may_be_written_as_text(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    photo(tmp_path / "b.jpg")
    write(tmp_path / "x.json", coco_json(annotation(DOG, 18, iscrowd="0"), annotation(CAT, 17, iscrowd="1")))
    table, _ = detections.read("x.json", tmp_path, None, 0)
    assert [len(row.values["boxes"]) for row in table.rows] == [1, 0]


OBJECT = voc_xml(("dog", DOG, 0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation>" + "<!--" * 250_000, "is not in the format of Pascal VOC"),
        (OBJECT.replace("<name>dog</name>", ""), "an object has no name"),
        (OBJECT.replace("<xmax>", "<right>").replace("</xmax>", "</right>"), "'dog' has no bndbox with xmin"),
        (OBJECT.replace("<xmax>40<", "<xmax>inf<"), "not all finite"),
        (OBJECT.replace("<xmin>9<", "<xmin>800<").replace("<xmax>40<", "<xmax>900<"), "lies outside the picture"),
    ],
)
def test_labels_of_voc_that_are_not_boxes_are_named(tmp_path: Path, text: str, message: str) -> None:
    root = tmp_path / Path(voc(tmp_path))
    write(root / "Annotations" / "a.xml", text)
    start = time.monotonic()
    with pytest.raises(RecipeError, match=message):
        detections.read("VOC2007", tmp_path, None, 0)
    assert time.monotonic() - start < 5


def test_names_in_voc_may_be_character_data(tmp_path: Path) -> None:
    root = tmp_path / voc(tmp_path)
    write(root / "Annotations" / "c.xml", OBJECT.replace("<name>dog<", "<name><![CDATA[fox]]><"))
    assert set(detections.read("VOC2007", tmp_path, None, 0)[1].values()) == {"cat", "dog", "fox"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg\n-1\n0 0 1 1\n", "line 1: .*it announces -1 faces"),
        ("a.jpg\n1\nnan 0 1 1 0 0 0 0 0 0\n", "line 1: .*not all finite"),
        ("a" * 5000 + "\n1\n0 0 1 1 0 0 0 0 0 0\n", "line 1: there is no picture"),
    ],
)
def test_faces_that_are_not_boxes_are_named(tmp_path: Path, text: str, message: str) -> None:
    photo(tmp_path / "a.jpg")
    write(tmp_path / "wider_face_val_bbx_gt.txt", text)
    with pytest.raises(RecipeError, match=message):
        detections.read("wider_face_val_bbx_gt.txt", tmp_path, None, 0)


def test_a_picture_without_faces_needs_no_line_of_zeros(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        photo(tmp_path / name)
    write(tmp_path / "wider_face_val_bbx_gt.txt", "a.jpg\n0\nb.jpg\n1\n0 0 80 40 0 0 0 0 0 0\n")
    table, _ = detections.read("wider_face_val_bbx_gt.txt", tmp_path, None, 0)
    assert [row.values["boxes"] for row in table.rows] == [[], [[0, 0, 0, 1, 1]]]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"annotations": [{**ANNOTATION, "bbox": [9, 9, -5, 5]}]},
            r"annotation 1: the box has the negative size -5 x 5",
        ),
        ({"annotations": [{**ANNOTATION, "bbox": [9, 9, 5]}]}, r"annotation 1: .*a box has 4 numbers, not 3$"),
        ({"annotations": [{**ANNOTATION, "image_id": 77}]}, r"annotation 1: .*no image has the id 77$"),
        (
            {"images": [{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}]},
            r"the id 1 stands for both 'a\.jpg' and 'b\.jpg'",
        ),
    ],
)
def test_malformed_entries_of_coco_are_named(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    photo(tmp_path / "a.jpg")
    photo(tmp_path / "b.jpg")
    write(tmp_path / "x.json", coco_json(**{"annotations": [ANNOTATION], **fields}))
    with pytest.raises(RecipeError, match=message):
        detections.read("x.json", tmp_path, None, 0)


def test_a_reversed_box_of_voc_is_named(tmp_path: Path) -> None:
    root = tmp_path / voc(tmp_path)
    write(root / "Annotations" / "a.xml", OBJECT.replace("<xmax>40<", "<xmax>4<"))
    with pytest.raises(RecipeError, match=r"a\.xml .*the box of 'dog' has xmax 4 < xmin 9"):
        detections.read("VOC2007", tmp_path, None, 0)
