"""Inputs of users and servers reach the family of a logged model as a list."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from mlflow_compress.networks.model_folder import Restored
from mlflow_compress.pyfunc import Predictor

FRAME = pd.DataFrame({"text": ["a", "b"], "more": [1, 2]})


class Echo:
    """A fake family that returns its inputs."""

    def __init__(self, takes_rows: bool) -> None:
        self.takes_rows = takes_rows

    def predict(self, model: object, inputs: list[Any]) -> list[Any]:
        return list(inputs)


def predict(data: Any, takes_rows: bool = False) -> list[Any]:
    restored = Restored(cast(Any, None), cast(Any, Echo(takes_rows)), [], cast(Any, {}))
    return Predictor(restored).predict(data)


@pytest.mark.parametrize(
    ("data", "inputs"),
    [
        (["a", "b"], ["a", "b"]),
        ("a b", ["a b"]),
        (FRAME, ["a", "b"]),
        ({"text": ["a", "b"]}, ["a", "b"]),
        ([Path("a.wav")], [Path("a.wav")]),
    ],
)
def test_one_input_for_each_answer(data: Any, inputs: list[Any]) -> None:
    assert predict(data) == inputs


def test_the_first_axis_of_an_array_counts_inputs() -> None:
    images = predict(np.arange(6).reshape(3, 2))
    assert [image.tolist() for image in images] == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize("data", [FRAME, FRAME.to_dict("list")])
def test_a_family_of_rows_takes_whole_rows(data: Any) -> None:
    assert predict(data, takes_rows=True) == [{"text": "a", "more": 1}, {"text": "b", "more": 2}]
