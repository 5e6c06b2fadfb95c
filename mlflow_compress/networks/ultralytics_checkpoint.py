"""What ultralytics saved, read as data: the description of a model and its weights, of which nothing is called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_compress.errors import WeightsError
from mlflow_compress.networks import plain_checkpoint
from mlflow_compress.networks.inert_pickle import Made
from mlflow_compress.networks.pickle_scan import foreign
from mlflow_compress.networks.plain_checkpoint import Checkpoint, mapping_of
from mlflow_compress.networks.ultralytics_architecture import TASKS, Architecture

_TASKS_MODULE = "ultralytics.nn.tasks "
_OLD_NAMES = {"YOLOv10DetectionModel": "DetectionModel"}
_DEEPEST, _MOST_LAYERS = 32, 100_000  # layers in layers, and all of them


@dataclass(frozen=True)
class Saved:
    """A model that was saved.

    Attributes:
        described: what it is built from.
        weights: its tensors, by the names that the model's state has.
    """

    described: Architecture
    weights: Mapping[str, Any]


def read(path: Path) -> Saved:
    """Read what ultralytics saved: by training, or by `YOLO.save`.

    Raises:
        WeightsError: it is no such file, or is more than a description and weights.
    """
    try:
        with plain_checkpoint.opened(path) as checkpoint:
            if called := foreign(checkpoint.calls):
                raise WeightsError(
                    f"The weights file {path} is a pickle that calls {', '.join(called[:3])} when it is read. If you "
                    "trust where it comes from, say so: --trust"
                )
            model = _model_in(checkpoint, path)
            named = _state_of(model)
            described = Architecture(dict(mapping_of(named.get("yaml"))), _names(named), _task(model, path))
            return Saved(described, {name: checkpoint.tensor(made) for name, made in _tensors(model)})
    except (OSError, ValueError) as error:
        raise WeightsError(f"The weights file {path} can't be loaded: {error}.") from error


def _model_in(checkpoint: Checkpoint, path: Path) -> Made:
    """Return the model that ultralytics would take: the average of those of training where there is one."""
    content = mapping_of(checkpoint.content)
    model = content.get("ema") or content.get("model")
    if not isinstance(model, Made):
        raise WeightsError(f"The weights file {path} holds no model that ultralytics saved.")
    if content.get("modelopt"):
        raise WeightsError(
            f"The weights file {path} holds a model that was quantized in training: give that before it."
        )
    return model


def _task(model: Made, path: Path) -> str:
    name = model.name.removeprefix(_TASKS_MODULE) if model.name.startswith(_TASKS_MODULE) else ""
    built_by = _OLD_NAMES.get(name, name)
    known = {task.built_by: key for key, task in TASKS.items()}
    if built_by not in known:
        held = model.name.rpartition(" ")[2]
        raise WeightsError(f"{path} holds a {held}; this family measures {', '.join(known)}.")
    return known[built_by]


def _names(named: Mapping[Any, Any]) -> dict[int, str]:
    names = named.get("names")
    return dict(enumerate(names)) if isinstance(names, list) else dict(mapping_of(names))


def _state_of(layer: object) -> Mapping[Any, Any]:
    state = layer.state if isinstance(layer, Made) else None
    return state if isinstance(state, dict) else {}


def _tensors(model: Made) -> Iterator[tuple[str, Any]]:
    """Return what stands for parameters and saved buffers, by their names.

    Raises:
        ValueError: layers hold each other.
    """
    waiting, seen = [("", model, 0)], 0
    while waiting:
        prefix, layer, depth = waiting.pop()
        seen += 1
        if depth > _DEEPEST or seen > _MOST_LAYERS:
            raise ValueError("its layers hold each other")
        state = _state_of(layer)
        unsaved = state.get("_non_persistent_buffers_set")
        left_out = unsaved if isinstance(unsaved, set) else _items(unsaved)
        for kind in ("_parameters", "_buffers"):
            for name, tensor in mapping_of(state.get(kind)).items():
                if tensor is not None and name not in left_out:
                    yield f"{prefix}{name}", tensor
        waiting += [
            (f"{prefix}{name}.", inner, depth + 1)
            for name, inner in mapping_of(state.get("_modules")).items()
            if isinstance(inner, Made)
        ]


def _items(made: object) -> list[Any]:
    """Return what is in a set, which older protocols make by a call with a list."""
    if isinstance(made, Made) and made.arguments and isinstance(made.arguments[0], list):
        return made.arguments[0]
    return []
