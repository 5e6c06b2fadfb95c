"""Training a model to reproduce the outputs of another one, with or without labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from mlflow_compress.compression.calibration import in_place_of_data
from mlflow_compress.compression.training import summary, train
from mlflow_compress.errors import Unsupported
from mlflow_compress.networks import value_trees
from mlflow_compress.networks.score_output import is_of_images
from mlflow_compress.records import CautionKind
from mlflow_compress.sockets import Family, Labelled, Model

_SHORT = {"en": "made smaller and not trained afterwards", "ru": "модель уменьшена, но не дообучена"}
_ADVICE = {
    "en": "Its answers are of little use. Provide inputs to train on: data with a training part, "
    "data=SOURCE:calibration=OTHER, limit=N below the number of samples, or training() in your own file.",
    "ru": "От её ответов мало пользы. Дайте входы для обучения: данные с обучающей частью, "
    "data=SOURCE:calibration=OTHER, limit=N меньше числа примеров или training() в своём файле.",
}
NOT_TRAINED = CautionKind(
    "not_trained",
    short=_SHORT,
    message={
        "en": "the model was made smaller and not trained afterwards",
        "ru": "модель уменьшена и после этого не дообучена",
    },
    advice=_ADVICE,
)
RANDOMLY_TRAINED = CautionKind(
    "not_trained",
    short=_SHORT,
    message={
        "en": "the model was made smaller, and {steps} training steps on random inputs or repeated examples teach it "
        "nothing useful",
        "ru": "модель уменьшена, а обучение на случайных входах или одних и тех же примерах (шагов: {steps}) ничему "
        "полезному её не учит",
    },
    advice=_ADVICE,
)
_CHUNK = 32  # batches drawn at once: all of them may not fit into memory
_RULED_OUT = -1e4  # score of a masked class: its probability is 0, and a difference of two is not NaN


@dataclass(frozen=True)
class Lesson:
    """Training settings.

    Attributes:
        steps: Number of training steps.
        batch_size: Inputs per step.
        learning_rate: Peak learning rate of Adam; None: 1e-4 for transformers, 2e-3 for others.
        loss: `kl`, the Kullback-Leibler divergence of class probabilities; `mse`, the mean squared error over the mean
            square; `auto`, kl if the outputs are known to be class scores.
        temperature: Divisor of the scores in kl.
        labels: Weight of the loss on labels; the loss on the teacher's outputs has the rest of 1.
        seed: Seed for inputs and dropout.
    """

    steps: int
    batch_size: int = 16
    learning_rate: float | None = None
    loss: Literal["auto", "kl", "mse"] = "auto"
    temperature: float = 1.0
    labels: float = 0.0
    seed: int = 0


def caution_not_trained(model: Model, steps: int, is_real: bool) -> None:
    """Add a caution if a smaller model with trained weights was not trained on real inputs.

    Args:
        model: Smaller model.
        steps: Number of training steps.
        is_real: Whether there are real inputs to train on.
    """
    if model.weights != "random" and not (steps and is_real):
        model.cautions.append(RANDOMLY_TRAINED.of(steps=steps) if steps else NOT_TRAINED.of())


def imitate(
    student: Model,
    teacher: Model,
    family: Family,
    lesson: Lesson,
    beside: Callable[[], Any] = lambda: 0.0,
    reads_alike: bool = True,
) -> None:
    """Train a student on the teacher's outputs for the family's calibration inputs, and leave it ready for inference.

    With `labels`, the inputs are labelled samples, and the loss on their labels is added. See `training.train` for the
    training itself.

    Source: softened outputs and labels, Hinton et al., Distilling the Knowledge in a Neural Network, arXiv 1503.02531,
    section 2.

    Args:
        student: Model to train in place; its facts get a summary of the training.
        teacher: Model that stays unchanged, with another module than the student's.
        family: Family that runs both.
        lesson: Training settings.
        beside: Returns an additional loss term after both have run.
        reads_alike: Whether both read a sample as the same numbers: a student with its own tokenizer does not.

    Raises:
        ArithmeticError: The loss is not finite.
        Unsupported: No output of the student has the shape of the teacher's, or the outputs with the scores do not; or
            labels are needed and there are none.
    """
    import torch

    left_out = 0

    def loss_of(batches: tuple[Labelled, Labelled]) -> Any:
        nonlocal left_out
        ours, theirs = batches
        label_loss: Any = 0.0
        if lesson.labels:
            output, label_loss = family.forward_labelled(student, ours)
        else:
            output = family.forward(student, ours.batch)
        if lesson.labels == 1:
            return label_loss
        with torch.no_grad():
            target = family.forward(teacher, theirs.batch)
        imitation = family.imitation_loss(student, output, target)
        if imitation is None:
            pairs = _paired(family, student, (output, target))
            left_out = pairs.left_out
            imitation = _loss(family, student, pairs, lesson)
        return (1 - lesson.labels) * imitation + lesson.labels * label_loss + beside()

    student_batches = _batches(student, family, lesson)
    pairs_of_one = ((batch, batch) for batch in student_batches)
    pairs_of_two = zip(student_batches, _batches(teacher, family, lesson, quiet=True), strict=True)
    batches = pairs_of_one if reads_alike else pairs_of_two
    rate = lesson.learning_rate or (1e-4 if student.is_transformer else 2e-3)
    losses = train(student, lesson.steps, rate, lesson.seed, batches, loss_of, (teacher,))
    if losses:
        kind = "labelled samples" if lesson.labels else "inputs"
        student.facts["training"] = summary(student, losses, lesson.batch_size, kind) + (
            f"; outputs left out because of a different shape: {left_out}" if left_out else ""
        )


class _Pairs(NamedTuple):
    """Pairs of student and teacher outputs, in floating point and of one shape.

    Attributes:
        scores: Pairs that hold class scores.
        others: Other pairs.
        left_out: Number of outputs without a partner of their shape.
    """

    scores: list[tuple[Any, Any]]
    others: list[tuple[Any, Any]]
    left_out: int


def _paired(family: Family, student: Model, outputs: tuple[Any, Any]) -> _Pairs:
    """Pair the student's outputs with the teacher's: scores with scores, the others by position.

    Hidden states of another shape, as a narrower student gives them, are left out.

    Raises:
        Unsupported: There are no pairs, no pair of scores, or outputs left out that may be the scores.
    """
    all_outputs = [_floating(output) for output in outputs]
    scores = [_floating(family.scores(student, output)) for output in outputs]
    other_outputs = [_without(of_one, tensors) for of_one, tensors in zip(scores, all_outputs, strict=True)]
    pairs = _Pairs(_of_one_shape(*scores), _of_one_shape(*other_outputs), 0)
    pairs = pairs._replace(left_out=max(map(len, all_outputs)) - len(pairs.scores) - len(pairs.others))
    if not (pairs.scores or pairs.others):
        raise Unsupported("no output of the student has the shape of the original's: there is nothing to learn")
    if any(scores) and not pairs.scores and not _differ_in_number_only(*scores):
        raise Unsupported(
            "the student gives the scores in a different shape or under a different name than the original, so it "
            "would not learn them: the student needs the original's classes, or its tokens"
        )
    if not any(scores) and not _differ_in_number_only(*all_outputs):
        raise Unsupported(
            "the student gives some outputs in a different shape than the original, and they may be the scores: make "
            "student(keep) give the same, or name the score in the recipe, output: NAME"
        )
    return pairs


def _floating(tree: Any) -> list[Any]:
    """Return a tree's tensors of floating-point numbers."""
    return [tensor for tensor in value_trees.tensors(tree) if tensor.is_floating_point()]


