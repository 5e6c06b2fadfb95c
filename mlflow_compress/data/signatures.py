"""Inputs of an MLflow model: generate them from its signature, repeat them to a batch, convert them to its types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlflow_compress.errors import RecipeError


def make_input(schema: Any, seed: int) -> Any:
    """Create one row with the types of a signature."""
    import numpy as np

    generator = np.random.default_rng(seed)
    if schema.is_tensor_spec():
        arrays = {}
        for index, spec in enumerate(schema.inputs):
            shape = [1 if length < 0 else length for length in spec.shape]
            arrays[spec.name or str(index)] = generator.random(shape).astype(spec.type)
        return arrays if schema.has_input_names() else next(iter(arrays.values()))
    return stack_rows([{spec.name: _value(spec.type.name, generator) for spec in schema.inputs}])


def _value(kind: str, generator: Any) -> Any:
    if kind in ("double", "float"):
        return float(generator.random())
    if kind in ("integer", "long"):
        return int(generator.integers(0, 2))
    if kind == "boolean":
        return bool(generator.integers(0, 2))
    if kind == "string":
        return "text"
    raise RecipeError(f"An input of type {kind} can't be generated: log the model with input_example=...")


def repeat(example: Any, size: int) -> Any:
    """Return the first rows of an example, starting again if it has too few.

    Raises:
        RecipeError: it does not consist of rows.
    """
    return take(example, range(size))


def take(example: Any, indices: Sequence[int]) -> Any:
    """Return rows of an example by index; indices beyond its end wrap around.

    Raises:
        RecipeError: it does not consist of rows.
    """
    import numpy as np

    if hasattr(example, "iloc"):
        return example.iloc[[index % len(example) for index in indices]].reset_index(drop=True)
    if isinstance(example, Mapping):
        return {name: take(values, indices) for name, values in example.items()}
    if isinstance(example, np.ndarray) and example.ndim:
        return example[[index % len(example) for index in indices]]
    if isinstance(example, list):
        return [example[index % len(example)] for index in indices]
    if len(indices) == 1:
        return example
    raise RecipeError(
        f"The input example is a {type(example).__name__} without rows: it can't become a batch of {len(indices)}."
    )


def different_rows(example: Any) -> list[int]:
    """Return the indices of an example's rows that differ from all earlier rows; 0 alone if it has no rows."""
    import numpy as np

    def content(row: Any) -> Any:
        if isinstance(row, np.ndarray):
            return row.tobytes() if row.dtype != object else repr(row.tolist())
        return repr(row)

    parts = list(example.values()) if isinstance(example, Mapping) else [example]
    columns = [part.to_numpy() if hasattr(part, "to_numpy") else part for part in parts]
    if not all(isinstance(column, list) or (isinstance(column, np.ndarray) and column.ndim) for column in columns):
        return [0]
    rows = zip(*([content(row) for row in column] for column in columns), strict=False)
    first = {row: index for index, row in reversed(list(enumerate(rows)))}
    return sorted(first.values())


def stack_rows(rows: Sequence[Any]) -> Any:
    """Combine rows into one input: mappings into a data frame, arrays into an array."""
    import numpy as np
    import pandas as pd

    if rows and isinstance(rows[0], Mapping):
        return pd.DataFrame(list(rows))
    return np.stack([np.asarray(row) for row in rows])


def typed_value(value: Any, kind: str) -> Any:
    """Convert a value of a table, which may be text, to a column's type."""
    try:
        if kind in ("double", "float"):
            return float(value)
        if kind in ("integer", "long"):
            return int(value)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{value!r} is not a {kind}, the type that the model's signature requires.") from error
    if kind == "boolean" and isinstance(value, str):
        return value.lower() in ("true", "1", "yes")
    return value
