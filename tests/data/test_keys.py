"""Keys of a data specification that do not apply to its source are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from datafiles import REVIEWS, ROLES, write

from mlflow_compress.data import array_files
from mlflow_compress.data.datasets import read
from mlflow_compress.errors import RecipeError


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a.csv:split=test", r"a\.csv is not divided into splits: leave out split=test"),
        ("a.csv:unit=line", "unit does not apply to CSV and TSV tables, only to text files"),
        ("a.csv:config=x", "config does not apply to CSV and TSV tables, only to data sets of the hub"),
        ("a.csv:class_map=x", "class_map applies to labels of pictures"),
        ("a.jsonl:delimiter=;", "delimiter does not apply to JSON tables"),
    ],
)
def test_keys_that_do_not_apply_are_refused(tmp_path: Path, data: str, message: str) -> None:
    write(tmp_path / "a.csv", REVIEWS)
    write(tmp_path / "a.jsonl", '{"text": "a", "label": 1}')
    with pytest.raises(RecipeError, match=message):
        read(data, tmp_path, ROLES)


def test_keys_of_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2)), y=np.array([0, 1, 1]))
    for data, message in (
        ("a.npz:split=val", "has no array x_val or similar"),
        ("a.npz:unit=line", "unit does not apply to arrays"),
        ("a.npz:only=size=1", "only picks samples by their label"),
        ("a.npz:only=label=7", "There is no sample"),
    ):
        with pytest.raises(RecipeError, match=message):
            array_files.read(data, tmp_path, ["x"], None, 0)
    table, _ = array_files.read("a.npz:only=label=1,labels=1=dog", tmp_path, ["x"], None, 0)
    assert [(row.values["label"], row.where) for row in table.rows] == [
        ("dog", "a.npz, sample 1"),
        ("dog", "a.npz, sample 2"),
    ]


@pytest.mark.parametrize(
    ("value", "message"),
    [("NaN", "line 1: text is empty"), ('{"a": 1}', r"line 1: text is an object, .*text=text\.a")],
)
def test_a_missing_value_and_an_object_are_not_texts(tmp_path: Path, value: str, message: str) -> None:
    write(tmp_path / "a.jsonl", f'{{"text": {value}}}\n')
    with pytest.raises(RecipeError, match=message):
        read("a.jsonl", tmp_path, ("text",))


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ("1,nan", "row 3: the similarity 'nan' is not a number"),
        ("inf,1", "row 2: .*'inf'"),
        ("3,3", "of all 2 pairs is 3"),
    ],
)
def test_similarities_are_finite_and_differ(tmp_path: Path, scores: str, message: str) -> None:
    write(tmp_path / "a.csv", "sentence1,sentence2,score\n" + "".join(f"a,b,{score}\n" for score in scores.split(",")))
    with pytest.raises(RecipeError, match=message):
        read("a.csv", tmp_path, ("sentence1", "sentence2", "similarity"))
