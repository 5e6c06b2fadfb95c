"""Labelled arrays in a NumPy file (.npz): one array for each input of a model, and one of labels.

`mnist.npz` of Keras has `x_test` and `y_test`, for example. The first axis of every array counts the samples. Files
with pickled objects are rejected: reading them would run code.
"""

from __future__ import annotations

import hashlib
import random
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow_compress.data.datasets import Row, Table
from mlflow_compress.data.keys import require_applicable
from mlflow_compress.data.label_forms import new_label
from mlflow_compress.data.spec import DEFAULT, Data, parse
from mlflow_compress.errors import RecipeError, UnknownName, one_line

SUFFIX = ".npz"
_INPUT, _LABEL = "input", "label"
_USUAL: Mapping[str, tuple[str, ...]] = {
    _INPUT: ("input", "inputs", "x", "image", "images", "data"),
    _LABEL: ("label", "labels", "y", "target", "targets"),
}
_DIGEST = "digest"


def read(
    text: str, folder: Path, inputs: Sequence[str], limit: int | None, seed: int
) -> tuple[Table, list[Mapping[str, Any]]]:
    """Read samples. With a limit, take the first ones of the shuffled samples.

    Args:
        text: The data, as `spec.parse` takes it. Its keys are `label`, `input` (of a model with one input) or the names
            of the inputs; their values are names of arrays.
        folder: Folder where relative paths start.
        inputs: Names of the model's inputs.
        limit: Maximum number of samples; None: all, or the number in `text`.
        seed: Seed for shuffling.

    Returns:
        Rows with `label` and the digest of the arrays, and for each row the arrays by input.

    Raises:
        RecipeError: The file can't be read, or lacks an array, or its arrays have different lengths.
    """
    import numpy as np

    data = parse(text)
    require_applicable(data, "arrays")
    path = folder / data.source
    try:
        with np.load(path, allow_pickle=False) as file:
            names = _names(data, inputs, file.files, path)
            arrays = {role: file[name] for role, name in names.items()}
    except (EOFError, KeyError, MemoryError, OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise RecipeError(f"{path} can't be read as arrays: {one_line(error)}") from error
    lengths = {names[role]: len(array) if array.ndim else 0 for role, array in arrays.items()}
    if len(set(lengths.values())) > 1 or not all(lengths.values()):
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise RecipeError(f"{path}: all arrays must have one entry for each sample, but have: {listed}.")
    labels = [_text(label, path, index) for index, label in enumerate(arrays[_LABEL])]
    order = list(range(len(labels)))
    if data.only:
        column, _, value = data.only.partition("=")
        if column not in (_LABEL, names[_LABEL]):
            raise RecipeError(f"{data}: of arrays, only picks samples by their label: only={_LABEL}=VALUE.")
        order = [index for index in order if labels[index] == value]
        if not order:
            raise RecipeError(f"There is no sample in {text}: no label in {names[_LABEL]} is {value!r}.")
    limit = data.limit if limit is None else limit
    if limit is not None and limit < len(order):
        random.Random(seed).shuffle(order)  # noqa: S311  (nothing secret)
        order = order[:limit]
    samples: list[Mapping[str, Any]] = [{name: arrays[name][index] for name in inputs} for index in order]
    named = [new_label(label, data.labels) or label for label in labels]
    rows = [_row(named[index], sample, path, index) for index, sample in zip(order, samples, strict=True)]
    return Table(rows, path.stem, str(data)), samples


def _row(label: str, sample: Mapping[str, Any], path: Path, index: int) -> Row:
    """Return a row with the label, and the SHA-256 of the arrays."""
    import numpy as np

    digest = hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in sample.values()))
    return Row({"label": label, _DIGEST: digest.hexdigest()}, f"{path.name}, sample {index}")


def _text(label: Any, path: Path, index: int) -> str:
    """Return a label as text.

    Raises:
        RecipeError: The label is neither a number, a text, nor a row with a single 1.
    """
    import numpy as np

    if label.ndim == 1 and len(label) > 1 and set(np.unique(label)) == {0, 1} and label.sum() == 1:
        label = label.argmax()  # one-hot
    if label.size != 1:
        raise RecipeError(f"{path}, sample {index}: a label must be one number or text, not of shape {label.shape}.")
    value = label.reshape(-1)[0]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _names(data: Data, inputs: Sequence[str], arrays: Sequence[str], path: Path) -> dict[str, str]:
    """Return the name of the array for each input, and for the labels.

    Raises:
        UnknownName: A key is neither an input nor `label`.
        RecipeError: An array is missing.
    """
    columns = dict(data.columns)
    if len(inputs) == 1 and _INPUT in columns and inputs[0] not in columns:
        columns[inputs[0]] = columns.pop(_INPUT)
    for key in columns:
        if key not in (*inputs, _LABEL):
            raise UnknownName(f"key of data {str(data)!r}", key, [*inputs, _LABEL])
    names = {}
    for role in (*inputs, _LABEL):
        usual = _USUAL[_LABEL] if role == _LABEL else (role, *(_USUAL[_INPUT] if len(inputs) == 1 else ()))
        of_split = [f"{name}_{data.split}" for name in usual]
        is_split = "split" in data.given or data.split != DEFAULT.split
        candidates = [columns[role]] if role in columns else of_split if is_split else [*usual, *of_split]
        name = next((candidate for candidate in candidates if candidate in arrays), None)
        if is_split and (name is None or not name.endswith(f"_{data.split}")):
            raise RecipeError(
                f"{path} has no array {of_split[0]} or similar; it has {', '.join(arrays) or 'none'}. Leave out "
                f"split={data.split}, or name arrays that end in _{data.split}."
            )
        if name is None:
            key = _INPUT if role in inputs and len(inputs) == 1 else role
            raise RecipeError(
                f"{path} has no array for {role}; it has {', '.join(arrays) or 'none'}. Name it: {key}=ARRAY."
            )
        names[role] = name
    return names
