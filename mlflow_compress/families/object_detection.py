"""Detectors of transformers: DETR, RT-DETR, D-FINE, YOLOS and similar models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, MultipleOf

from mlflow_compress.data import detections
from mlflow_compress.data.datasets import remember
from mlflow_compress.data.labels import distinct
from mlflow_compress.data.pictures import as_picture
from mlflow_compress.networks import value_trees
from mlflow_compress.networks.export_graphs import Attached, Calls, dtype_of, graph
from mlflow_compress.networks.image_inputs import PHOTO, prepared, processor_of_type, resized, shape_of_photo
from mlflow_compress.networks.transformers_models import (
    Companions,
    TransformersFamily,
    companions,
    load_transformer,
)
from mlflow_compress.sockets import Evaluation, Graph, Mark, Model, Sample

_SCORED_CONFIDENCE = 0.001  # as for the detectors of ultralytics
_MOST_BOXES = 300  # in an image
_DEVIATION = 0.1  # of random weights that would be constant
_LEAST_SCALE = 0.5  # mean of a batch normalisation that does not make its inputs vanish
_OUTPUTS = ("logits", "boxes")
# their code reads the number of images by `len`, which an export makes a constant
_OF_FIXED_BATCH = ("rt_detr", "rt_detr_v2", "d_fine")


@dataclass
class ObjectDetection(TransformersFamily):
    """A detector from transformers.

    Sources: a hub id, or a folder that `save_pretrained` wrote. The model's own image processor prepares the pictures
    and converts outputs to boxes. Boxes are scored on a data.yaml, like those of `yolo`: all with a score above 0.001,
    at most 300 per image. pycocotools gives slightly different numbers.

    Attributes:
        image_size: side of the square that pictures are resized to, in pixels; None: as the model's image processor
            does.
        confidence: lowest score of a reported box.
        architecture: for random weights, fields of the config, including `model_type`.
        trust: whether Python code beside a local model may build it (`auto_map` in its `config.json`).
    """

    auto_class: ClassVar[str] = "AutoModelForObjectDetection"
    pipeline: ClassVar[str] = "object-detection"
    keeps: ClassVar[tuple[str, ...]] = ("processor",)
    call_options: ClassVar[tuple[str, ...]] = ()
    timed: ClassVar[str] = (
        "one forward pass on a prepared photo of 720x1280 pixels [batch, channels, height, width], on the device; "
        "resizing and normalising it (preprocess) and converting outputs to boxes (postprocess) are timed apart"
    )
    metrics: ClassVar[tuple[str, ...]] = ("map50", "map50_95", "box_precision", "box_recall")
    gives: ClassVar[tuple[str, ...]] = ("boxes",)
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
    confidence: Annotated[float, Ge(0)] = 0.5
    architecture: dict[str, Any] = field(default_factory=dict)

    def load(self, source: str, weights: str, folder: Path, seed: int) -> Model:
        """Load the detector and its image processor (see `Family.load`)."""
        origin = self.origin(source, weights, folder)
        model = load_transformer(self.auto_class, source, origin, self.architecture, seed, self.precision)
        if origin.kind == "random":
            _draw_weights(model.module, seed)
        model.family_data = Companions(processor=processor_of_type(model.config, origin), code=origin.code)
        return model

    def batch(self, model: Model, size: int, seed: int) -> Any:
        """Create random images [size, channels, height, width] from a normal distribution, in the model's dtype."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        images = torch.randn((size, *shape_of_photo(model, self.image_size)), generator=generator)
        return images.to(model.device, dtype_of(model.module))

    def run(self, model: Model, batch: Any, mark: Mark) -> Any:
        """Run the detector.

        Returns:
            Logits [batch, queries, classes], and boxes [batch, queries, 4]: the centre's x and y, width and height,
            from 0 to 1.
        """
        return _detect(model.module, batch)

    def scores(self, model: Model, output: Any) -> Any:
        """Return the logits."""
        return output[0]

    def parts(self, model: Model, output: Any) -> list[tuple[Any, float]]:
        """Return logits and boxes, sorted, because rounding may change the order of queries (see `Family.parts`)."""
        return [(value_trees.in_order(part), 0.0) for part in output]

    def graphs(self, model: Model) -> Mapping[str, Graph]:
        """Return one graph, `model`: from `pixels` [batch, channels, height, width] to `logits` and `boxes`.

        Height and width may change if the image processor keeps the shape of pictures. RT-DETR and D-FINE have a fixed
        batch size.
        """
        axes = {0: "batch"} if self._is_fixed(model) else {0: "batch", 2: "height", 3: "width"}
        dynamic = {"pixels": axes, **{name: {0: "batch"} for name in _OUTPUTS}}
        is_fixed_batch = model.config.model_type in _OF_FIXED_BATCH
        if is_fixed_batch:
            dynamic = {}
            model.config.exported_batch = model.batch_size
        inputs = {"pixels": self.batch(model, model.batch_size if is_fixed_batch else 2, 0)}
        plain = graph(_outputs, inputs, list(_OUTPUTS), dynamic, detector=model.module)
        return {"model": replace(plain, is_unordered=True)}

    def attach(self, model: Model, calls: Calls) -> Model:
        """Replace the module by the exported detector."""
        model.module = _Exported(calls, getattr(model.config, "exported_batch", None))
        return model

    def around(self, model: Model, size: int, seed: int) -> Mapping[str, Callable[[], object]]:
        """Time the preparation of 720x1280 photos, and the conversion of outputs to boxes."""
        import numpy as np
        import torch

        photo = as_picture(np.random.default_rng(seed).integers(0, 256, PHOTO, dtype=np.uint8))
        with torch.inference_mode():
            output = self.run(model, self.batch(model, size, seed), lambda stage: None)
        return {
            "preprocess": lambda: [self._prepared(model, photo) for _ in range(size)],
            "postprocess": lambda: self._boxes(model, output, [PHOTO[:2]] * size, self.confidence),
        }

    def samples(self, model: Model, data: str, folder: Path, limit: int | None, seed: int) -> Sequence[Sample]:
        """Read images with their boxes (a data.yaml; `split=test` if it has labels, else `val`).

        Raises:
            RecipeError: the data can't be read, or its classes do not match the model's.
        """
        evaluation = Evaluation(data, folder, limit, seed)
        table, classes = detections.read(data, folder, limit, seed)
        remember(model, table, evaluation)
        names = detections.matched(classes, _names(model), data)
        return [Sample(row.values["image"], detections.true_boxes(row.values, names)) for row in table.rows]

    def calibration(self, model: Model, count: int, seed: int, size: int = 1) -> list[Any]:
        """Draw training images that are not scored, in the shape of `batch`; without any, see `Family.calibration`."""
        import torch

        evaluation = model.evaluation
        if evaluation is None:
            return super().calibration(model, count, seed, size)
        table, _ = detections.read(evaluation.data, evaluation.folder, evaluation.limit, evaluation.seed)
        held_out = frozenset(row.values["image"].digest() for row in table.rows)
        images = detections.training(evaluation.data, evaluation.folder, held_out, count * size, seed)
        if not images:
            return super().calibration(model, count, seed, size)
        shape = shape_of_photo(model, self.image_size)[1:]
        pixels = [resized(self._prepared(model, as_picture(image)), shape) for image in images]
        return [torch.stack(pixels[start : start + size]) for start in range(0, len(pixels), size)]

    def predict(self, model: Model, inputs: Sequence[Any]) -> list[dict[str, Any]]:
        """Detect objects in each image: a path, a PIL image, or uint8 [height, width, 3] in RGB order.

        Returns:
            For each image `boxes` ([n, 4], x1 y1 x2 y2 in the image's pixels), `scores` and `labels`, best first.
        """
        return [self._detected(model, image, self.confidence) for image in inputs]

    def answers(self, model: Model, inputs: Sequence[Any]) -> list[dict[str, Any]]:
        """Return all boxes for scoring, also unlikely ones."""
        return [self._detected(model, image, _SCORED_CONFIDENCE) for image in inputs]

    def _detected(self, model: Model, image: Any, confidence: float) -> dict[str, Any]:
        import torch

        picture = as_picture(image)
        with torch.inference_mode():
            output = self.run(model, self._prepared(model, picture)[None], lambda stage: None)
        return self._boxes(model, output, [picture.size[::-1]], confidence)[0]

    def _boxes(
        self, model: Model, output: Any, sizes: Sequence[Sequence[int]], confidence: float
    ) -> list[dict[str, Any]]:
        """Convert outputs to boxes in pixels, best first.

        Args:
            model: The model.
            output: Output of `run`.
            sizes: Height and width of each image.
            confidence: Lowest score of a box.
        """
        logits, boxes = (part.float().cpu() for part in output)
        names = distinct(_names(model))
        results = companions(model).processor.post_process_object_detection(
            SimpleNamespace(logits=logits, pred_boxes=boxes), threshold=confidence, target_sizes=[*map(tuple, sizes)]
        )
        return [_described(image, names) for image in results]

    def _prepared(self, model: Model, picture: Any) -> Any:
        """Convert a picture to the model's input: [channels, height, width] in its dtype and on its device."""
        return prepared(model, picture, self.image_size)

    def _is_fixed(self, model: Model) -> bool:
        """Return whether photos of all shapes are prepared in one shape."""
        height, width, channels = PHOTO
        upright = shape_of_photo(model, self.image_size, (width, height, channels))
        return bool(upright == shape_of_photo(model, self.image_size))

    def example(self, model: Model) -> list[Any]:
        """Return a small black picture."""
        import numpy as np

        return [np.zeros((32, 32, 3), dtype=np.uint8)]


