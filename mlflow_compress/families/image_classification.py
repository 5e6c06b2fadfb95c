"""Image classifiers: ViT, ResNet, ConvNeXt and similar models, through transformers, torchvision or timm."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from mlflow_compress.data.class_maps import mapped
from mlflow_compress.data.datasets import Row, draw, draw_labelled, scored
from mlflow_compress.data.labels import distinct, labels_of
from mlflow_compress.data.pictures import as_picture
from mlflow_compress.errors import RecipeError, Unsupported
from mlflow_compress.networks import image_zoos
from mlflow_compress.networks.class_scores import Ranking, rankings
from mlflow_compress.networks.export_graphs import Attached, Calls, dtype_of, graph
from mlflow_compress.networks.image_inputs import PHOTO, SIDE, prepared, processor_of_side
from mlflow_compress.networks.published_files import copy_plain, require_weights
from mlflow_compress.networks.text_inputs import require_pass
from mlflow_compress.networks.transformer_layers import thinned
from mlflow_compress.networks.transformers_models import (
    Companions,
    TransformersFamily,
    load_transformer,
)
from mlflow_compress.sockets import Graph, Labelled, Mark, Model, NativeFlavor, Published, Sample

_ROLES = ("image", "label")
_PREDICT_BATCH = 16
_RANKED = 5  # labels in an answer, for top-5 accuracy
_ZOO, _DESCRIBED = "zoo.json", "zoo"


@dataclass
class ImageClassification(TransformersFamily):
    """An image classifier from transformers, torchvision or timm.

    Sources: a hub id, a folder that `save_pretrained` wrote, `torchvision:resnet18` (best weights),
    `torchvision:resnet50@IMAGENET1K_V1`, `timm:NAME`. The model's own image processor, or the library's transforms for
    its weights, prepare the images.

    Attributes:
        labels: names of the classes, in order, if the model has others or none.
        architecture: for random weights, fields of the config, including `model_type`; for torchvision and timm,
            arguments of the function that builds the model (`num_classes`).
        trust: whether Python code beside a local model may build it (`auto_map` in its `config.json`).
        students: for random weights, the `architecture` of each model that distill:student names.
    """

    auto_class: ClassVar[str] = "AutoModelForImageClassification"
    pipeline: ClassVar[str] = "image-classification"
    keeps: ClassVar[tuple[str, ...]] = ("processor",)
    call_options: ClassVar[tuple[str, ...]] = ()
    timed: ClassVar[str] = (
        "one forward pass on prepared images [batch, channels, height, width] of the model's own size, on the device; "
        "resizing and normalising (preprocess) are timed apart"
    )
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "top5_accuracy", "precision", "recall", "f1")
    gives: ClassVar[tuple[str, ...]] = ("labels", "scores")
    flexible_axes: ClassVar[tuple[int, ...]] = (0, 1)
    needs: ClassVar[tuple[str, ...]] = ("torch", "torchvision", "transformers", "accelerate", "safetensors")
    imports: ClassVar[tuple[str, ...]] = (
        "torch",
        "torchvision",
        "transformers.modeling_utils",
        "accelerate",
        "safetensors.torch",
    )

    labels: list[str] = field(default_factory=list)
    architecture: dict[str, Any] = field(default_factory=dict)

    def load(self, source: str, weights: str, folder: Path, seed: int) -> Model:
        """Load the classifier and its image processor (see `Family.load`).

        Raises:
            RecipeError: the numbers of labels and classes differ.
        """
        if image_zoos.in_zoo(source):
            labels = list(self.labels_of_teacher.values())
            model = image_zoos.load(source, weights, folder, self.architecture, seed, labels)
        else:
            origin = self.origin(source, weights, folder)
            model = load_transformer(
                self.auto_class, source, origin, self.architecture, seed, self.precision, self.labels_of_teacher
            )
            model.family_data = Companions(processor=processor_of_side(model.config, origin), code=origin.code)
            require_pass(model, lambda: self._require_scores(model), "pictures as pixel_values")
        if self.labels and len(self.labels) != self.classes(model):
            raise RecipeError(f"options.labels names {len(self.labels)} classes; {source} has {self.classes(model)}.")
        return model

    def _require_scores(self, model: Model) -> None:
        shape = tuple(self.run(model, self.batch(model, 1, 0), lambda stage: None).shape)
        if shape != (1, self.classes(model)):
            raise RecipeError(
                f"{type(model.module).__name__} returns shape {list(shape)} for one picture, not one score for each of "
                f"its {self.classes(model)} classes: this family can't measure it."
            )

    def batch(self, model: Model, size: int, seed: int) -> Any:
        """Create random images [size, channels, height, width] from a normal distribution, in the model's dtype."""
        import numpy as np
        import torch

        generator = torch.Generator().manual_seed(seed)
        square = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
        shape = self._prepared(model, square).shape
        return torch.randn((size, *shape), generator=generator).to(model.device, dtype_of(model.module))

    def run(self, model: Model, batch: Any, mark: Mark) -> Any:
        """Run the classifier; return logits [batch, labels]."""
        return _logits(model.module, batch)

    def graphs(self, model: Model) -> Mapping[str, Graph]:
        """Return one graph, `model`: from `pixels` [batch, channels, height, width] to `logits` [batch, labels]."""
        inputs = {"pixels": self.batch(model, 2, 0)}
        dynamic = {"pixels": {0: "batch"}, "logits": {0: "batch"}}
        return {"model": graph(_classify, inputs, ["logits"], dynamic, classifier=model.module)}

    def attach(self, model: Model, calls: Calls) -> Model:
        """Replace the module by the exported classifier."""
        model.module = _Exported(calls)
        return model

    def student(self, model: Model, keep: float) -> Model:
        """Keep an evenly spaced share of a transformer's layers (see `Family.student`).

        Raises:
            Unsupported: it is a convolutional network, whose layers all have different shapes.
        """
        return thinned(model, keep)

    def classes(self, model: Model) -> int:
        """Return the number of labels."""
        return len(_named(model))

    def around(self, model: Model, size: int, seed: int) -> Mapping[str, Callable[[], object]]:
        """Time the preparation of 720x1280 photos."""
        import numpy as np

        photo = np.random.default_rng(seed).integers(0, 256, PHOTO, dtype=np.uint8)
        return {"preprocess": lambda: [self._prepared(model, photo) for _ in range(size)]}

    def samples(self, model: Model, data: str, folder: Path, limit: int | None, seed: int) -> Sequence[Sample]:
        """Read pictures, decoded when they are used, and their labels, by name or number in the model.

        Raises:
            RecipeError: the data can't be read (see `datasets.read`), or the model does not have a label.
        """
        rows = scored(model, data, folder, _ROLES, limit, seed)
        labels = labels_of(self._mapped(model, rows), self._names(model))
        return [Sample(row.values["image"], label) for row, label in zip(rows, labels, strict=True)]

    def calibration(self, model: Model, count: int, seed: int, size: int = 1) -> list[Any]:
        """Draw pictures that are not scored; without any, see `Family.calibration`."""
        import torch

        pictures = draw(model, _ROLES, count * size, seed)
        if not pictures:
            return super().calibration(model, count, seed, size)
        parts = [pictures[start : start + size] for start in range(0, len(pictures), size)]
        return [torch.stack([self._prepared(model, picture) for picture in part]) for part in parts]

    def labelled(self, model: Model, count: int, seed: int, size: int = 1) -> list[Labelled]:
        """Draw labelled pictures that are not scored (see `Family.labelled`); they are not cropped or flipped."""
        import torch

        rows = draw_labelled(model, _ROLES, 1, count * size, seed)
        if not rows:
            return super().labelled(model, count, seed, size)
        names = self._names(model)
        numbers = {name: number for number, name in names.items()}
        labels = [numbers[label] for label in labels_of(self._mapped(model, rows), names)]
        batches = []
        for start in range(0, len(rows), size):
            pictures = [self._prepared(model, row.values["image"]) for row in rows[start : start + size]]
            targets = torch.tensor(labels[start : start + size], device=model.device)
            batches.append(Labelled(torch.stack(pictures), targets))
        return batches

    def classes_to_teach(self, model: Model) -> Mapping[int, str]:
        """Return the labels by number."""
        return self._names(model)

    def predict(self, model: Model, inputs: Sequence[Any]) -> list[str]:
        """Return the label's name for each image: a path, a PIL image, or uint8 [height, width, 3] in RGB order."""
        return [ranking[0] for ranking in self.answers(model, inputs)]

    def answers(self, model: Model, inputs: Sequence[Any]) -> list[Ranking]:
        """Return the names of the five likeliest labels for each image, best first, with the scores of all labels."""
        import torch

        names = self._names(model)
        answers: list[Ranking] = []
        with torch.inference_mode():
            for start in range(0, len(inputs), _PREDICT_BATCH):
                pictures = [self._prepared(model, image) for image in inputs[start : start + _PREDICT_BATCH]]
                # some processors keep the aspect ratio
                for _, same_shape in itertools.groupby(pictures, key=lambda image: image.shape):
                    logits = _logits(model.module, torch.stack(list(same_shape))).float()
                    labels = tuple(names[index] for index in range(logits.shape[-1]))
                    answers += rankings(logits, labels, _RANKED)
        return answers

    def _mapped(self, model: Model, rows: Sequence[Row]) -> list[Row]:
        """Return rows of the data that quality is scored on with the model's labels, if it has a class map."""
        assert model.evaluation is not None
        return mapped(rows, model.evaluation.data, model.evaluation.folder, self._names(model))

    def _names(self, model: Model) -> dict[int, str]:
        return distinct(dict(enumerate(self.labels)) or _named(model))

    def _prepared(self, model: Model, image: Any) -> Any:
        """Convert an image to the model's input: [channels, height, width] in its dtype and on its device."""
        photo = as_picture(image)
        if model.is_transformer:
            return prepared(model, photo)
        pixels = model.data_as(image_zoos.ZooModel).transform(photo)
        return pixels.to(model.device, dtype_of(model.module))

    def example(self, model: Model) -> list[Any]:
        """Return a small black picture."""
        import numpy as np

        return [np.zeros((32, 32, 3), dtype=np.uint8)]

    def save(self, model: Model, folder: Path) -> None:
        """Write config and image processor; for another library's model, its description and pruned sizes."""
        if model.is_transformer:
            super().save(model, folder)
            return
        description = {_DESCRIBED: model.data_as(image_zoos.ZooModel).described, "structure": model.structure}
        (folder / _ZOO).write_text(json.dumps(description, indent=1), encoding="utf-8")

    def publish(self, saved: Path, folder: Path) -> Published:
        """Copy the files that `from_pretrained` reads; for another library's model, its state dict."""
        if not (saved / _ZOO).is_file():
            return super().publish(saved, folder)
        require_weights(saved)
        described = json.loads((saved / _ZOO).read_text(encoding="utf-8"))[_DESCRIBED]
        copy_plain(saved, folder)
        build, needs = image_zoos.built_by(described)
        code = f"import safetensors.torch, {needs}; module = {build}.eval(); "
        code += 'safetensors.torch.load_model(module, "FOLDER/model.safetensors")'
        return Published(code, (needs, "safetensors"))

    def native_flavor(self, saved: Path) -> NativeFlavor:
        """Return the transformers flavor for transformers models (see `Family.native_flavor`).

        For models of other libraries MLflow has only pickles.
        """
        if (saved / _ZOO).is_file():
            raise Unsupported("MLflow stores torch modules of other libraries as pickles, and none is written")
        return super().native_flavor(saved)

    def restore(self, folder: Path) -> Model:
        """Build the unfilled classifier."""
        if not (folder / _ZOO).is_file():
            return super().restore(folder)
        model = self.restore_assets(folder)
        model.module = image_zoos.build(model.data_as(image_zoos.ZooModel).described, is_filled=False)
        return model

    def restore_assets(self, folder: Path) -> Model:
        """Return config and image processor, or the description."""
        if not (folder / _ZOO).is_file():
            return super().restore_assets(folder)
        description = json.loads((folder / _ZOO).read_text(encoding="utf-8"))
        zoo_model = image_zoos.ZooModel(description[_DESCRIBED])
        return Model(None, weights="local", structure=description.get("structure", {}), family_data=zoo_model)


class _Exported(Attached):
    def __call__(self, pixels: Any) -> Any:
        return self.calls["model"](pixels)[0]


def _classify(parts: Any, pixels: Any) -> tuple[Any, ...]:
    return (_logits(parts.classifier, pixels),)


def _logits(module: Any, pixels: Any) -> Any:
    """Return the scores of classes; transformers wraps them, with another name for PP-LCNet."""
    output = module(pixels)
    if not isinstance(output, Mapping):
        return output
    return output["logits"] if "logits" in output else output["last_hidden_state"]


def _named(model: Model) -> dict[int, str]:
    """Return the model's names of its classes."""
    if model.is_transformer:
        numbered = {number: f"LABEL_{number}" for number in range(model.config.num_labels or 0)}
        return dict(model.config.id2label or numbered)  # PVT's config has no names
    return model.data_as(image_zoos.ZooModel).labels
