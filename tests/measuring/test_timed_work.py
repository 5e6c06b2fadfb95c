from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from mlflow_compress.families.asr import Asr
from mlflow_compress.families.causal_lm import CausalLm
from mlflow_compress.families.python import Python
from mlflow_compress.measuring import timed_work


@dataclass
class Inputs:
    """A batch of a user's own class."""

    x: Any
    times: float


def text(batch: object) -> str:
    return timed_work.describe("one call", {}, batch).partition(": ")[2]


@pytest.mark.parametrize(
    ("batch", "description"),
    [
        (torch.zeros(1, 8), "[1, 8] float"),
        (torch.zeros(1, 8, dtype=torch.bfloat16), "[1, 8] float"),
        (torch.zeros(2, 16, dtype=torch.int64), "[2, 16] int64"),
        ({"ids": np.zeros((1, 4), int), "mask": np.ones((1, 4), bool)}, "ids [1, 4] int64, mask [1, 4] bool"),
        ([np.zeros(480, np.float32), np.zeros(480, np.float32)], "2 x [480] float"),
        ((torch.zeros(1), [torch.zeros(2)]), "[1] float, [2] float"),
        (["a text"], "text of 6 characters"),
        (Inputs(torch.zeros(2), 2.0), "x [2] float, times float"),
        (None, "no inputs"),
        (object(), "object"),
    ],
)  # fmt: skip
def test_inputs_are_described_by_shape_and_kind_of_numbers(batch: object, description: str) -> None:
    assert text(batch) == description


def test_a_different_call_has_a_different_digest() -> None:
    batch = torch.zeros(1, 8)
    calls = [("one call", {}, batch), ("one pass", {}, batch), ("one call", {"new_tokens": 4}, batch)]
    calls.append(("one call", {}, torch.zeros(2, 8)))
    assert len({timed_work.describe(*call).partition(":")[0] for call in calls}) == 4
    assert timed_work.describe(*calls[0]) == timed_work.describe("one call", {}, batch.half())


def test_what_is_long_is_cut_but_all_of_it_is_in_the_digest() -> None:
    description, longer = (
        timed_work.describe("", {f"option_{number}": "x" * 20 for number in range(n)}, None) for n in (40, 41)
    )
    assert description != longer
    assert len(description) < 520


def test_options_that_change_the_call_are_those_that_the_family_names() -> None:
    assert timed_work.options_of(CausalLm(new_tokens=7, window=5)) == {"new_tokens": 7}
    assert timed_work.options_of(Python()) == {}


def test_an_option_that_the_model_decides_is_left_out() -> None:
    assert timed_work.options_of(Asr()) == {"new_tokens": 32}
    assert timed_work.options_of(Asr(language="ru")) == {"new_tokens": 32, "language": "ru"}


def test_of_a_family_that_does_not_say_all_options_count() -> None:
    @dataclass
    class Silent(Python):
        call_options: ClassVar[Any] = None
        depth: int = 3

    assert timed_work.options_of(Silent()) == {"function": "model", "output": "", "initial": "random", "depth": 3}
