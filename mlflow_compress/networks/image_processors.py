"""Image processors of transformers models: loaded with the model, or made for random weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlflow_compress.errors import RecipeError, WeightsError, one_line
from mlflow_compress.networks.hub import Origin


def load_processor(config: Any, origin: Origin) -> Any:
    """Return the image processor beside a model's weights; for random weights, that of its type with its defaults.

    Raises:
        WeightsError: there is none, or it can't be read.
    """
    import transformers

    if origin.kind != "random":
        try:
            return transformers.AutoImageProcessor.from_pretrained(origin.location, **origin.arguments)
        except Exception as error:  # errors of the hub, files and configs have no common base class
            raise WeightsError(
                f"The image processor in {origin.location} can't be loaded: {one_line(error)}"
            ) from error
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

    names = IMAGE_PROCESSOR_MAPPING_NAMES.get(config.model_type)
    if not names:
        raise WeightsError(f"transformers has no image processor for the type of model {config.model_type!r}.")
    return getattr(transformers, names.get("torchvision") or names["pil"])()


def prepared(processor: Any, picture: Any, side: int | None) -> Any:
    """Return a picture as a model's input [channels, height, width].

    Args:
        processor: the image processor.
        picture: a PIL picture in RGB.
        side: side of the square that it is resized to; None: the processor's own size.

    Raises:
        RecipeError: the processor gives something other than pixels.
    """
    size = {} if side is None else {"size": {"height": side, "width": side}, "do_resize": True}
    inputs = processor(images=picture, return_tensors="pt", **size)
    if "pixel_values" not in inputs:
        raise RecipeError(f"The model's image processor returns {', '.join(inputs)}; this family needs pixel_values.")
    return inputs["pixel_values"][0]


def resized(pixels: Any, shape: Sequence[int]) -> Any:
    """Return an image in another height and width, for batches of images with different shapes."""
    from torch.nn.functional import interpolate

    if tuple(pixels.shape[1:]) == tuple(shape):
        return pixels
    return interpolate(pixels[None].float(), tuple(shape), mode="bilinear")[0].to(pixels.dtype)
