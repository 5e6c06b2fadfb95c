"""The input example of a saved model: an input that users may send, and the model's answer when it was measured.

It is written beside the model folder, whose size is measured, and logged with the model to infer its signature.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow_compress.sockets import Family, Model

_FILE = "example.json"
_MOST_BYTES = 64 * 2**20
_TEXTS = ("texts", "likelihoods")  # answers that are text: generating some would take long


@dataclass(frozen=True)
class Example:
    """Inputs for `Family.predict`, and its answers.

    Attributes:
        inputs: Texts, or nested lists of numbers; the first axis counts the inputs.
        dtype: Dtype of the numbers; empty for texts.
        shape: Shape of one input; -1 where the length may vary.
        columns: Dtype and shape of each part, by name, if an input has several parts; else empty.
        outputs: The answers; None if unknown.
    """

    inputs: list[Any]
    dtype: str = ""
    shape: tuple[int, ...] = ()
    outputs: list[Any] | None = None
    columns: Mapping[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)


def keep(family: Family, model: Model, folder: Path) -> None:
    """Write the example of a restored model into its variant's folder, if its family has one."""
    inputs = family.example(model)
    if not inputs:
        return
    example: dict[str, Any] = {"inputs": [_plain(value) for value in inputs]}
    if hasattr(inputs[0], "shape"):
        lengths = tuple(inputs[0].shape)
        shape = tuple(-1 if axis in family.flexible_axes else length for axis, length in enumerate(lengths))
        example |= {"dtype": str(inputs[0].dtype).removeprefix("torch."), "shape": shape}
    if isinstance(inputs[0], Mapping) and not family.takes_rows:
        example["columns"] = {name: _form(part) for name, part in inputs[0].items()}
    answers = [""] if set(_TEXTS) & set(family.kinds(model)) else family.predict(model, inputs)
    example["outputs"] = [_plain(answer) for answer in answers]
    (folder / _FILE).write_text(json.dumps(example), encoding="utf-8")


def read(folder: Path) -> Example | None:
    """Read the example that `keep` wrote; None if there is none or it is invalid: a worker owns the folder."""
    path = folder / _FILE
    try:
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            return None
        data = json.loads(path.read_text(encoding="utf-8"))
        columns = {name: (dtype, tuple(shape)) for name, (dtype, shape) in data.get("columns", {}).items()}
        return Example(**{**data, "shape": tuple(data.get("shape", ())), "columns": columns})
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None


def _form(part: Any) -> tuple[str, tuple[int, ...]]:
    """Return the dtype and the shape of an array, a tensor or a number."""
    import numpy as np

    if hasattr(part, "shape"):
        return str(part.dtype).removeprefix("torch."), tuple(part.shape)
    return str(np.asarray(part).dtype), ()


def _plain(value: Any) -> Any:
    """Convert arrays and tensors, also nested ones, to plain data."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
