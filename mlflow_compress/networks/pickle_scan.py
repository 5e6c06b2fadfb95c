"""Finds code that a torch checkpoint would run, without loading it.

A pickle names the functions and classes that it calls when it is read. Those of torch's tensors, of layers of torch and
ultralytics, and of plain containers only build data; everything else counts as foreign code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow_compress.networks import plain_checkpoint

UNREADABLE = "what can't be told"
_LAYERS = (  # including the names in the first versions of ultralytics
    "torch.nn.modules.",
    "torchvision.transforms.autoaugment ",
    "torchvision.transforms.functional InterpolationMode",
    "torchvision.transforms.transforms ",
    "ultralytics.data.augment ",
    "ultralytics.nn.modules ",
    "ultralytics.nn.modules.",
    "ultralytics.nn.tasks ",
    "ultralytics.utils.loss ",
    "ultralytics.utils.tal ",
    "ultralytics.yolo.data.augment ",
    "ultralytics.yolo.utils.loss ",
    "ultralytics.yolo.utils.tal ",
    "ultralytics.yolo.v8.",
)
_CLASS = re.compile(r"(v\d+)?[A-Z]\w*")  # v8DetectionLoss; no dots: `Sequential.__class__` would lead elsewhere
_PLAIN = frozenset(
    {
        "__builtin__ object",
        "__builtin__ set",
        "_codecs encode",
        "builtins complex",
        "builtins object",
        "builtins set",
        "builtins slice",
        "collections OrderedDict",
        "collections defaultdict",
        "copy_reg _reconstructor",
        "datetime date",
        "datetime datetime",
        "datetime timedelta",
        "numpy dtype",
        "numpy ndarray",
        "numpy._core.multiarray _reconstruct",
        "numpy._core.multiarray scalar",
        "numpy.core.multiarray _reconstruct",
        "numpy.core.multiarray scalar",
        "torch Size",
        "torch device",
        "torch._utils _rebuild_parameter",
        "torch._utils _rebuild_tensor",
        "torch._utils _rebuild_tensor_v2",
        "torch.nn.parameter Parameter",
        "ultralytics.utils IterableSimpleNamespace",
        "ultralytics.yolo.utils IterableSimpleNamespace",
        *(f"{module} {name}Path" for module in ("pathlib", "pathlib._local") for name in ("", "Posix", "Windows")),
    }
)
_GETATTR, _METHODS = (
    ("__builtin__ getattr", "builtins getattr"),
    ("forward", "forward_fuse", "BICUBIC", "BILINEAR", "IMAGENET", "NEAREST"),
)
_DTYPES = ("Storage", "float16", "float32", "float64", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "bool")


def code_in(path: Path) -> list[str]:
    """Return the functions and classes that a checkpoint calls, without those that only build data.

    Args:
        path: a file of `torch.save`.

    Returns:
        `module name` of each, sorted; `UNREADABLE` alone if the file has another format or hides its calls.
    """
    try:
        with plain_checkpoint.opened(path) as checkpoint:
            return foreign(checkpoint.calls)
    except (OSError, ValueError):
        return [UNREADABLE]


def foreign(calls: Mapping[str, Sequence[tuple[Any, ...]]]) -> list[str]:
    """Return the called names, sorted, without those that only build data (see `inert_pickle.Inert`)."""
    return sorted(name for name, arguments in calls.items() if not (_is_plain(name) or _takes_methods(name, arguments)))


def _takes_methods(name: str, calls: Sequence[tuple[Any, ...]]) -> bool:
    """Return whether a name is `getattr` and only takes methods of layers, as in the releases of ultralytics."""
    return name in _GETATTR and all(
        len(arguments) == 2 and _is_layer(getattr(arguments[0], "name", "")) and arguments[1] in _METHODS
        for arguments in calls
    )


def _is_layer(name: str) -> bool:
    attribute = name.partition(" ")[2]
    return name.startswith(_LAYERS) and _CLASS.fullmatch(attribute) is not None


def _is_plain(name: str) -> bool:
    module, _, attribute = name.partition(" ")
    is_dtype = module == "torch" and attribute.endswith(_DTYPES) and attribute.isidentifier()
    return name in _PLAIN or _is_layer(name) or is_dtype
