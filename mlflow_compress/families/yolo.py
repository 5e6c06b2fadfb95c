"""Detectors, segmenters and classifiers of the YOLO line, through ultralytics (AGPL-3.0; no other family needs it)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, MultipleOf

from mlflow_compress.data.datasets import draw, remember, scored
from mlflow_compress.data.detections import read as read_boxes
from mlflow_compress.data.detections import training
from mlflow_compress.data.labels import distinct, labels_of
from mlflow_compress.data.media import Picture
from mlflow_compress.errors import RecipeError, Unsupported, WeightsError, named_line, one_line
from mlflow_compress.networks.export_graphs import Attached, Calls, dtype_of, graph, twin
from mlflow_compress.networks.pickle_scan import code_in
from mlflow_compress.sockets import Evaluation, Family, Graph, Mark, Model, Sample

_PHOTO = (720, 1280, 3)
_CLASSES: Mapping[str, str] = {  # by the task, the class of ultralytics.nn.tasks
    "detect": "DetectionModel",
    "segment": "SegmentationModel",
    "classify": "ClassificationModel",
}
_CLASSIFY, _SEGMENT = "classify", "segment"
_SIDE = {_CLASSIFY: 224}
_USUAL_SIDE = 640
_ROLES = ("image", "label")
_RANKED = 5
_SCORED_CONFIDENCE, _SCORED_BOXES = 0.001, 300  # ultralytics' own, of its `val`
_NO_HURRY = 1e9  # seconds for suppressing boxes; ultralytics would leave some when time is up


@dataclass
class Architecture:
    """What ultralytics builds a model from, and what it is for.

    Attributes:
        yaml: ultralytics' own description of the layers.
        names: of the classes, by their numbers.
        task: `detect`, `segment` or `classify`.
    """

    yaml: dict[str, Any]
    names: dict[int, str]
    task: str


@dataclass
class Yolo(Family):
    """An ultralytics model that detects, segments or classifies, batch normalisation fused into the convolutions.

    Boxes are scored as ultralytics' `val` with `rect=False` does it, on a data.yaml: all images square, boxes with a
    score above 0.001, every class of a box, 300 boxes an image. Of a segmenter, the boxes are scored. A classifier is
    scored on a folder of images, with `metrics: [accuracy, top5_accuracy]`.

    Attributes:
        image_size: side of the square input, in pixels; None: 224 for a classifier, else 640.
        confidence: lowest score of a reported box.
        overlap: intersection over union above which non-maximum suppression drops a box.
    """

    timed: ClassVar[str] = (
        "one forward pass on a prepared image [batch, 3, image_size, image_size]; preparing it (preprocess) and, of a "
        "detector, non-maximum suppression and masks (postprocess) are timed apart"
    )
    metrics: ClassVar[tuple[str, ...]] = ("map50", "map50_95", "box_precision", "box_recall")
    flexible_axes: ClassVar[tuple[int, ...]] = (0, 1)
    needs: ClassVar[tuple[str, ...]] = ("torch", "torchvision", "ultralytics")
    imports: ClassVar[tuple[str, ...]] = ("torch", "ultralytics.nn.tasks", "ultralytics.utils.nms")

    image_size: Annotated[int, Ge(32), MultipleOf(32)] | None = None
    confidence: Annotated[float, Ge(0)] = 0.25
    overlap: Annotated[float, Ge(0)] = 0.7

    def code(self, source: str, weights: str, folder: Path) -> str:
        """Name what a local .pt file would call; ultralytics' own releases are not looked into."""
        if weights == "random":
            return ""
        paths = [folder / source, Path(source)] if weights in ("auto", "pretrained") else [folder / weights]
        path = next((path for path in paths if path.is_file()), None)
        called = code_in(path) if path else []
        return f"{path} is a pickle that calls {', '.join(called[:3])} when it is read" if called else ""

    def load(self, source: str, weights: str, folder: Path, seed: int) -> Model:
        """Load and fuse the model (see `Family.load`)."""
        import torch

        _require_ultralytics()
        torch.manual_seed(seed)
        module, kind, caution = _load(source, weights, folder)
        module = module.float().eval()
        module.fuse(verbose=False)
        module.requires_grad_(False)
        described = Architecture(module.yaml, dict(module.names), _task(module))
        return Model(module, weights=kind, caution=caution, family_data=described)

    def batch(self, model: Model, size: int, seed: int) -> Any:
        """Make random images [size, 3, image_size, image_size] in [0, 1], in the model's dtype."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        side = self._side(model)
        images = torch.rand((size, 3, side, side), generator=generator)
        return images.to(model.device, dtype_of(model.module))

    def run(self, model: Model, batch: Any, mark: Mark) -> Any:
        """Run the model.

        Returns:
            Of a detector, raw boxes and scores [batch, 4 + classes, anchors]; of a segmenter these, with 32
            coefficients of masks on the second axis, and the masks' prototypes [batch, 32, height, width]; of a
            classifier, logits [batch, classes].
        """
        output = model.module(batch)
        return output[1] if model.data_as(Architecture).task == _CLASSIFY else output[0]

    def classes(self, model: Model) -> int:
        """Give the number of classes of a classifier."""
        return len(model.data_as(Architecture).names) if model.data_as(Architecture).task == _CLASSIFY else 0

    def kinds(self, model: Model) -> tuple[str, ...]:
        """Say that a classifier gives labels, and the others boxes."""
        return ("labels",) if model.data_as(Architecture).task == _CLASSIFY else ("boxes",)

    def graphs(self, model: Model) -> Mapping[str, Graph]:
        """Give one graph, `model`: from `images` [batch, 3, image_size, image_size] to what `run` gives.

        That is `raw`, of a segmenter `raw` and `prototypes`, of a classifier `logits`.
        """
        import torch

        task = model.data_as(Architecture).task
        images = self.batch(model, 2, 0)
        net = twin(model.module)
        with torch.no_grad():
            net(images)  # makes the anchors
        if task != _CLASSIFY:
            net.model[-1].shape = _AnyShape()  # keeps them: they are the image size's, whatever the batch size
        outputs = {_CLASSIFY: ["logits"], _SEGMENT: ["raw", "prototypes"]}.get(task, ["raw"])
        dynamic = {name: {0: "batch"} for name in ("images", *outputs)}
        call = {_CLASSIFY: _classify, _SEGMENT: _segment}.get(task, _detect)
        return {"model": graph(call, {"images": images}, outputs, dynamic, net=net)}

    def attach(self, model: Model, calls: Calls) -> Model:
        """Put the exported model in the module's place."""
        model.module = _Exported(calls, model.data_as(Architecture).task)
        return model

    def around(self, model: Model, size: int, seed: int) -> Mapping[str, Callable[[], object]]:
        """Time preparing photos of 720x1280 and turning raw output into boxes, and masks."""
        import numpy as np
        import torch

        photos = [np.random.default_rng(seed).integers(0, 256, _PHOTO, dtype=np.uint8)] * size
        prepare = {"preprocess": lambda: self._prepare(model, photos)}
        if model.data_as(Architecture).task == _CLASSIFY:
            return prepare
        with torch.inference_mode():
            raw = self.run(model, self.batch(model, size, seed), lambda stage: None)

        def postprocess() -> object:
            found = self._boxes(model, _boxes_of(raw))
            return [_masks(raw, index, each, self._side(model)) for index, each in enumerate(found)]

        return {**prepare, "postprocess": postprocess}

    def samples(self, model: Model, data: str, folder: Path, limit: int | None, seed: int) -> Sequence[Sample]:
        """Read images with their boxes (a data.yaml; `split=test` where that has labels, else `val`), or their labels.

        Raises:
            RecipeError: the data can't be read, or its classes are not the model's.
        """
        names = distinct(model.data_as(Architecture).names)
        if model.data_as(Architecture).task == _CLASSIFY:
            rows = scored(model, data, folder, _ROLES, limit, seed)
            labels = labels_of(rows, names)
            return [Sample(row.values["image"], label) for row, label in zip(rows, labels, strict=True)]
        table, classes = read_boxes(data, folder, limit, seed)
        remember(model, table, Evaluation(data, folder, limit, seed))
        by_number = _matched(classes, names, data)
        return [Sample(row.values["path"], _true_boxes(row.values, by_number)) for row in table.rows]

    def calibration(self, model: Model, count: int, seed: int, size: int = 1) -> list[Any]:
        """Draw training images that quality is not scored on; without any, see `Family.calibration`."""
        evaluation = model.evaluation
        images: Sequence[Any] = ()
        if model.data_as(Architecture).task == _CLASSIFY:
            images = draw(model, _ROLES, count * size, seed)
        elif evaluation is not None:
            table, _ = read_boxes(evaluation.data, evaluation.folder, evaluation.limit, evaluation.seed)
            held_out = frozenset(row.values["image"].digest() for row in table.rows)
            images = training(evaluation.data, evaluation.folder, held_out, count * size, seed)
        if not images:
            return super().calibration(model, count, seed, size)
        parts = (images[start : start + size] for start in range(0, len(images), size))
        return [self._prepare(model, [_read(image) for image in part]) for part in parts]

    def predict(self, model: Model, inputs: Sequence[Any]) -> list[Any]:
        """Detect in each image, or classify it: a path, a picture, or uint8 [height, width, 3] in BGR order.

        Returns:
            For each image its label; of a detector `boxes` ([n, 4], x1 y1 x2 y2 in its own pixels), `scores` and
            `labels`; of a segmenter also `outlines`, for each box the points [points, 2] of its mask's.
        """
        import torch

        if model.data_as(Architecture).task == _CLASSIFY:
            return [ranking[0] for ranking in self.answers(model, inputs)]
        with torch.inference_mode():
            return [self._detect(model, _read(image)) for image in inputs]

    def answers(self, model: Model, inputs: Sequence[Any]) -> list[Any]:
        """Give all boxes that scoring looks at, down to the least likely; of a classifier, the five best labels."""
        import torch

        with torch.inference_mode():
            one = self._rank if model.data_as(Architecture).task == _CLASSIFY else self._detect_all
            return [one(model, _read(image)) for image in inputs]

    def _rank(self, model: Model, photo: Any) -> list[str]:
        names = distinct(model.data_as(Architecture).names)
        logits = self.run(model, self._prepare(model, [photo]), lambda stage: None)[0].float()
        return [names[index] for index in logits.topk(min(_RANKED, len(names))).indices.tolist()]

    def _detect(self, model: Model, photo: Any) -> dict[str, Any]:
        from ultralytics.utils.ops import masks2segments, scale_boxes, scale_coords

        prepared = self._prepare(model, [photo])
        shape = prepared.shape[2:]
        raw = self.run(model, prepared, lambda stage: None)
        found = self._boxes(model, _boxes_of(raw))[0]
        described = _described(found.float().cpu(), model)
        if (masks := _masks(raw, 0, found, shape[0])) is not None:
            outlines = masks2segments(masks)
            described["outlines"] = [scale_coords(shape, points, photo.shape).tolist() for points in outlines]
        described["boxes"] = scale_boxes(shape, found[:, :4].float().cpu(), photo.shape).tolist()
        return described

    def _detect_all(self, model: Model, photo: Any) -> dict[str, Any]:
        """Detect as ultralytics' validator does: it resizes in two steps, and takes every class of a box."""
        import torch

        prepared, scale, shift = self._letterboxed(model, photo)
        raw = _boxes_of(self.run(model, prepared, lambda stage: None))
        found = self._boxes(model, raw, confidence=_SCORED_CONFIDENCE, multi_label=True)[0].float().cpu()
        described = _described(found, model)
        described["boxes"] = ((found[:, :4] - torch.tensor(shift * 2)) * torch.tensor(scale * 2)).tolist()
        return described

    def _side(self, model: Model) -> int:
        return self.image_size or _SIDE.get(model.data_as(Architecture).task, _USUAL_SIDE)

    def _prepare(self, model: Model, photos: Sequence[Any]) -> Any:
        """Make RGB [n, 3, image_size, image_size] in [0, 1] of BGR photos: letterboxed, or of a classifier cut."""
        import torch
        from ultralytics.data.augment import LetterBox, classify_transforms

        side = self._side(model)
        if model.data_as(Architecture).task == _CLASSIFY:
            from torchvision.transforms.functional import to_pil_image

            cut = classify_transforms(side)
            images = torch.stack([cut(to_pil_image(photo[..., ::-1].copy())) for photo in photos])
            return images.to(model.device, dtype_of(model.module))
        letterbox: Any = LetterBox((side, side), auto=False)
        return _as_tensor([letterbox(image=photo) for photo in photos], model)

    def _letterboxed(self, model: Model, photo: Any) -> tuple[Any, tuple[float, float], tuple[float, float]]:
        """Prepare a photo as ultralytics' validator does.

        Returns:
            The input, and what its pixels are scaled by, and less which shift, to be the photo's; both across and down.
        """
        import math

        import cv2
        from ultralytics.data.augment import LetterBox

        side = self._side(model)
        height, width = photo.shape[:2]
        ratio = side / max(height, width)
        fitted = (min(math.ceil(width * ratio), side), min(math.ceil(height * ratio), side))
        resized = cv2.resize(photo, fitted, interpolation=cv2.INTER_LINEAR) if ratio != 1 else photo
        letterbox: Any = LetterBox((side, side), auto=False, scaleup=False)
        placed = letterbox.get_params({"img": resized})
        scale = (width / fitted[0], height / fitted[1])
        return _as_tensor([letterbox(image=resized)], model), scale, (float(placed["left"]), float(placed["top"]))

    def _boxes(self, model: Model, raw: Any, confidence: float | None = None, multi_label: bool = False) -> list[Any]:
        from ultralytics.utils.nms import non_max_suppression

        return list(
            non_max_suppression(
                raw,
                self.confidence if confidence is None else confidence,
                self.overlap,
                multi_label=multi_label,
                max_det=_SCORED_BOXES,
                nc=len(model.data_as(Architecture).names) if model.data_as(Architecture).task == _SEGMENT else 0,
                max_time_img=_NO_HURRY,
            )
        )

    def example(self, model: Model) -> list[Any]:
        """Give a small black picture."""
        import numpy as np

        return [np.zeros((32, 32, 3), dtype=np.uint8)]

    def save(self, model: Model, folder: Path) -> None:
        """Write the architecture, with the sizes of what was made smaller, and the names of the classes."""
        description = {**dataclasses.asdict(model.data_as(Architecture)), "structure": model.structure}
        (folder / "architecture.json").write_text(json.dumps(description, indent=1), encoding="utf-8")

    def restore(self, folder: Path) -> Model:
        """Build the fused model. A detector's constructor runs a forward pass, so that it starts with real weights."""
        _require_ultralytics()
        from ultralytics.nn import tasks

        model = self.restore_assets(folder)
        build = getattr(tasks, _CLASSES[model.data_as(Architecture).task])
        module: Any = build(model.data_as(Architecture).yaml, verbose=False).eval()
        module.fuse(verbose=False)
        if model.data_as(Architecture).task != _CLASSIFY:
            _plain_strides_later(module.model[-1])
        module.names = model.data_as(Architecture).names
        model.module = module
        return model

    def restore_assets(self, folder: Path) -> Model:
        """Read the architecture's description and the names of the classes."""
        read = json.loads((folder / "architecture.json").read_text(encoding="utf-8"))
        names = {int(index): name for index, name in read["names"].items()}
        described = Architecture(read["yaml"], names, read.get("task", "detect"))
        return Model(None, weights="local", structure=read.get("structure", {}), family_data=described)


