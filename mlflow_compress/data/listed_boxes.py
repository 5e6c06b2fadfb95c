"""Layouts of data sets whose files list pictures with their boxes, in pixels: COCO, Pascal VOC and WIDER FACE.

COCO: `annotations/instances_val2017.json` and pictures beside `annotations`, or one such file. Crowds are left out.

Pascal VOC: the folders `Annotations` and `JPEGImages`, and splits in `ImageSets/Main`. Difficult objects are left out.

WIDER FACE: `wider_face_val_bbx_gt.txt`, in the data's folder or below it, and pictures in `WIDER_val/images`. Invalid
faces are left out.

Sources: ultralytics' converters of COCO and VOC leave out the same objects, and those without an area; the coordinates
of VOC are those of its development kit, which counts pixels from 1 and includes the last one; the readme of WIDER FACE.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow_compress.data.data_files import data_files, find_file, index_files, is_file
from mlflow_compress.data.media import ADVICE, Picture
from mlflow_compress.data.text_files import read_text
from mlflow_compress.data.unique_keys import mapping_of
from mlflow_compress.errors import RecipeError, one_line

Box = tuple[int, float, float, float, float]  # class, left, top, right, bottom
_COCO = re.compile(r"(?:instances_|image_info_)?(?P<split>train|val|valid|test)(?:-?dev)?\d*", re.IGNORECASE)
_ROBOFLOW = "_annotations.coco.json"  # in the folder of a split, with its pictures
_WIDER = re.compile(r"wider_face_(?P<split>train|val|test)_bbx_gt", re.IGNORECASE)
_VALIDATION = "val"
_FACE = "face"
_NUMBERS = 4  # of a box; WIDER FACE adds six marks, of which the fourth means an invalid face
_INVALID = 7
_MARKS = 10
_MOST_BYTES = 2**20  # of the labels of one picture


class Sections(ABC):
    """The content of a data set.

    Attributes:
        splits: names of its splits.
    """

    splits: tuple[str, ...]

    @property
    @abstractmethod
    def names(self) -> Mapping[int, str]:
        """Names of the classes, by number."""

    @abstractmethod
    def pictures(self, split: str) -> list[tuple[Path, str]]:
        """Return the pictures of a split, each with the file that lists it, for messages."""

    @abstractmethod
    def boxes(self, picture: Path, split: str) -> Sequence[Box]:
        """Return the boxes of a picture.

        Raises:
            RecipeError: they can't be read.
        """

    def has_boxes(self, split: str) -> bool:
        """Return whether the pictures of a split have labels."""
        return True


def find(path: Path) -> Sections | None:
    """Return the content of a file or folder in one of the layouts; None if it has another one.

    Raises:
        RecipeError: its files can't be read.
    """
    suffix = path.suffix.lower()
    if path.is_file() and suffix == ".json":
        return Coco({_VALIDATION: path})
    if path.is_file() and suffix == ".txt" and _WIDER.fullmatch(path.stem):
        return WiderFace({_VALIDATION: path})
    if not path.is_dir():
        return None
    if (path / "Annotations").is_dir() and (path / "JPEGImages").is_dir():
        return PascalVoc(path)
    annotations = path / "annotations"
    files = {file.stem: file for file in sorted(annotations.glob("*.json"))} if annotations.is_dir() else {}
    files |= {file.parent.name: file for file in sorted(path.glob(f"*/{_ROBOFLOW}"))}
    if by_split := {_split(match): file for name, file in files.items() if (match := _COCO.fullmatch(name))}:
        return Coco(by_split)
    lists = {file.stem: file for file in data_files(path) if file.suffix.lower() == ".txt"}
    by_split = {_split(match): file for name, file in lists.items() if (match := _WIDER.fullmatch(name))}
    return WiderFace(by_split) if by_split else None


def _split(match: re.Match[str]) -> str:
    split = match["split"].lower()
    return _VALIDATION if split.startswith(_VALIDATION) else split


class Coco(Sections):
    """JSON files in COCO's format, by split."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files
        self._contents: dict[Path, tuple[dict[int, str], dict[Path, list[Box] | str]]] = {}
        self.splits = tuple(files)

    @property
    def names(self) -> Mapping[int, str]:
        """Names of the classes, by number (see `Sections`)."""
        return self._content(_VALIDATION if _VALIDATION in self._files else self.splits[0])[0]

    def pictures(self, split: str) -> list[tuple[Path, str]]:
        """Return the pictures of a split (see `Sections`)."""
        return [(picture, f"{self._files[split]}: ") for picture in self._content(split)[1]]

    def boxes(self, picture: Path, split: str) -> Sequence[Box]:
        """Return the boxes of a picture (see `Sections`)."""
        boxes = self._content(split)[1][picture]
        if isinstance(boxes, str):
            raise RecipeError(boxes)
        return boxes

    def has_boxes(self, split: str) -> bool:
        """Return whether a split has labels: those of COCO's test pictures are not public."""
        return any(self._content(split)[1].values())

    def _content(self, split: str) -> tuple[dict[int, str], dict[Path, list[Box] | str]]:
        file = self._files[split]
        if file not in self._contents:
            self._contents[file] = _read_coco(file)
        return self._contents[file]


