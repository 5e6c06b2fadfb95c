"""Finds the output of a module that holds the scores, and the predicted class: the one with the greatest score."""

from __future__ import annotations

from typing import Any

from mlflow_compress.errors import RecipeError
from mlflow_compress.networks import value_trees
from mlflow_compress.networks.class_scores import best_classes, rankings

_SCORES = "logits"  # the name in transformers and most other libraries


def score_of(output: Any, chosen: str | int = "") -> Any:
    """Return the tensor with the scores: the chosen one, else `logits`, else the only one.

    Args:
        output: output of the module.
        chosen: name, index or path of the tensor: `hidden.0`; empty: none was chosen.

    Raises:
        RecipeError: there is no such output, or there are several candidates.
    """
    import torch

    by_path = {path: leaf for path, leaf in value_trees.named_leaves(output) if isinstance(leaf, torch.Tensor)}
    names = ", ".join(".".join(map(str, path)) for path in by_path) or "none"
    if chosen != "":
        keys = str(chosen).split(".")
        matching = [leaf for path, leaf in by_path.items() if list(map(str, path[: len(keys)])) == keys]
        if not matching and str(chosen).isdigit() and int(chosen) < len(by_path):
            matching = [list(by_path.values())[int(chosen)]]
        if len(matching) != 1:
            raise RecipeError(f"output={chosen}: the module returns no such tensor. Its tensors: {names}.")
        return matching[0]
    by_name = [leaf for path, leaf in by_path.items() if path and path[-1] == _SCORES]
    floating = [leaf for leaf in by_path.values() if leaf.is_floating_point()]
    for candidates in (by_name, list(by_path.values()), floating):
        if len(candidates) == 1:
            return candidates[0]
    if not by_path:
        raise RecipeError(
            f"The module returns no tensor but a {type(output).__name__}: define predict(module, inputs)."
        )
    raise RecipeError(
        f"The module returns several tensors ({names}): name the one with the scores in the recipe (output: NAME), or "
        "define predict(module, inputs) in its file."
    )


_IMAGES = 4  # with this many axes or more, the classes are the second axis, as in torch's cross_entropy; else the last


def is_of_images(scores: Any) -> bool:
    """Return whether there are scores for each pixel: [batch, classes, height, width], or more axes."""
    return bool(scores.is_floating_point() and scores.dim() >= _IMAGES)


def has_two_batch_axes(scores: Any, samples: int) -> bool:
    """Return whether several axes may be the batch axis: [steps, batch, classes] with as many steps as samples."""
    axes = list(scores.shape[:-1] if scores.is_floating_point() else scores.shape)
    return samples > 1 and not is_of_images(scores) and axes.count(samples) > 1


def classes_of(scores: Any, samples: int) -> list[Any]:
    """Return the prediction for each sample: the index of its greatest score, or NaN if that is not finite.

    Integers are already predictions.

    The classes are the last axis: [batch, classes], [batch, steps, classes], [steps, batch, classes]. For images they
    are the second axis: [batch, classes, height, width].

    Raises:
        RecipeError: there is only one score for each sample, or the number of samples differs.
    """
    if is_of_images(scores) and scores[0, 0].numel() == 1:
        scores = scores.flatten(1)  # one pixel: a classifier without a linear layer
    axes = list(scores.shape[:-1] if scores.is_floating_point() else scores.shape)  # without the axis of the classes
    if scores.dim() > 1 and scores.shape[0] != samples and samples in axes and not is_of_images(scores):
        scores = scores.movedim(axes.index(samples), 0)
    is_prediction = scores.dim() > 0 and not scores.is_floating_point()
    classes = 1 if is_of_images(scores) else -1
    if not is_prediction and (scores.dim() < 2 or scores.shape[classes] == 1):
        raise RecipeError(
            f"The module returns one number for each sample (shape {list(scores.shape)}), not one score per class: "
            "define predict(module, inputs) in its file."
        )
    if len(scores) != samples:
        raise RecipeError(
            f"The module returns {len(scores)} scores (shape {list(scores.shape)}) for {samples} "
            f"{'sample' if samples == 1 else 'samples'}: name the output with the scores in the recipe (output: NAME), "
            "or define predict(module, inputs) in its file."
        )
    return list((scores if is_prediction else best_classes(scores, classes)).tolist())


def answers_of(scores: Any, samples: int) -> list[Any]:
    """Return the answer for each sample: the predicted class with the scores of all classes, if there is one.

    Otherwise return the predictions (see `classes_of`, which raises).
    """
    predictions = classes_of(scores, samples)
    if is_of_images(scores) and scores[0, 0].numel() == 1:
        scores = scores.flatten(1)
    if not scores.is_floating_point() or scores.dim() > 2:
        return predictions
    return list(rankings(scores, tuple(range(scores.shape[1]))))
