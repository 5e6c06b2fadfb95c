"""The input example of a saved model: an input that users may send, and the model's answer when it was measured.

It is written beside the model folder, whose size is measured, and logged with the model to infer its signature.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
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
        outputs: The answers; None if unknown.
    """

    inputs: list[Any]
    dtype: str = ""
    shape: tuple[int, ...] = ()
    outputs: list[Any] | None = None


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
        return Example(**{**data, "shape": tuple(data.get("shape", ()))})
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def _plain(value: Any) -> Any:
    """Convert arrays and tensors, also nested ones, to plain data."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
