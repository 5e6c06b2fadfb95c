"""Object detectors of the YOLO line, through ultralytics (AGPL-3.0; no other family needs it)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, MultipleOf

from mlflow_compress.errors import Unsupported, WeightsError
from mlflow_compress.graphs import Attached, Calls, dtype_of, graph, twin
from mlflow_compress.sockets import Family, Graph, Mark, Model

_PHOTO = (720, 1280, 3)


@dataclass
class Yolo(Family):
    """An ultralytics detector, with batch normalisation fused into the convolutions, as it is deployed.

    Attributes:
        image_size: side of the square input, in pixels.
        confidence: lowest score of a reported box.
        overlap: intersection over union above which non-maximum suppression drops a box.
    """

    timed: ClassVar[str] = (
        "one forward pass on a prepared image [batch, 3, image_size, image_size]; letterboxing (preprocess) and "
        "non-maximum suppression (postprocess) are timed apart"
    )
    metrics: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ("torch", "torchvision", "ultralytics")
    imports: ClassVar[tuple[str, ...]] = ("torch", "ultralytics.nn.tasks", "ultralytics.utils.nms")

    image_size: Annotated[int, Ge(32), MultipleOf(32)] = 640
    confidence: Annotated[float, Ge(0)] = 0.25
    overlap: Annotated[float, Ge(0)] = 0.7

    def load(self, source: str, weights: str, folder: Path, seed: int) -> Model:
        """Load and fuse the detector (see `Family.load`)."""
        import torch

        _require_ultralytics()
        torch.manual_seed(seed)
        module, kind, caution = _load(source, weights, folder)
        module = module.float().eval()
        module.fuse(verbose=False)
        module.requires_grad_(False)
        return Model(module, {"yaml": module.yaml, "names": dict(module.names)}, weights=kind, caution=caution)

    def batch(self, model: Model, size: int, seed: int) -> Any:
        """Make random images [size, 3, image_size, image_size] in [0, 1], in the model's dtype."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        images = torch.rand((size, 3, self.image_size, self.image_size), generator=generator)
        return images.to(model.device, dtype_of(model.module))

    def run(self, model: Model, batch: Any, mark: Mark) -> Any:
        """Run the detector; gives raw boxes and scores [batch, 4 + classes, anchors]."""
        return model.module(batch)[0]

    def graphs(self, model: Model) -> Mapping[str, Graph]:
        """Give one graph, `model`: from `images` [batch, 3, image_size, image_size] to `raw`, what `run` gives."""
        import torch

        images = self.batch(model, 2, 0)
        detector = twin(model.module)
        with torch.no_grad():
            detector(images)  # makes the anchors
        detector.model[-1].shape = _AnyShape()  # keeps them: they are the image size's, whatever the batch size
        dynamic = {"images": {0: "batch"}, "raw": {0: "batch"}}
        return {"model": graph(_detect, {"images": images}, ["raw"], dynamic, detector=detector)}

    def attach(self, model: Model, calls: Calls) -> Model:
        """Put the exported detector in the module's place."""
        model.module = _Exported(calls)
        return model

    def around(self, model: Model, size: int, seed: int) -> Mapping[str, Callable[[], object]]:
        """Time preparing photos of 720x1280 and turning raw output into boxes."""
        import numpy as np
        import torch

        photos = [np.random.default_rng(seed).integers(0, 256, _PHOTO, dtype=np.uint8)] * size
        with torch.inference_mode():
            raw = self.run(model, self.batch(model, size, seed), lambda stage: None)
        return {"preprocess": lambda: self._prepare(model, photos), "postprocess": lambda: self._boxes(raw)}

    def predict(self, model: Model, inputs: Sequence[Any]) -> list[dict[str, Any]]:
        """Detect in each image, a path or an array [height, width, 3] of uint8 in BGR order.

        Returns:
            For each image `boxes` ([n, 4], x1 y1 x2 y2 in its own pixels), `scores` and `labels`.
        """
        import torch

        with torch.inference_mode():
            return [self._detect(model, _read(image)) for image in inputs]

    def _detect(self, model: Model, photo: Any) -> dict[str, Any]:
        from ultralytics.utils.ops import scale_boxes

        prepared = self._prepare(model, [photo])
        found = self._boxes(model.module(prepared)[0])[0].float().cpu()
        boxes = scale_boxes(prepared.shape[2:], found[:, :4], photo.shape)
        names = model.assets["names"]
        return {
            "boxes": boxes.tolist(),
            "scores": found[:, 4].tolist(),
            "labels": [names[int(index)] for index in found[:, 5]],
        }

    def _prepare(self, model: Model, photos: Sequence[Any]) -> Any:
        """Letterbox BGR photos into RGB [n, 3, image_size, image_size] in [0, 1]."""
        import numpy as np
        import torch
        from ultralytics.data.augment import LetterBox

        letterbox = LetterBox((self.image_size, self.image_size), auto=False)
        boxed: list[Any] = [letterbox(image=photo) for photo in photos]
        images = np.stack([each[..., ::-1].transpose(2, 0, 1) for each in boxed])
        return torch.from_numpy(images.copy()).to(model.device, dtype_of(model.module)) / 255

    def _boxes(self, raw: Any) -> list[Any]:
        from ultralytics.utils.nms import non_max_suppression

        return list(non_max_suppression(raw, self.confidence, self.overlap))

    def save(self, model: Model, folder: Path) -> None:
        """Write the architecture, with the sizes of what was made smaller, and the names of the classes."""
        description = {name: model.assets.get(name, {}) for name in ("yaml", "names", "structure")}
        (folder / "architecture.json").write_text(json.dumps(description, indent=1), encoding="utf-8")

    def restore(self, folder: Path) -> Model:
        """Build the fused detector. Its constructor runs a forward pass, so that it starts with real weights."""
        _require_ultralytics()
        from ultralytics.nn.tasks import DetectionModel

        model = self.restore_assets(folder)
        module: Any = DetectionModel(model.assets["yaml"], verbose=False).eval()
        module.fuse(verbose=False)
        _plain_strides_later(module.model[-1])
        module.names = model.assets["names"]
        model.module = module
        return model

    def restore_assets(self, folder: Path) -> Model:
        """Read the architecture's description and the names of the classes."""
        description = json.loads((folder / "architecture.json").read_text(encoding="utf-8"))
        names = {int(index): name for index, name in description["names"].items()}
        return Model(None, {**description, "names": names}, weights="local")