def _plain_strides_later(head: Any) -> None:
    """Make the head's strides plain numbers when it is first called: a compiler can't look into a tensor.

    Not before: ultralytics moves them to the device with the rest.
    """

    def convert(head: Any, inputs: Any) -> None:
        hook.remove()
        head.stride = head.stride.tolist()

    hook = head.register_forward_pre_hook(convert)


class _Exported(Attached):
    """Gives what the module gives, as far as `run` looks at it."""

    def __init__(self, calls: Calls, task: str) -> None:
        super().__init__(calls)
        self.task = task

    def __call__(self, images: Any) -> tuple[Any, ...]:
        outputs = self.calls["model"](images)
        if self.task == _CLASSIFY:
            return None, outputs[0]
        return (outputs,) if self.task == _SEGMENT else outputs


class _AnyShape:
    """The shape that a head made its anchors for: it differs from none."""

    def __ne__(self, other: object) -> bool:
        return False


def _detect(parts: Any, images: Any) -> tuple[Any, ...]:
    return (parts.net(images)[0],)


def _segment(parts: Any, images: Any) -> tuple[Any, ...]:
    return tuple(parts.net(images)[0])


def _classify(parts: Any, images: Any) -> tuple[Any, ...]:
    return (parts.net(images)[1],)


def _boxes_of(raw: Any) -> Any:
    """Give the boxes of raw output, of a segmenter without the prototypes."""
    return raw[0] if isinstance(raw, (tuple, list)) else raw