def _read_coco(file: Path) -> tuple[dict[int, str], dict[Path, list[Box] | str]]:
    """Return the classes of a file, and the boxes of each picture, or the reason why they can't be read.

    Raises:
        RecipeError: it is not in COCO's format.
    """
    try:
        content = json.loads(read_text(file))
        categories = mapping_of(
            ((int(entry["id"]), str(entry["name"])) for entry in content.get("categories", [])), "id"
        )
        images = mapping_of(((entry["id"], str(entry["file_name"])) for entry in content["images"]), "id")
        annotations = list(content.get("annotations", []))
    except KeyError as error:
        raise RecipeError(
            f"{file} is not in COCO's format (images, annotations, categories): {error.args[0]!r} is missing."
        ) from error
    except (ArithmeticError, AttributeError, RecursionError, TypeError, ValueError) as error:
        raise RecipeError(
            f"{file} is not in COCO's format (images, annotations, categories): {one_line(error)}"
        ) from error
    root = file.parent.parent if file.parent.name.lower() == "annotations" else file.parent
    place = _places(root, *_folders_of(file.stem.removeprefix("instances_")))
    places = {number: place(name) for number, name in images.items()}
    classes = {identifier: number for number, identifier in enumerate(sorted(categories))}
    boxes: dict[Path, list[Box] | str] = {path: [] for path in places.values()}
    for position, annotation in enumerate(annotations, 1):
        location = f"{file}, annotation {position}"
        try:
            if int(annotation.get("iscrowd") or 0):
                continue
            if missing := [key for key in ("image_id", "category_id", "bbox") if key not in annotation]:
                raise ValueError(f"it has no {missing[0]}")
            if (image := annotation["image_id"]) not in places:
                raise ValueError(f"no image has the id {image!r:.60}")
            path, category = places[image], int(annotation["category_id"])
            left, top, width, height = _four(annotation["bbox"])
        except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
            raise RecipeError(
                f"{location}: it must have the image_id of a picture, a category_id, and a bbox [x, y, width, height]: "
                f"{one_line(error)}"
            ) from error
        listed = boxes[path]
        if category not in classes:
            boxes[path] = f"{location}: there is no category {category}; the file names {len(classes)}. {ADVICE}"
        elif width < 0 or height < 0:
            boxes[path] = f"{location}: the box has the negative size {width:g} x {height:g}. {ADVICE}"
        elif width and height and isinstance(listed, list):  # COCO itself has boxes without an area
            listed.append((classes[category], left, top, left + width, top + height))
    return {number: categories[identifier] for identifier, number in classes.items()}, boxes


