"""A smaller model of the same kind, trained to reproduce the outputs of the original."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt

from mlflow_compress.compression.calibration import has_data
from mlflow_compress.compression.coverage import note_all
from mlflow_compress.compression.imitation import Lesson, caution_not_trained, imitate, relative_error
from mlflow_compress.errors import RecipeError, Unsupported
from mlflow_compress.model import PARTLY_RANDOM_WEIGHTS
from mlflow_compress.networks.export_graphs import dtype_of
from mlflow_compress.networks.native_precision import widen
from mlflow_compress.networks.plain_layers import noted_in
from mlflow_compress.networks.stored_weights import cast
from mlflow_compress.networks.transformer_layers import spaced, watched
from mlflow_compress.sockets import Family, Method, Model, NativeFlavor, Published, State
from mlflow_compress.trust_word import trust_word

_STEPS, _RANDOM_STEPS = 1000, 10


@dataclass
class Distill(Method):
    """Knowledge distillation: a smaller student learns to reproduce the original's outputs.

    The student has a share of the original's layers, evenly spaced, with their weights (transformers; for Whisper only
    decoder layers are removed, and the encoder is not trained), or `student(keep)` in the user's own file builds it. Or
    it is another model of the same family, which `student` names; it reads each sample with its own tokenizer or image
    processor. Its loss is the divergence from the original's softened class probabilities, or the relative squared
    error of other outputs; a detector's boxes and scores count as much as the original is sure of them.

    A step costs about as much as four forward passes of a batch and runs on the GPU if there is one. The student learns
    from the family's calibration inputs, never from the data that quality is scored on. If the family has no data, the
    inputs are random, and the student learns nothing useful. With `labels`, it learns from labelled samples.

    Source: Hinton et al., arXiv 1503.02531, section 2; which layers: Sanh et al., DistilBERT, arXiv 1910.01108, section
    3; of Whisper: Gandhi et al., Distil-Whisper, arXiv 2311.00430, section 3; of detectors: Chen et al., Learning
    Efficient Object Detection Models with Knowledge Distillation, NIPS 2017, section 3.

    Attributes:
        keep: Share of the original's layers, or of its width, that the student keeps; not for a named student.
        student: Source of another model of the same family, as in a recipe: a hub id, a folder, `yolo11n.pt`,
            `torchvision:NAME`; for the user's own file, a function in it that builds the student.
        student_weights: Initial weights of a named student: pretrained, or random to train it from the start. They are
            random if the original's are.
        steps: Training steps; None: 1000 if the family has inputs to train on, 10 if they are random.
        batch_size: Inputs per step.
        learning_rate: Peak learning rate of Adam; None: 1e-4 for transformers, 2e-3 for others.
        loss: kl (class probabilities), mse (any outputs), or auto: kl if the outputs are known to be class scores.
        temperature: Divisor of the scores in kl: above 1, small probabilities count more.
        labels: Weight of the loss on labels, 0 to 1; the original's outputs have the rest. 1: the original is not used.
        hidden: Weight of the relative squared error of the hidden states between layers (transformers only).
        seed: Seed for the student's new weights, the inputs and dropout.
    """

    changes: ClassVar[Literal["architecture"]] = "architecture"
    takes: ClassVar[tuple[State, ...]] = ("float",)
    revision: ClassVar[int] = 2

    keep: Annotated[float, Gt(0), Lt(1)] = 0.5
    student: str = ""
    student_weights: Literal["pretrained", "random"] = "pretrained"
    steps: Annotated[int | None, Ge(0)] = None
    batch_size: Annotated[int, Ge(1)] = 16
    learning_rate: Annotated[float | None, Gt(0)] = None
    loss: Literal["auto", "kl", "mse"] = "auto"
    temperature: Annotated[float, Gt(0)] = 2.0
    labels: Annotated[float, Ge(0), Le(1)] = 0.0
    hidden: Annotated[float, Ge(0)] = 0.0
    seed: Annotated[int, Ge(0)] = 0

    def compress(self, model: Model, family: Family) -> Model:
        """Make a student and train it; the original stays unchanged.

        Raises:
            Unsupported: The family can't make a smaller model of this one.
        """
        import torch

        if model.is_transformer and noted_in(model):
            raise Unsupported("the student is built like the unchanged model: distill first, other methods after it")
        if self.hidden and not model.is_transformer:
            raise Unsupported("hidden states are available only for transformers: leave hidden at 0")
        if self.hidden and self.student:
            raise Unsupported("hidden states are compared only with a student of the original's layers: leave hidden "
                              "at 0, or leave out student")  # fmt: skip
        if self.student and self.keep != type(self).keep:
            raise Unsupported("a named student has its own size: leave out keep, or leave out student")
        precision = dtype_of(model.module)
        widen(model, "training")
        torch.manual_seed(self.seed)
        student = self._named(model, family) if self.student else family.student(model, self.keep)
        sizes = [sum(weight.numel() for weight in version.module.parameters()) for version in (student, model)]
        if sizes[0] >= sizes[1]:
            raise Unsupported(f"the student has {sizes[0]:,} parameters, not fewer than the original's {sizes[1]:,}")
        is_real = has_data(model, family)
        steps = (_STEPS if is_real else _RANDOM_STEPS) if self.steps is None else self.steps
        names = [field.name for field in dataclasses.fields(Lesson) if field.name != "steps"]
        lesson = Lesson(steps, **{name: getattr(self, name) for name in names})
        if self.hidden:
            with watched(student) as states, watched(model) as targets:
                imitate(student, model, family, lesson, lambda: self.hidden * _hidden_error(states, targets))
        else:
            imitate(student, model, family, lesson, reads_alike=not self.student)
        if precision not in (None, dtype_of(student.module)):
            cast(student.module, precision)
        note_all(student)
        if self.student and steps and is_real:  # a new head is trained now
            is_new_head = PARTLY_RANDOM_WEIGHTS.code
            student.cautions = [caution for caution in student.cautions if caution.code != is_new_head]
        caution_not_trained(student, steps, is_real)
        name = f"{self.student}, " if self.student else ""
        student.facts["student"] = f"{name}{sizes[0]:,} of {sizes[1]:,} parameters"
        return student

    def _named(self, model: Model, family: Family) -> Model:
        """Load the student that `student` names, to be trained whole.

        Raises:
            RecipeError: Code that the user does not trust would run.
        """
        if (code := family.code(self.student, "auto", model.folder)) and not getattr(family, "trust", False):
            raise RecipeError(f"The student: {code}. If you trust its source, say so: {trust_word()}")
        is_random = "random" in (model.weights, self.student_weights)
        weights = "random" if is_random else "pretrained"
        student = family.named_student(model, self.student, weights, self.seed)
        widen(student, "training")
        student.module.requires_grad_(True)
        student.weights = model.weights  # quality is scored, unless the original has random weights
        student.batch_size, student.folder = model.batch_size, model.folder
        student.progress, student.evaluation = model.progress, model.evaluation
        return student

    def publish(self, saved: Path, family: Family, portable: Callable[[], Model], folder: Path) -> Published:
        """Write the student as an ordinary model of its family (see `Method.publish`)."""
        return family.publish(saved, folder)

    def native_flavor(self, saved: Path, family: Family) -> NativeFlavor:
        """Return the flavor of the family's ordinary models (see `Method.native_flavor`)."""
        return family.native_flavor(saved)


def _hidden_error(states: Mapping[str, list[Any]], targets: Mapping[str, list[Any]]) -> Any:
    """Return the mean relative error of the hidden states after the student's layers: a scalar.

    The output of a layer is compared with the original's input of the next kept layer: if the student has layers 0, 2
    and 5, their outputs are compared with the original's outputs of layers 1, 4 and 5.
    """
    errors = []
    for name, of_student in states.items():
        of_teacher = targets[name]
        ends = [*spaced(len(of_teacher) - 1, len(of_student) - 1)[1:], len(of_teacher) - 1]
        errors += [relative_error(state, of_teacher[end]) for state, end in zip(of_student[1:], ends, strict=True)]
    return sum(errors) / len(errors)
