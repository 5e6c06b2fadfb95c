"""Recipes: `read` a recipe, and `plan` its variants.

A recipe is a YAML file that holds only data:

    family: text_classification
    source: distilbert/distilbert-base-uncased-finetuned-sst-2-english   # hub id, folder, or file beside the recipe
    options: {tokens: 128}                # the family's options
    data: own                             # data to score quality on; left out: quality is not scored
    metrics: [accuracy]                   # left out: the family's metrics
    published: {accuracy: 0.911}          # published scores of the original on this data, see `recipe_parts.published`
    batch_size: 1
    requires: {min_ram_gb: 16}            # what a machine must have, see `requirements`
    variants:                             # the variants of a sweep
      - original
      - prune_magnitude:amount=0.5+int8_dynamic
      - {name: small, method: "fp16"}

A recipe with several models is a sweep recipe: `sweep_recipe` reads it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import product
from pathlib import Path
from typing import Any

from mlflow_compress import registry
from mlflow_compress.data.spec import absolute
from mlflow_compress.errors import RecipeError, UnknownName
from mlflow_compress.planning import missing_files, own_file, requirements
from mlflow_compress.planning.chains import Named, named_chains, parse_chain
from mlflow_compress.planning.recipe_parts import (
    is_sweep,
    load,
    mapping,
    published,
    require_few,
    require_inside,
    require_known_keys,
    texts,
)
from mlflow_compress.planning.recognise import recognise
from mlflow_compress.records import Budget, PublishedScore, Scalar, Variant, is_original
from mlflow_compress.scoring.hf_evaluate import is_code, metrics_of
from mlflow_compress.scoring.lm_eval_tasks import is_task
from mlflow_compress.sockets import Family
from mlflow_compress.trust_word import trust_word
from mlflow_compress.untrusted_yaml import shown
from mlflow_compress.words import ORIGINAL

_OWN = "python"  # the family of the user's own code
_KEYS = ("family", "source", "options", "data", "metrics", "published", "batch_size", "requires", "variants")
_MOST_METRICS = 100


@dataclass(frozen=True)
class Recipe:
    """A model and the usual way to measure it.

    Attributes:
        name: the model's name in tables.
        family, source, options, data, metrics, published, batch_size: as in `Variant`.
        variants: name and chain of each variant of a sweep.
        folder: the recipe's folder; relative paths start there.
        requires: what a machine must have, see `requirements`.
        is_users_program: whether the source is a Python file that the user named as the MODEL of a command. It runs
            as with `python FILE`, without the trust option.
    """

    name: str
    family: str
    source: str
    folder: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    data: str | None = None
    metrics: tuple[str, ...] = ()
    batch_size: int = 1
    variants: tuple[Named, ...] = ()
    requires: Mapping[str, Scalar] = field(default_factory=dict)
    is_users_program: bool = False
    published: Mapping[str, PublishedScore] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """Settings from the command line; None, `auto` and empty values keep the recipe's choice.

    `trust`: whether code that comes with a model may run: Python files, pickles, custom metrics. `interleave`: whether
    variants are measured in turns with their original; None: if the plan contains the original.

    Several batch sizes, numbers of threads, or values of a family's option give one variant each. Requirements are
    added to those of the recipe and override them.
    """

    team: str = "none"
    devices: tuple[str, ...] = ("cpu",)
    weights: str = "auto"
    data: str = "auto"
    batch_sizes: tuple[int, ...] = ()
    threads: tuple[int, ...] = ()
    seed: int = 0
    limit: int | None = None
    options: Mapping[str, Sequence[Scalar]] = field(default_factory=dict)
    budget: Budget = field(default_factory=Budget)
    interleave: bool | None = None
    trust: bool = False
    requires: Mapping[str, Scalar] = field(default_factory=dict)


def folders() -> list[Path]:
    """Return the folders with recipes, the user's folder first."""
    package = Path(__file__).parents[1]
    return [path for path in (Path("recipes"), package / "recipes", package.parent / "recipes") if path.is_dir()]


def names() -> list[str]:
    """Return the names of all recipes."""
    return sorted({path.stem for folder in folders() for path in folder.glob("*.yaml")})