def _four(numbers: Any) -> list[float]:
    """Return the numbers of a box.

    Raises:
        TypeError: they are not a list of numbers.
        ValueError: they are not four finite numbers.
    """
    values = _finite(numbers)
    if len(values) != _NUMBERS:
        raise ValueError(f"a box has {_NUMBERS} numbers, not {len(values)}")
    return values


def _finite(numbers: Any) -> list[float]:
    """Return a list of numbers as floats.

    Raises:
        TypeError: it is not a list of numbers.
        ValueError: one is not a finite number.
    """
    if not isinstance(numbers, list):
        raise TypeError(f"{numbers!r:.60} is not a list")
    values = list(map(float, numbers))
    if not all(map(math.isfinite, values)):
        raise ValueError(f"{', '.join(map(str, values))} are not all finite")
    return values


def _folders_of(split: str) -> tuple[str, ...]:
    """Return the usual folders for the pictures of a split."""
    return split, f"images/{split}"


def _places(root: Path, *folders: str) -> Callable[[str], Path]:
    """Return a function that finds a picture by its name; without such a picture, it returns where it would be.

    Args:
        root: folder where names start.
        folders: folders below it; pictures are looked for in the first that exists, or else in all folders.
    """
    folder = next((root / name for name in folders if (root / name).is_dir()), root)
    index = index_files(folder, Picture.suffixes, Picture.seldom_read)

    def place(name: str) -> Path:
        if is_file(path := root / name):
            return path
        try:
            return find_file(name, folder, index)
        except RecipeError:
            return folder / name

    return place


class PascalVoc(Sections):
    """A folder in the layout of Pascal VOC."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        lists = sorted((folder / "ImageSets" / "Main").glob("*.txt"))
        self._lists = {path.stem: path for path in lists if path.stem in ("train", _VALIDATION, "test")}
        self.splits = tuple(self._lists) or (_VALIDATION,)
        self._picture = _places(folder / "JPEGImages")

    @functools.cached_property
    def names(self) -> Mapping[int, str]:
        """Names of the classes in all labels, by number (see `Sections`)."""
        names: set[str] = set()
        for label in self._labels():
            with contextlib.suppress(RecipeError):  # reported with its picture
                names |= {name for name, _ in _objects(label)}
        return dict(enumerate(sorted(names)))

    def pictures(self, split: str) -> list[tuple[Path, str]]:
        """Return the pictures of a split (see `Sections`)."""
        if (path := self._lists.get(split)) is None:
            return [(self._picture(label.stem), f"{label}: ") for label in self._labels()]
        lines = [line.split() for line in read_text(path).split("\n")]
        return [(self._picture(words[0]), f"{path}, line {row}: ") for row, words in enumerate(lines, 1) if words]

    def boxes(self, picture: Path, split: str) -> Sequence[Box]:
        """Return the boxes of a picture (see `Sections`)."""
        numbers = {name: number for number, name in self.names.items()}
        label = self._folder / "Annotations" / f"{picture.stem}.xml"
        if not label.is_file():
            raise RecipeError(f"{picture}: there is no {label}. {ADVICE}")
        return [(numbers[name], *box) for name, box in _objects(label)]

    def _labels(self) -> list[Path]:
        return sorted((self._folder / "Annotations").glob("*.xml"))


def _objects(label: Path) -> tuple[tuple[str, tuple[float, float, float, float]], ...]:
    """Return the name and the box (left, top, right, bottom) of each object that is not difficult.

    Raises:
        RecipeError: the file can't be read.
    """
    from xml.etree import ElementTree as ET

    text = read_text(label)
    if len(text) > _MOST_BYTES or "<!DOCTYPE" in text:  # only a document type can declare entities
        raise RecipeError(f"{label}: it is too large, or has a document type, which may declare entities. {ADVICE}")
    try:
        root = ET.fromstring(text)  # noqa: S314  (documents with entities are rejected)
        return tuple(_of_elements(root))
    except (ET.ParseError, ValueError, TypeError) as error:
        raise RecipeError(f"{label} is not in the format of Pascal VOC: {one_line(error)}. {ADVICE}") from error


def _of_elements(root: Any) -> Iterator[tuple[str, tuple[float, float, float, float]]]:
    for element in root.iter("object"):
        if int(element.findtext("difficult") or 0):
            continue
        if not (name := (element.findtext("name") or "").strip()):
            raise ValueError("an object has no name")
        sides = [element.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
        if None in sides:
            raise ValueError(f"the object {name!r} has no bndbox with xmin, ymin, xmax and ymax")
        left, top, right, bottom = _finite(sides)
        if right < left or bottom < top:
            raise ValueError(
                f"the box of {name!r} has xmax {right:g} < xmin {left:g}"
                if right < left
                else f"the box of {name!r} has ymax {bottom:g} < ymin {top:g}"
            )
        # the first pixel has number 1, and the box includes its last pixel
        yield name, (left - 1, top - 1, right, bottom)


class WiderFace(Sections):
    """Lists in the format of WIDER FACE, by split."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files
        self._contents: dict[Path, dict[Path, tuple[int, list[Box]]]] = {}
        self.splits = tuple(files)

    @property
    def names(self) -> Mapping[int, str]:
        """The only class (see `Sections`)."""
        return {0: _FACE}

    def pictures(self, split: str) -> list[tuple[Path, str]]:
        """Return the pictures of a split (see `Sections`)."""
        file = self._files[split]
        return [(picture, f"{file}, line {line}: ") for picture, (line, _) in self._content(split).items()]

    def boxes(self, picture: Path, split: str) -> Sequence[Box]:
        """Return the boxes of a picture (see `Sections`)."""
        return self._content(split)[picture][1]

    def _content(self, split: str) -> dict[Path, tuple[int, list[Box]]]:
        file = self._files[split]
        if file not in self._contents:
            self._contents[file] = _read_wider(file)
        return self._contents[file]


