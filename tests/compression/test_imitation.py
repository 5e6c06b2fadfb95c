"""Training a model to give another's outputs: the loss, the learning rate, and what is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from taught import NET, distilled, own

from mlflow_compress.compression import imitation
from mlflow_compress.compression.imitation import Lesson


def test_random_inputs_are_told_and_few(tmp_path: Path) -> None:
    family, teacher = own(tmp_path, NET.replace("def training", "def another"))
    student = distilled(family, teacher)
    assert [caution.code for caution in student.cautions] == ["random_calibration"]
    assert student.facts["training"].startswith("10 steps of 16 random inputs")


def test_the_loss_is_hintons(tmp_path: Path) -> None:
    family, model = own(tmp_path)
    student, teacher = torch.randn(2, 5, 4), torch.randn(2, 5, 4)
    soft, wanted = (each.view(-1, 4).div(3).softmax(1) for each in (student, teacher))
    expected = 9 * (wanted * (wanted / soft).log()).sum(1).mean()
    torch.testing.assert_close(imitation._loss(family, model, (student, teacher), Lesson(1, temperature=3)), expected)
    mean = ((student - teacher) ** 2).mean() / (teacher**2).mean()
    trees = {"a": student, "b": [teacher]}, {"a": teacher, "b": [teacher]}
    torch.testing.assert_close(imitation._loss(family, model, trees, Lesson(1, loss="mse")), mean)
    scored = {"logits": student, "hidden": student.clone()}, {"logits": teacher, "hidden": teacher}
    both = imitation._loss(family, model, scored, Lesson(1, temperature=3))
    torch.testing.assert_close(both, expected + mean)  # only the scores are probabilities


def test_a_loss_that_is_no_number_is_an_error(tmp_path: Path) -> None:
    family, teacher = own(tmp_path)
    for parameter in teacher.module.parameters():
        parameter.fill_(float("nan"))
    with pytest.raises(ArithmeticError, match="at step 1: take a lower learning_rate"):
        distilled(family, teacher, steps=2)


def test_the_learning_rate_rises_and_falls() -> None:
    slope = [imitation._slope(step, 20) for step in range(20)]
    assert slope[:3] == [0.5, 1.0, 1.0]
    assert slope[-1] == pytest.approx(1 / 18)
    assert imitation._slope(0, 1) == 1