def read(name: str, family: str = "", *, is_named: bool = False) -> Recipe:
    """Read a recipe by its name or its path; create one for a model without a recipe (see `recognise`).

    Args:
        name: name or path of the recipe, or a model.
        family: family of a model without a recipe; empty: detect it.
        is_named: whether the user wrote this name on a command line, and not a recipe.

    Raises:
        UnknownName: no recipe or model has that name, or a key, family, method or option in the recipe is unknown.
        RecipeError: it is not a valid recipe, or no family supports the model.
        WeightsError: the kind of model can't be determined.
    """
    path = find(name)
    if path is None:
        return _of_file(Path(name), family, is_named) if _is_code(Path(name)) else _of_model(name, family)
    if family:
        raise RecipeError(f"{path} already states its family: leave out --family.")
    data = load(path)
    if is_sweep(data):
        raise RecipeError(f"{path} is a sweep recipe with several models: run compress-bench sweep {name}")
    require_known_keys(path, data, _KEYS)
    for key in ("family", "source"):
        if not isinstance(data.get(key), str):
            raise RecipeError(f"{path}: {key} is missing or is not text.")
    plugin = registry.find("families", data["family"])
    options = registry.check("families", data["family"], mapping(path, "options", data.get("options")))
    metric_names = data["metrics"] if "metrics" in data else _metrics(data, path.parent, plugin.metrics)
    metrics = tuple(texts(path, "metrics", metric_names))
    if len(metrics) > _MOST_METRICS:
        raise RecipeError(f"{path}: a recipe can have at most {_MOST_METRICS} metrics, not {len(metrics):,}.")
    scored = metrics_of(metrics, path.parent, gives=plugin.gives)
    if not isinstance(data.get("data", ""), (str, type(None))):
        raise RecipeError(f"{path}: data must be text, not {shown(data['data'])}.")
    batch_size = data.get("batch_size", 1)
    if type(batch_size) is not int or batch_size < 1:
        raise RecipeError(f"{path}: batch_size must be a whole number of at least 1, not {shown(batch_size)}.")
    plugin.require_loggable(data["source"])
    for key in ("source", "data"):
        require_inside(path, key, str(data.get(key) or "").partition(":")[0])
    return Recipe(
        name=path.stem,
        family=data["family"],
        source=data["source"],
        folder=path.parent.resolve(),
        options=options,
        data=data.get("data"),
        metrics=metrics,
        batch_size=batch_size,
        variants=named_chains(path, "variants", data.get("variants", [ORIGINAL])),
        requires=requirements.check(mapping(path, "requires", data.get("requires"))),
        published=published(path, data.get("published"), data.get("data") or "", scored),
    )


def plan(recipe: Recipe, chains: Sequence[Named], settings: Settings) -> list[Variant]:
    """Create one variant for each named chain, number of threads, batch size, and setting of the family's options.

    Raises:
        UnknownName, RecipeError: an option of the family is not valid, or code would run that the user did not trust.
    """
    require_few(_count(recipe, chains, settings), recipe.name)
    requested = [dict(zip(settings.options, values, strict=True)) for values in product(*settings.options.values())]
    checked = [registry.check("families", recipe.family, options) for options in requested]
    data = recipe.data if settings.data == "auto" else None if settings.data == "none" else absolute(settings.data)
    weights = settings.weights
    if weights not in ("auto", "pretrained", "random"):
        weights = _path(weights)
    family = registry.find("families", recipe.family)
    family.require_loggable(recipe.source)
    trusting = {"trust": True} if settings.trust and "trust" in {option.name for option in fields(family)} else {}
    if not settings.trust:
        require_users_trust(recipe.name, recipe.options, settings)
        _require_no_code(family(), recipe, weights)
    metrics = recipe.metrics
    if settings.data == "none":  # nothing is scored
        metrics = tuple(name for name in metrics if not is_task(name))
    in_turns = settings.interleave
    if in_turns is None:
        in_turns = any(is_original(chain) for _, chain in chains)
    is_in_setting = len(settings.threads) > 1  # then rows differ in their threads
    counts = [(threads, {"threads": threads} if is_in_setting else {}) for threads in settings.threads or (None,)]
    return [
        Variant(
            model=recipe.name,
            method=name,
            team=settings.team,
            family=recipe.family,
            source=recipe.source,
            weights=weights,
            data=data,
            chain=chain,
            options={**recipe.options, **trusting, **options},
            metrics=metrics,
            devices=settings.devices,
            batch_size=batch_size,
            setting=", ".join(f"{key}={value}" for key, value in {**options, **threads_setting}.items()),
            threads=threads,
            interleave=in_turns and not is_original(chain),
            seed=settings.seed,
            limit=settings.limit,
            budget=settings.budget,
            folder=str(recipe.folder),
            requires={**recipe.requires, **settings.requires},
            published=recipe.published,
        )
        for options in checked
        for batch_size in settings.batch_sizes or (recipe.batch_size,)
        for threads, threads_setting in counts
        for name, chain in chains
    ]


