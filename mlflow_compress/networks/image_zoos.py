"""Image classifiers of torchvision and timm, by their names there: `torchvision:resnet18`.

The weights are the library's own for the model, with the transforms that belong to them.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mlflow_compress.errors import MachineLacks, RecipeError, UnknownName, WeightsError, one_line
from mlflow_compress.networks.hub import cached_file, unreachable
from mlflow_compress.networks.own_checkpoint import fill_from
from mlflow_compress.networks.stored_weights import unfilled
from mlflow_compress.sockets import Model

_TORCHVISION, _TIMM = "torchvision", "timm"
_NAME = re.compile(r"[\w.@-]+")
# arguments that make a library load files, in some versions a pickle
_READING = frozenset(
    (
        "cache_dir",
        "checkpoint_path",
        "pretrained",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "weights",
        "weights_backbone",
    )
)
# torchvision's settings for weights that were trained elsewhere, so that random weights have the same architecture
_FIXED: Mapping[str, Mapping[str, Any]] = {
    "googlenet": {"aux_logits": False, "transform_input": True, "init_weights": False},
    "inception_v3": {"aux_logits": False, "transform_input": True, "init_weights": False},
}
_TIMM_WEIGHTS = "model.safetensors"
_NEAREST = 5  # of more than a thousand names


@dataclass
class ZooModel:
    """A model of one of these libraries.

    Attributes:
        described: plain data for `build` and `transform`: library, name, architecture, labels, transform.
    """

    described: Mapping[str, Any]

    @property
    def labels(self) -> dict[int, str]:
        """Names of the classes, by number."""
        return dict(enumerate(self.described["labels"]))

    @functools.cached_property
    def transform(self) -> Callable[[Any], Any]:
        """The function from a PIL image to the model's input, float32 [channels, height, width]."""
        return transform(self.described)


def in_zoo(source: str) -> bool:
    """Return whether a source names a model of one of these libraries."""
    return source.partition(":")[0] in (_TORCHVISION, _TIMM)


def load(
    source: str, weights: str, folder: Path, architecture: Mapping[str, Any], seed: int, labels: Sequence[str] = ()
) -> Model:
    """Load a model in float32 on the CPU.

    Args:
        source: `torchvision:NAME`, `torchvision:NAME@WEIGHTS` for weights other than the best, or `timm:NAME`.
        weights: `auto`, `pretrained`, `random`, or a file with a state dict (see `own_checkpoint.fill_from`).
        folder: base of relative paths.
        architecture: arguments of the library's function besides the name (`num_classes`).
        seed: seed for random weights.
        labels: names of the classes that the model must have; pretrained weights for another number of classes are
            loaded with a new head. Empty: its own classes.

    Returns:
        The model; its family data is a `ZooModel`.

    Raises:
        UnknownName: the library has no such model, or no such weights for it.
        RecipeError: the library rejects the architecture.
        WeightsError: the weights are not available, or do not fit this model.
        MachineLacks: the library is not installed.
    """
    import torch

    library, _, name = source.partition(":")
    _require_own(name, architecture)
    open_ = _torchvision if library == _TORCHVISION else _timm
    described, obstacle, pretrained = open_(name, dict(architecture))
    if labels and len(labels) != len(described["labels"]):
        described, obstacle, pretrained = open_(name, {**architecture, "num_classes": len(labels)})
    if labels:
        described["labels"] = list(labels)
    torch.manual_seed(seed)
    if weights == "random":
        return _ready(Model(build(described), weights="random"), described)
    if weights not in ("auto", "pretrained"):
        return _ready(_filled(build(described), folder / weights), described)
    if (why := obstacle()) is None:
        try:
            return _ready(Model(pretrained(), weights="pretrained"), described)
        except Exception as error:  # from the network, the files or the library
            raise WeightsError(f"The pretrained weights of {source} can't be loaded: {one_line(error)}") from error
    if weights == "pretrained":
        raise WeightsError(
            f"The pretrained weights of {source} are not available: {why}, and they are not in the local cache. "
            "Connect, give a weights file (weights=PATH), or use weights=random for size, latency and memory only."
        )
    caution = f"{why}: {source} has its true architecture but RANDOM weights"
    return _ready(Model(build(described), weights="random", caution=caution), described)


def build(described: Mapping[str, Any], is_filled: bool = True) -> Any:
    """Build the described module, with random weights, or without memory for weights.

    Raises:
        RecipeError: the library can't build it.
    """
    if not is_filled:
        with unfilled():
            return build(described).requires_grad_(False).eval()
    _require_own(described["name"], described["architecture"])
    try:
        if described["library"] == _TORCHVISION:
            import torchvision

            return torchvision.models.get_model(described["name"], weights=None, **described["architecture"])
        return _require_timm().create_model(described["name"], pretrained=False, **described["architecture"])
    except (TypeError, ValueError, RuntimeError) as error:
        raise RecipeError(
            f"options.architecture of {described['name']} does not describe a model: {one_line(error)}"
        ) from error


def built_by(described: Mapping[str, Any]) -> tuple[str, str]:
    """Return the Python expression with which the library itself builds the described module, and the library."""
    _require_own(described["name"], described["architecture"])
    options = "".join(f", {name}={value!r}" for name, value in described["architecture"].items())
    if described["library"] == _TORCHVISION:
        return f"torchvision.models.get_model({described['name']!r}, weights=None{options})", _TORCHVISION
    return f"timm.create_model({described['name']!r}, pretrained=False{options})", _TIMM


