"""Masks of objects: encoded as runs of equal pixels, and matched by their overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.scoring.boxes import BoxMetric
from mlflow_compress.scoring.run_lengths import repeated


@dataclass
class MaskMetric(BoxMetric):
    """A mean over the classes of objects with masks, which match by the overlap of their masks.

    An image maps `masks` to the masks of its objects, all of one size: arrays [height, width], or mappings of `size`
    and `counts` (see `encoded`).

    Source: ultralytics' validator for segmentation (mask_iou).
    """

    pool: ClassVar[str] = "masks"
    takes = "masks"

    def shapes(self, image: Mapping[str, Any]) -> Any:
        """Return the masks of an image: bool [objects, height, width] (see `BoxMetric.shapes`)."""
        import numpy as np

        masks = [
            decoded(mask) if isinstance(mask, Mapping) else np.asarray(mask, dtype=bool) for mask in image["masks"]
        ]
        if any(mask.ndim != 2 or mask.shape != masks[0].shape for mask in masks):  # height and width
            raise ValueError("the masks of an image must have one height and width")
        return np.stack(masks) if masks else np.zeros((0, 1, 1), dtype=bool)

    def overlap(self, true: Any, predicted: Any, image: Mapping[str, Any]) -> Any:
        """Return intersection over union of masks (see `BoxMetric.overlap`)."""
        import torch
        from ultralytics.utils.metrics import mask_iou

        if true.shape[1:] != predicted.shape[1:]:
            raise ValueError(f"true masks of {true.shape[1:]} pixels, but predicted masks of {predicted.shape[1:]}")
        one, other = (torch.from_numpy(masks).flatten(1).float() for masks in (true, predicted))
        return mask_iou(one, other)


def encoded(mask: Any) -> dict[str, Any]:
    """Return a mask [height, width] as runs of equal pixels, as COCO's annotations have them.

    Returns:
        `size` [height, width], and `counts`: lengths of alternating runs, column by column, the first of them 0s.
    """
    import numpy as np

    flat = np.asarray(mask, dtype=bool).flatten(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *changes, len(flat)]).tolist()
    return {"size": list(np.shape(mask)), "counts": [0, *counts] if len(flat) and flat[0] else counts}


def decoded(mask: Mapping[str, Any]) -> Any:
    """Return a mask of `encoded`: bool [height, width].

    Raises:
        ValueError: its counts do not fill its size, or it is too large.
    """
    import numpy as np

    counts: Sequence[int] = mask["counts"]
    flat, shape = repeated(np.arange(len(counts)) % 2 == 1, counts, mask["size"], "a mask")
    return flat.reshape(shape, order="F")
