"""YOLO models for boxes, masks, poses, rotated boxes and classes, through ultralytics (AGPL-3.0; only it needs it)."""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, MultipleOf

from mlflow_compress.data.class_maps import mapped
from mlflow_compress.data.datasets import Row, draw, draw_labelled, remember, scored
from mlflow_compress.data.detections import Shape, describe, matched, training, true_boxes
from mlflow_compress.data.detections import labelled as draw_boxes
from mlflow_compress.data.detections import read as read_boxes
from mlflow_compress.data.labels import distinct, labels_of
from mlflow_compress.data.spec import parse
from mlflow_compress.errors import RecipeError, Unsupported
from mlflow_compress.networks import ultralytics_images, ultralytics_models, ultralytics_training
from mlflow_compress.networks.class_scores import Ranking, rankings
from mlflow_compress.networks.export_graphs import Calls, dtype_of
from mlflow_compress.networks.pickle_scan import UNREADABLE, code_in
from mlflow_compress.networks.published_files import copy_plain, require_weights
from mlflow_compress.networks.ultralytics_architecture import TASKS, Architecture
from mlflow_compress.networks.ultralytics_images import read_photo
from mlflow_compress.networks.ultralytics_models import ExportedNet
from mlflow_compress.networks.weight_files import require_no_pointer
from mlflow_compress.scoring.masks import encoded
from mlflow_compress.sockets import Evaluation, Family, Graph, Labelled, Mark, Model, Published, Sample

_PHOTO = (720, 1280, 3)
_ROLES = ("image", "label")
_RANKED = 5
_SCORED_CONFIDENCE = 0.001  # as in ultralytics' `val`
_SEEN = 0.25  # the lowest score of a reported box
_LEAST_SCORE = 1e-6  # closer to 0 or 1, a logit is only rounding error
_ARCHITECTURE = "architecture.json"
_LABELLED: Mapping[str, Shape] = {  # what labels of data must have, by the shape of a model's objects
    "boxes": "boxes",
    "masks": "outlines",
    "keypoints": "keypoints",
    "rotated_boxes": "corners",
}
_BOX_METRICS = ("map50", "map50_95", "box_precision", "box_recall")
_METRICS: Mapping[str, tuple[str, ...]] = {
    "boxes": _BOX_METRICS,
    "masks": (*_BOX_METRICS, "mask_map50", "mask_map50_95"),
    "keypoints": (*_BOX_METRICS, "keypoint_map50", "keypoint_map50_95"),
    "rotated_boxes": ("obb_map50", "obb_map50_95"),
    "labels": ("accuracy", "top5_accuracy"),
}


