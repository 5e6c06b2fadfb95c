"""Data sets of boxes: in ultralytics' layout, or in those of COCO, Pascal VOC and WIDER FACE (see `listed_boxes`).

In ultralytics' layout there are a YAML file, pictures, and a text file of labels for each picture. The YAML file has
`path` (the root), `train`, `val`, `test` (a folder of pictures, a list of them in a `.txt` file, or several of these)
and `names`. The labels of `images/a/1.jpg` are in `labels/a/1.txt`: each line has a class and a box (the centre's x and
y, width and height) or the corners of an outline (x y x y ...), all from 0 to 1. The outline of a rotated box has its
four corners. For poses, `kpt_shape` is the number of keypoints and of their values (2 or 3), which follow the box: x, y
and visibility. A picture without such a file has no boxes. Nothing is downloaded, and no code in the file is run. Files
that editors and operating systems leave in the folders are ignored (see `data_files`).
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from mlflow_compress.data import listed_boxes
from mlflow_compress.data.data_files import data_files, is_file, is_leftover
from mlflow_compress.data.datasets import Row, Table
from mlflow_compress.data.keys import require_applicable
from mlflow_compress.data.media import ADVICE, Picture, without_advice
from mlflow_compress.data.spec import Data, parse
from mlflow_compress.data.text_files import read_text
from mlflow_compress.errors import RecipeError, one_line
from mlflow_compress.untrusted_yaml import read_yaml

_MOST_BYTES = 2**20  # of a data.yaml: enough for thousands of names
SUFFIXES = frozenset({".yaml", ".yml"})
_TOLERANCE = 0.01  # beyond 0 and 1, as ultralytics allows
_VALIDATION, _SECOND_NAME = "val", "validation"
_CORNERS = 4  # of a rotated box
_WITH_VISIBILITY = 3  # values of a keypoint: x, y, visibility

Shape = Literal["boxes", "outlines", "corners", "keypoints"]


@dataclass(frozen=True)
class Boxes:
    """A data set's description.

    Attributes:
        path: path of the YAML file.
        root: folder where its paths start.
        names: names of the classes, by number.
        splits: paths of each split.
        keypoints: number of keypoints of an object, and of the values of each; None: it states none.
        sigmas: tolerance of each keypoint (`kpt_oks_sigmas`); empty: it states none.
    """

    path: Path
    root: Path
    names: Mapping[int, str]
    splits: Mapping[str, list[str]]
    keypoints: tuple[int, int] | None = field(default=None, kw_only=True)
    sigmas: tuple[float, ...] = field(default=(), kw_only=True)

    def split(self, wanted: str) -> str:
        """Return the split that a name means; `test` means `val` if there is no `test` with labels.

        Raises:
            RecipeError: there is no such split.
        """
        if wanted == "test" and not self._is_labelled(wanted) and _VALIDATION in self.splits:
            return _VALIDATION
        if wanted not in self.splits:
            raise RecipeError(f"{self.path} has no split {wanted!r}. Use one of split={', split='.join(self.splits)}.")
        return wanted

    def pictures(self, split: str) -> list[tuple[Path, str]]:
        """Return the pictures of a split, sorted by path, each with the list and line that name it, if any.

        Raises:
            RecipeError: a folder or a list does not exist or can't be read, or there is no picture.
        """
        for folder in self._places(split):
            if not folder.exists():
                raise RecipeError(f"{self.path} names {folder}, which does not exist.")
        pictures = self.present(split)
        if not pictures:
            raise RecipeError(f"{self.path}: there is no picture in its split {split!r}.")
        return pictures

    def present(self, split: str) -> list[tuple[Path, str]]:
        """Return what `pictures` returns, from the folders and lists that exist.

        Raises:
            RecipeError: a list can't be read.
        """
        return sorted(picture for folder in self._places(split) if folder.exists() for picture in _pictures(folder))

    def boxes(self, picture: Path, size: tuple[int, int], split: str) -> list[list[Any]]:
        """Return the boxes of a picture: [class, x1, y1, x2, y2], from 0 to 1.

        Args:
            picture: path of the picture.
            size: its width and height.
            split: its split.

        Raises:
            RecipeError: a label can't be read.
        """
        return [box for box, _ in _objects(picture, self, "boxes")]

    def objects(self, picture: Path, shape: Shape) -> list[tuple[list[Any], list[float]]]:
        """Return the box of each object of a picture, and the numbers of its shape.

        Raises:
            RecipeError: a label can't be read, or has another shape.
        """
        return _objects(picture, self, shape)

    def _places(self, split: str) -> list[Path]:
        return [_placed(self.root, entry) for entry in self.splits.get(split, ())]

    def _is_labelled(self, split: str) -> bool:
        return any(_labels_of(path).is_file() for path, _ in self.present(split))


@dataclass(frozen=True)
class Listed(Boxes):
    """A data set whose files list pictures with their boxes.

    Attributes:
        sections: its content.
    """

    sections: listed_boxes.Sections

    def pictures(self, split: str) -> list[tuple[Path, str]]:
        """Return the listed pictures (see `Boxes.pictures`).

        Raises:
            RecipeError: there is none.
        """
        if not (pictures := self.present(split)):
            raise RecipeError(f"{self.path}: there is no picture in its split {split!r}.")
        return pictures

    def present(self, split: str) -> list[tuple[Path, str]]:
        """Return the listed pictures, sorted by path, also missing ones, each with the file that lists it."""
        return sorted(self.sections.pictures(split)) if split in self.splits else []

    def boxes(self, picture: Path, size: tuple[int, int], split: str) -> list[list[Any]]:
        """Return the boxes of a picture (see `Boxes.boxes`)."""
        width, height = size
        boxes = self.sections.boxes(picture, split)
        for _, left, top, right, bottom in boxes:
            if left >= width or top >= height or right <= 0 or bottom <= 0:
                raise RecipeError(
                    f"{self.path}: the box from ({left:g}, {top:g}) to ({right:g}, {bottom:g}) lies outside the "
                    f"picture {picture}, which has {width} x {height} pixels. {ADVICE}"
                )
        return [
            [number, left / width, top / height, right / width, bottom / height]
            for number, left, top, right, bottom in boxes
        ]

    def objects(self, picture: Path, shape: Shape) -> list[tuple[list[Any], list[float]]]:
        """Reject shapes other than boxes (see `Boxes.objects`)."""
        raise RecipeError(
            f"{self.path} is read for its boxes only: give a data.yaml in ultralytics' format, with {shape} as labels."
        )

    def _is_labelled(self, split: str) -> bool:
        return split in self.splits and self.sections.has_boxes(split)


def describe(data: Data, folder: Path) -> Boxes:
    """Read the description of a data set.

    Raises:
        RecipeError: there is no such file, or it is not a description.
    """
    path = folder / data.source
    if (sections := listed_boxes.find(path)) is not None:
        return Listed(path, path, sections.names, {split: [str(path)] for split in sections.splits}, sections)
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        raise RecipeError(
            "A detector is scored on a data.yaml in ultralytics' format, or on data in the layout of COCO, Pascal VOC "
            f"or WIDER FACE; {path} is not one, or does not exist."
        )
    try:
        description = read_yaml(path, _MOST_BYTES)
        if not isinstance(description, Mapping) or "names" not in description:
            raise ValueError("it has no names")
        names = description["names"]
        if isinstance(names, str):
            raise TypeError(f"names is the text {names!r:.60}, not a list")
        names = names if isinstance(names, Mapping) else dict(enumerate(names))
        names = {int(number): str(name) for number, name in names.items()}
        splits = {
            _VALIDATION if key == _SECOND_NAME else key: [value] if isinstance(value, str) else [*map(str, value)]
            for key, value in description.items()
            if key in ("train", _VALIDATION, _SECOND_NAME, "test") and value
        }
        root = path.parent / str(description.get("path") or "")
        keypoints, sigmas = _keypoints(description.get("kpt_shape"), description.get("kpt_oks_sigmas"))
    except (ArithmeticError, KeyError, OSError, TypeError, ValueError) as error:
        raise RecipeError(f"{path} is not a data.yaml with names, train and val: {one_line(error)}") from error
    return Boxes(path, root, names, splits, keypoints=keypoints, sigmas=sigmas)


def _keypoints(shape: Any, sigmas: Any) -> tuple[tuple[int, int] | None, tuple[float, ...]]:
    """Return the number of keypoints with that of the values of each, and their tolerances.

    Raises:
        TypeError: they are not numbers.
        ValueError: they are other numbers than those of keypoints.
    """
    if not shape:
        return None, ()
    count, values = map(int, shape)
    if count < 1 or values not in (2, _WITH_VISIBILITY):
        raise ValueError(f"kpt_shape is {list(shape)}, not the number of keypoints and 2 or 3 values of each")
    tolerances = tuple(map(float, sigmas or ()))
    if tolerances and not (len(tolerances) == count and all(0 < sigma < math.inf for sigma in tolerances)):
        raise ValueError(f"kpt_oks_sigmas must be {count} positive numbers")
    return (count, values), tolerances


def read(
    text: str, folder: Path, limit: int | None, seed: int, shape: Shape = "boxes"
) -> tuple[Table, Mapping[int, str]]:
    """Read pictures with their boxes, or with other shapes.

    Returns:
        Rows with `image`, `path`, and `boxes` ([class, x1, y1, x2, y2], from 0 to 1); and the names of the classes.
        With another shape, rows have it too, one list of numbers for each box: `outlines` and `corners` x and y from 0
        to 1, `keypoints` x, y and visibility; with keypoints also `sigmas`, see `Boxes`.
        Without a limit, all pictures in order; with one, the first of the shuffled pictures. With `skip_bad=true`,
        pictures that can't be read, or whose labels can't, are skipped and reported.

    Raises:
        RecipeError: the data is not available, or a picture or a label can't be read.
    """
    data = parse(text)
    require_applicable(data, "boxes")
    described = describe(data, folder)
    split = described.split(data.split)
    paths = described.pictures(split)
    limit = data.limit if limit is None else limit
    if limit is not None and limit < len(paths):
        random.Random(seed).shuffle(paths)  # noqa: S311  (nothing secret)
    rows: list[Row] = []
    skipped: list[str] = []
    for path, location in paths:
        if len(rows) == limit:
            break
        try:
            rows.append(_row(path, location, described, split, data.skip_bad, shape))
        except RecipeError as error:
            if not data.skip_bad:
                raise
            skipped.append(without_advice(error))
    if not any(row.values["boxes"] for row in rows):
        raise RecipeError(f"{described.path}: no picture in its split {split!r} has a box. Check the labels.")
    source = str(replace(data, split=split))
    return Table(rows, f"{described.path.stem} {split}", source, tuple(skipped)), described.names


def training(text: str, folder: Path, held_out: frozenset[str], count: int, seed: int) -> list[Path]:
    """Draw pictures from the training split that differ from all held-out pictures, given by their digests.

    Returns:
        `count` pictures, repeated if there are fewer. None of them if there is no training split.

    Raises:
        RecipeError: a list can't be read, or names a missing picture (`skip_bad=true` skips it).
    """
    data = parse(text)
    described = describe(data, folder)
    paths = described.present("train")
    random.Random(seed).shuffle(paths)  # noqa: S311  (nothing secret)
    selected: list[Path] = []
    for path, location in paths:
        if len(selected) == count:
            break
        if not is_file(path):
            if not data.skip_bad:
                raise _missing(path, location)
            continue
        if Picture.at(path).digest() not in held_out and not (data.skip_bad and _is_broken(path)):
            selected.append(path)
    return [selected[index % len(selected)] for index in range(count)] if selected else []


def labelled(text: str, folder: Path, held_out: frozenset[str], count: int, seed: int) -> list[Row]:
    """Draw pictures with their boxes from the training split, as `training` does.

    Raises:
        RecipeError: as for `training`, or labels can't be read.
    """
    described = describe(parse(text), folder)
    paths = training(text, folder, held_out, count, seed)
    return [_row(path, "", described, "train", decodes=False) for path in paths]


def _row(path: Path, location: str, described: Boxes, split: str, decodes: bool, shape: Shape = "boxes") -> Row:
    if not is_file(path):
        raise _missing(path, location)
    picture = Picture.at(path)
    picture.decode() if decodes else picture.check()
    values: dict[str, Any] = {"image": picture, "path": str(path)}
    if shape == "boxes":
        return Row({**values, "boxes": described.boxes(path, picture.size, split)}, str(path))
    objects = described.objects(path, shape)
    values |= {"boxes": [box for box, _ in objects], shape: [points for _, points in objects]}
    if shape == "keypoints":
        values["sigmas"] = list(described.sigmas)
    return Row(values, str(path))


def _missing(path: Path, location: str) -> RecipeError:
    return RecipeError(f"{location}there is no picture {path}. {ADVICE}")


def _is_broken(path: Path) -> bool:
    try:
        Picture.at(path).decode()
    except RecipeError:
        return True
    return False


def _pictures(source: Path) -> Iterator[tuple[Path, str]]:
    """Yield the pictures of a folder, or those that a list names (they may be missing), with list and line."""
    if source.is_dir():
        yield from ((path, "") for path in data_files(source) if path.suffix.lower() in Picture.suffixes)
        return
    for number, line in enumerate(read_text(source).split("\n"), 1):
        path = source.parent / line.strip()
        relative = path.relative_to(source.parent) if path.is_relative_to(source.parent) else Path(path.name)
        if line.strip() and not is_leftover(relative):
            yield path, f"{source}, line {number}: "


def _placed(root: Path, entry: str) -> Path:
    """Return the path of an entry: Roboflow's `../val/images` may lie beside the file instead of above it."""
    path = root / entry
    next_to_root = root / entry.removeprefix("../")
    return next_to_root if next_to_root.exists() and not path.exists() else path


