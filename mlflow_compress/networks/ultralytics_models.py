"""Models of ultralytics: loaded from a file, downloaded or built, and fused."""

from __future__ import annotations

import copy
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from mlflow_compress.errors import MachineLacks, WeightsError, named_line, one_line
from mlflow_compress.networks import ultralytics_checkpoint
from mlflow_compress.networks.export_graphs import Attached, Calls, graph, twin
from mlflow_compress.networks.stored_weights import fill
from mlflow_compress.networks.ultralytics_architecture import TASKS, Architecture, Task
from mlflow_compress.networks.ultralytics_checkpoint import Saved
from mlflow_compress.sockets import Graph

_COCO_CLASSES = 80  # what every description states
_RELEASED_CLASSES: Mapping[str, int] = {"pose": 1, "obb": 15}  # of the weights that ultralytics releases: people; DOTA


def require_ultralytics() -> None:
    """Check that ultralytics is installed, and prevent it from installing packages.

    Raises:
        MachineLacks: it is not installed.
    """
    if importlib.util.find_spec("ultralytics") is None:
        raise MachineLacks("ultralytics is not installed: pip install ultralytics")
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")  # else it runs pip for an image that can't be read


def load(
    source: str, weights: str, folder: Path, is_trusted: bool = False
) -> tuple[Any, Literal["pretrained", "random", "local"], str]:
    """Load a model.

    Args:
        source: the name of a release (`yolo11l.pt`), or a file.
        weights: `auto`, `pretrained`, `random`, or a file.
        folder: base of relative paths.
        is_trusted: whether a file may run code; else its description and weights are read as data.

    Returns:
        The module, the kind of its weights, and a caution about them; empty: none.

    Raises:
        WeightsError: the weights are not available, or have an unknown task.
    """
    if weights == "random":
        return _from_architecture(source), "random", ""
    if weights not in ("auto", "pretrained"):
        path = folder / weights
        if not path.is_file():
            raise WeightsError(
                f"There is no weights file {path}. Give a .pt file that ultralytics wrote, or use weights=auto."
            )
        return _from_file(path, is_trusted), "local", ""
    for path in (folder / source, Path(source)):
        if path.is_file():
            return _from_file(path, is_trusted), "local", ""
    try:
        path = _download(source)
    except (OSError, ConnectionError) as error:
        obstacle = one_line(error, most=None)
        if weights == "pretrained":
            raise WeightsError(
                f"The pretrained weights {source} are not available: {obstacle} Put the file beside the recipe, give "
                "weights=PATH, or use weights=random for size, latency and memory only."
            ) from error
        caution = f"{source} can't be downloaded: it has its true architecture but RANDOM weights"
        return _from_architecture(source), "random", caution
    return _from_file(path, is_trusted), "pretrained", ""


def build(described: Architecture) -> Any:
    """Build a fused module. A detector's constructor runs a forward pass, so it needs real weights."""
    module = unfused(described)
    module.fuse(verbose=False)
    if not described.does.classifies:
        _plain_strides_later(module.model[-1])
    return module


def graph_of(module: Any, task: Task, images: Any) -> Graph:
    """Make a graph of a module, from `images` [batch, 3, side, side] to the outputs of its task."""
    import torch

    net = twin(module)
    with torch.no_grad():
        net(images)  # makes the anchors
    if not task.classifies:
        net.model[-1].shape = _AnyShape()  # keeps the anchors: they depend only on the image size

    def forward(parts: Any, images: Any) -> tuple[Any, ...]:
        output = task.output_of(parts.net(images))
        return (output,) if len(task.outputs) == 1 else tuple(output)

    dynamic = {name: {0: "batch"} for name in ("images", *task.outputs)}
    return graph(forward, {"images": images}, task.outputs, dynamic, net=net)


class ExportedNet(Attached):
    """Replaces the module: returns the outputs that its task uses."""

    def __init__(self, calls: Calls, task: Task) -> None:
        super().__init__(calls)
        self.task = task

    def __call__(self, images: Any) -> Any:
        """Run the graph."""
        return self.task.given_for(self.calls["model"](images))


