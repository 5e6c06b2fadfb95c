"""Share of pixels with the correct class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.scoring.pixels import PixelCounts


@dataclass
class PixelAccuracy(PixelCounts):
    """Share of pixels whose class is correct, over all images together.

    Pixels whose reference is 255 are not scored.

    Source: Long et al., Fully convolutional networks for semantic segmentation, 2015; `overall_accuracy` of `mean_iou`
    of Hugging Face's evaluate.
    """

    label: ClassVar[Mapping[str, str]] = {"en": "pixel accuracy", "ru": "точность пикселей"}
    rank: ClassVar[int] = 250
    spelling: ClassVar[str] = r"pixel[ _-]?acc(?:uracy)?|точность пикселей"

    def reduce(self, sums: Any) -> float:
        """Divide the correct pixels by all; NaN if there is none."""
        import numpy as np

        right, _, true = np.reshape(sums, (-1, 3)).sum(axis=0)
        return float(right / true) if true else float("nan")
