"""Descriptions from which ultralytics builds models: they come from untrusted files, so only a closed form is accepted.

ultralytics evaluates the text of an activation, looks up layers among all names of one of its modules, and replaces
texts that are names of its local variables. Here an activation must be a class of `torch.nn` with plain numbers, a
layer must be a layer class, and everything else must be plain data of limited size.
"""

from __future__ import annotations

import ast
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mlflow_compress.errors import WeightsError

_MOST_VALUES, _DEEPEST, _LONGEST = 100_000, 12, 4096
_GREATEST = 100_000  # the greatest number: channels, classes
_MOST_REPEATS = 100
_LONGEST_ACTIVATION = 200
_REPR = reprlib.Repr()  # always short
_REPR.maxstring = 80
_WORD = re.compile(r"[A-Za-z_][\w.-]{0,60}")  # text arguments of layers: nearest, resnet18
_VARIABLES = ("nc", "kpt_shape", "ch", "reg_max", "end2end")  # numbers of the architecture that a layer may name


@dataclass(frozen=True)
class Task:
    """The task of a model.

    Attributes:
        built_by: class in `ultralytics.nn.tasks` that builds the model.
        side: side of its usual square input, in pixels.
        outputs: names of the outputs of `output_of`.
        shape: shape of the objects that it finds, as in `Metric.takes`; `labels`: it classifies whole pictures.
    """

    built_by: str
    side: int
    outputs: tuple[str, ...]
    shape: Literal["boxes", "masks", "keypoints", "rotated_boxes", "labels"] = "boxes"

    @property
    def classifies(self) -> bool:
        """Whether it returns logits of classes; else boxes."""
        return self.shape == "labels"

    def output_of(self, output: Any) -> Any:
        """Return the part of a module's output that is measured and scored: logits, or raw boxes and any prototypes."""
        return output[1] if self.classifies else output[0]

    def given_for(self, outputs: tuple[Any, ...]) -> Any:
        """Return a module's output with these outputs, as far as `output_of` reads it."""
        if self.classifies:
            return None, outputs[0]
        return (outputs[0] if len(self.outputs) == 1 else outputs,)


TASKS: Mapping[str, Task] = {
    "detect": Task("DetectionModel", 640, ("raw",)),
    "segment": Task("SegmentationModel", 640, ("raw", "prototypes"), "masks"),
    "pose": Task("PoseModel", 640, ("raw",), "keypoints"),
    "obb": Task("OBBModel", 1024, ("raw",), "rotated_boxes"),
    "classify": Task("ClassificationModel", 224, ("logits",), "labels"),
}


@dataclass
class Architecture:
    """The description of a model for ultralytics, and its task.

    Attributes:
        yaml: ultralytics' own description of the layers.
        names: names of the classes, by number.
        task: a name in `TASKS`.

    Raises:
        WeightsError: building it could run something other than layers.
    """

    yaml: dict[str, Any]
    names: dict[int, str]
    task: str

    def __post_init__(self) -> None:
        """Check everything that ultralytics would evaluate or look up."""
        try:
            _require_task(self.task)
            _require_names(self.names)
            require_closed(self.yaml)
        except _OpenError as error:
            raise WeightsError(f"The architecture of an ultralytics model is rejected: {error}.") from None

    @property
    def does(self) -> Task:
        """The properties of the task."""
        return TASKS[self.task]

    @property
    def keypoints(self) -> tuple[int, int] | None:
        """Number of keypoints of an object, and of the values of each; None: it finds none."""
        count, values = self.yaml.get("kpt_shape") or (0, 0)
        return (int(count), int(values)) if count else None

    @classmethod
    def of(cls, module: Any) -> Architecture:
        """Describe a module."""
        name = type(module).__name__
        task = next(key for key, task in TASKS.items() if task.built_by == name)
        return cls(module.yaml, dict(module.names), task)


class _OpenError(ValueError):
    """An architecture is not in the closed form; the message says why."""


def require_closed(yaml: object) -> None:
    """Check that building a description runs nothing but layers.

    Raises:
        ValueError: it may run something else, which the message names.
    """
    if not isinstance(yaml, dict):
        raise _OpenError(f"its description is a {type(yaml).__name__}, not a mapping")
    _require_plain(yaml)
    if (activation := yaml.get("activation")) is not None:
        _require_activation(activation)
    layers = [layer for part in ("backbone", "head") for layer in _listed(yaml, part)]
    if not layers:
        raise _OpenError("it has no layers")
    for layer in layers:
        _require_layer(layer)


