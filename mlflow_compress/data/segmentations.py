"""Pictures with the class of each pixel: a folder of pictures, and a folder of masks with the same names.

    data/images/1.jpg              data/masks/1.png
    data/images/val/1.jpg          data/annotations/val/1.png       the layout of ADE20K
    data/val/images/1.jpg          data/val/labels/1.png
    data/JPEGImages/1.jpg          data/SegmentationClass/1.png     the layout of VOC

A mask has one channel: the number of the class of each pixel, or an index into a palette. 255 is not scored. A picture
without a mask has none, and is left out.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlflow_compress.data.data_files import data_files, lookup_name
from mlflow_compress.data.datasets import Row, Table
from mlflow_compress.data.keys import require_applicable
from mlflow_compress.data.layouts import MissingSplit, find_split, is_training
from mlflow_compress.data.media import ADVICE, Medium, Picture, picture_fault, without_advice
from mlflow_compress.data.spec import DEFAULT, Data, parse
from mlflow_compress.errors import RecipeError

_PICTURES = ("images", "image", "imgs", "img", "jpegimages")
_MASKS = ("masks", "mask", "annotations", "labels", "segmentationclass")
_MODES = ("1", "L", "P", "I", "I;16")  # one channel of whole numbers


class Mask(Medium):
    """The class of each pixel of a picture: int64 [height, width]."""

    suffixes = frozenset({".png", ".bmp", ".tif", ".tiff"})
    seldom_read = frozenset()

    def check(self) -> None:
        """Read the header (see `Medium.check`).

        Raises:
            RecipeError: it can't be read, or its pixels are colours, not numbers.
        """
        self._read(lambda image: None)

    @property
    def size(self) -> tuple[int, int]:
        """Its width and height, from its header."""
        size: tuple[int, int] = self._read(lambda image: image.size)
        return size

    def decode(self) -> Any:
        """Return the classes of the pixels."""
        import numpy as np

        return self._read(lambda image: np.asarray(image).astype(np.int64))

    def _read(self, use: Any) -> Any:
        from PIL import Image

        try:
            with self.open() as file, Image.open(file) as image:
                if image.mode not in _MODES:
                    raise ValueError(
                        f"its pixels have mode {image.mode}: a mask has one channel with the numbers of classes"
                    )
                return use(image)
        except Exception as error:  # errors of PIL, the codecs, the system
            raise self._unreadable("a mask", picture_fault(error)) from error


def read(text: str, folder: Path, limit: int | None, seed: int) -> Table:
    """Read pictures with their masks. With a limit, take the first of the shuffled pictures.

    Returns:
        Rows with `image` and `mask`.

    Raises:
        RecipeError: there is no such data, or a picture or a mask can't be read.
    """
    data = parse(text)
    require_applicable(data, "masks")
    pairs, split = _pairs(data, folder)
    if not split and ("split" in data.given or data.split != DEFAULT.split):
        raise RecipeError(f"{data.source} is not divided into splits: leave out split={data.split}.")
    limit = data.limit if limit is None else limit
    if limit is not None and limit < len(pairs):
        random.Random(seed).shuffle(pairs)  # noqa: S311  (nothing secret)
    rows: list[Row] = []
    skipped: list[str] = []
    for picture, mask in pairs:
        if len(rows) == limit:
            break
        try:
            rows.append(_row(picture, mask, data.skip_bad))
        except RecipeError as error:
            if not data.skip_bad:
                raise
            skipped.append(without_advice(error))
    if not rows:
        raise RecipeError(f"There is no sample in {text}: the first of {len(skipped)} reasons: {skipped[0]}")
    name = (folder / data.source).resolve().name
    return Table(rows, f"{name} {split}".strip(), str(replace(data, split=split or data.split)), tuple(skipped))


def training(text: str, folder: Path, held_out: frozenset[str], count: int, seed: int) -> list[Path]:
    """Draw pictures from the training split, or from those beyond the limit, that differ from all held-out ones.

    Args:
        text: The data.
        folder: Folder where relative paths start.
        held_out: Digests of the pictures that are scored.
        count: Number of pictures; if there are fewer, they are repeated.
        seed: Seed for shuffling.

    Returns:
        The pictures; empty if there are none.
    """
    data = parse(text)
    try:
        pairs, split = _pairs(replace(data, split="train"), folder)
    except MissingSplit:
        return []
    paths = [picture for picture, _ in pairs]
    if split and not is_training(split):
        return []
    random.Random(seed).shuffle(paths)  # noqa: S311  (nothing secret)
    selected: list[Path] = []
    for path in paths:
        if len(selected) == count:
            break
        if Picture.at(path).digest() not in held_out:
            selected.append(path)
    return [selected[index % len(selected)] for index in range(count)] if selected else []


def _row(path: Path, mask_path: Path, decodes: bool) -> Row:
    picture, mask = Picture.at(path), Mask.at(mask_path)
    if decodes:
        picture.decode()
        mask.decode()
    picture.check()
    if picture.size != mask.size:
        raise RecipeError(
            f"{mask_path} has {mask.size[0]} x {mask.size[1]} pixels, but its picture has {picture.size[0]} x "
            f"{picture.size[1]}. {ADVICE}"
        )
    return Row({"image": picture, "mask": mask}, str(path))


def _pairs(data: Data, folder: Path) -> tuple[list[tuple[Path, Path]], str]:
    """Return the pictures of a split with their masks, sorted by path, and the split's name; empty: no splits.

    Raises:
        RecipeError: there are no such folders, or no picture with a mask.
        MissingSplit: there are splits, but not this one.
    """
    root = folder / data.source
    if not root.is_dir():
        raise RecipeError(
            f"A segmentation model is scored on a folder with pictures and masks; {root} is not a folder."
        )
    split = _split(_folders(root), data.split, root)
    top = root / split if split else root
    pictures, masks = _child(top, _PICTURES), _child(top, _MASKS)
    if pictures is None or masks is None:
        raise RecipeError(
            f"{top} needs a folder of pictures ({', '.join(_PICTURES[:2])}, ...) and one of masks "
            f"({', '.join(_MASKS[:3])}, ...), which have the same names."
        )
    if not split and (split := _split(_folders(pictures), data.split, pictures)):
        pictures, masks = pictures / split, masks / split
    by_name = {_key(path, masks): path for path in data_files(masks) if path.suffix.lower() in Mask.suffixes}
    present = [path for path in data_files(pictures) if path.suffix.lower() in Picture.suffixes]
    pairs = [(path, by_name[_key(path, pictures)]) for path in present if _key(path, pictures) in by_name]
    if not pairs:
        raise RecipeError(f"No picture in {pictures} has a mask with its name in {masks}.")
    return sorted(pairs), split


def _split(folders: Sequence[Path], split: str, of: Path) -> str:
    """Return the name of the folder with a split; `test` means `val` if it is missing. Empty: there are no splits."""
    names = [path.name for path in folders]
    try:
        return find_split(names, split, of) or ""
    except MissingSplit:
        if split != "test":
            raise
        return find_split(names, "val", of) or ""


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def _child(folder: Path, names: Sequence[str]) -> Path | None:
    by_name = {path.name.lower(): path for path in _folders(folder)}
    return next((by_name[name] for name in names if name in by_name), None)


def _key(path: Path, folder: Path) -> str:
    return lookup_name(path.relative_to(folder).with_suffix("").as_posix())