@dataclass
class Yolo(Family):
    """An ultralytics model, with batch normalisation fused into the convolutions.

    Its task is detection, segmentation (`-seg`), pose estimation (`-pose`), detection of rotated boxes (`-obb`) or
    classification (`-cls`). Objects are scored on a data.yaml as in ultralytics' `val` with `rect=False`: square
    images, boxes with a score above 0.001, every class of a box, 300 boxes per image. For a segmenter, boxes and masks
    are scored; for poses, boxes and keypoints; for rotated boxes only these. A classifier is scored on a folder of
    images.

    Attributes:
        image_size: side of the square input, in pixels; None: 224 for a classifier, 1024 for rotated boxes, else 640.
        confidence: lowest score of a reported box.
        overlap: intersection over union above which non-maximum suppression drops a box.
        trust: whether to load a .pt file as ultralytics does, which runs the code in it.
    """

    call_options: ClassVar[tuple[str, ...]] = ()
    timed: ClassVar[str] = (
        "one forward pass on a prepared image [batch, 3, image_size, image_size]; preparing it (preprocess) and, of a "
        "detector, non-maximum suppression and masks (postprocess) are timed apart"
    )
    metrics: ClassVar[tuple[str, ...]] = _BOX_METRICS
    flexible_axes: ClassVar[tuple[int, ...]] = (0, 1)
    needs: ClassVar[tuple[str, ...]] = ("torch", "torchvision", "ultralytics")
    imports: ClassVar[tuple[str, ...]] = ("torch", "ultralytics.nn.tasks", "ultralytics.utils.nms")

    image_size: Annotated[int, Ge(32), MultipleOf(32)] | None = None
    confidence: Annotated[float, Ge(0)] = 0.25
    overlap: Annotated[float, Ge(0)] = 0.7
    trust: bool = False

    def code(self, source: str, weights: str, folder: Path) -> str:
        """Describe the functions that a local .pt file would call; ultralytics' own releases are not checked."""
        if weights == "random":
            return ""
        paths = [folder / source, Path(source)] if weights in ("auto", "pretrained") else [folder / weights]
        path = next((path for path in paths if path.is_file()), None)
        if path is not None:
            require_no_pointer(path)
        calls = code_in(path) if path else []
        if calls == [UNREADABLE]:
            return (
                f"{path} is damaged, or not in the current format of torch.save: the code that it would run is unknown"
            )
        return f"{path} is a pickle that calls {', '.join(calls[:3])} when it is read" if calls else ""

    def load(self, source: str, weights: str, folder: Path, seed: int) -> Model:
        """Load and fuse the model (see `Family.load`)."""
        import torch

        ultralytics_models.require_ultralytics()
        torch.manual_seed(seed)
        module, kind, caution = ultralytics_models.load(source, weights, folder, self.trust)
        return self._ready(module, kind, caution)

    def _ready(self, module: Any, kind: Literal["pretrained", "random", "local"], caution: str) -> Model:
        module = module.float().eval()
        module.fuse(verbose=False)
        module.requires_grad_(False)
        return Model(module, weights=kind, caution=caution, family_data=Architecture.of(module))

    def batch(self, model: Model, size: int, seed: int) -> Any:
        """Create random images [size, 3, image_size, image_size] in [0, 1], in the model's dtype."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        side = self.side(model)
        images = torch.rand((size, 3, side, side), generator=generator)
        return images.to(model.device, dtype_of(model.module))

    def run(self, model: Model, batch: Any, mark: Mark) -> Any:
        """Run the model.

        Returns:
            For a detector, raw boxes and scores [batch, 4 + classes, anchors]; for poses and rotated boxes these, with
            the values of keypoints or the angle on the second axis; for a segmenter these, with 32 mask coefficients on
            the second axis, and the prototypes of masks [batch, 32, height, width]; for a classifier, logits [batch,
            classes].
        """
        return model.data_as(Architecture).does.output_of(model.module(batch))

    def parts(self, model: Model, output: Any) -> list[tuple[Any, float]]:
        """Return a detector's box centres, box sizes, scores as probabilities and as logits, and the rest.

        Probabilities show what is detected; logits show differences even if no score is high.
        """
        described = model.data_as(Architecture)
        if described.does.classifies:
            return super().parts(model, output)
        raw, *further_outputs = output if isinstance(output, (list, tuple)) else (output,)
        scores = raw[:, 4 : 4 + len(described.names)].float()
        unscored = [part for part in (raw[:, 4 + len(described.names) :], *further_outputs) if part.numel()]
        boxes = [(raw[:, :2], 0.0), (raw[:, 2:4], 0.0)]
        return [*boxes, (scores, _SEEN), (scores.logit(_LEAST_SCORE), 0.0), *((part, 0.0) for part in unscored)]

    def side(self, model: Model) -> int:
        """Return the side of the square input, in pixels."""
        return self.image_size or model.data_as(Architecture).does.side

    def classes(self, model: Model) -> int:
        """Return the number of classes of a classifier."""
        described = model.data_as(Architecture)
        return len(described.names) if described.does.classifies else 0

    def kinds(self, model: Model) -> tuple[str, ...]:
        """Return the kinds of answers: `labels` and `scores` of a classifier; else boxes and further shapes."""
        shape = model.data_as(Architecture).does.shape
        if shape == "labels":
            return ("labels", "scores")
        return ("boxes", shape) if shape in ("masks", "keypoints") else (shape,)

    def metrics_for(self, model: Model) -> tuple[str, ...]:
        """Return the default metrics of the model's task."""
        return _METRICS[model.data_as(Architecture).does.shape]

    def graphs(self, model: Model) -> Mapping[str, Graph]:
        """Return one graph, `model`: from `images` [batch, 3, image_size, image_size] to the outputs of `run`.

        These are `raw`; for a segmenter `raw` and `prototypes`; for a classifier `logits`.
        """
        task = model.data_as(Architecture).does
        return {"model": ultralytics_models.graph_of(model.module, task, self.batch(model, 2, 0))}

    def attach(self, model: Model, calls: Calls) -> Model:
        """Replace the module by the exported model."""
        model.module = ExportedNet(calls, model.data_as(Architecture).does)
        return model

    def around(self, model: Model, size: int, seed: int) -> Mapping[str, Callable[[], object]]:
        """Time the preparation of 720x1280 photos, and the conversion of raw output to boxes and masks."""
        import numpy as np
        import torch

        answerer = self._answerer(model)
        photos = [np.random.default_rng(seed).integers(0, 256, _PHOTO, dtype=np.uint8)] * size
        prepare = {"preprocess": lambda: answerer.prepare(photos)}
        if not isinstance(answerer, _Boxes):
            return prepare
        boxes = answerer
        with torch.inference_mode():
            raw = self.run(model, self.batch(model, size, seed), lambda stage: None)
        return {**prepare, "postprocess": lambda: boxes.postprocess(raw)}

    def samples(self, model: Model, data: str, folder: Path, limit: int | None, seed: int) -> Sequence[Sample]:
        """Read images with their boxes (a data.yaml; `split=test` if it has labels, else `val`), or their labels.

        Raises:
            RecipeError: the data can't be read, or its classes do not match the model's.
        """
        return self._answerer(model).samples(Evaluation(data, folder, limit, seed))

    def calibration(self, model: Model, count: int, seed: int, size: int = 1) -> list[Any]:
        """Draw training images that are not scored; without any, see `Family.calibration`."""
        answerer = self._answerer(model)
        images = answerer.training(count * size, seed)
        if not images:
            return super().calibration(model, count, seed, size)
        parts = (images[start : start + size] for start in range(0, len(images), size))
        return [answerer.prepare([read_photo(image) for image in part]) for part in parts]

    def labelled(self, model: Model, count: int, seed: int, size: int = 1) -> list[Labelled]:
        """Draw training images that are not scored with their boxes or labels (see `Family.labelled`).

        The images are not augmented.
        """
        batches = self._answerer(model).labelled(count, seed, size)
        return batches or super().labelled(model, count, seed, size)

    def _own_answers(self, model: Model, batch: Any) -> Any:
        if model.data_as(Architecture).does.classifies:
            return super()._own_answers(model, batch)
        _, boxes = ultralytics_training.fitted([], [], self.side(model))
        return boxes

    def forward_labelled(self, model: Model, labelled: Labelled) -> tuple[Any, Any]:
        """Run the model with ultralytics' loss (see `ultralytics_training.label_loss`); a classifier: cross-entropy.

        Raises:
            Unsupported: it is neither a plain detector nor a classifier.
        """
        described = model.data_as(Architecture)
        if described.does.classifies:
            return super().forward_labelled(model, labelled)
        if described.task != "detect":
            raise Unsupported(
                f"only plain detectors and classifiers are trained on labels, not the task {described.task}"
            )
        targets = {name: tensor.to(model.device) for name, tensor in labelled.targets.items()}
        output, loss = ultralytics_training.label_loss(model.module, labelled.batch, targets)
        return described.does.output_of(output), loss

    def imitation_loss(self, model: Model, output: Any, target: Any) -> Any:
        """Return the loss of a plain detector on another one (see `ultralytics_training.imitation_loss`)."""
        described = model.data_as(Architecture)
        if described.task != "detect":
            return None
        return ultralytics_training.imitation_loss(output, target, len(described.names))

    def student(self, model: Model, keep: float) -> Model:
        """Raise `Unsupported`: the layers of a smaller detector have other shapes."""
        raise Unsupported(
            "a smaller detector can't reuse this one's layers: name another model, student=yolo11n.pt. Or use "
            "prune_structured, which makes a smaller detector that keeps its weights"
        )

    def named_student(self, model: Model, source: str, weights: str, seed: int) -> Model:
        """Load another model for the same task; for other classes it gets a new head (see `Family.named_student`).

        Raises:
            Unsupported: it has another task.
        """
        import torch

        described = model.data_as(Architecture)
        torch.manual_seed(seed)
        module, kind, caution = ultralytics_models.load(source, weights, model.folder, self.trust)
        if (task := Architecture.of(module).task) != described.task:
            raise Unsupported(f"the student {source} has the task {task}, the original {described.task}")
        return self._ready(ultralytics_training.with_classes(module, described.names), kind, caution)

    def predict(self, model: Model, inputs: Sequence[Any]) -> list[Any]:
        """Detect objects in each image, or classify it: a path, a picture, or uint8 [height, width, 3] in BGR order.

        Returns:
            For each image its label; for a detector `boxes` ([n, 4], x1 y1 x2 y2 in the image's pixels), `scores` and
            `labels`; for a segmenter also `outlines`, the points [points, 2] of each box's mask; for poses also
            `keypoints` ([n, points, 2 or 3], x y visibility); for rotated boxes `rotated_boxes` ([n, 5], centre, width,
            height and angle in radians) instead of `boxes`.
        """
        import torch

        answerer = self._answerer(model)
        with torch.inference_mode():
            return [answerer.prediction(read_photo(image)) for image in inputs]

    def answers(self, model: Model, inputs: Sequence[Any]) -> list[Any]:
        """Return all objects for scoring, also unlikely ones; for a classifier, the five best labels."""
        import torch

        answerer = self._answerer(model)
        with torch.inference_mode():
            return [answerer.answer(read_photo(image)) for image in inputs]

    def _answerer(self, model: Model) -> _Answerer:
        return _Labels(self, model) if model.data_as(Architecture).does.classifies else _Boxes(self, model)

    def example(self, model: Model) -> list[Any]:
        """Return a small black picture."""
        import numpy as np

        return [np.zeros((32, 32, 3), dtype=np.uint8)]

    def save(self, model: Model, folder: Path) -> None:
        """Write the architecture, with the sizes of pruned layers, and the names of the classes."""
        description = {**dataclasses.asdict(model.data_as(Architecture)), "structure": model.structure}
        (folder / _ARCHITECTURE).write_text(json.dumps(description, indent=1), encoding="utf-8")

    def publish(self, saved: Path, folder: Path) -> Published:
        """Write the state dict and the description for ultralytics; its own `.pt` format is a pickle."""
        require_weights(saved)
        described = json.loads((saved / _ARCHITECTURE).read_text(encoding="utf-8"))
        copy_plain(saved, folder)
        (folder / _ARCHITECTURE).write_text(json.dumps(described["yaml"], indent=1), encoding="utf-8")
        (folder / "names.json").write_text(json.dumps(described["names"], indent=1), encoding="utf-8")
        kind = TASKS[described.get("task", "detect")].built_by
        code = (
            "import json, safetensors.torch, ultralytics.nn.tasks; "
            f'module = ultralytics.nn.tasks.{kind}(json.load(open("FOLDER/{_ARCHITECTURE}")), verbose=False).eval(); '
            'module.fuse(verbose=False); safetensors.torch.load_model(module, "FOLDER/model.safetensors")'
        )
        return Published(code, ("ultralytics", "safetensors"), "YOLO() itself reads only pickles, and none is written.")

    def restore(self, folder: Path) -> Model:
        """Build the fused model (see `ultralytics_models.build`)."""
        ultralytics_models.require_ultralytics()
        model = self.restore_assets(folder)
        model.module = ultralytics_models.build(model.data_as(Architecture))
        return model

    def restore_assets(self, folder: Path) -> Model:
        """Read the architecture's description and the names of the classes."""
        description = json.loads((folder / _ARCHITECTURE).read_text(encoding="utf-8"))
        names = {int(index): name for index, name in description["names"].items()}
        described = Architecture(description["yaml"], names, description.get("task", "detect"))
        return Model(None, weights="local", structure=description.get("structure", {}), family_data=described)


