"""`loaded`: a model, loaded and tried: what all of its variants would fail for is found in seconds, before any of them.

Of a user's own code all is asked that measuring will ask: one batch, one call on it, predictions for two samples, their
score. What goes wrong is told with file, line and function. A score that can't be made ends nothing but `check`: the
rest is measured, and the row says why it has no score.
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

OF_MODEL = "failed_while"  # a fact of a failure that all variants of a model share: what was being done
_LOADING, _CHECKING, _TRYING, _RESTORING = "loading", "checking the data", "trying the model", "restoring"
_FEW, _SEVERAL = 2, 32  # samples that are predicted
_LONGEST, _LONGEST_REASON = 200, 500  # characters of what a batch is, and of why it failed
_DECODING_SECONDS = 10.0  # to find a sound or picture that ends early, before anything is measured


class ModelError(CompressError):
    """A model can't be measured, whatever is done to it.

    Args:
        error: why; exit code and cause are its own.
        message: the same in words.
        doing: what was being done.
    """

    def __init__(self, error: CompressError, message: str, doing: str) -> None:
        super().__init__(message)
        vars(self).update(exit_code=error.exit_code, cause=error.cause)
        self.doing = doing


def loaded(family: Family, variant: Variant, stage: Tell, warn: Tell) -> Model:
    """Load the original, and try it.

    Args:
        family: the model's family.
        variant: what is to be loaded.
        stage: told of each stage when it begins.
        warn: told what the user must hear now.

    Raises:
        ModelError: it can't be loaded, its data can't be read, or its own code does not do what it must.
        Unsupported: this machine does not serve it.
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
    native_precision.settle(model, family)
    if "cpu" in variant.devices:
        model_precision = {f"torch.{model.facts.get(native_precision.DTYPE)}"}
        for caution in checks.precision(model_precision, environment.emulated()):
            warn(f"{caution.message} {caution.advice}")  # now, not after an hour
    for caution in model.cautions:
        warn(caution.message)
    model.batch_size = variant.batch_size
    samples: Sequence[Sample] | None = None
    if variant.data and model.weights != "random":
        stage(_CHECKING)  # now, not after an hour of compressing and measuring
        with _of_the_model(variant, _CHECKING):
            quality.metrics_for(family, model, variant)
            samples = family.samples(model, variant.data, folder, variant.limit, variant.seed)
            decode_some([sample.inputs for sample in samples], _DECODING_SECONDS)
    if type(family).runs_users_code:
        stage(_TRYING)
        with _of_the_model(variant, _TRYING):
            try_call(family, model, variant)
            if samples is not None and not samples:
                raise RecipeError(f"{variant.source}: there are no samples to score. Give some, or say data: none.")
        if samples is not None:
            _warn_of_scores(family, model, variant, samples, warn)
    return model


def _require_memory(needed: int | None, source: str) -> None:
    """Check that there is memory for a model's weights, before they are read or made.

    Raises:
        MachineLacks: there is less.
    """
    import psutil

    from mlflow_compress.meters import cgroup

    free = psutil.virtual_memory().available
    limited = cgroup.memory_left()
    left = free if limited is None else min(free, limited)
    if needed is not None and needed > left:
        raise MachineLacks(
            f"the weights of {source} take {needed / 2**30:.1f} GiB, and {left / 2**30:.1f} GiB of memory are free: "
            "end other programs, give options.dtype=bfloat16 where they are loaded in float32, or measure it on a "
            "machine with more memory"
        )


def try_call(family: Family, model: Model, variant: Variant) -> dict[str, str]:
    """Ask a model for a batch, and a call on it.

    Args:
        family: the model's family.
        model: the model.
        variant: gives batch size and seed.

    Returns:
        What it takes and gives, in words by name.

    Raises:
        RecipeError: it does not do one of these.
    """
    import torch

    size = variant.batch_size
    with torch.inference_mode():
        with _named(f"batch({size}) failed"):
            batch = family.batch(model, size, variant.seed)
        with _named(f"the module can't be called on what batch({size}) gives, {_described(batch)}"):
            output = family.run(model, batch, lambda stage: None)
    return {"takes": _described(batch), "gives": _described(output)}


