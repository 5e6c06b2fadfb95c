"""Mean intersection over union of semantic segmentation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.scoring.pixels import PixelCounts


@dataclass
class Miou(PixelCounts):
    """Mean over the classes of intersection over union of their pixels, which are summed over all images first.

    The classes are those of the references and of the predictions. Pixels whose reference is 255 are not scored.

    Source: Everingham et al., The Pascal visual object classes challenge, 2010; `mean_iou` of Hugging Face's evaluate.
    """

    label: ClassVar[Mapping[str, str]] = {"en": "mIoU", "ru": "mIoU"}
    rank: ClassVar[int] = 35
    spelling: ClassVar[str] = r"m(?:ean[ _-]?)?iou"

    def reduce(self, sums: Any) -> float:
        """Average over the classes that occur; NaN if there is none."""
        import numpy as np

        right, predicted, true = np.reshape(sums, (-1, 3)).T
        union = predicted + true - right
        occurs = union > 0
        return float(np.mean(right[occurs] / union[occurs])) if occurs.any() else float("nan")