class _Answerer(ABC):
    """Inputs and answers of a model for one task.

    Args:
        family: the family, with options and the timed call.
        model: the model.
    """

    def __init__(self, family: Yolo, model: Model) -> None:
        self.family, self.model = family, model
        self.names = distinct(model.data_as(Architecture).names)

    @abstractmethod
    def prepare(self, photos: Sequence[Any]) -> Any:
        """Convert BGR photos to RGB [n, 3, image_size, image_size] in [0, 1]."""

    @abstractmethod
    def samples(self, evaluation: Evaluation) -> list[Sample]:
        """Read the samples to score."""

    @abstractmethod
    def training(self, count: int, seed: int) -> Sequence[Any]:
        """Draw `count` images that are not scored; none if there are none."""

    @abstractmethod
    def labelled(self, count: int, seed: int, size: int) -> list[Labelled]:
        """Draw `count` labelled batches that are not scored; none if there are none."""

    @abstractmethod
    def prediction(self, photo: Any) -> Any:
        """Predict for a photo, in the form for users."""

    @abstractmethod
    def answer(self, photo: Any) -> Any:
        """Predict for a photo, in the form for metrics."""

    def _run(self, images: Any) -> Any:
        return self.family.run(self.model, images, lambda stage: None)

    def _placed(self, images: Any) -> Any:
        return images.to(self.model.device, dtype_of(self.model.module))


