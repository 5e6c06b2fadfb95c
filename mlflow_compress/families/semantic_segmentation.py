"""Semantic segmentation with transformers: SegFormer, UperNet and similar models, which give each pixel a class."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, MultipleOf

from mlflow_compress.data import segmentations
from mlflow_compress.data.datasets import remember
from mlflow_compress.data.pictures import as_picture
from mlflow_compress.errors import RecipeError
from mlflow_compress.networks.class_scores import best_classes
from mlflow_compress.networks.export_graphs import Attached, Calls, dtype_of, graph
from mlflow_compress.networks.image_inputs import PHOTO, prepared, processor_of_type, resized, shape_of_photo
from mlflow_compress.networks.transformers_models import (
    Companions,
    TransformersFamily,
    companions,
    load_transformer,
)
from mlflow_compress.scoring.pixels import IGNORED, encoded
from mlflow_compress.sockets import Evaluation, Graph, Mark, Model, Sample


@dataclass
class SemanticSegmentation(TransformersFamily):
    """A model for semantic segmentation from transformers.

    Sources: a hub id, or a folder that `save_pretrained` wrote. The model's own image processor prepares the pictures.
    Logits are resized to the picture before the class of each pixel is chosen, as in the processors of transformers.
    Masks in the data have the numbers of the model's classes. If the image processor reduces labels (models for
    ADE20K), masks have 0 for no class, and 1 for the first.

    Attributes:
        image_size: side of the square that pictures are resized to, in pixels; None: as the model's image processor
            does.
        architecture: for random weights, fields of the config, including `model_type`.
        trust: whether Python code beside a local model may build it (`auto_map` in its `config.json`).
    """

    auto_class: ClassVar[str] = "AutoModelForSemanticSegmentation"
    pipeline: ClassVar[str] = "image-segmentation"
    keeps: ClassVar[tuple[str, ...]] = ("processor",)
    call_options: ClassVar[tuple[str, ...]] = ()
    timed: ClassVar[str] = (
        "one forward pass on a prepared photo of 720x1280 pixels [batch, channels, height, width], on the device; "
        "resizing and normalising it (preprocess) and resizing the logits to the photo (postprocess) are timed apart"
    )
    metrics: ClassVar[tuple[str, ...]] = ("miou", "pixel_accuracy")
    gives: ClassVar[tuple[str, ...]] = ("pixels",)
    flexible_axes: ClassVar[tuple[int, ...]] = (0, 1)
    needs: ClassVar[tuple[str, ...]] = ("torch", "torchvision", "transformers", "accelerate", "safetensors")
    imports: ClassVar[tuple[str, ...]] = (
        "torch",
        "torchvision",
        "transformers.modeling_utils",
        "accelerate",
        "safetensors.torch",
    )

    image_size: Annotated[int, Ge(32), MultipleOf(32)] | None = None
    architecture: dict[str, Any] = field(default_factory=dict)

    def load(self, source: str, weights: str, folder: Path, seed: int) -> Model:
        """Load the model and its image processor (see `Family.load`)."""
        origin = self.origin(source, weights, folder)
        model = load_transformer(self.auto_class, source, origin, self.architecture, seed, self.precision)
        model.family_data = Companions(processor=processor_of_type(model.config, origin), code=origin.code)
        return model

    def batch(self, model: Model, size: int, seed: int) -> Any:
        """Create random images [size, channels, height, width] from a normal distribution, in the model's dtype."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        pixels = torch.randn((size, *shape_of_photo(model, self.image_size)), generator=generator)
        return pixels.to(model.device, dtype_of(model.module))

    def run(self, model: Model, batch: Any, mark: Mark) -> Any:
        """Run the model; return logits [batch, classes, height, width], usually of a quarter of the image's size."""
        return _logits(model.module, batch)

    def scores(self, model: Model, output: Any) -> Any:
        """Return the logits with the classes on the last axis."""
        return output.movedim(1, -1)

    def graphs(self, model: Model) -> Mapping[str, Graph]:
        """Return one graph, `model`: from `pixels` [batch, channels, height, width] to `logits`."""
        inputs = {"pixels": self.batch(model, 2, 0)}
        dynamic = {"pixels": {0: "batch"}, "logits": {0: "batch"}}
        return {"model": graph(_segment, inputs, ["logits"], dynamic, segmenter=model.module)}

    def attach(self, model: Model, calls: Calls) -> Model:
        """Replace the module by the exported model."""
        model.module = _Exported(calls)
        return model

    def around(self, model: Model, size: int, seed: int) -> Mapping[str, Callable[[], object]]:
        """Time the preparation of 720x1280 photos, and the choice of the class of each of their pixels."""
        import numpy as np
        import torch

        photo = as_picture(np.random.default_rng(seed).integers(0, 256, PHOTO, dtype=np.uint8))
        with torch.inference_mode():
            logits = self.run(model, self.batch(model, size, seed), lambda stage: None)
        return {
            "preprocess": lambda: [self._prepared(model, photo) for _ in range(size)],
            "postprocess": lambda: _enlarged(logits, PHOTO[:2]).argmax(1),
        }

    def samples(self, model: Model, data: str, folder: Path, limit: int | None, seed: int) -> Sequence[Sample]:
        """Read pictures with their masks (see `data.segmentations`).

        Raises:
            RecipeError: the data can't be read, or a mask has a number that is not a class of the model.
        """
        table = segmentations.read(data, folder, limit, seed)
        remember(model, table, Evaluation(data, folder, limit, seed))
        return [
            Sample(row.values["image"], {"pixels": encoded(self._true(model, row.values["mask"]))})
            for row in table.rows
        ]

    def _true(self, model: Model, mask: segmentations.Mask) -> Any:
        """Return the model's class of each pixel of a mask; 255 for pixels that are not scored."""
        import numpy as np

        pixels = mask.decode()
        if getattr(companions(model).processor, "do_reduce_labels", False):
            pixels = np.where((pixels == 0) | (pixels == IGNORED), IGNORED, pixels - 1)
        classes = model.config.num_labels
        if wrong := sorted({int(number) for number in np.unique(pixels[pixels != IGNORED])} - set(range(classes))):
            raise RecipeError(
                f"{mask.name} has pixels of the class {wrong[0]}; the model has {classes} classes, from 0 to "
                f"{classes - 1}, and 255 stands for no class."
            )
        return pixels

    def calibration(self, model: Model, count: int, seed: int, size: int = 1) -> list[Any]:
        """Draw training images that are not scored; without any, see `Family.calibration`."""
        import torch

        evaluation = model.evaluation
        if evaluation is None:
            return super().calibration(model, count, seed, size)
        table = segmentations.read(evaluation.data, evaluation.folder, evaluation.limit, evaluation.seed)
        held_out = frozenset(row.values["image"].digest() for row in table.rows)
        images = segmentations.training(evaluation.data, evaluation.folder, held_out, count * size, seed)
        if not images:
            return super().calibration(model, count, seed, size)
        shape = shape_of_photo(model, self.image_size)[1:]
        pixels = [resized(self._prepared(model, as_picture(image)), shape) for image in images]
        return [torch.stack(pixels[start : start + size]) for start in range(0, len(pixels), size)]

    def predict(self, model: Model, inputs: Sequence[Any]) -> list[Any]:
        """Return the class of each pixel [height, width]: a path, a PIL image, or uint8 [height, width, 3] in RGB."""
        import torch

        predictions = []
        with torch.inference_mode():
            for image in inputs:
                picture = as_picture(image)
                logits = self.run(model, self._prepared(model, picture)[None], lambda stage: None)
                classes = best_classes(_enlarged(logits, picture.size[::-1])[0], 0)
                predictions.append(classes.cpu().numpy())
        return predictions

    def answers(self, model: Model, inputs: Sequence[Any]) -> list[Any]:
        """Return the class of each pixel for scoring; NaN for a picture with scores that are not numbers."""
        import numpy as np

        return [
            math.nan if np.isnan(pixels).any() else {"pixels": encoded(pixels)}
            for pixels in self.predict(model, inputs)
        ]

    def _prepared(self, model: Model, picture: Any) -> Any:
        """Convert a picture to the model's input: [channels, height, width] in its dtype and on its device."""
        return prepared(model, picture, self.image_size)

    def example(self, model: Model) -> list[Any]:
        """Return a small black picture."""
        import numpy as np

        return [np.zeros((32, 32, 3), dtype=np.uint8)]


class _Exported(Attached):
    def __call__(self, pixels: Any) -> Any:
        return self.calls["model"](pixels)[0]


def _segment(parts: Any, pixels: Any) -> tuple[Any, ...]:
    return (_logits(parts.segmenter, pixels),)


def _logits(module: Any, pixels: Any) -> Any:
    """Return the logits of a model; transformers wraps them."""
    output = module(pixels)
    return output["logits"] if isinstance(output, Mapping) else output


def _enlarged(logits: Any, size: Sequence[int]) -> Any:
    """Return the scores of each pixel [batch, classes, height, width] of images of a size (height, width)."""
    from torch.nn.functional import interpolate

    return interpolate(logits.float(), size=tuple(size), mode="bilinear", align_corners=False)