def _read_wider(file: Path) -> dict[Path, tuple[int, list[Box]]]:
    """Return the line and the boxes of each picture in a list.

    Raises:
        RecipeError: a line can't be read.
    """
    is_inside = any(word in file.parent.name.lower() for word in ("split", "annotation"))  # wider_face_split
    root = file.parent.parent if is_inside else file.parent
    split = match["split"].lower() if (match := _WIDER.fullmatch(file.stem)) else ""
    place = _places(root, f"WIDER_{split}/images")
    lines = [(number, line.split()) for number, line in enumerate(read_text(file).split("\n"), 1) if line.strip()]
    listed: dict[Path, tuple[int, list[Box]]] = {}
    position = 0
    while position < len(lines):
        line, words = lines[position]
        try:
            announced = " ".join(lines[position + 1][1]) if position + 1 < len(lines) else "nothing"
            if not re.fullmatch(r"-?\d+", announced):
                raise ValueError(f"{announced!r:.60} is not a number of faces")
            count = int(announced)
            if count < 0:
                raise ValueError(f"it announces {count} faces")
            rows = lines[position + 2 : position + 2 + count]
            if len(rows) < count:
                raise ValueError(f"it announces {count} faces, and {len(rows)} follow")
            faces = (_face(row) for _, row in rows)
            listed[place(" ".join(words))] = line, [box for box in faces if box is not None]
        except ValueError as error:
            raise RecipeError(
                f"{file}, line {line}: after a picture come the number of its faces and one line of numbers for each: "
                f"{one_line(error)}"
            ) from error
        position += 2 + count
        if not count and position < len(lines) and {*lines[position][1]} == {"0"}:
            position += 1  # a picture without a face has a line of zeros
    return listed


def _face(words: Sequence[str]) -> Box | None:
    """Return a box; None if it is invalid."""
    left, top, width, height = _four(words[:_NUMBERS])
    if len(words) >= _MARKS and words[_INVALID] != "0":
        return None
    if width < 0 or height < 0:
        raise ValueError(f"a face has the negative size {width:g} x {height:g}")
    if not width or not height:  # WIDER FACE itself has such faces
        return None
    return 0, left, top, left + width, top + height
