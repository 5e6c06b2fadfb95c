"""What code a checkpoint of torch would run, told without loading it.

A pickle names the functions and classes that it calls when it is read. Those of torch's tensors, torch's and
ultralytics' layers, and plain containers only build what they are named for; anything else is code of somebody's own.
"""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path

_DATA = "data.pkl"
_LAYERS = ("torch.nn.modules.", "ultralytics.nn.modules.", "ultralytics.nn.tasks ")
_PLAIN = frozenset(
    {
        "__builtin__ set",
        "builtins set",
        "builtins slice",
        "builtins complex",
        "collections OrderedDict",
        "pathlib Path",
        "pathlib PosixPath",
        "pathlib WindowsPath",
        "torch Size",
        "torch device",
        "torch.nn.parameter Parameter",
        "torch._utils _rebuild_parameter",
        "torch._utils _rebuild_tensor",
        "torch._utils _rebuild_tensor_v2",
        "ultralytics.utils IterableSimpleNamespace",
        "numpy dtype",
        "numpy.core.multiarray scalar",
        "numpy._core.multiarray scalar",
    }
)
_DTYPES = ("Storage", "float16", "float32", "float64", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "bool")


def code_in(path: Path) -> list[str]:
    """Name the functions and classes that a checkpoint calls beyond those that only build data.

    Args:
        path: what `torch.save` wrote.

    Returns:
        `module name` of each, sorted; `what can't be told` where it is no such file or hides its calls.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = (each for each in archive.namelist() if each.rpartition("/")[2] == _DATA)
            called = {_called(op.name, arg) for op, arg, _ in pickletools.genops(archive.read(name))}
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return ["what can't be told"]
    return sorted(each for each in called - {""} if not _is_plain(each))


def _called(operation: str, argument: object) -> str:
    """Return what an operation of a pickle looks up; empty where it looks up nothing."""
    if operation in ("GLOBAL", "INST"):
        return str(argument)
    # Those of later protocols take the name from the stack or a registry; torch.save writes none.
    return operation if operation in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4") else ""


def _is_plain(name: str) -> bool:
    module, _, what = name.partition(" ")
    # One name, no dots: `Sequential.__class__` would lead elsewhere.
    is_layer = name.startswith(_LAYERS) and what.isidentifier() and what[:1].isupper()
    return name in _PLAIN or is_layer or (module == "torch" and what.endswith(_DTYPES) and what.isidentifier())