def _plain_strides_later(head: Any) -> None:
    """Make the head's strides plain numbers when it is first called: a compiler can't look into a tensor.

    Not before: ultralytics moves them to the device with the rest.
    """

    def convert(head: Any, inputs: Any) -> None:
        hook.remove()
        head.stride = head.stride.tolist()

    hook = head.register_forward_pre_hook(convert)


class _Exported(Attached):
    def __call__(self, images: Any) -> tuple[Any, ...]:
        return self.calls["model"](images)


class _AnyShape:
    """The shape that a head made its anchors for: it differs from none."""

    def __ne__(self, other: object) -> bool:
        return False


def _detect(parts: Any, images: Any) -> tuple[Any, ...]:
    return (parts.detector(images)[0],)


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
        obstacle = " ".join(str(error).split())
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
        message = " ".join(str(error).split())[:300]
        raise WeightsError(f"The weights file {path} can't be loaded: {type(error).__name__}: {message}") from error
    return _detector(module, str(path))


def _from_architecture(source: str) -> Any:
    from ultralytics.models import YOLO

    try:
        module = YOLO(Path(source).with_suffix(".yaml").name).model
    except Exception as error:
        raise WeightsError(f"ultralytics knows no architecture for {source}: {error}") from error
    return _detector(module, source)


def _detector(module: Any, origin: str) -> Any:
    from ultralytics.nn.tasks import DetectionModel

    if type(module) is not DetectionModel:
        raise WeightsError(f"{origin} holds a {type(module).__name__}; this family measures plain detectors.")
    return module


def _read(image: Any) -> Any:
    import cv2
    import numpy as np

    if not isinstance(image, str):
        return np.asarray(image, dtype=np.uint8)
    photo = cv2.imread(image)
    if photo is None:
        raise FileNotFoundError(f"{image} can't be read as an image")
    return photo


def _require_ultralytics() -> None:
    import importlib.util

    if importlib.util.find_spec("ultralytics") is None:
        raise Unsupported("ultralytics is not installed: pip install ultralytics")
