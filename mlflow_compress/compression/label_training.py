"""Training a model on labelled samples, as after pruning."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mlflow_compress.compression.calibration import in_place_of_data
from mlflow_compress.compression.training import summary, train
from mlflow_compress.sockets import Family, Labelled, Model

_CHUNK = 32  # batches drawn at once: all of them may not fit into memory


@dataclass(frozen=True)
class Course:
    """Settings of a training on labels.

    Attributes:
        steps: Number of training steps.
        batch_size: Samples per step.
        learning_rate: Peak learning rate of Adam; None: 5e-5 for transformers, 5e-4 for others.
        seed: Seed for samples and dropout.
    """

    steps: int
    batch_size: int = 16
    learning_rate: float | None = None
    seed: int = 0


def learn_labels(model: Model, family: Family, course: Course) -> None:
    """Train all floating-point weights of a model in place on the family's labelled samples; zeros in matrices stay.

    Args:
        model: Model to train; its facts get a summary of the training.
        family: Its family.
        course: Training settings.

    Raises:
        ArithmeticError: The loss is not finite.
        Unsupported: The family does not train on labels, or there are no labelled samples besides the scored ones.
    """
    for weight in model.module.parameters():
        weight.requires_grad_(weight.is_floating_point())

    def loss_of(batch: Labelled) -> Any:
        return family.forward_labelled(model, batch)[1]

    rate = course.learning_rate or (5e-5 if model.is_transformer else 5e-4)
    batches = _batches(model, family, course)
    losses = train(model, course.steps, rate, course.seed, batches, loss_of, keeps_zeros=True)
    model.facts["fine_tuning"] = summary(model, losses, course.batch_size, "labelled samples")


def _batches(model: Model, family: Family, course: Course) -> Iterator[Labelled]:
    """Yield one batch per step; the family's cautions about them go into the model's cautions once."""
    quiet = dataclasses.replace(model, cautions=[])
    for start in range(0, course.steps, _CHUNK):
        count = min(_CHUNK, course.steps - start)
        is_first = start == 0 and not in_place_of_data(model)
        quiet.device = model.device
        yield from family.labelled(model if is_first else quiet, count, course.seed + start, course.batch_size)
