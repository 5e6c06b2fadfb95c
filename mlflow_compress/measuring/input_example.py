"""The input example of a saved model: what its users may send, and what it answered when it was measured.

It is written beside the model folder, whose size is measured, and logged with the model as its signature's source.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_compress.sockets import Family, Model

_FILE = "example.json"
_MOST_BYTES = 64 * 2**20
_TEXTS = ("texts", "likelihoods")  # families that answer in words; making some would take long


@dataclass(frozen=True)
class Example:
    """Inputs as `Family.predict` takes them, and its answers.

    Attributes:
        inputs: texts, or nested lists of numbers; the first axis counts them.
        dtype: of the numbers; empty for texts.
        shape: of one input; -1 where a length may differ.
        outputs: the answers; none where nobody knows them.
    """

    inputs: list[Any]
    dtype: str = ""
    shape: tuple[int, ...] = ()
    outputs: list[Any] | None = None


def keep(family: Family, model: Model, folder: Path) -> None:
    """Write the example of a restored model into its variant's folder, where its family gives one."""
    inputs = family.example(model)
    if not inputs:
        return
    written: dict[str, Any] = {"inputs": [_plain(each) for each in inputs]}
    if hasattr(inputs[0], "shape"):
        lengths = tuple(inputs[0].shape)
        shape = tuple(-1 if axis in family.flexible_axes else length for axis, length in enumerate(lengths))
        written |= {"dtype": str(inputs[0].dtype).removeprefix("torch."), "shape": shape}
    answers = [""] if set(_TEXTS) & set(family.kinds(model)) else family.predict(model, inputs)
    written["outputs"] = [_plain(each) for each in answers]
    (folder / _FILE).write_text(json.dumps(written), encoding="utf-8")


def read(folder: Path) -> Example | None:
    """Read what `keep` wrote; None where there is nothing, or something else: the folder is a worker's."""
    path = folder / _FILE
    try:
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            return None
        data = json.loads(path.read_text(encoding="utf-8"))
        return Example(**{**data, "shape": tuple(data.get("shape", ()))})
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def _plain(value: Any) -> Any:
    """Make data of arrays, tensors and what holds them."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value
