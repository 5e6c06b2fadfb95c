"""Pictures for transformers models: decoded to RGB, and prepared by the model's image processor."""

from __future__ import annotations

from typing import Any

from mlflow_compress.errors import RecipeError, WeightsError, one_line
from mlflow_compress.networks.hub import Origin

SIDE = 224  # of images, if a config does not state it


def image_processor(config: Any, origin: Origin) -> Any:
    """Return the image processor beside a model; for random weights one for the config's image size.

    Raises:
        WeightsError: it can't be loaded.
    """
    from transformers import AutoImageProcessor, ViTImageProcessor

    if origin.kind == "random":
        vision = getattr(config, "vision_config", config)
        side = getattr(vision, "image_size", None) or SIDE
        height, width = (side, side) if isinstance(side, int) else side
        return ViTImageProcessor(size={"height": height, "width": width})
    try:
        return AutoImageProcessor.from_pretrained(origin.location, **origin.arguments)
    except Exception as error:  # errors of the hub, files and configs have no common base class
        raise WeightsError(f"The image processor in {origin.location} can't be loaded: {one_line(error)}") from error


def pixels_of(processor: Any, photo: Any) -> Any:
    """Return a PIL picture as the model's pixels [channels, height, width].

    Raises:
        RecipeError: the processor returns something else.
    """
    prepared = processor(images=photo, return_tensors="pt")
    if "pixel_values" not in prepared:
        raise RecipeError(f"The model's image processor returns {', '.join(prepared)}; this family needs pixel_values.")
    return prepared["pixel_values"][0]


def photo_of(image: Any) -> Any:
    """Convert an array [height, width, 3], or a picture, to a PIL picture in RGB."""
    import numpy as np
    from torchvision.transforms.functional import to_pil_image

    if hasattr(image, "convert"):
        return image.convert("RGB")
    return to_pil_image(np.asarray(image, dtype=np.uint8)).convert("RGB")
