"""Image processors of transformers models, and the pixels that they make of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlflow_compress.errors import RecipeError, WeightsError, one_line
from mlflow_compress.networks.export_graphs import dtype_of
from mlflow_compress.networks.hub import Origin
from mlflow_compress.networks.transformers_models import companions
from mlflow_compress.sockets import Model

SIDE = 224  # of images, if a config does not state it
PHOTO = (720, 1280, 3)  # height, width and channels of the photo that is prepared in a timed call


def processor_of_side(config: Any, origin: Origin) -> Any:
    """Return the image processor beside a model; for random weights that of ViT, with the config's image size.

    Raises:
        WeightsError: it can't be loaded.
    """
    from transformers import ViTImageProcessor

    if origin.kind != "random":
        return _loaded(origin)
    vision = getattr(config, "vision_config", config)
    side = getattr(vision, "image_size", None) or SIDE
    height, width = (side, side) if isinstance(side, int) else side
    return ViTImageProcessor(size={"height": height, "width": width})


def processor_of_type(config: Any, origin: Origin) -> Any:
    """Return the image processor beside a model; for random weights that of the model's type, with its defaults.

    Raises:
        WeightsError: it can't be loaded, or transformers has none for this type.
    """
    import transformers

    if origin.kind != "random":
        return _loaded(origin)
    from transformers.models.auto import image_processing_auto

    by_type: Any = image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES  # type: ignore[attr-defined]
    names = by_type.get(config.model_type)
    if not names:
        raise WeightsError(f"transformers has no image processor for the type of model {config.model_type!r}.")
    return getattr(transformers, names.get("torchvision") or names["pil"])()


def _loaded(origin: Origin) -> Any:
    from transformers import AutoImageProcessor

    try:
        return AutoImageProcessor.from_pretrained(origin.location, **origin.arguments)
    except Exception as error:  # errors of the hub, files and configs have no common base class
        raise WeightsError(f"The image processor in {origin.location} can't be loaded: {one_line(error)}") from error


def pixels_of(processor: Any, picture: Any, side: int | None = None) -> Any:
    """Return a picture in RGB as a model's pixels [channels, height, width].

    Args:
        processor: the image processor.
        picture: a PIL picture, or an array uint8 [height, width, 3].
        side: side of the square that it is resized to; None: the processor's own size.

    Raises:
        RecipeError: the processor returns something other than pixels.
    """
    size = {} if side is None else {"size": {"height": side, "width": side}, "do_resize": True}
    inputs = processor(images=picture, return_tensors="pt", **size)
    if "pixel_values" not in inputs:
        raise RecipeError(f"The model's image processor returns {', '.join(inputs)}; this family needs pixel_values.")
    return inputs["pixel_values"][0]


def prepared(model: Model, picture: Any, side: int | None = None) -> Any:
    """Return a picture in RGB as a model's input [channels, height, width], in its dtype and on its device.

    Args:
        model: the model, with its image processor.
        picture: see `pixels_of`.
        side: see `pixels_of`.
    """
    return pixels_of(companions(model).processor, picture, side).to(model.device, dtype_of(model.module))


def shape_of_photo(model: Model, side: int | None = None, photo: tuple[int, int, int] = PHOTO) -> Any:
    """Return the shape [channels, height, width] of a photo as a model's input.

    Args:
        model: the model, with its image processor.
        side: see `pixels_of`.
        photo: height, width and channels of the photo.
    """
    import numpy as np

    return tuple(prepared(model, np.zeros(photo, dtype=np.uint8), side).shape)


def resized(pixels: Any, shape: Sequence[int]) -> Any:
    """Return an image in another height and width, for batches of images with different shapes."""
    from torch.nn.functional import interpolate

    if tuple(pixels.shape[1:]) == tuple(shape):
        return pixels
    return interpolate(pixels[None].float(), tuple(shape), mode="bilinear")[0].to(pixels.dtype)