def _listed(yaml: Mapping[str, Any], part: str) -> list[Any]:
    layers = yaml.get(part)
    if not isinstance(layers, list):
        raise _OpenError(f"its {part} is not a list of layers")
    return layers


def _require_task(task: object) -> None:
    if task not in list(TASKS):
        raise _OpenError(f"its task is {shown(task)}, but this family measures {', '.join(TASKS)}")


def _require_names(names: object) -> None:
    _require_plain(names)
    if not isinstance(names, dict) or not all(
        isinstance(number, int) and isinstance(name, str) for number, name in names.items()
    ):
        raise _OpenError("its classes are not a mapping of numbers to names")


def _require_plain(value: object) -> None:
    """Check that a value is plain data of limited size."""
    waiting, count = [(value, 0)], 0
    while waiting:
        part, depth = waiting.pop()
        count += 1
        if count > _MOST_VALUES or depth > _DEEPEST:
            raise _OpenError(
                f"its description has more than {_MOST_VALUES:,} values, or more than {_DEEPEST} nested levels"
            )
        if isinstance(part, dict):
            waiting += [(inner, depth + 1) for pair in part.items() for inner in pair]
        elif isinstance(part, (list, tuple)):
            waiting += [(inner, depth + 1) for inner in part]
        else:
            _require_scalar(part)


def _require_scalar(value: object) -> None:
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, str):
        if len(value) > _LONGEST:
            raise _OpenError(f"its description holds a text of more than {_LONGEST:,} characters")
    elif not isinstance(value, (int, float)):
        raise _OpenError(f"its description holds a {type(value).__name__}")
    elif not abs(value) <= _GREATEST:
        raise _OpenError(f"its description holds the number {value:.3g}")


def _require_activation(text: object) -> None:
    """Check that the text of an activation is a class of `torch.nn` with plain numbers: `nn.LeakyReLU(0.1)`."""
    from torch import nn

    rejection = _OpenError(
        f"its activation {shown(text)} would be evaluated, and must be a class of torch.nn with plain numbers, such "
        "as nn.SiLU() or nn.LeakyReLU(0.1)"
    )
    if not isinstance(text, str) or len(text) > _LONGEST_ACTIVATION:
        raise rejection
    try:
        call = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise rejection from None
    if not isinstance(call, ast.Call):
        raise rejection
    module, _, name = ast.unparse(call.func).rpartition(".")
    kind = getattr(nn, name, None) if module in ("nn", "torch.nn") else None
    values = [*call.args, *(keyword.value for keyword in call.keywords)]
    is_named = all(keyword.arg for keyword in call.keywords)
    is_activation = getattr(kind, "__module__", "") == "torch.nn.modules.activation"
    if not (is_activation and is_named and all(map(_is_number, values))):
        raise rejection


def _is_number(node: ast.expr) -> bool:
    """Return whether an expression is a number, True or False."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node = node.operand
    return isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float))


def _require_layer(layer: object) -> None:
    """Check a layer: `[from, repeats, name, arguments]`."""
    match layer:
        case [_, int(repeats), str(name), list(arguments)] if repeats <= _MOST_REPEATS:
            _require_layer_class(name)
        case _:
            raise _OpenError(f"{shown(layer)} is not a layer [from, repeats, name, arguments]")
    for argument in arguments:
        if isinstance(argument, str):
            _require_word(argument)


def _require_layer_class(name: str) -> None:
    """Check that a name is that of a layer class."""
    import torchvision
    from torch import nn
    from ultralytics.nn import tasks

    homes = {"nn.": (nn, "torch.nn.modules."), "torchvision.ops.": (torchvision.ops, "torchvision.ops.")}
    prefix = next((prefix for prefix in homes if name.startswith(prefix)), "")
    home, module = homes.get(prefix, (tasks, "ultralytics.nn.modules."))
    kind = vars(home).get(name.removeprefix(prefix))
    is_layer = isinstance(kind, type) and issubclass(kind, nn.Module) and kind.__module__.startswith(module)
    if not is_layer and name != "Silence":  # ultralytics itself replaces this name
        raise _OpenError(f"{shown(name)} is not a layer that ultralytics knows")


def _require_word(argument: str) -> None:
    """Check that ultralytics uses a text as it is, or as the name of a number of the architecture."""
    from ultralytics.nn import tasks

    code = tasks.parse_model.__code__
    is_variable = argument in {*code.co_varnames, *code.co_cellvars} - set(_VARIABLES)
    if is_variable or not _WORD.fullmatch(argument):
        raise _OpenError(f"a layer has the argument {shown(argument)}, which ultralytics would read as something else")


def shown(value: object) -> str:
    """Return a short text of any value, for messages."""
    return _REPR.repr(value)