class _Exported(Attached):
    """Runs the exported detector; with a fixed batch size in several calls, the last of which repeats an image."""

    def __init__(self, calls: Calls, size: int | None) -> None:
        super().__init__(calls)
        self.size = size

    def __call__(self, pixels: Any) -> Any:
        import torch

        count = len(pixels)
        if self.size in (None, count):
            return tuple(self.calls["model"](pixels))
        filled = torch.cat([pixels, pixels[-1:].repeat(-count % self.size, 1, 1, 1)])
        outputs = [self.calls["model"](part) for part in filled.split(self.size)]
        return tuple(torch.cat(parts)[:count] for parts in zip(*outputs, strict=True))


def _outputs(parts: Any, pixels: Any) -> tuple[Any, ...]:
    return _detect(parts.detector, pixels)


def _detect(module: Any, pixels: Any) -> tuple[Any, ...]:
    """Return the logits and boxes of a detector; transformers wraps them."""
    output = module(pixels)
    return output if isinstance(output, tuple) else (output["logits"], output["pred_boxes"])


def _draw_weights(module: Any, seed: int) -> None:
    """Draw random weights again that transformers initialises to one value, in place.

    RT-DETR and D-FINE choose the objects with the highest scores. transformers draws the scales of their batch
    normalisation around 0, so that the scores of all objects become equal and the choice depends on rounding alone.
    There all matrices are drawn again, so that outputs are as large as inputs.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    norms = [layer for layer in module.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    is_shrinking = any(float(norm.weight.abs().mean()) < _LEAST_SCALE for norm in norms)
    for weight in module.parameters():
        if weight.dim() > 1 and (is_shrinking or bool((weight == weight.flatten()[0]).all())):
            deviation = weight[0].numel() ** -0.5 if is_shrinking else _DEVIATION
            weight.copy_(torch.randn(weight.shape, generator=generator) * deviation)
    if is_shrinking:
        for norm in norms:
            norm.weight.fill_(1)


def _names(model: Model) -> dict[int, str]:
    return {int(number): str(name) for number, name in model.config.id2label.items()}


def _described(image: Mapping[str, Any], names: Mapping[int, str]) -> dict[str, Any]:
    """Return the boxes of an image as plain data, best first."""
    order = image["scores"].argsort(descending=True)[:_MOST_BOXES]
    return {
        "boxes": image["boxes"][order].tolist(),
        "scores": image["scores"][order].tolist(),
        "labels": [names[index] for index in image["labels"][order].tolist()],
    }
