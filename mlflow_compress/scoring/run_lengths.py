"""Arrays of pixels from their runs of equal values, which may come from an untrusted file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_MOST_PIXELS = 2**28  # more than Pillow reads


def repeated(values: Any, lengths: Sequence[Any], size: Sequence[Any], what: str) -> tuple[Any, tuple[int, int]]:
    """Return the pixels of an image, one value for each, and its height and width.

    Args:
        values: The value of each run.
        lengths: The length of each run.
        size: The height and the width.
        what: What the pixels are, for the message.

    Raises:
        ValueError: The runs do not fill the size, or the image is too large.
    """
    import numpy as np

    height, width = map(int, size)
    total = sum(map(int, lengths))
    if min(height, width) < 0 or total != height * width:
        raise ValueError(f"{what} of {height} x {width} pixels has {total} in its runs")
    if total > _MOST_PIXELS:
        raise ValueError(f"{what} of {height} x {width} pixels is too large")
    return np.repeat(values, lengths), (height, width)