def _require_own(name: str, architecture: Mapping[str, Any]) -> None:
    """Check that building a model reads no file and contacts no hub: timm does, for some names and arguments.

    Raises:
        RecipeError: it would do so.
    """
    if not _NAME.fullmatch(name):
        raise RecipeError(f"{name!r} is not the name of a model of torchvision or timm.")
    if reading := sorted(_READING & set(architecture)):
        raise RecipeError(
            f"options.architecture of {name} sets {', '.join(reading)}, which loads weights: use weights=PATH instead."
        )


def transform(described: Mapping[str, Any]) -> Callable[[Any], Any]:
    """Return the function from a PIL image to the model's input, float32 [channels, height, width]."""
    if described["library"] == _TORCHVISION:
        import torchvision

        prepare: Callable[[Any], Any] = torchvision.models.get_weight(described["transform"]).transforms()
        return prepare
    _require_timm()
    from timm.data import create_transform

    evaluation: Callable[[Any], Any] = create_transform(**described["transform"], is_training=False)
    return evaluation


def _torchvision(name: str, architecture: dict[str, Any]) -> tuple[dict[str, Any], Callable[[], str | None], Any]:
    """Return a model's description, a function that says why its weights are unavailable, and one that loads them."""
    import torch
    import torchvision

    name, _, tag = name.partition("@")
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        raise UnknownName("torchvision model", name, names)
    tags = torchvision.models.get_model_weights(name)
    if tag and tag not in tags.__members__:
        raise UnknownName(f"weights of torchvision's {name}", tag, tags.__members__)
    trained = tags[tag] if tag else tags.DEFAULT
    architecture = {**_FIXED.get(name, {}), **architecture}
    described = {
        "library": _TORCHVISION,
        "name": name,
        "architecture": architecture,
        "labels": _labels(architecture, trained.meta["categories"]),
        "transform": str(trained),
    }

    def obstacle() -> str | None:
        parts = urlsplit(trained.url)
        cached = Path(torch.hub.get_dir(), "checkpoints", Path(parts.path).name)
        return None if cached.is_file() else unreachable(f"{parts.scheme}://{parts.netloc}")

    def pretrained() -> Any:
        if architecture.get("num_classes", len(trained.meta["categories"])) == len(trained.meta["categories"]):
            return torchvision.models.get_model(name, weights=trained, **architecture)
        module = torchvision.models.get_model(name, weights=None, **architecture)
        new_weights = module.state_dict()
        state = trained.get_state_dict(progress=False, check_hash=True)
        fitting = {
            key: weight
            for key, weight in state.items()
            if key in new_weights and new_weights[key].shape == weight.shape
        }
        module.load_state_dict(fitting, strict=False)
        return module

    return described, obstacle, pretrained


def _timm(name: str, architecture: dict[str, Any]) -> tuple[dict[str, Any], Callable[[], str | None], Any]:
    """Describe a model of timm (see `_torchvision`)."""
    timm = _require_timm()
    from timm.data import resolve_data_config
    from timm.models import get_pretrained_cfg

    if not timm.is_model(name):
        nearest = difflib.get_close_matches(name, timm.list_models(), n=_NEAREST, cutoff=0)
        raise RecipeError(f"There is no timm model {name!r}. The nearest names are {', '.join(nearest)}.")
    config = get_pretrained_cfg(name)
    trained = config.to_dict() if config is not None else {}
    data = resolve_data_config(pretrained_cfg=trained)
    described = {
        "library": _TIMM,
        "name": name,
        "architecture": architecture,
        "labels": _labels(architecture, [""] * trained.get("num_classes", 1000)),
        "transform": {key: list(value) if isinstance(value, tuple) else value for key, value in data.items()},
    }
    repository = trained.get("hf_hub_id") or name

    def obstacle() -> str | None:
        return None if cached_file(repository, _TIMM_WEIGHTS) else unreachable()

    return described, obstacle, lambda: timm.create_model(name, pretrained=True, **architecture)


def _labels(architecture: Mapping[str, Any], trained: list[str]) -> list[str]:
    """Return names of the classes: those of the pretrained weights or ImageNet if the number matches, else numbers."""
    count = architecture.get("num_classes", len(trained))
    if count == len(trained) and all(trained):
        return list(trained)
    if count == len(_imagenet()):
        return list(_imagenet())
    return [f"LABEL_{index}" for index in range(count)]


@functools.cache
def _imagenet() -> tuple[str, ...]:
    from torchvision.models import ResNet18_Weights

    return tuple(ResNet18_Weights.DEFAULT.meta["categories"])


def _require_timm() -> Any:
    if importlib.util.find_spec("timm") is None:
        raise MachineLacks("timm is not installed: pip install timm")
    import timm

    return timm


def _filled(module: Any, path: Path) -> Model:
    """Fill a module from a file or folder with its state dict."""
    if not path.exists():
        raise WeightsError(
            f"There is no weights file {path}. Give a file with a state dict (.pt, .safetensors), or use weights=auto."
        )
    fit = fill_from(module, path)
    facts = {"checkpoint": "; ".join(fit.steps), "precision": fit.cast and f"the weights were cast: {fit.cast}"}
    return Model(module, weights="local", facts={name: text for name, text in facts.items() if text})


def _ready(model: Model, described: Mapping[str, Any]) -> Model:
    model.module = model.module.float().requires_grad_(False).eval()
    model.family_data = ZooModel(described)
    return model