def _labels_of(picture: Path) -> Path:
    """Return the path of a picture's labels: `labels` replaces the last `images` in its path."""
    head, images, tail = str(picture).rpartition(f"{os.sep}images{os.sep}")
    return Path(f"{head}{os.sep}labels{os.sep}{tail}" if images else picture).with_suffix(".txt")


def _objects(picture: Path, described: Boxes, shape: Shape) -> list[tuple[list[Any], list[float]]]:
    """Return the box of each object of a picture, and the numbers of its shape."""
    path = _labels_of(picture)
    if not path.is_file():
        return []
    distinct: dict[tuple[str, ...], int] = {}
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if words := tuple(line.split()):
            distinct.setdefault(words, number)
    # ultralytics drops duplicate labels
    return [_object(words, described, shape, f"{path}, line {number}") for words, number in distinct.items()]


def _object(words: Sequence[str], described: Boxes, shape: Shape, location: str) -> tuple[list[Any], list[float]]:
    names, form = described.names, described.keypoints
    try:
        number, *places = (float(word) for word in words)
    except ValueError as error:
        raise RecipeError(f"{location}: {' '.join(words)[:60]!r} are not all numbers. {ADVICE}") from error
    if not number.is_integer() or int(number) not in names:  # infinity and NaN are not integers either
        classes = f"{len(names)}, from {min(names)} to {max(names)}" if names else "none"
        raise RecipeError(f"{location}: there is no class {words[0]}; data.yaml names {classes}. {ADVICE}")
    points: list[float] = []
    if form is not None and len(places) == 4 + form[0] * form[1]:  # a box, then keypoints
        places, points = places[:4], _with_visibility(places[4:], form[1])
    elif shape == "keypoints":
        raise RecipeError(
            f"{location}: {len(places) - 4} numbers after the box are not keypoints by kpt_shape of data.yaml, which "
            f"is {list(form) if form else 'missing'}. {ADVICE}"
        )
    coordinates = [*places, *(value for index, value in enumerate(points) if index % _WITH_VISIBILITY < 2)]
    if not all(-_TOLERANCE <= coordinate <= 1 + _TOLERANCE for coordinate in coordinates):
        raise RecipeError(
            f"{location}: coordinates must be fractions of the picture's width and height, from 0 to 1. {ADVICE}"
        )
    if len(places) == 4:
        if shape in ("outlines", "corners"):
            needed = "its outline" if shape == "outlines" else "the four corners of a rotated box"
            raise RecipeError(f"{location}: an object of this model needs {needed} (x y x y ...), not a box. {ADVICE}")
        x, y, width, height = places
        if width < 0 or height < 0:
            raise RecipeError(f"{location}: the width and height of a box can't be negative. {ADVICE}")
        return [int(number), x - width / 2, y - height / 2, x + width / 2, y + height / 2], points
    if len(places) < 6 or len(places) % 2 or (shape == "corners" and len(places) != 2 * _CORNERS):
        raise RecipeError(
            f"{location}: after the class, a box has four numbers, an outline three or more pairs, and a rotated box "
            f"four pairs. {ADVICE}"
        )
    return [int(number), min(places[::2]), min(places[1::2]), max(places[::2]), max(places[1::2])], places


