"""`loaded`: load a model and try it, to find in seconds what would make all of its variants fail.

A user's own code is tried with everything that measuring needs: one batch, one call, predictions for two samples, and
their score. Errors name file, line and function. A failed score ends only `check`: otherwise the rest is measured, and
the row says why it has no score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlflow_compress import registry
from mlflow_compress.error_causes import cause_line, is_out_of_memory, own_place
from mlflow_compress.errors import CompressError, MachineLacks, RecipeError, Unsupported, one_line
from mlflow_compress.records import Outcome, Part, Result, Variant
from mlflow_compress.sockets import Family, Model, Sample

Tell = Callable[[str], object]

OF_MODEL = "failed_while"  # the fact of a failure that all variants of a model share: the step that failed
_LOADING, _CHECKING, _TRYING, _RESTORING = "loading", "checking the data", "trying the model", "restoring"
_FEW, _SEVERAL = 2, 32  # predicted samples
_LONGEST, _LONGEST_REASON = 200, 500  # characters of the description of a batch, and of a reason
_DECODING_SECONDS = 10.0  # to find a truncated sound or image before anything is measured


class ModelError(CompressError):
    """A model can't be measured with any method.

    Args:
        error: The cause; its exit code and cause are used.
        message: The message.
        doing: The step that failed.
    """

    def __init__(self, error: CompressError, message: str, doing: str) -> None:
        super().__init__(message)
        vars(self).update(exit_code=error.exit_code, cause=error.cause)
        self.doing = doing


def loaded(family: Family, variant: Variant, stage: Tell, warn: Tell) -> Model:
    """Load the original, and try it.

    Args:
        family: The model's family.
        variant: The variant whose original is loaded.
        stage: Called with the name of each stage when it begins.
        warn: Called with each warning that the user must see now.

    Raises:
        ModelError: The model can't be loaded, its data can't be read, or its own code fails.
        Unsupported: This machine can't run it.
    """
    from mlflow_compress.data.media import decode_some
    from mlflow_compress.measuring import checks, quality
    from mlflow_compress.meters import environment
    from mlflow_compress.networks import native_precision

    folder = Path(variant.folder)
    stage(_LOADING)
    _require_memory(family.weights_bytes(variant.source, variant.weights, folder), variant.source)
    with _of_the_model(variant, _LOADING):
        model = family.load(variant.source, variant.weights, folder, variant.seed)
    model.folder = folder
    native_precision.settle(model, family)
    if "cpu" in variant.devices:
        model_precision = {f"torch.{model.facts.get(native_precision.DTYPE)}"}
        for caution in checks.precision(model_precision, environment.emulated()):
            warn(f"{caution.message} {caution.advice}")  # now, not after an hour
    for caution in model.cautions:
        warn(caution.message)
    model.batch_size = variant.batch_size
    samples: Sequence[Sample] | None = None
    if quality.is_scored(variant) and model.weights != "random":
        stage(_CHECKING)  # now, not after an hour of compressing and measuring
        with _of_the_model(variant, _CHECKING):
            metrics, tasks = quality.split(quality.metrics_for(family, model, variant))
            if tasks:
                family.text_model(model)
            model.asked = frozenset(metric.takes for metric in metrics.values())
            if variant.data:  # calibration draws from it too
                samples = family.samples(model, variant.data, folder, variant.limit, variant.seed)
                decode_some([sample.inputs for sample in samples], _DECODING_SECONDS)
                for reason in quality.unscorable(metrics, samples).values() if samples else ():
                    warn(reason)
    if type(family).runs_users_code:
        stage(_TRYING)
        with _of_the_model(variant, _TRYING):
            try_call(family, model, variant)
            if samples is not None and not samples:
                raise RecipeError(f"{variant.source}: there are no samples to score. Add some, or set data: none.")
        if samples is not None:
            _warn_of_scores(family, model, variant, samples, warn)
    return model


def _require_memory(needed_bytes: int | None, source: str) -> None:
    """Check that a model's weights fit into free memory, before they are read or created.

    Raises:
        MachineLacks: They do not fit.
    """
    import psutil

    from mlflow_compress.meters import cgroup

    free_bytes = psutil.virtual_memory().available
    limited = cgroup.memory_left()
    left = free_bytes if limited is None else min(free_bytes, limited)
    if needed_bytes is not None and needed_bytes > left:
        raise MachineLacks(
            f"the weights of {source} need {needed_bytes / 2**30:.1f} GiB, but only {left / 2**30:.1f} GiB of memory "
            "are free: close other programs, set options.dtype=bfloat16 if they are loaded in float32, or use a "
            "machine with more memory"
        )


def try_call(family: Family, model: Model, variant: Variant) -> dict[str, str]:
    """Make a batch for a model, and call the model on it.

    Args:
        family: The model's family.
        model: The model.
        variant: Variant with the batch size and seed.

    Returns:
        Descriptions of its inputs and outputs, by name.

    Raises:
        RecipeError: The batch or the call fails.
    """
    import torch

    size = variant.batch_size
    with torch.inference_mode():
        with _named(f"batch({size}) failed"):
            batch = family.batch(model, size, variant.seed)
        with _named(f"the module can't be called on what batch({size}) returns, {_described(batch)}"):
            output = family.run(model, batch, lambda stage: None)
    return {"takes": _described(batch), "gives": _described(output)}


def try_scoring(family: Family, model: Model, variant: Variant, samples: Sequence[Sample]) -> dict[str, str]:
    """Predict two samples and score the predictions.

    Args:
        family: The model's family.
        model: The model.
        variant: Variant with the metrics.
        samples: Samples that quality is scored on.

    Returns:
        Number of samples and the score, as text by name.

    Raises:
        RecipeError: Predicting or scoring fails.
    """
    return {"samples": f"{len(samples):,}", "score": _score(family, model, variant, samples)}


def try_saved(variant: Variant, saved: Path, outputs: Path, stage: Tell) -> Part:
    """Restore a saved model in this process, and try it: compare the outputs of a call, and predict two samples.

    Args:
        variant: The variant.
        saved: The model folder.
        outputs: Outputs from before the model was saved, written by `output_error.keep`.
        stage: Called with the name of each stage when it begins.
    """
    from mlflow_compress.measuring import output_error
    from mlflow_compress.meters import size
    from mlflow_compress.networks import model_folder

    stage(_RESTORING)
    with _of_the_model(variant, _RESTORING):
        restored = model_folder.restore(saved, "cpu")
    family, model = restored.family, restored.model
    model.origin = Path(variant.folder, variant.source)  # data beside the user's file is not copied
    stage(_TRYING)
    samples = None
    with _of_the_model(variant, "trying the restored model"):
        if variant.data and model.weights != "random":
            samples = family.samples(model, variant.data, Path(variant.folder), variant.limit, variant.seed)
        facts = try_call(family, model, variant)
        if samples is not None:
            facts |= try_scoring(family, model, variant, samples)
        output_error.compare(family, model, variant, outputs, "cpu")
    counted = size.in_memory(model.module).get("size/params", 0.0)
    return Part(Outcome("ok"), facts={"parameters": f"{counted:,.0f}", **facts})


def said(error: Exception) -> str:
    """Return an error as one line, with the place in the user's code if it is known."""
    code_line = own_place(error)
    if not isinstance(error, CompressError):
        return f"{code_line}: {cause_line(error, _LONGEST_REASON)}" if code_line else cause_line(error, _LONGEST_REASON)
    text = str(error)
    return text if not code_line or code_line in text else f"{text.rstrip('.')} ({code_line})."