def try_scoring(family: Family, model: Model, variant: Variant, samples: Sequence[Sample]) -> dict[str, str]:
    """Ask a model for two predictions and their score.

    Args:
        family: the model's family.
        model: the model.
        variant: gives metrics.
        samples: what quality is scored on.

    Returns:
        How many samples there are, and the score, in words by name.

    Raises:
        RecipeError: it does not do one of these.
    """
    return {"samples": f"{len(samples):,}", "score": _score(family, model, variant, samples)}


def try_saved(variant: Variant, saved: Path, outputs: Path, stage: Tell) -> Part:
    """Restore a saved model in this process, and try it: a call gives what it gave, and two samples are predicted.

    Args:
        variant: what it is.
        saved: the folder of the model.
        outputs: what it gave before it was saved, as `output_error.keep` wrote it.
        stage: told of each stage when it begins.
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
    """Return what went wrong as one line, with the place in the user's code where it is known."""
    where = own_place(error)
    if not isinstance(error, CompressError):
        return f"{where}: {cause_line(error, _LONGEST_REASON)}" if where else cause_line(error, _LONGEST_REASON)
    text = str(error)
    return text if not where or where in text else f"{text.rstrip('.')} ({where})."


def fails_all(result: Result) -> bool:
    """Return whether a variant failed for what all variants of its model would fail for."""
    return result.status == "failed" and OF_MODEL in result.facts


@contextmanager
def _of_the_model(variant: Variant, doing: str) -> Iterator[None]:
    """Have what is raised said as a failure of the model. What a machine lacks, or nobody foresaw, passes as it is."""
    try:
        yield
    except Unsupported:
        raise
    except CompressError as error:
        raise ModelError(error, said(error), doing) from error
    except Exception as error:
        if not registry.find("families", variant.family).runs_users_code or is_out_of_memory(error):
            raise
        told = f"{variant.source}: {said(error)}"
        raise ModelError(RecipeError(told), told, doing) from error


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Say what failed before the error itself."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error) or isinstance(error, Unsupported):
            raise
        raise RecipeError(f"{what}: {said(error)}") from error


def _warn_of_scores(family: Family, model: Model, variant: Variant, samples: Sequence[Sample], warn: Tell) -> None:
    """Say now that quality will not be scored, and why: it will be said again where it was tried."""
    try:
        try_scoring(family, model, variant, samples)
    except Exception as error:
        if is_out_of_memory(error):  # all that is in memory now need not be then
            return
        warn(f"quality can't be scored: {said(error)}")


def _score(family: Family, model: Model, variant: Variant, samples: Sequence[Sample]) -> str:
    """Predict and score a few samples; where a metric makes nothing of these, several.

    Returns:
        The scores in words; of a metric that makes nothing of several, and may of all, its reason.
    """
    from mlflow_compress.measuring import quality

    metrics = quality.metrics_for(family, model, variant)
    told: list[str] = []
    for few in (samples[:_FEW], samples[:_SEVERAL]):
        predictions = _predictions(family, model, few)
        references = [sample.reference for sample in few]
        try:
            told = [f"{name} {metric.compute(references, predictions):.4g}" for name, metric in metrics.items()]
        except Exception as error:
            if len(few) == len(samples):
                raise RecipeError(
                    f"the score can't be made of what samples() and predict() give: {one_line(error)}. References "
                    f"begin with {_described(references[0])}, predictions with {_described(predictions[0])}"
                ) from error
            told = [f"unknown of so few: {one_line(error)}"]
        else:
            break
    return f"{', '.join(told)} on {len(few)} samples"


def _predictions(family: Family, model: Model, samples: Sequence[Sample]) -> list[Any]:
    """Return one prediction for each sample.

    Raises:
        RecipeError: predicting fails, or there is another number of predictions.
    """
    from mlflow_compress.measuring import quality

    with _named(f"{len(samples)} samples can't be predicted, the first being {_described(samples[0].inputs)}"):
        return quality.answers(family, model, samples)


def _described(tree: Any) -> str:
    """Say what a batch or an output is: `float32 [1, 64]`, of several with their names."""
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