def _masks(raw: Any, index: int, found: Any, side: int) -> Any:
    """Give the masks of the boxes of one image [boxes, side, side]; None where there are no prototypes."""
    from ultralytics.utils.ops import process_mask

    if not isinstance(raw, (tuple, list)):
        return None
    return process_mask(raw[1][index], found[:, 6:].to(raw[1].dtype), found[:, :4], (side, side), upsample=True)


def _described(found: Any, model: Model) -> dict[str, Any]:
    names = distinct(model.data_as(Architecture).names)
    return {"scores": found[:, 4].tolist(), "labels": [names[int(index)] for index in found[:, 5]]}


def _as_tensor(photos: Sequence[Any], model: Model) -> Any:
    """Make RGB [n, 3, height, width] in [0, 1] of BGR photos of one size."""
    import numpy as np
    import torch

    images = np.stack([each[..., ::-1].transpose(2, 0, 1) for each in photos])
    return torch.from_numpy(images.copy()).to(model.device, dtype_of(model.module)) / 255


def _true_boxes(values: Mapping[str, Any], names: Mapping[int, str]) -> dict[str, Any]:
    """Give the boxes of an image in its pixels."""
    width, height = values["image"].size
    scale = (width, height) * 2
    boxes = [[place * each for place, each in zip(box[1:], scale, strict=True)] for box in values["boxes"]]
    return {"boxes": boxes, "labels": [names[box[0]] for box in values["boxes"]]}