def fails_all(result: Result) -> bool:
    """Return whether a variant failed for a reason that makes all variants of its model fail."""
    return result.status == "failed" and OF_MODEL in result.facts


@contextmanager
def _of_the_model(variant: Variant, doing: str) -> Iterator[None]:
    """Turn errors into a `ModelError`. What the machine lacks, and unexpected errors of our code, pass unchanged."""
    try:
        yield
    except Unsupported:
        raise
    except CompressError as error:
        raise ModelError(error, said(error), doing) from error
    except Exception as error:
        if not registry.find("families", variant.family).runs_users_code or is_out_of_memory(error):
            raise
        message = f"{variant.source}: {said(error)}"
        raise ModelError(RecipeError(message), message, doing) from error


@contextmanager
def _named(failed_part: str) -> Iterator[None]:
    """Put the name of the failed part in front of the error's own message."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error) or isinstance(error, Unsupported):
            raise
        raise RecipeError(f"{failed_part}: {said(error)}") from error


def _warn_of_scores(family: Family, model: Model, variant: Variant, samples: Sequence[Sample], warn: Tell) -> None:
    """Warn now if quality can't be scored: the real scoring comes much later and reports it again."""
    try:
        try_scoring(family, model, variant, samples)
    except Exception as error:
        if is_out_of_memory(error):  # there may be more free memory later
            return
        warn(f"quality can't be scored: {said(error)}")


