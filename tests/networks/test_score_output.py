"""The output with the scores, and the predicted class."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mlflow_compress.errors import RecipeError
from mlflow_compress.networks.score_output import classes_of, has_two_batch_axes, score_of

SCORES, HIDDEN, IDS = torch.rand(2, 3), torch.rand(2, 8), torch.arange(2)


@pytest.mark.parametrize(
    ("output", "chosen"),
    [
        (SCORES, ""),
        ((SCORES,), ""),
        ({"hidden": HIDDEN, "logits": SCORES, "aux": None, "n": 3}, ""),
        ((IDS, SCORES), ""),
        ({"a": HIDDEN, "b": SCORES}, "b"),
        ((HIDDEN, SCORES), 1),
        ((HIDDEN, SCORES), "1"),
        ({"logits": HIDDEN, "inner": (HIDDEN, [SCORES])}, "inner.1.0"),
    ],
)
def test_the_score_is_chosen_or_clear(output: Any, chosen: str | int) -> None:
    assert score_of(output, chosen) is SCORES


@pytest.mark.parametrize(
    ("output", "chosen", "message"),
    [
        ((HIDDEN, SCORES), "", r"returns several tensors \(0, 1\): name the one with the scores .*output: NAME"),
        ({"a": HIDDEN}, "b", r"output=b: the module returns no such tensor\. Its tensors: a"),
        ({"a": (HIDDEN, SCORES)}, "a", r"no such tensor\. Its tensors: a\.0, a\.1"),
        (None, "", "returns no tensor but a NoneType"),
    ],
)
def test_an_ambiguous_output_must_be_named(output: Any, chosen: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        score_of(output, chosen)


def test_the_greatest_score_is_the_prediction() -> None:
    scores = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]])
    assert classes_of(scores, 2) == [1, 0]
    assert classes_of(torch.stack([scores, scores, scores], 1), 2) == [[1, 1, 1], [0, 0, 0]]
    assert classes_of(torch.stack([scores, scores, scores]), 2) == [[1, 1, 1], [0, 0, 0]]  # batch: the second axis
    assert classes_of(torch.tensor([4, 2]), 2) == [4, 2]
    assert classes_of(torch.tensor([[4, 2], [5, 3], [6, 1]]), 2) == [[4, 5, 6], [2, 3, 1]]


def test_classes_of_images_are_the_second_axis_as_in_cross_entropy() -> None:
    classes = torch.tensor([[[0, 2, 1, 1], [2, 2, 0, 0]]] * 2)  # [batch, height, width]
    scores = torch.nn.functional.one_hot(classes, 3).movedim(-1, 1).float()  # [batch, classes, height, width]
    assert classes_of(scores, 2) == classes.tolist()
    assert classes_of(scores[..., :1, :1], 2) == [0, 0]  # one pixel: a classifier


@pytest.mark.parametrize(
    ("shape", "samples", "unclear"),
    [((4, 4, 3), 4, True), ((4, 2, 3), 4, False), ((4, 4), 4, False), ((1, 1, 3), 1, False), ((2, 3, 2, 2), 2, False)],
)
def test_the_axis_of_the_samples_may_be_ambiguous(shape: tuple[int, ...], samples: int, unclear: bool) -> None:
    assert has_two_batch_axes(torch.rand(shape), samples) is unclear


@pytest.mark.parametrize("scores", [torch.rand(6, 4), torch.rand(1, 4), torch.rand(6, 2), torch.arange(6)])
def test_scores_for_another_number_of_samples_are_refused(scores: torch.Tensor) -> None:
    with pytest.raises(RecipeError, match=rf"returns {len(scores)} scores \(shape .*\) for 2 samples: .*output: NAME"):
        classes_of(scores, 2)


@pytest.mark.parametrize("scores", [torch.rand(2), torch.rand(2, 1)])
def test_a_single_score_has_no_maximum(scores: torch.Tensor) -> None:
    with pytest.raises(RecipeError, match="one number for each sample"):
        classes_of(scores, 2)


def test_a_score_that_is_not_a_number_gives_no_class() -> None:
    nan = float("nan")
    [one, other] = classes_of(torch.tensor([[0.1, 0.7], [nan, 0.2]]), 2)
    assert one == 1
    assert other != other
    [steps] = classes_of(torch.tensor([[[0.1, 0.7], [nan, 0.2]]]), 1)
    assert steps[0] == 1
    assert steps[1] != steps[1]
