"""Reads files of ultralytics as data: the description of a model and its weights, without calling anything."""

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
from mlflow_compress.networks.ultralytics_architecture import TASKS, Architecture, shown
from mlflow_compress.trust_word import trust_word

_PACKAGE = "ultralytics."
_TASKS_MODULE = "ultralytics.nn.tasks "
_OLD_NAMES = {"YOLOv10DetectionModel": "DetectionModel"}
_DEEPEST, _MOST_LAYERS = 32, 100_000  # nested layers, and layers in total
_WITHOUT_EFFECT = ("inplace", "momentum", "training")  # settings that do not change a layer's output


@dataclass(frozen=True)
class Saved:
    """A saved model.

    Attributes:
        described: description of its architecture.
        weights: its tensors, by their names in the state dict.
        layers: its pickled layers, by their names in the model.
    """

    described: Architecture
    weights: Mapping[str, Any]
    layers: Mapping[str, Made]


def read(path: Path) -> Saved:
    """Read a file that ultralytics saved, in training or by `YOLO.save`.

    Raises:
        WeightsError: it has another format, or is more than a description and weights.
    """
    try:
        with plain_checkpoint.opened(path) as checkpoint:
            if calls := foreign(checkpoint.calls):
                raise WeightsError(
                    f"The weights file {path} is a pickle that calls {', '.join(calls[:3])} when it is read. If you "
                    f"trust its source, say so: {trust_word()}"
                )
            model = _model_in(checkpoint, path)
            attributes = _state_of(model)
            described = Architecture(dict(mapping_of(attributes.get("yaml"))), _names(attributes), _task(model, path))
            layers = dict(_layers(model))
            return Saved(described, {name: checkpoint.tensor(node) for name, node in _tensors(layers)}, layers)
    except (OSError, ValueError) as error:
        raise WeightsError(f"The weights file {path} can't be loaded: {error}.") from error


def is_of_others(path: Path) -> bool:
    """Return whether a file can be read and holds no model of ultralytics: a state dict, or another module.

    A file with foreign calls does not count: loading it requires trust, and names the calls.
    """
    try:
        with plain_checkpoint.opened(path) as checkpoint:
            content = mapping_of(checkpoint.content)
            candidates = [content.get("ema"), content.get("model"), checkpoint.content]
            models = [candidate for candidate in candidates if isinstance(candidate, Made)]
            if any(model.name.startswith(_PACKAGE) for model in models):
                return False
            return any("_modules" in _state_of(model) for model in models) or not foreign(checkpoint.calls)
    except (OSError, ValueError):
        return False


def require_same_layers(saved: Saved, module: Any, path: Path) -> None:
    """Check that the module built from a description has the saved layers: a user may have replaced some.

    Args:
        saved: the saved model.
        module: the module built from its description.
        path: the file, for messages.

    Raises:
        WeightsError: a layer has another class or other settings, such as an activation.
    """
    for name, layer in module.named_modules():
        node = saved.layers.get(name)
        if node is None or not name:
            continue
        built = type(layer).__name__
        kind = node.name.rpartition(" ")[2]
        settings = [name for name in getattr(layer, "__constants__", ()) if name not in _WITHOUT_EFFECT]
        state = _state_of(node)
        changed = next((key for key in settings if key in state and state[key] != getattr(layer, key)), "")
        if kind != built or changed:
            saved_as = f"a {kind}" if kind != built else f"a {kind} with {changed}={shown(state[changed])}"
            expected = f"a {built}" if kind != built else f"{changed}={shown(getattr(layer, changed))}"
            raise WeightsError(
                f"The model in {path} differs from its own description: the layer {name} is {saved_as}, but "
                f"ultralytics builds {expected}. Only ultralytics itself can load it. If you trust its source, say so: "
                f"{trust_word()}"
            )


def _model_in(checkpoint: Checkpoint, path: Path) -> Made:
    """Return the model that ultralytics would use: the moving average from training, if there is one."""
    content = mapping_of(checkpoint.content)
    model = content.get("ema") or content.get("model")
    if not isinstance(model, Made):
        raise WeightsError(f"The weights file {path} holds no model that ultralytics saved.")
    if content.get("modelopt"):
        raise WeightsError(
            f"The weights file {path} holds a model that was quantised during training. Give the file from before that."
        )
    return model


def _task(model: Made, path: Path) -> str:
    name = model.name.removeprefix(_TASKS_MODULE) if model.name.startswith(_TASKS_MODULE) else ""
    built_by = _OLD_NAMES.get(name, name)
    tasks = {task.built_by: key for key, task in TASKS.items()}
    if built_by not in tasks:
        kind = model.name.rpartition(" ")[2]
        raise WeightsError(f"{path} holds a {kind}; this family measures {', '.join(tasks)}.")
    return tasks[built_by]


def _names(attributes: Mapping[Any, Any]) -> dict[int, str]:
    names = attributes.get("names")
    return dict(enumerate(names)) if isinstance(names, list) else dict(mapping_of(names))


def _state_of(layer: object) -> Mapping[Any, Any]:
    state = layer.state if isinstance(layer, Made) else None
    return state if isinstance(state, dict) else {}


def _layers(model: Made) -> Iterator[tuple[str, Made]]:
    """Yield a pickled model and each of its layers, with their names.

    Raises:
        ValueError: layers contain each other.
    """
    waiting, count = [("", model, 0)], 0
    while waiting:
        name, layer, depth = waiting.pop()
        count += 1
        if depth > _DEEPEST or count > _MOST_LAYERS:
            raise ValueError("its layers contain each other")
        yield name, layer
        waiting += [
            (f"{name}.{key}" if name else str(key), inner, depth + 1)
            for key, inner in mapping_of(_state_of(layer).get("_modules")).items()
            if isinstance(inner, Made)
        ]


def _tensors(layers: Mapping[str, Made]) -> Iterator[tuple[str, Any]]:
    """Yield the pickled parameters and saved buffers, with their names."""
    for layer, node in layers.items():
        state = _state_of(node)
        unsaved = state.get("_non_persistent_buffers_set")
        left_out = unsaved if isinstance(unsaved, set) else _items(unsaved)
        for kind in ("_parameters", "_buffers"):
            for name, tensor in mapping_of(state.get(kind)).items():
                if tensor is not None and name not in left_out:
                    yield f"{layer}.{name}" if layer else str(name), tensor


def _items(node: object) -> list[Any]:
    """Return the items of a set, which older protocols build by a call with a list."""
    if isinstance(node, Made) and node.arguments and isinstance(node.arguments[0], list):
        return node.arguments[0]
    return []