def _without(scores: Sequence[Any], tensors: Sequence[Any]) -> list[Any]:
    """Return the tensors without the scores, each removed once: a module may return a tensor twice."""
    remaining = list(tensors)
    for score in scores:
        position = next((index for index, tensor in enumerate(remaining) if tensor is score), None)
        if position is not None:
            del remaining[position]
    return remaining


def _of_one_shape(outputs: Sequence[Any], targets: Sequence[Any]) -> list[tuple[Any, Any]]:
    return [(one, two) for one, two in zip(outputs, targets, strict=False) if one.shape == two.shape]


def _differ_in_number_only(outputs: Sequence[Any], targets: Sequence[Any]) -> bool:
    """Return whether shapes are equal except for the first axis: a detector may find more or fewer boxes."""
    return [tuple(one.shape[1:]) for one in outputs] == [tuple(two.shape[1:]) for two in targets]


def _loss(family: Family, student: Model, pairs: _Pairs, lesson: Lesson) -> Any:
    """Return the loss, a scalar summed over all pairs of outputs: a divergence for class scores."""
    import torch

    is_divergence = lesson.loss == "kl" or (lesson.loss == "auto" and family.outputs_are_scores(student))
    total = torch.zeros(())
    terms = [(output, target, is_divergence and output.dim() > 1) for output, target in pairs.scores]
    terms += [(output, target, False) for output, target in pairs.others]
    for output, target, are_classes in terms:
        if are_classes:
            loss = _divergence(output, target, lesson.temperature)
        else:
            is_number = target.isfinite()
            loss = relative_error(output[is_number], target[is_number])
        total = total.to(loss.device) + loss
    return total


def _divergence(output: Any, target: Any, temperature: float) -> Any:
    """Return the Kullback-Leibler divergence of class scores [..., classes], for images [batch, classes, ...]."""
    import torch
    from torch.nn import functional

    if is_of_images(output):
        output, target = output.movedim(1, -1), target.movedim(1, -1)
    ruled_out = target == -torch.inf  # masked classes are ignored
    pair = (scores.masked_fill(ruled_out, _RULED_OUT).flatten(0, -2) for scores in (output, target))
    log, target_log = ((scores / temperature).log_softmax(-1) for scores in pair)
    divergence = functional.kl_div(log, target_log, log_target=True, reduction="batchmean")
    return divergence * temperature**2  # keeps the scale of the gradients


def relative_error(output: Any, target: Any) -> Any:
    """Return the mean squared error over the mean square of the target."""
    return (output - target).square().mean() / target.square().mean().clamp_min(1e-12)


def _batches(model: Model, family: Family, lesson: Lesson, quiet: bool = False) -> Iterator[Labelled]:
    """Yield one batch per step; the family's cautions about them go into the model's cautions once, unless quiet."""
    caution_target = _quiet(model) if quiet or in_place_of_data(model) else model
    for start in range(0, lesson.steps, _CHUNK):
        count = min(_CHUNK, lesson.steps - start)
        draw = family.labelled if lesson.labels else family.calibration
        for batch in draw(caution_target, count, lesson.seed + start, lesson.batch_size):
            yield batch if isinstance(batch, Labelled) else Labelled(batch, None)
        caution_target = _quiet(model)


def _quiet(model: Model) -> Model:
    """Return the same model without its list of cautions, so that nothing is added there."""
    return dataclasses.replace(model, cautions=[])
