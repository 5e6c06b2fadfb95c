"""Image classifiers whose classes are named by texts: CLIP, SigLIP and similar models, through transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from mlflow_compress.data.class_maps import mapped
from mlflow_compress.data.datasets import draw, scored
from mlflow_compress.data.labels import labels_of
from mlflow_compress.data.pictures import as_picture
from mlflow_compress.errors import RecipeError, Unsupported
from mlflow_compress.networks.class_scores import Ranking, rankings
from mlflow_compress.networks.export_graphs import Attached, Calls, dtype_of, graph
from mlflow_compress.networks.image_inputs import PHOTO, SIDE, prepared, processor_of_side
from mlflow_compress.networks.text_inputs import require_pass
from mlflow_compress.networks.transformers_models import (
    Companions,
    TransformersFamily,
    companions,
    load_tokenizer,
    load_transformer,
)
from mlflow_compress.sockets import Graph, Mark, Model, NativeFlavor, Sample

_ROLES = ("image", "label")
_PREDICT_BATCH = 16
_RANKED = 5  # labels in an answer, for top-5 accuracy
_FORWARD_CLASSES = 32  # texts in a forward pass of both encoders
_TEXTS_AT_ONCE = 64
_SCALE = "similarity_scale"  # our own field in the config: factor and offset of the cosine
_LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass
class ZeroShotImageClassification(TransformersFamily):
    """A transformers model with an encoder of images and one of texts: the class is the text nearest to the image.

    The timed call is that of a deployed classifier: the texts of the classes are encoded once, before. Methods compress
    both encoders; they calibrate and train on both, with the texts of at most 32 classes.

    Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, arXiv 2103.00020,
    section 3.1.

    Attributes:
        labels: names of the classes; empty: those of CIFAR-10.
        template: the text of a class, with {} for its name.
        architecture: for random weights, fields of the config, including `model_type`.
        trust: whether Python code beside a local model may build it (`auto_map` in its `config.json`).
        students: for random weights, the `architecture` of each model that distill:student names.
    """

    auto_class: ClassVar[str] = "AutoModelForZeroShotImageClassification"
    pipeline: ClassVar[str] = "zero-shot-image-classification"
    keeps: ClassVar[tuple[str, ...]] = ("tokenizer", "processor")
    call_options: ClassVar[tuple[str, ...]] = ()
    timed: ClassVar[str] = (
        "the image encoder on prepared images [batch, channels, height, width] on the device, and its similarity with "
        "the texts of the classes, which are encoded before; resizing and normalising (preprocess) are timed apart"
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
    template: str = "a photo of a {}."
    architecture: dict[str, Any] = field(default_factory=dict)

    def load(self, source: str, weights: str, folder: Path, seed: int) -> Model:
        """Load both encoders, the tokenizer and the image processor (see `Family.load`).

        Raises:
            RecipeError: the template has no place for a name, or two classes have the same name.
        """
        if "{}" not in self.template:
            raise RecipeError(f"options.template has no {{}} for the name of a class: {self.template!r}.")
        if len(set(self._names)) != len(self._names):
            raise RecipeError("options.labels names a class twice.")
        origin = self.origin(source, weights, folder)
        model = load_transformer(self.auto_class, source, origin, self.architecture, seed, self.precision)
        model.family_data = Companions(
            tokenizer=load_tokenizer(origin), processor=processor_of_side(model.config, origin), code=origin.code
        )
        require_pass(model, lambda: self._require_both(model), "pictures as pixel_values and texts as input_ids")
        return model

    def _require_both(self, model: Model) -> None:
        batch = self.batch(model, 1, 0)
        outputs = (self.run(model, batch, lambda stage: None), self.forward(model, batch))
        if not all(output.dim() == 2 and len(output) == 1 for output in outputs):
            raise RecipeError(f"{type(model.module).__name__} does not return one score for each picture and text.")

    @property
    def _names(self) -> list[str]:
        return self.labels or list(_LABELS)

    def batch(self, model: Model, size: int, seed: int) -> dict[str, Any]:
        """Create random images [size, channels, height, width] in the model's dtype, with the texts of the classes.

        Returns:
            `pixel_values`; `input_ids` and `attention_mask` of the first classes [classes, tokens], for `forward`; and
            `classes`, the embeddings of all classes [classes, width], for `run`.
        """
        import numpy as np
        import torch

        generator = torch.Generator().manual_seed(seed)
        square = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
        shape = self._prepared(model, square).shape
        pixels = torch.randn((size, *shape), generator=generator).to(model.device, dtype_of(model.module))
        return self._with_texts(model, pixels)

    def _with_texts(self, model: Model, pixels: Any) -> dict[str, Any]:
        texts = self._encoded(model, self._names[:_FORWARD_CLASSES])
        return {"pixel_values": pixels, **texts, "classes": self._class_vectors(model)}

    def run(self, model: Model, batch: Any, mark: Mark) -> Any:
        """Encode the images; return their similarity with each class [batch, classes]."""
        images = _image_vectors(model.module, batch["pixel_values"])
        return _similarity(model, images, batch["classes"])

    def forward(self, model: Model, batch: Any) -> Any:
        """Run both encoders; return the similarity of each image with each of at most 32 texts [batch, texts]."""
        images = _image_vectors(model.module, batch["pixel_values"])
        texts = _text_vectors(model.module, {name: batch[name] for name in ("input_ids", "attention_mask")})
        return _similarity(model, images, texts)

    def classes(self, model: Model) -> int:
        """Return the number of classes in a forward pass."""
        return min(_FORWARD_CLASSES, len(self._names))

    def graphs(self, model: Model) -> Mapping[str, Graph]:
        """Return two graphs, both to vectors of length 1: `image` from `pixel_values`, and `text`.

        The second takes `input_ids` and `attention_mask` [texts, tokens].
        """
        import torch

        batch = self.batch(model, 2, 0)
        setattr(model.config, _SCALE, [float(value) for value in _scale_of(model.module)])
        pixels = {"pixel_values": batch["pixel_values"]}
        # The checks of exports reorder masks: what a causal encoder computes for hidden first tokens is arbitrary.
        texts = {"input_ids": batch["input_ids"], "attention_mask": torch.ones_like(batch["attention_mask"])}
        by_text = {name: {0: "texts", 1: "tokens"} for name in texts}
        return {
            "image": graph(
                lambda parts, pixel_values: (_image_vectors(parts.module, pixel_values),),
                pixels,
                ["vectors"],
                {"pixel_values": {0: "batch"}, "vectors": {0: "batch"}},
                module=_half(model.module, "text_model"),
            ),
            "text": graph(
                lambda parts, input_ids, attention_mask: (
                    _text_vectors(parts.module, {"input_ids": input_ids, "attention_mask": attention_mask}),
                ),
                texts,
                ["vectors"],
                {**by_text, "vectors": {0: "texts"}},
                module=_half(model.module, "vision_model"),
            ),
        }

    def attach(self, model: Model, calls: Calls) -> Model:
        """Replace the module by the two exported encoders."""
        model.module = _Exported(calls)
        return model

    def around(self, model: Model, size: int, seed: int) -> Mapping[str, Callable[[], object]]:
        """Time the preparation of 720x1280 photos."""
        import numpy as np

        photo = np.random.default_rng(seed).integers(0, 256, PHOTO, dtype=np.uint8)
        return {"preprocess": lambda: [self._prepared(model, photo) for _ in range(size)]}

    def samples(self, model: Model, data: str, folder: Path, limit: int | None, seed: int) -> Sequence[Sample]:
        """Read pictures, decoded when they are used, and their labels, by name or number in `labels`.

        Raises:
            RecipeError: the data can't be read (see `datasets.read`), or `labels` does not name a label.
        """
        rows = scored(model, data, folder, _ROLES, limit, seed)
        names = dict(enumerate(self._names))
        labels = labels_of(mapped(rows, data, folder, names), names)
        return [Sample(row.values["image"], label) for row, label in zip(rows, labels, strict=True)]

    def calibration(self, model: Model, count: int, seed: int, size: int = 1) -> list[Any]:
        """Draw pictures that are not scored; without any, see `Family.calibration`."""
        import torch

        pictures = draw(model, _ROLES, count * size, seed)
        if not pictures:
            return super().calibration(model, count, seed, size)
        parts = [pictures[start : start + size] for start in range(0, len(pictures), size)]
        batches = [torch.stack([self._prepared(model, picture) for picture in part]) for part in parts]
        return [self._with_texts(model, pixels) for pixels in batches]

    def predict(self, model: Model, inputs: Sequence[Any]) -> list[str]:
        """Return the nearest label for each image: a path, a PIL image, or uint8 [height, width, 3] in RGB order."""
        return [ranking[0] for ranking in self.answers(model, inputs)]

    def answers(self, model: Model, inputs: Sequence[Any]) -> list[Ranking]:
        """Return the names of the five nearest labels for each image, best first, with the scores of all labels."""
        import torch

        answers: list[Ranking] = []
        with torch.inference_mode():
            classes = self._class_vectors(model)
            for start in range(0, len(inputs), _PREDICT_BATCH):
                pixels = [self._prepared(model, image) for image in inputs[start : start + _PREDICT_BATCH]]
                scores = _similarity(model, _image_vectors(model.module, torch.stack(pixels)), classes).float()
                answers += rankings(scores, tuple(self._names), _RANKED)
        return answers

    def _class_vectors(self, model: Model) -> Any:
        """Return the embeddings of all classes [classes, width]."""
        import torch

        vectors = []
        with torch.no_grad():
            for start in range(0, len(self._names), _TEXTS_AT_ONCE):
                texts = self._encoded(model, self._names[start : start + _TEXTS_AT_ONCE])
                vectors.append(_text_vectors(model.module, texts))
        return torch.cat(vectors)

    def _encoded(self, model: Model, names: Sequence[str]) -> dict[str, Any]:
        """Return token ids and mask of the texts of classes [classes, tokens].

        SigLIP was trained with texts that are filled up to the maximum, and without a mask.
        """
        import torch

        tokenizer = companions(model).tokenizer
        text_config = getattr(model.config, "text_config", model.config)
        length = min(getattr(text_config, "max_position_embeddings", None) or 64, tokenizer.model_max_length)
        is_filled = str(model.config.model_type).startswith("siglip")
        encoded = tokenizer(
            [self.template.replace("{}", name) for name in names],
            return_tensors="pt",
            padding="max_length" if is_filled else True,
            truncation=True,
            max_length=length,
            return_attention_mask=True,
        ).to(model.device)
        mask = torch.ones_like(encoded["input_ids"]) if is_filled else encoded["attention_mask"]
        return {"input_ids": encoded["input_ids"], "attention_mask": mask}

    def _prepared(self, model: Model, image: Any) -> Any:
        """Convert an image to the model's input: [channels, height, width] in its dtype and on its device."""
        return prepared(model, as_picture(image))

    def example(self, model: Model) -> list[Any]:
        """Return a small black picture."""
        import numpy as np

        return [np.zeros((32, 32, 3), dtype=np.uint8)]

    def native_flavor(self, saved: Path) -> NativeFlavor:
        """Raise `Unsupported`: the pipeline of transformers needs the names of the classes with each call."""
        raise Unsupported("the pipeline of MLflow's transformers flavor needs the names of the classes in each call")


