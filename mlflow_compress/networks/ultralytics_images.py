"""Prepares photos for models of ultralytics, and converts outputs to boxes and masks, both as ultralytics does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NO_HURRY = 1e9  # time limit for suppressing boxes, in seconds; ultralytics stops at its limit
MOST_BOXES = 300  # boxes in an image, the default of `val` in ultralytics


@dataclass(frozen=True)
class Fitted:
    """A photo that was fitted into a square, and the way back.

    Attributes:
        image: BGR uint8 [side, side, 3].
        scale: factors from its pixels, without the shift, to those of the photo: horizontal and vertical.
        shift: offset of the photo in the square, in pixels: horizontal and vertical.
    """

    image: Any
    scale: tuple[float, float]
    shift: tuple[float, float]

    def back(self, boxes: Any) -> Any:
        """Return boxes of the square [n, 4] as boxes of the photo."""
        import torch

        return (boxes - torch.tensor(self.shift * 2)) * torch.tensor(self.scale * 2)


def read_photo(image: Any) -> Any:
    """Read BGR uint8 [height, width, 3] from a path, or from an image of a data set; an array is returned unchanged.

    The image is rotated according to its EXIF data.

    Raises:
        FileNotFoundError: a path can't be read as an image.
        RecipeError: an image of a data set can't be read.
    """
    import cv2
    import numpy as np

    if hasattr(image, "open") and not isinstance(image, Path):
        with image.open() as file:
            content = file.read()
    elif isinstance(image, (str, Path)):
        try:
            content = Path(image).read_bytes()
        except OSError as error:
            raise FileNotFoundError(f"{image} can't be read as an image: {error.strerror or error}") from error
    else:
        return np.asarray(image, dtype=np.uint8)
    # from memory: OpenCV fails on the path of a rotated TIFF
    photo = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_COLOR) if content else None
    if photo is None and hasattr(image, "decode"):  # older versions of OpenCV can't read GIF; `decode` may raise
        return image.decode()[..., ::-1].copy()
    if photo is None:
        raise FileNotFoundError(f"{image} can't be read as an image")
    return photo


def as_tensor(photos: Sequence[Any]) -> Any:
    """Convert BGR photos of one size to RGB uint8 [n, 3, height, width]."""
    import numpy as np
    import torch

    return torch.from_numpy(np.stack([photo[..., ::-1].transpose(2, 0, 1) for photo in photos]).copy())


def cut(photos: Sequence[Any], side: int) -> Any:
    """Crop the centre of BGR photos as for ultralytics' classifiers: RGB [n, 3, side, side] in [0, 1]."""
    import torch
    from torchvision.transforms.functional import to_pil_image
    from ultralytics.data.augment import classify_transforms

    prepare = classify_transforms(side)
    return torch.stack([prepare(to_pil_image(photo[..., ::-1].copy())) for photo in photos])


def letterbox(photo: Any, side: int) -> Any:
    """Fit a BGR photo into a square with grey borders, as ultralytics' predictor does: [side, side, 3]."""
    from ultralytics.data.augment import LetterBox

    box: Any = LetterBox((side, side), auto=False)
    return box(image=photo)


def fit(photo: Any, side: int) -> Fitted:
    """Fit a BGR photo into a square as ultralytics' validator does: in two steps."""
    import cv2
    from ultralytics.data.augment import LetterBox

    height, width = photo.shape[:2]
    ratio = side / max(height, width)
    size = (min(math.ceil(width * ratio), side), min(math.ceil(height * ratio), side))
    resized = cv2.resize(photo, size, interpolation=cv2.INTER_LINEAR) if ratio != 1 else photo
    box: Any = LetterBox((side, side), auto=False, scaleup=False)
    placed = box.get_params({"img": resized})
    scale = (width / size[0], height / size[1])
    return Fitted(box(image=resized), scale, (float(placed["left"]), float(placed["top"])))


def boxes_of(output: Any) -> Any:
    """Return the raw boxes of an output; for a segmenter without the prototypes."""
    return output[0] if isinstance(output, (tuple, list)) else output


def suppress(output: Any, confidence: float, overlap: float, classes: int, multi_label: bool = False) -> list[Any]:
    """Keep the best of overlapping boxes.

    Args:
        output: output of a detector or segmenter.
        confidence: lowest score of a box.
        overlap: intersection over union above which the box with the lower score is dropped.
        classes: number of classes of a segmenter; 0: a detector, whose output shows it.
        multi_label: whether a box counts for each of its classes.

    Returns:
        For each image [boxes, 6 or more]: x1 y1 x2 y2, score, number of the class, and a segmenter's coefficients.
    """
    from ultralytics.utils.nms import non_max_suppression

    raw = boxes_of(output)
    return list(
        non_max_suppression(
            raw,
            confidence,
            overlap,
            multi_label=multi_label,
            max_det=MOST_BOXES,
            nc=classes,
            max_time_img=_NO_HURRY,
        )
    )


def masks(output: Any, index: int, boxes: Any, side: int) -> Any:
    """Return the masks of the boxes of one image [boxes, side, side]; None without prototypes."""
    from ultralytics.utils.ops import process_mask

    if not isinstance(output, (tuple, list)):
        return None
    prototypes = output[1]
    return process_mask(prototypes[index], boxes[:, 6:].to(prototypes.dtype), boxes[:, :4], (side, side), upsample=True)


def outlines(masks: Any, photo: Any) -> list[Any]:
    """Return the points [points, 2] around each mask [boxes, side, side], in the photo's pixels."""
    from ultralytics.utils.ops import masks2segments, scale_coords

    shape = masks.shape[-2:]
    return [scale_coords(shape, points, photo.shape).tolist() for points in masks2segments(masks)]


def in_photo(boxes: Any, side: int, photo: Any) -> Any:
    """Return boxes [n, 4] of a letterboxed photo in the photo's own pixels."""
    from ultralytics.utils.ops import scale_boxes

    return scale_boxes((side, side), boxes, photo.shape)