def _score(family: Family, model: Model, variant: Variant, samples: Sequence[Sample]) -> str:
    """Predict and score a few samples; more if a metric is undefined for so few.

    Returns:
        The scores as text, or why they are still undefined.
    """
    from mlflow_compress.measuring import quality
    from mlflow_compress.networks.class_scores import taken

    metrics, _ = quality.split(quality.metrics_for(family, model, variant))
    model.asked = frozenset(metric.takes for metric in metrics.values())
    scores: list[str] = []
    undefined: list[str] = []
    for few in (samples[:_FEW], samples[:_SEVERAL]):
        predictions = _predictions(family, model, few)
        references = [sample.reference for sample in few]
        scores, undefined = [], []
        for name, metric in metrics.items():
            try:
                scores.append(f"{name} {metric.compute(references, taken(metric.takes, predictions)):.4g}")
            except Exception as error:
                undefined.append(f"{name}: {one_line(error)}")
        if not undefined:
            break
        if not scores and len(few) == len(samples):
            raise RecipeError(
                f"the score can't be computed from what samples() and predict() return: {'; '.join(undefined)}. The "
                f"first reference is {_described(references[0])}, the first prediction {_described(predictions[0])}"
            )
    if undefined:
        scores.append(f"undefined for so few samples: {'; '.join(undefined)}")
    return f"{', '.join(scores)} on {len(few)} samples"


def _predictions(family: Family, model: Model, samples: Sequence[Sample]) -> list[Any]:
    """Return one prediction for each sample.

    Raises:
        RecipeError: Predicting fails, or the number of predictions is wrong.
    """
    from mlflow_compress.measuring import quality

    with _named(f"{len(samples)} samples can't be predicted (the first is {_described(samples[0].inputs)})"):
        return quality.answers(family, model, samples)


def _described(tree: Any) -> str:
    """Describe a batch or an output: `float32 [1, 64]`; several tensors with their names."""
    from mlflow_compress.networks.value_trees import named_leaves

    leaves = [(".".join(map(str, path)), leaf) for path, leaf in named_leaves(tree)]
    if len(leaves) == 1:
        return _leaf(leaves[0][1])
    text = ", ".join(f"{name}: {_leaf(leaf)}" for name, leaf in leaves)
    return f"({text if len(text) <= _LONGEST else text[:_LONGEST] + '…'})"


def _leaf(leaf: Any) -> str:
    if hasattr(leaf, "shape"):
        return f"{str(getattr(leaf, 'dtype', '')).removeprefix('torch.')} [{', '.join(map(str, leaf.shape))}]".strip()
    return "None" if leaf is None else f"{type(leaf).__name__} {one_line(repr(leaf), 40)}"
