"""Inputs of a model that MLflow describes: made by its signature, repeated to a batch, typed as its columns are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlflow_compress.errors import RecipeError


def make_input(schema: Any, seed: int) -> Any:
    """Make one row of a signature's types."""
    import numpy as np

    generator = np.random.default_rng(seed)
    if schema.is_tensor_spec():
        made = {}
        for index, spec in enumerate(schema.inputs):
            shape = [1 if length < 0 else length for length in spec.shape]
            made[spec.name or str(index)] = generator.random(shape).astype(spec.type)
        return made if schema.has_input_names() else next(iter(made.values()))
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
    raise RecipeError(f"No input of type {kind} can be made up: log the model with input_example=...")


def repeat(example: Any, size: int) -> Any:
    """Take the first rows of an example, and again from its beginning where it has too few.

    Raises:
        RecipeError: it is not made of rows.
    """
    return take(example, range(size))


def take(example: Any, indices: Sequence[int]) -> Any:
    """Take rows of an example by their indices, counted on from its beginning behind its end.

    Raises:
        RecipeError: it is not made of rows.
    """
    import numpy as np

    if hasattr(example, "iloc"):
        return example.iloc[[index % len(example) for index in indices]].reset_index(drop=True)
    if isinstance(example, Mapping):
        return {name: take(each, indices) for name, each in example.items()}
    if isinstance(example, np.ndarray) and example.ndim:
        return example[[index % len(example) for index in indices]]
    if isinstance(example, list):
        return [example[index % len(example)] for index in indices]
    if len(indices) == 1:
        return example
    raise RecipeError(
        f"The input example, a {type(example).__name__}, has no rows to make a batch of {len(indices)} of."
    )


def different_rows(example: Any) -> list[int]:
    """Return the indices of the rows of an example that equal no earlier one; of what has no rows only the first."""
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
    """Make one input of rows: a data frame of mappings, an array of arrays."""
    import numpy as np
    import pandas as pd

    if rows and isinstance(rows[0], Mapping):
        return pd.DataFrame(list(rows))
    return np.stack([np.asarray(each) for each in rows])


def typed_value(value: Any, kind: str) -> Any:
    """Make a value of a table, which may be text, one of a column's type."""
    try:
        if kind in ("double", "float"):
            return float(value)
        if kind in ("integer", "long"):
            return int(value)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{value!r} is no {kind}, which the model's signature asks for.") from error
    if kind == "boolean" and isinstance(value, str):
        return value.lower() in ("true", "1", "yes")
    return value
