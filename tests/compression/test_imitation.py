"""Training a model to reproduce another's outputs: the loss, the learning rate, facts and cautions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from taught import NET, distilled, own

from mlflow_compress.compression import imitation, training
from mlflow_compress.compression.imitation import Lesson
from mlflow_compress.errors import Unsupported
from mlflow_compress.sockets import Family, Model


def loss_of(family: Family, model: Model, student: Any, teacher: Any, lesson: Lesson) -> Any:
    return imitation._loss(family, model, imitation._paired(family, model, (student, teacher)), lesson)


def test_training_on_random_inputs_is_short_and_has_a_caution(tmp_path: Path) -> None:
    family, teacher = own(tmp_path, NET.replace("def training", "def another"))
    student = distilled(family, teacher)
    assert [caution.code for caution in student.cautions] == ["random_calibration"]
    assert student.facts["training"].startswith("10 steps of 16 random inputs")


def test_the_loss_is_hintons(tmp_path: Path) -> None:
    family, model = own(tmp_path)
    student, teacher = torch.randn(2, 5, 4), torch.randn(2, 5, 4)
    soft, target = (scores.view(-1, 4).div(3).softmax(1) for scores in (student, teacher))
    expected = 9 * (target * (target / soft).log()).sum(1).mean()
    torch.testing.assert_close(loss_of(family, model, student, teacher, Lesson(1, temperature=3)), expected)
    mean = ((student - teacher) ** 2).mean() / (teacher**2).mean()
    trees = {"a": student, "b": [teacher]}, {"a": teacher, "b": [teacher]}
    torch.testing.assert_close(loss_of(family, model, *trees, Lesson(1, loss="mse")), mean)
    scored = {"logits": student, "hidden": student.clone()}, {"logits": teacher, "hidden": teacher}
    total = loss_of(family, model, *scored, Lesson(1, temperature=3))
    torch.testing.assert_close(total, expected + mean)  # only the scores are probabilities


def test_scores_are_learnt_from_scores_wherever_they_stand(tmp_path: Path) -> None:
    family, model = own(tmp_path)
    states, scores = [torch.randn(2, 4) for _ in range(5)], torch.randn(2, 4)
    student, teacher = (
        {"hidden": states[:2], "logits": scores},
        {"hidden": [torch.ones(2, 8), *states[1:]], "logits": scores},
    )
    pairs = imitation._paired(family, model, (student, teacher))
    assert [(ours is scores, theirs is scores) for ours, theirs in pairs.scores] == [(True, True)]
    assert [(ours is states[1], theirs is states[1]) for ours, theirs in pairs.others] == [(True, True)]
    assert pairs.left_out == 4, "one of another shape, three missing in the student"
    assert float(loss_of(family, model, student, teacher, Lesson(1))) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("student", "message"),
    [
        ({"hidden": torch.zeros(2, 8), "logits": torch.zeros(2, 9)}, "gives the scores in a different shape"),
        (
            {"hidden": torch.zeros(2, 8), "scores": torch.zeros(2, 10)},
            "gives the scores in a different shape or under a different name",
        ),
        ({"logits": torch.zeros(2, 9)}, "no output of the student has the shape of the original's"),
    ],
)
def test_scores_that_would_not_be_learnt_are_an_error(student: Any, message: str, tmp_path: Path) -> None:
    family, model = own(tmp_path)
    teacher = {"hidden": torch.ones(2, 8), "logits": torch.ones(2, 10)}
    with pytest.raises(Unsupported, match=message):
        imitation._paired(family, model, (student, teacher))


def test_outputs_of_unknown_meaning_must_all_be_learnt(tmp_path: Path) -> None:
    family, model = own(tmp_path)
    student, teacher = ((torch.ones(2, 64), torch.ones(2, classes)) for classes in (9, 10))
    with pytest.raises(Unsupported, match=r"they may be the scores: .* output: NAME"):
        imitation._paired(family, model, (student, teacher))
    boxes = [(torch.ones(count, 4), torch.ones(1)) for count in (3, 5)]  # a detector's number of boxes varies
    assert imitation._paired(family, model, (boxes[0], boxes[1])).left_out == 1
    family.output = 0  # type: ignore[attr-defined]
    assert imitation._paired(family, model, (student, teacher)).left_out == 1


NARROW = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body, self.head = nn.Linear(6, width), nn.Linear(width, 4)

    def forward(self, x):
        hidden = self.body(x)
        return {"hidden": hidden, "logits": self.head(hidden)}

def model():
    return Net(8)

def student(keep):
    return Net(round(8 * keep))

def batch(size):
    return torch.randn(size, 6)
"""


def test_outputs_that_are_left_out_are_reported(tmp_path: Path) -> None:
    student = distilled(*own(tmp_path, NARROW), steps=2)
    assert student.facts["training"].endswith("; outputs left out because of a different shape: 1")


def test_a_loss_that_is_not_a_number_is_an_error(tmp_path: Path) -> None:
    family, teacher = own(tmp_path)
    for parameter in teacher.module.parameters():
        parameter.fill_(float("nan"))
    with pytest.raises(ArithmeticError, match="at step 1: use a lower learning_rate"):
        distilled(family, teacher, steps=2)


def test_the_learning_rate_rises_and_falls() -> None:
    slope = [training._slope(step, 20) for step in range(20)]
    assert slope[:3] == [0.5, 1.0, 1.0]
    assert slope[-1] == pytest.approx(1 / 18)
    assert training._slope(0, 1) == 1