class _AnyShape:
    """A shape that equals every shape, so that a head keeps its anchors."""

    def __ne__(self, other: object) -> bool:
        return False


def _plain_strides_later(head: Any) -> None:
    """Convert the head's strides to plain numbers at its first call, because a compiler can't read a tensor.

    Not before, because ultralytics moves the tensor to the device with the rest.
    """

    def convert(head: Any, inputs: Any) -> None:
        hook.remove()
        head.stride = head.stride.tolist()

    hook = head.register_forward_pre_hook(convert)


def _download(source: str) -> Path:
    """Download a released weights file, or find it in ultralytics' own folder.

    Raises:
        OSError: offline, or there is no such release.
    """
    from ultralytics.utils import SETTINGS
    from ultralytics.utils.downloads import attempt_download_asset

    cache = Path(SETTINGS["weights_dir"])
    cache.mkdir(parents=True, exist_ok=True)
    path = Path(attempt_download_asset(str(cache / Path(source).name)))
    if not path.is_file():
        raise FileNotFoundError(f"ultralytics has not released {source}.")
    return path


def _from_file(path: Path, is_trusted: bool) -> Any:
    return _unpickled(path) if is_trusted else _rebuilt(ultralytics_checkpoint.read(path), path)


def _unpickled(path: Path) -> Any:
    """Load a file as ultralytics does, which runs the code in the file."""
    from ultralytics.models import YOLO

    try:
        module = YOLO(str(path)).model
    except Exception as error:  # a truncated zip, a foreign pickle, a wrong task: each raises another type
        raise WeightsError(f"The weights file {path} can't be loaded: {named_line(error, 300)}") from error
    return _supported(module, str(path))


def _rebuilt(saved: Saved, path: Path) -> Any:
    """Build the model that a file describes, fused if the saved one was, and fill it."""
    import torch

    with torch.random.fork_rng(devices=[]):  # so that later random numbers are as with the unpickled model
        module = unfused(saved.described)
    if len(saved.weights) < len(module.state_dict()):
        module.fuse(verbose=False)
    fill(module, saved.weights, path)
    ultralytics_checkpoint.require_same_layers(saved, module, path)
    return module


def unfused(described: Architecture) -> Any:
    """Build a module.

    Raises:
        WeightsError: its layers do not match.
    """
    from ultralytics.nn import tasks

    try:
        module: Any = getattr(tasks, described.does.built_by)(_without_downloads(described.yaml), verbose=False).eval()
    except Exception as error:  # layers raise anything if arguments do not match
        raise WeightsError(
            f"The architecture of an ultralytics model can't be built: {named_line(error, 300)}"
        ) from error
    module.names = described.names
    return module


def _without_downloads(yaml: Mapping[str, Any]) -> dict[str, Any]:
    """Return a description whose torchvision layers download no weights: the model brings them."""
    offline = copy.deepcopy(dict(yaml))
    for layer in (*offline["backbone"], *offline["head"]):
        if layer[2] == "TorchVision":
            channels, name, *arguments = layer[3]
            layer[3] = [channels, name, None, *arguments[1:]]
    return offline


def _from_architecture(source: str) -> Any:
    """Build a model from a description in ultralytics, or in a local file."""
    from ultralytics.nn import tasks

    try:
        described = tasks.yaml_model_load(Path(source).with_suffix(".yaml").name)
        task = tasks.guess_model_task(described)
    except Exception as error:
        raise WeightsError(f"ultralytics knows no architecture for {source}: {error}") from error
    if task not in TASKS:
        raise WeightsError(f"{source} has the task {task}; this family measures {', '.join(_built())}.")
    if described.get("nc") == _COCO_CLASSES:
        described = {**described, "nc": _RELEASED_CLASSES.get(task, _COCO_CLASSES)}
    count = described.get("nc")
    names = {number: str(number) for number in range(count)} if isinstance(count, int) else {}
    return unfused(Architecture(described, names, task))


def _built() -> list[str]:
    return [task.built_by for task in TASKS.values()]


def _supported(module: Any, origin: str) -> Any:
    if type(module).__name__ not in _built():
        raise WeightsError(f"{origin} holds a {type(module).__name__}; this family measures {', '.join(_built())}.")
    return module
