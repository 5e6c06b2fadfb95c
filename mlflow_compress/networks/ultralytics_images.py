"""Photos into what ultralytics' models take, and what they give into boxes and masks, as ultralytics does both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NO_HURRY = 1e9  # seconds for suppressing boxes; ultralytics would leave some when time is up
MOST_BOXES = 300  # of an image; ultralytics' own, of its `val`


@dataclass(frozen=True)
class Fitted:
    """A photo that was fitted into a square, and the way back.

    Attributes:
        image: BGR uint8 [side, side, 3].
        scale: what its pixels are multiplied by to be the photo's, across and down, after the shift was taken away.
        shift: of the photo in the square, in pixels, across and down.
    """

    image: Any
    scale: tuple[float, float]
    shift: tuple[float, float]

    def back(self, boxes: Any) -> Any:
        """Return boxes of the square [n, 4] as boxes of the photo."""
        import torch

        return (boxes - torch.tensor(self.shift * 2)) * torch.tensor(self.scale * 2)


def read_photo(image: Any) -> Any:
    """Read BGR uint8 [height, width, 3] from a path, or from a picture of a data set; an array stays as it is.

    It is turned as its EXIF says.

    Raises:
        FileNotFoundError: a path can't be read as an image.
        RecipeError: a picture of a data set can't.
    """
    import cv2
    import numpy as np

    if hasattr(image, "open") and not isinstance(image, Path):
        with image.open() as file:
            held = file.read()
    elif isinstance(image, (str, Path)):
        try:
            held = Path(image).read_bytes()
        except OSError as error:
            raise FileNotFoundError(f"{image} can't be read as an image: {error.strerror or error}") from error
    else:
        return np.asarray(image, dtype=np.uint8)
    # from memory: by its name, OpenCV gives up on a TIFF that is to be turned
    photo = cv2.imdecode(np.frombuffer(held, dtype=np.uint8), cv2.IMREAD_COLOR) if held else None
    if photo is None and hasattr(image, "decode"):  # older versions of OpenCV know no GIF; or it tells what is wrong
        return image.decode()[..., ::-1].copy()
    if photo is None:
        raise FileNotFoundError(f"{image} can't be read as an image")
    return photo


def as_tensor(photos: Sequence[Any]) -> Any:
    """Make RGB uint8 [n, 3, height, width] of BGR photos of one size."""
    import numpy as np
    import torch

    return torch.from_numpy(np.stack([photo[..., ::-1].transpose(2, 0, 1) for photo in photos]).copy())


def cut(photos: Sequence[Any], side: int) -> Any:
    """Cut the middle out of BGR photos as ultralytics' classifiers take it: RGB [n, 3, side, side] in [0, 1]."""
    import torch
    from torchvision.transforms.functional import to_pil_image
    from ultralytics.data.augment import classify_transforms

    prepare = classify_transforms(side)
    return torch.stack([prepare(to_pil_image(photo[..., ::-1].copy())) for photo in photos])


def letterbox(photo: Any, side: int) -> Any:
    """Fit a BGR photo into a square, with grey beside it, as ultralytics' predictor does: [side, side, 3]."""
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
    """Return the raw boxes of an output, of a segmenter without the prototypes."""
    return output[0] if isinstance(output, (tuple, list)) else output


def suppress(output: Any, confidence: float, overlap: float, classes: int, multi_label: bool = False) -> list[Any]:
    """Leave the best of boxes that overlap.

    Args:
        output: of a detector or segmenter.
        confidence: the lowest score of a box.
        overlap: intersection over union above which the lesser box is dropped.
        classes: how many classes a segmenter has; 0: a detector, which tells it itself.
        multi_label: whether a box counts for every class of it.

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
    """Return the masks of the boxes of one image [boxes, side, side]; None where there are no prototypes."""
    from ultralytics.utils.ops import process_mask

    if not isinstance(output, (tuple, list)):
        return None
    prototypes = output[1]
    return process_mask(prototypes[index], boxes[:, 6:].to(prototypes.dtype), boxes[:, :4], (side, side), upsample=True)


def outlines(drawn: Any, photo: Any) -> list[Any]:
    """Return the points [points, 2] around each mask [boxes, side, side], in the photo's pixels."""
    from ultralytics.utils.ops import masks2segments, scale_coords

    shape = drawn.shape[-2:]
    return [scale_coords(shape, points, photo.shape).tolist() for points in masks2segments(drawn)]


def in_photo(boxes: Any, side: int, photo: Any) -> Any:
    """Return boxes [n, 4] of a letterboxed photo in the photo's own pixels."""
    from ultralytics.utils.ops import scale_boxes

    return scale_boxes((side, side), boxes, photo.shape)
