"""Inputs of an MLflow model: generated from its signature, with any number of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.types.schema import ColSpec, Schema, TensorSpec

from mlflow_compress.data import signatures
from mlflow_compress.errors import RecipeError


def test_a_row_is_made_of_the_columns_types() -> None:
    kinds = {"a": "double", "b": "long", "c": "string", "d": "boolean"}
    schema = Schema([ColSpec(kind, name) for name, kind in kinds.items()])
    row = signatures.make_input(schema, 3)
    assert list(row.columns) == list(kinds)
    assert len(row) == 1
    assert [type(row[name].iloc[0].item() if name != "c" else row[name].iloc[0]) for name in kinds] == [
        float,
        int,
        str,
        bool,
    ]
    assert row.equals(signatures.make_input(schema, 3))


def test_tensors_are_made_of_one_row_where_the_length_is_free() -> None:
    tensor = signatures.make_input(Schema([TensorSpec(np.dtype("float32"), (-1, 3))]), 0)
    assert (tensor.shape, tensor.dtype) == ((1, 3), np.float32)
    schema = Schema([TensorSpec(np.dtype("float32"), (-1, 3), "x"), TensorSpec(np.dtype("int64"), (2,), "y")])
    tensors = signatures.make_input(schema, 0)
    assert {name: (value.shape, str(value.dtype)) for name, value in tensors.items()} == {
        "x": ((1, 3), "float32"),
        "y": ((2,), "int64"),
    }


def test_a_type_that_can_not_be_generated_is_reported() -> None:
    with pytest.raises(RecipeError, match="An input of type binary can't be generated"):
        signatures.make_input(Schema([ColSpec("binary", "a")]), 0)


@pytest.mark.parametrize(
    ("example", "size", "expected"),
    [
        (["a", "b"], 3, ["a", "b", "a"]),
        (["a", "b"], 1, ["a"]),
        ({"x": [1, 2]}, 3, {"x": [1, 2, 1]}),
        ("whole", 1, "whole"),
    ],
)
def test_an_example_is_repeated(example: Any, size: int, expected: Any) -> None:
    assert signatures.repeat(example, size) == expected


def test_frames_and_arrays_are_repeated() -> None:
    frame = signatures.repeat(pd.DataFrame({"a": [1, 2]}), 3)
    assert (list(frame["a"]), list(frame.index)) == ([1, 2, 1], [0, 1, 2])
    assert signatures.repeat(np.array([[1], [2]]), 3).tolist() == [[1], [2], [1]]
    with pytest.raises(RecipeError, match="without rows: it can't become a batch of 2"):
        signatures.repeat("whole", 2)


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [("1.5", "double", 1.5), ("3", "long", 3), ("Yes", "boolean", True), ("0", "boolean", False), ("a", "string", "a")],
)
def test_a_value_of_a_table_gets_the_columns_type(value: str, kind: str, expected: Any) -> None:
    typed = signatures.typed_value(value, kind)
    assert (typed, type(typed)) == (expected, type(expected))


def test_a_value_of_another_type_is_reported() -> None:
    with pytest.raises(RecipeError, match="'many' is not a long"):
        signatures.typed_value("many", "long")


def test_rows_become_a_frame_or_an_array() -> None:
    assert signatures.stack_rows([{"a": 1}, {"a": 2}])["a"].tolist() == [1, 2]
    assert signatures.stack_rows([[1, 2], [3, 4]]).shape == (2, 2)


@pytest.mark.parametrize(
    ("example", "expected"),
    [
        (pd.DataFrame({"a": [1, 1, 2, 1], "b": ["x", "x", "x", "y"]}), [0, 2, 3]),
        (np.array([[1.0, 2.0], [1.0, 2.0], [2.0, 1.0]]), [0, 2]),
        ({"ids": np.array([[1], [1]]), "mask": np.array([[0], [1]])}, [0, 1]),
        (["text", "text", "other"], [0, 2]),
        ("text", [0]),
        (np.float32(1), [0]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_repeated_rows_are_left_out(example: Any, expected: list[int]) -> None:
    assert signatures.different_rows(example) == expected
