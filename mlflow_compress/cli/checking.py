"""`check_models`: list what a sweep would measure, and try the models, before anything is measured."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow_compress import registry, terminal
from mlflow_compress.errors import failure
from mlflow_compress.measuring import isolate
from mlflow_compress.planning import sweep_recipe
from mlflow_compress.planning.order import first_of_each_model
from mlflow_compress.planning.recipe import Settings
from mlflow_compress.records import Step, Variant
from mlflow_compress.sweeping.progress import Progress
from mlflow_compress.words import ORIGINAL


def check_models(names: Sequence[str], settings: Settings, deep: bool) -> None:
    """Plan each model's variants, then try each model.

    Args:
        names: Models, as `sweep` takes them.
        settings: Settings of the command line. Code is trusted only if they say so.
        deep: Whether to try models that are not the user's own code, too.

    Raises:
        CompressError: A check failed; `run` would raise the same error.
    """
    for name in names:
        variants = sweep_recipe.plan([name], dataclasses.replace(settings, trust=True))
        for variant in variants:
            terminal.say(f"{variant.model}, {variant.label}")
        to_try = [variant for variant in first_of_each_model(variants) if deep or _runs_users_code(variant)]
        sweep_recipe.plan([name], settings)  # requires trust where `run` does
        for variant in to_try:
            terminal.say(f"{variant.model}: {_try_original(variant)}")


def _runs_users_code(variant: Variant) -> bool:
    runs_users_code: bool = registry.find("families", variant.family).runs_users_code
    return runs_users_code


def _try_original(variant: Variant) -> str:
    """Try the original of a variant's model, and return a line about its inputs and outputs.

    Raises:
        CompressError: The model can't be measured.
    """
    original = dataclasses.replace(variant, method=ORIGINAL, chain=(Step(ORIGINAL),), interleave=False)
    progress = Progress(sys.stderr)
    with tempfile.TemporaryDirectory(prefix="compress-check-") as folder:
        try:
            progress.begin(variant.model)
            part = isolate.check(original, Path(folder, "work"), progress.event)
        finally:
            progress.close()
    if part.outcome.status != "ok":
        raise failure(part.outcome.cause, f"{variant.model} can't be measured: {part.outcome.reason}")
    return _summary(part.facts)


def _summary(facts: Mapping[str, str]) -> str:
    words = [f"{facts['parameters']} parameters", f"takes {facts['takes']}", f"gives {facts['gives']}"]
    if "samples" in facts:
        words += [f"{facts['samples']} samples", facts["score"]]
    return f"ok: {', '.join(words)}; saved and restored"