def _matched(classes: Mapping[int, str], names: Mapping[int, str], data: str) -> Mapping[int, str]:
    """Give the model's name of each class of the data: by its name, else by its number where there are as many.

    Raises:
        RecipeError: they are neither.
    """
    if set(classes.values()) <= set(names.values()):
        return classes
    if len(classes) == len(names):
        return {number: names[number] for number in classes}
    raise RecipeError(
        f"{data} names {len(classes)} classes ({', '.join(list(classes.values())[:5])}, ...), the model {len(names)} "
        f"({', '.join(list(names.values())[:5])}, ...): they do not match."
    )


def _load(source: str, weights: str, folder: Path) -> tuple[Any, Any, str]:
    """Give the module, the kind of its weights, and a caution."""
    if weights == "random":
        return _from_architecture(source), "random", ""
    if weights not in ("auto", "pretrained"):
        path = folder / weights
        if not path.is_file():
            raise WeightsError(f"There is no weights file {path}. Give a .pt file that ultralytics wrote, or auto.")
        return _from_file(path), "local", ""
    for path in (folder / source, Path(source)):
        if path.is_file():
            return _from_file(path), "local", ""
    try:
        path = _download(source)
    except (OSError, ConnectionError) as error:
        obstacle = one_line(error, most=None)
        if weights == "pretrained":
            raise WeightsError(
                f"The pretrained weights {source} can't be had: {obstacle} Put the file beside the recipe, or give "
                "weights=PATH, or take weights=random for size, latency and memory only."
            ) from error
        caution = f"{source} can't be downloaded: it has its true architecture but RANDOM weights"
        return _from_architecture(source), "random", caution
    return _from_file(path), "pretrained", ""


