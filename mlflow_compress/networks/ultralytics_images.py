"""Prepares photos for models of ultralytics, and converts outputs to boxes and masks, both as ultralytics does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NO_HURRY = 1e9  # time limit for suppressing boxes, in seconds; ultralytics stops at its limit
_MASK_RATIO = 4  # masks are compared at a quarter of the side
_RESAMPLED = 1000  # points of an outline, unless it has more
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

    def points_back(self, points: Any) -> Any:
        """Return keypoints of the square [n, points, 2 or 3] as keypoints of the photo; visibility stays."""
        import torch

        placed = (points[..., :2] - torch.tensor(self.shift)) * torch.tensor(self.scale)
        return torch.cat([placed, points[..., 2:]], dim=-1)

    def rotated_back(self, boxes: Any) -> Any:
        """Return rotated boxes of the square (x, y, width, height, angle) [n, 5] as those of the photo."""
        import torch

        centres = (boxes[:, :2] - torch.tensor(self.shift)) * torch.tensor(self.scale)
        sides = boxes[:, 2:4] * math.sqrt(self.scale[0] * self.scale[1])  # the two differ only by rounding
        return torch.cat([centres, sides, boxes[:, 4:5]], dim=1)


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
    size = _resized((width, height), side)
    resized = cv2.resize(photo, size, interpolation=cv2.INTER_LINEAR) if max(height, width) != side else photo
    box: Any = LetterBox((side, side), auto=False, scaleup=False)
    placed = box.get_params({"img": resized})
    scale = (width / size[0], height / size[1])
    return Fitted(box(image=resized), scale, (float(placed["left"]), float(placed["top"])))


def _resized(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return width and height of a photo after resizing it to a square's side, without borders."""
    ratio = side / max(size)
    if ratio == 1:
        return size
    return min(math.ceil(size[0] * ratio), side), min(math.ceil(size[1] * ratio), side)


def _placed(size: tuple[int, int], side: int) -> tuple[tuple[int, int], tuple[float, float]]:
    """Return width and height of a photo in the square of `fit`, and its offset there."""
    import numpy as np
    from ultralytics.data.augment import LetterBox

    resized = _resized(size, side)
    box: Any = LetterBox((side, side), auto=False, scaleup=False)
    placed = box.get_params({"img": np.zeros((resized[1], resized[0], 3), dtype=np.uint8)})
    return resized, (float(placed["left"]), float(placed["top"]))


def boxes_of(output: Any) -> Any:
    """Return the raw boxes of an output; for a segmenter without the prototypes."""
    return output[0] if isinstance(output, (tuple, list)) else output


def suppress(
    output: Any,
    confidence: float,
    overlap: float,
    classes: int,
    multi_label: bool = False,
    *,
    is_rotated: bool = False,
    is_final: bool = False,
) -> list[Any]:
    """Keep the best of overlapping boxes.

    Args:
        output: output of a model that finds objects.
        confidence: lowest score of a box.
        overlap: intersection over union above which the box with the lower score is dropped.
        classes: number of classes of a model with further numbers for each box; 0: a detector, whose output shows it.
        multi_label: whether a box counts for each of its classes.
        is_rotated: whether boxes are rotated: their centre and size stay, and the angle is the last number.
        is_final: whether the model itself suppresses boxes (`end2end`).

    Returns:
        For each image [boxes, 6 or more]: x1 y1 x2 y2, score, number of the class, and further numbers of a box: a
        segmenter's coefficients, keypoints, an angle.
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
            rotated=is_rotated,
            end2end=is_final,
        )
    )


def masks(output: Any, index: int, boxes: Any, side: int) -> Any:
    """Return the masks of the boxes of one image [boxes, side, side]; None without prototypes."""
    from ultralytics.utils.ops import process_mask

    if not isinstance(output, (tuple, list)):
        return None
    prototypes = output[1]
    return process_mask(prototypes[index], boxes[:, 6:].to(prototypes.dtype), boxes[:, :4], (side, side), upsample=True)


def scored_masks(output: Any, boxes: Any, side: int) -> Any:
    """Return the masks of an image as ultralytics' validator compares them [boxes, side / 4, side / 4]."""
    from ultralytics.utils.ops import process_mask

    prototypes = output[1][0]
    return process_mask(prototypes, boxes[:, 6:].to(prototypes.dtype), boxes[:, :4], (side, side)).bool().cpu().numpy()


def true_masks(outlines: Sequence[Sequence[float]], size: tuple[int, int], side: int) -> tuple[list[Any], list[int]]:
    """Draw outlines as ultralytics' validator does: in the square image, smaller objects over larger ones.

    Args:
        outlines: x and y of the points of each object, from 0 to 1.
        size: width and height of the picture.
        side: side of the square image.

    Returns:
        The masks [side / 4, side / 4], and the index of the outline of each.
    """
    import numpy as np
    from ultralytics.data.utils import polygons2masks_overlap
    from ultralytics.utils.ops import resample_segments

    if not outlines:
        return [], []
    resized, shift = _placed(size, side)
    points = [np.array(outline, dtype=np.float32).reshape(-1, 2) for outline in outlines]
    count = max(_RESAMPLED, *(len(outline) + 1 for outline in points))
    placed = [
        outline * np.array(resized, dtype=np.float32) + np.array(shift, dtype=np.float32)
        for outline in resample_segments(points, n=count)
    ]
    numbered, order = polygons2masks_overlap((side, side), placed, downsample_ratio=_MASK_RATIO)
    return [numbered == number for number in range(1, len(order) + 1)], [int(index) for index in order]


def true_rotated(corners: Sequence[Sequence[float]], size: tuple[int, int]) -> list[list[float]]:
    """Return centre, size and angle of rotated boxes in a picture's pixels; `corners` are from 0 to 1."""
    import numpy as np
    from ultralytics.utils.ops import xyxyxyxy2xywhr

    if not corners:
        return []
    points = np.array(corners, dtype=np.float64).reshape(-1, 4, 2) * np.array(size)
    rotated: list[list[float]] = xyxyxyxy2xywhr(points).tolist()
    return rotated


def outlines(masks: Any, photo: Any) -> list[Any]:
    """Return the points [points, 2] around each mask [boxes, side, side], in the photo's pixels."""
    from ultralytics.utils.ops import masks2segments, scale_coords

    shape = masks.shape[-2:]
    return [scale_coords(shape, points, photo.shape).tolist() for points in masks2segments(masks)]


def in_photo(boxes: Any, side: int, photo: Any) -> Any:
    """Return boxes [n, 4] of a letterboxed photo in the photo's own pixels."""
    from ultralytics.utils.ops import scale_boxes

    return scale_boxes((side, side), boxes, photo.shape)


def points_in_photo(points: Any, side: int, photo: Any) -> Any:
    """Return keypoints [n, points, 2 or 3] of a letterboxed photo in the photo's own pixels."""
    from ultralytics.utils.ops import scale_coords

    return scale_coords((side, side), points.clone(), photo.shape)


def rotated_in_photo(boxes: Any, side: int, photo: Any) -> Any:
    """Return rotated boxes [n, 5] of a letterboxed photo in the photo's own pixels."""
    import torch
    from ultralytics.utils.ops import regularize_rboxes, scale_boxes

    regular = regularize_rboxes(boxes)
    scaled: Any = scale_boxes((side, side), regular[:, :4].clone(), photo.shape, xywh=True)
    return torch.cat([scaled, regular[:, 4:]], dim=1)
