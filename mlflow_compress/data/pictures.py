"""Pictures in any form that users give, as PIL pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlflow_compress.data.media import Picture


def as_picture(image: Any) -> Any:
    """Convert a path, an array uint8 [height, width, 3] in RGB order, or a picture to a PIL picture in RGB."""
    import numpy as np
    from torchvision.transforms.functional import to_pil_image

    if hasattr(image, "convert"):
        return image.convert("RGB")
    if isinstance(image, (str, Path)):
        image = Picture.at(Path(image))
    return to_pil_image(np.asarray(image, dtype=np.uint8)).convert("RGB")