class _Labels(_Answerer):
    """A classifier: photos are centre-cropped, and answers are labels."""

    def prepare(self, photos: Sequence[Any]) -> Any:
        return self._placed(ultralytics_images.cut(photos, self.family.side(self.model)))

    def samples(self, evaluation: Evaluation) -> list[Sample]:
        rows = scored(self.model, evaluation.data, evaluation.folder, _ROLES, evaluation.limit, evaluation.seed)
        labels = labels_of(self._mapped(rows), self.names)
        return [Sample(row.values["image"], label) for row, label in zip(rows, labels, strict=True)]

    def training(self, count: int, seed: int) -> Sequence[Any]:
        return draw(self.model, _ROLES, count, seed)

    def labelled(self, count: int, seed: int, size: int) -> list[Labelled]:
        import torch

        rows = draw_labelled(self.model, _ROLES, 1, count * size, seed)
        numbers = {name: number for number, name in self.names.items()}
        labels = [numbers[label] for label in labels_of(self._mapped(rows), self.names)] if rows else []
        batches = []
        for start in range(0, len(rows), size):
            photos = [read_photo(row.values["image"]) for row in rows[start : start + size]]
            targets = torch.tensor(labels[start : start + size], device=self.model.device)
            batches.append(Labelled(self.prepare(photos), targets))
        return batches

    def _mapped(self, rows: Sequence[Row]) -> list[Row]:
        """Return rows of the data that quality is scored on with the model's labels, if it has a class map."""
        evaluation = self.model.evaluation
        assert evaluation is not None
        return mapped(rows, evaluation.data, evaluation.folder, self.names)

    def prediction(self, photo: Any) -> str:
        return str(self.answer(photo)[0])

    def answer(self, photo: Any) -> Ranking:
        outputs = self._run(self.prepare([photo]))
        return rankings(outputs[:1], tuple(self.names[index] for index in range(outputs.shape[-1])), _RANKED)[0]