class _Exported(Attached):
    def image(self, pixels: Any) -> Any:
        return self.calls["image"](pixels)[0]

    def text(self, inputs: Mapping[str, Any]) -> Any:
        return self.calls["text"](inputs["input_ids"], inputs["attention_mask"])[0]


def _half(module: Any, other: str) -> Any:
    """Return a model without its other encoder, so that each graph has only the weights that it uses."""
    from torch import nn

    from mlflow_compress.networks.export_graphs import twin

    half = twin(module)
    if hasattr(half, other):
        setattr(half, other, nn.Identity())
    return half


def _image_vectors(module: Any, pixels: Any) -> Any:
    """Return the embeddings of images, of length 1 [batch, width]."""
    from torch.nn.functional import normalize

    if isinstance(module, _Exported):
        return module.image(pixels)
    features = module.get_image_features(pixel_values=pixels)
    return normalize(getattr(features, "pooler_output", features), dim=-1)


def _text_vectors(module: Any, inputs: Mapping[str, Any]) -> Any:
    """Return the embeddings of texts, of length 1 [texts, width]."""
    from torch.nn.functional import normalize

    if isinstance(module, _Exported):
        return module.text(inputs)
    features = module.get_text_features(**inputs)
    return normalize(getattr(features, "pooler_output", features), dim=-1)


def _similarity(model: Model, images: Any, texts: Any) -> Any:
    """Return the logits of each image for each text: their cosine, times the model's factor, plus its offset."""
    is_exported = isinstance(model.module, Attached)
    factor, offset = getattr(model.config, _SCALE) if is_exported else _scale_of(model.module)
    return images @ texts.T.to(images.dtype) * factor + offset


def _scale_of(module: Any) -> tuple[Any, Any]:
    """Return the factor and the offset of the cosine.

    Raises:
        Unsupported: the model compares images and texts in another way.
    """
    if not hasattr(module, "logit_scale"):
        raise Unsupported(f"a {type(module).__name__} does not compare one vector of an image with one of a text")
    return module.logit_scale.exp(), getattr(module, "logit_bias", 0.0)