def _with_visibility(values: list[float], length: int) -> list[float]:
    """Return x, y and visibility of keypoints; without visibility, points with a negative coordinate are unknown."""
    if length == _WITH_VISIBILITY:
        return values
    pairs = zip(values[::2], values[1::2], strict=True)
    return [value for x, y in pairs for value in (x, y, float(x >= 0 and y >= 0))]


def true_boxes(values: Mapping[str, Any], names: Mapping[int, str]) -> dict[str, Any]:
    """Return the boxes of an image in pixels."""
    width, height = values["image"].size
    scale = (width, height) * 2
    boxes = [[fraction * side for fraction, side in zip(box[1:], scale, strict=True)] for box in values["boxes"]]
    return {"boxes": boxes, "labels": [names[box[0]] for box in values["boxes"]]}


def matched(classes: Mapping[int, str], names: Mapping[int, str], data: str) -> Mapping[int, str]:
    """Map each class of the data to the model's name: by name, or by number if both have as many classes.

    Raises:
        RecipeError: neither is possible.
    """
    if set(classes.values()) <= set(names.values()):
        return classes
    by_lower = {name.casefold(): name for name in names.values()}
    if all(name.casefold() in by_lower for name in classes.values()):
        return {number: by_lower[name.casefold()] for number, name in classes.items()}
    if len(classes) == len(names):
        return {number: names[number] for number in classes}
    raise RecipeError(
        f"{data} has {len(classes)} classes ({', '.join(list(classes.values())[:5])}, ...), the model has {len(names)} "
        f"({', '.join(list(names.values())[:5])}, ...): they do not match."
    )