class _Boxes(_Answerer):
    """A model that finds objects: photos are letterboxed, and answers are boxes and further shapes."""

    @property
    def shape(self) -> str:
        """The shape of its objects."""
        return self.model.data_as(Architecture).does.shape

    def prepare(self, photos: Sequence[Any]) -> Any:
        side = self.family.side(self.model)
        return self._scaled([ultralytics_images.letterbox(photo, side) for photo in photos])

    def _scaled(self, photos: Sequence[Any]) -> Any:
        return self._placed(ultralytics_images.as_tensor(photos)) / 255

    def samples(self, evaluation: Evaluation) -> list[Sample]:
        table, classes = read_boxes(
            evaluation.data, evaluation.folder, evaluation.limit, evaluation.seed, _LABELLED[self.shape]
        )
        remember(self.model, table, evaluation)
        by_number = matched(classes, self.names, evaluation.data)
        return [Sample(row.values["image"], self._true(row.values, by_number)) for row in table.rows]

    def _true(self, values: Mapping[str, Any], names: Mapping[int, str]) -> dict[str, Any]:
        """Return the true objects of an image in pixels; masks in those of a quarter of the square image."""
        size = values["image"].size
        true = true_boxes(values, names)
        if self.shape == "rotated_boxes":
            rotated = ultralytics_images.true_rotated(values["corners"], size)
            return {"rotated_boxes": rotated, "labels": true["labels"]}
        if self.shape == "keypoints":
            return {**true, **self._true_keypoints(values)}
        if self.shape == "masks":
            masks, order = ultralytics_images.true_masks(values["outlines"], size, self.family.side(self.model))
            ordered = {name: [items[index] for index in order] for name, items in true.items()}
            return {**ordered, "masks": [encoded(mask) for mask in masks]}
        return true

    def _true_keypoints(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the true keypoints of an image in pixels, and their tolerances if the data states them.

        Raises:
            RecipeError: the model has another number of keypoints.
        """
        width, height = values["image"].size
        count, _ = self.model.data_as(Architecture).keypoints or (0, 0)
        triples = [[points[start : start + 3] for start in range(0, len(points), 3)] for points in values["keypoints"]]
        if wrong := next((points for points in triples if len(points) != count), None):
            raise RecipeError(
                f"{values['path']}: its objects have {len(wrong)} keypoints (kpt_shape), the model finds {count}."
            )
        points = [[[x * width, y * height, visible] for x, y, visible in points] for points in triples]
        return {"keypoints": points, **({"sigmas": values["sigmas"]} if values["sigmas"] else {})}

    def training(self, count: int, seed: int) -> Sequence[Any]:
        evaluation = self.model.evaluation
        if evaluation is None:
            return ()
        return training(evaluation.data, evaluation.folder, _held_out(evaluation), count, seed)

    def labelled(self, count: int, seed: int, size: int) -> list[Labelled]:
        if (evaluation := self.model.evaluation) is None:
            return []
        numbers = self._numbers(evaluation)
        rows = draw_boxes(evaluation.data, evaluation.folder, _held_out(evaluation), count * size, seed)
        batches = []
        for start in range(0, len(rows), size):
            part = [row.values for row in rows[start : start + size]]
            photos = [read_photo(values["image"]) for values in part]
            boxes = [[[numbers[box[0]], *box[1:]] for box in values["boxes"]] for values in part]
            squares, targets = ultralytics_training.fitted(photos, boxes, self.family.side(self.model))
            batches.append(Labelled(self._scaled(squares), targets))
        return batches

    def _numbers(self, evaluation: Evaluation) -> dict[int, int]:
        """Return the model's number of each class of the data."""
        classes = describe(parse(evaluation.data), evaluation.folder).names
        by_name = {name: number for number, name in self.names.items()}
        return {number: by_name[name] for number, name in matched(classes, self.names, evaluation.data).items()}

    def prediction(self, photo: Any) -> dict[str, Any]:
        side = self.family.side(self.model)
        output = self._run(self.prepare([photo]))
        boxes = self._best(output, self.family.confidence)[0]
        objects = boxes.float().cpu()
        described = self._described(objects)
        if self.shape == "rotated_boxes":
            rotated = ultralytics_images.rotated_in_photo(_rotated(objects), side, photo)
            return {**described, "rotated_boxes": rotated.tolist()}
        if (masks := ultralytics_images.masks(output, 0, boxes, side)) is not None:
            described["outlines"] = ultralytics_images.outlines(masks, photo)
        if self.shape == "keypoints":
            described["keypoints"] = ultralytics_images.points_in_photo(self._points(objects), side, photo).tolist()
        described["boxes"] = ultralytics_images.in_photo(objects[:, :4], side, photo).tolist()
        return described

    def answer(self, photo: Any) -> dict[str, Any]:
        """Find objects like ultralytics' validator: resize in two steps, and use every class of a box."""
        side = self.family.side(self.model)
        fitted = ultralytics_images.fit(photo, side)
        output = self._run(self._scaled([fitted.image]))
        best = self._best(output, _SCORED_CONFIDENCE, multi_label=True)[0]
        objects = best.float().cpu()
        described = self._described(objects)
        if self.shape == "rotated_boxes":
            return {**described, "rotated_boxes": fitted.rotated_back(_rotated(objects)).tolist()}
        if self.shape == "masks":
            described["masks"] = [encoded(mask) for mask in ultralytics_images.scored_masks(output, best, side)]
        if self.shape == "keypoints":
            described["keypoints"] = fitted.points_back(self._points(objects)).tolist()
        return {**described, "boxes": fitted.back(objects[:, :4]).tolist()}

    def _points(self, objects: Any) -> Any:
        """Return the keypoints of objects [n, points, values]."""
        return objects[:, 6:].reshape(len(objects), *(self.model.data_as(Architecture).keypoints or (0, 0)))

    def postprocess(self, output: Any) -> list[Any]:
        """Apply non-maximum suppression to each image, and draw the masks of the remaining boxes."""
        side = self.family.side(self.model)
        best = self._best(output, self.family.confidence)
        return [ultralytics_images.masks(output, index, boxes, side) for index, boxes in enumerate(best)]

    def _best(self, output: Any, confidence: float, multi_label: bool = False) -> list[Any]:
        described = self.model.data_as(Architecture)
        return ultralytics_images.suppress(
            output,
            confidence,
            self.family.overlap,
            0 if self.shape == "boxes" else len(self.names),
            multi_label,
            is_rotated=self.shape == "rotated_boxes",
            is_final=bool(described.yaml.get("end2end")),
        )

    def _described(self, boxes: Any) -> dict[str, Any]:
        return {"scores": boxes[:, 4].tolist(), "labels": [self.names[int(index)] for index in boxes[:, 5]]}


def _held_out(evaluation: Evaluation) -> frozenset[str]:
    """Return the digests of the scored pictures."""
    table, _ = read_boxes(evaluation.data, evaluation.folder, evaluation.limit, evaluation.seed)
    return frozenset(row.values["image"].digest() for row in table.rows)


def _rotated(objects: Any) -> Any:
    """Return centre, size and angle [n, 5] of rotated boxes after suppression, whose angle is the last number."""
    import torch

    return torch.cat([objects[:, :4], objects[:, -1:]], dim=1)