def _download(source: str) -> Path:
    """Download a released weights file, or find it in ultralytics' own folder.

    Raises:
        OSError: offline, or there is no such file.
    """
    from ultralytics.utils import SETTINGS
    from ultralytics.utils.downloads import attempt_download_asset

    cache = Path(SETTINGS["weights_dir"])
    cache.mkdir(parents=True, exist_ok=True)
    path = Path(attempt_download_asset(str(cache / Path(source).name)))
    if not path.is_file():
        raise FileNotFoundError(f"ultralytics has released no {source}.")
    return path


def _from_file(path: Path) -> Any:
    from ultralytics.models import YOLO

    try:
        module = YOLO(str(path)).model
    except Exception as error:  # a truncated zip, a foreign pickle, a wrong task: each raises its own
        raise WeightsError(f"The weights file {path} can't be loaded: {named_line(error, 300)}") from error
    return _known(module, str(path))


def _from_architecture(source: str) -> Any:
    from ultralytics.models import YOLO

    try:
        module = YOLO(Path(source).with_suffix(".yaml").name).model
    except Exception as error:
        raise WeightsError(f"ultralytics knows no architecture for {source}: {error}") from error
    return _known(module, source)


def _known(module: Any, origin: str) -> Any:
    if type(module).__name__ not in _CLASSES.values():
        raise WeightsError(
            f"{origin} holds a {type(module).__name__}; this family measures {', '.join(_CLASSES.values())}."
        )
    return module


def _task(module: Any) -> str:
    return next(task for task, name in _CLASSES.items() if name == type(module).__name__)


def _read(image: Any) -> Any:
    import cv2
    import numpy as np

    if isinstance(image, Picture):
        with image.open() as file:
            photo = cv2.imdecode(np.frombuffer(file.read(), dtype=np.uint8), cv2.IMREAD_COLOR)
    elif isinstance(image, (str, Path)):
        photo = cv2.imread(str(image))
    else:
        return np.asarray(image, dtype=np.uint8)
    if photo is None:
        raise FileNotFoundError(f"{image} can't be read as an image")
    return photo


def _require_ultralytics() -> None:
    import importlib.util

    if importlib.util.find_spec("ultralytics") is None:
        raise Unsupported("ultralytics is not installed: pip install ultralytics")
