"""Semantic segmentation: the class of each pixel, and counts of pixels for each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.records import Scale
from mlflow_compress.scoring.run_lengths import repeated
from mlflow_compress.sockets import AdditiveMetric

IGNORED = 255  # pixels of a reference with this number, or a negative one, are not scored
_COUNTS = ("right", "predicted", "true")


@dataclass
class PixelCounts(AdditiveMetric):
    """A ratio of the numbers of pixels of each class, which are summed over all images.

    An image maps `pixels` to the number of the class of each pixel: an array [height, width], or a mapping of `size`
    and `runs` (see `encoded`). Pixels whose reference is 255 or negative are not scored.
    """

    unit: ClassVar[str] = "ratio"
    scale: ClassVar[Scale | None] = "share"
    greater_is_better: ClassVar[bool] = True
    undefined: ClassVar[str] = "every pixel of the references is left out (255 or negative)"
    takes = "pixels"

    def columns(self, references: Sequence[Any], predictions: Sequence[Any]) -> tuple[str, ...]:
        """Return the names of the three counts of each class."""
        numbers = self._classes([_scored(*pair) for pair in zip(references, predictions, strict=True)])
        return tuple(f"{number} {count}" for number in numbers for count in _COUNTS)

    def statistics(self, references: Sequence[Any], predictions: Sequence[Any]) -> Any:
        """Count the correct, the predicted and the true pixels of each class: [samples, 3 * classes]."""
        import numpy as np

        images = [_scored(*pair) for pair in zip(references, predictions, strict=True)]
        numbers = np.array(self._classes(images), dtype=np.int64)
        counts = np.zeros((len(images), len(numbers), len(_COUNTS)))
        for index, (true, predicted) in enumerate(images):
            for place, pixels in enumerate((predicted[predicted == true], predicted, true)):
                values, sizes = np.unique(pixels, return_counts=True)
                counts[index, np.searchsorted(numbers, values), place] = sizes
        return counts.reshape(len(images), -1)

    def _classes(self, images: Sequence[Any]) -> list[int]:
        import numpy as np

        present = [np.unique(pixels) for image in images for pixels in image]
        return [int(number) for number in np.unique(np.concatenate(present))] if present else []


def encoded(pixels: Any) -> dict[str, Any]:
    """Return the classes of pixels [height, width] as runs of equal numbers, row by row.

    Returns:
        `size` [height, width], and `runs`: a class and a length, alternately.
    """
    import numpy as np

    flat = np.asarray(pixels, dtype=np.int64).ravel()
    starts = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1]) if len(flat) else np.zeros(0, dtype=np.int64)
    lengths = np.diff([*starts, len(flat)])
    return {"size": list(np.shape(pixels)), "runs": np.stack([flat[starts], lengths], axis=1).ravel().tolist()}


def decoded(pixels: Mapping[str, Any]) -> Any:
    """Return the classes of pixels of `encoded`: int64 [height, width].

    Raises:
        ValueError: the runs do not fill the size, or it is too large.
    """
    import numpy as np

    runs = np.array(pixels["runs"], dtype=np.int64).reshape(-1, 2)
    flat, shape = repeated(runs[:, 0], runs[:, 1], pixels["size"], "an image")
    return flat.reshape(shape)


def _scored(reference: Mapping[str, Any], prediction: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the true and the predicted classes of the pixels that are scored.

    Raises:
        ValueError: the two have different sizes.
    """
    true, predicted = _pixels(reference["pixels"]), _pixels(prediction["pixels"])
    if true.shape != predicted.shape:
        raise ValueError(f"a reference of {true.shape} pixels, but a prediction of {predicted.shape}")
    is_scored = (true >= 0) & (true != IGNORED)
    return true[is_scored], predicted[is_scored]


def _pixels(pixels: Any) -> Any:
    import numpy as np

    return decoded(pixels) if isinstance(pixels, Mapping) else np.asarray(pixels, dtype=np.int64)