def require_users_trust(name: str, options: Mapping[str, Any], settings: Settings) -> None:
    """Reject a recipe that declares itself trusted: only the user may decide that.

    Raises:
        RecipeError: the recipe sets `trust`, and the command line does not.
    """
    value = options.get("trust", False)
    is_set = any(value) if isinstance(value, tuple) else value
    if is_set and not settings.trust and not any(settings.options.get("trust", ())):
        raise RecipeError(f"The recipe {name} says trust: true. Only you may allow its code to run: {trust_word()}")


def _count(recipe: Recipe, chains: Sequence[Named], settings: Settings) -> int:
    """Return the number of variants in a recipe's plan."""
    counts = [len(values) for values in settings.options.values()]
    return math.prod([*counts, len(settings.batch_sizes) or 1, len(settings.threads) or 1, len(chains)])


def _require_no_code(family: Family, recipe: Recipe, weights: str) -> None:
    """Reject code that would run without the user's trust."""
    code = [family.code("" if recipe.is_users_program else recipe.source, weights, recipe.folder)]
    verb = {True: "may run", False: "is"}  # the file of a task is YAML
    code += [f"the metric {name} {verb[is_task(name)]} Python code" for name in recipe.metrics if is_code(name)]
    if any(code):
        raise RecipeError(f"{'; '.join(filter(None, code))}. If you trust its source, say so: {trust_word()}")


def _is_code(path: Path) -> bool:
    return path.suffix == ".py" and missing_files.exists(path)


def _of_file(path: Path, family: str, is_named: bool) -> Recipe:
    """Create a recipe for a Python file; its samples are scored, if it has any."""
    if family not in ("", _OWN):
        raise RecipeError(f"{path} is Python code; its family is {_OWN}: leave out --family {family}.")
    file = own_file.look(path)
    return Recipe(
        name=path.stem,
        family=_OWN,
        source=path.name,
        folder=path.parent.resolve(),
        data=file.own_data,
        metrics=file.metrics or registry.find("families", _OWN).metrics,
        variants=((ORIGINAL, parse_chain(ORIGINAL)),),
        is_users_program=is_named,
    )


def _metrics(data: Mapping[str, Any], folder: Path, defaults: Sequence[str]) -> Sequence[str]:
    """Return the metrics that a Python file names; if it names none, the defaults."""
    path = folder / data["source"]
    return (own_file.look(path).metrics if data["family"] == _OWN and _is_code(path) else ()) or defaults


def _of_model(name: str, family: str) -> Recipe:
    """Create a recipe for a model without one."""
    if family:
        registry.find("families", family)
    if "/" in name and (message := missing_files.missing(name)):  # else it may be ORG/NAME on the hub
        raise RecipeError(message)
    model = recognise(name, family)
    if model is None:
        if message := missing_files.missing(name) or missing_files.weights_alone(name):
            raise RecipeError(message)
        raise UnknownName("model", name, names())
    return Recipe(
        name=model.name,
        family=model.family,
        source=model.source,
        folder=Path.cwd(),
        metrics=registry.find("families", model.family).metrics,
        variants=((ORIGINAL, parse_chain(ORIGINAL)),),
    )


def find(name: str) -> Path | None:
    """Return the path of a recipe; None if no recipe has that name.

    Raises:
        RecipeError: the name is a path, and there is no such file.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not missing_files.exists(path):
            raise RecipeError(missing_files.missing(name))
        return path
    for folder in folders():
        if name in {path.stem for path in folder.glob("*.yaml")}:
            return folder / f"{name}.yaml"
    return None


def _path(text: str) -> str:
    """Make an existing path absolute, since the worker runs in another folder."""
    return str(Path(text).resolve()) if missing_files.exists(Path(text)) else text
