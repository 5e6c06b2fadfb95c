"""Recipes: `read` one, `plan` the variants that it asks for.

A recipe is YAML and nothing but data:

    family: text_classification
    source: distilbert/distilbert-base-uncased-finetuned-sst-2-english   # hub id, folder, or file beside the recipe
    options: {tokens: 128}                # the family's options
    data: own                             # what quality is scored on; left out: nothing
    metrics: [accuracy]                   # left out: the family's own
    batch_size: 1
    requires: {min_ram_gb: 16}            # what a machine must have, see `requirements`
    variants:                             # what a sweep runs
      - original
      - prune_magnitude:amount=0.5+int8_dynamic
      - {name: small, method: "fp16"}

A recipe of many models is a sweep recipe: `sweep_recipe` reads it.
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
    require_few,
    require_inside,
    require_known_keys,
    texts,
)
from mlflow_compress.planning.recognise import recognise
from mlflow_compress.records import Budget, Scalar, Variant, is_original
from mlflow_compress.scoring.hf_evaluate import is_code, metrics_of
from mlflow_compress.sockets import Family
from mlflow_compress.trust_word import trust_word
from mlflow_compress.untrusted_yaml import shown
from mlflow_compress.words import ORIGINAL

_OWN = "python"  # the family of the user's own code
_KEYS = ("family", "source", "options", "data", "metrics", "batch_size", "requires", "variants")
_MOST_METRICS = 100


@dataclass(frozen=True)
class Recipe:
    """A model and what is usually done with it.

    Attributes:
        name: the model's name in tables.
        family, source, options, data, metrics, batch_size: as in `Variant`.
        variants: name and chain of each variant of a sweep.
        folder: where the recipe lies: relative paths start there.
        requires: what a machine must have, see `requirements`.
        is_users_program: whether the source is a Python file that the user named himself as the MODEL of a command. It
            is run as `python FILE` would run it, without a word of trust.
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


@dataclass(frozen=True)
class Settings:
    """What the command line says; None, `auto` or nothing leaves the recipe's choice.

    `trust`: whether code that somebody wrote may run: Python files, pickles, metrics of one's own. `interleave`:
    whether variants are measured in turns with their original; None: where it is among what is planned.

    Several batch sizes, numbers of threads, or values of a family's option ask for a variant of each. What is required
    of a machine is added to what the recipe requires, and wins.
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
    """Return the folders that hold recipes, the user's own first."""
    package = Path(__file__).parents[1]
    return [path for path in (Path("recipes"), package / "recipes", package.parent / "recipes") if path.is_dir()]


def names() -> list[str]:
    """Return the names of all recipes."""
    return sorted({path.stem for folder in folders() for path in folder.glob("*.yaml")})


def read(name: str, family: str = "", *, is_named: bool = False) -> Recipe:
    """Read a recipe by its name or its path; make one of a model that has none (see `recognise`).

    Args:
        name: of the recipe, or what names a model.
        family: of a model without a recipe; empty: as it is recognised.
        is_named: whether the user wrote this name himself on a command line; else a recipe did.

    Raises:
        UnknownName: there is no recipe or model of that name, or a key, family, method or option in it is unknown.
        RecipeError: it is no recipe, or a model that no family serves.
        WeightsError: what kind of model it is can't be found out.
    """
    path = find(name)
    if path is None:
        return _of_file(Path(name), family, is_named) if _is_code(Path(name)) else _made(name, family)
    if family:
        raise RecipeError(f"{path} says which family it is: leave out --family.")
    data = load(path)
    if is_sweep(data):
        raise RecipeError(f"{path} is a sweep recipe, of many models: compress-bench sweep {name}")
    require_known_keys(path, data, _KEYS)
    for key in ("family", "source"):
        if not isinstance(data.get(key), str):
            raise RecipeError(f"{path}: {key} is missing, or is no text.")
    plugin = registry.find("families", data["family"])
    options = registry.check("families", data["family"], mapping(path, "options", data.get("options")))
    written = data["metrics"] if "metrics" in data else _metrics(data, path.parent, plugin.metrics)
    metrics = tuple(texts(path, "metrics", written))
    if len(metrics) > _MOST_METRICS:
        raise RecipeError(f"{path}: there are {len(metrics):,} metrics, more than the {_MOST_METRICS} of one recipe.")
    metrics_of(metrics, path.parent, gives=plugin.gives)
    if not isinstance(data.get("data", ""), (str, type(None))):
        raise RecipeError(f"{path}: data must be text, not {shown(data['data'])}.")
    batch_size = data.get("batch_size", 1)
    if type(batch_size) is not int or batch_size < 1:
        raise RecipeError(f"{path}: batch_size must be a whole number from 1, not {shown(batch_size)}.")
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
    )


def plan(recipe: Recipe, chains: Sequence[Named], settings: Settings) -> list[Variant]:
    """Make one variant for each named chain, number of threads, batch size, and setting of the family's options.

    Raises:
        UnknownName, RecipeError: an option of the family is not right, or code would run that nobody said to trust.
    """
    require_few(_count(recipe, chains, settings), recipe.name)
    given = [dict(zip(settings.options, values, strict=True)) for values in product(*settings.options.values())]
    checked = [registry.check("families", recipe.family, options) for options in given]
    data = recipe.data if settings.data == "auto" else None if settings.data == "none" else absolute(settings.data)
    weights = settings.weights
    if weights not in ("auto", "pretrained", "random"):
        weights = _path(weights)
    family = registry.find("families", recipe.family)
    trusting = {"trust": True} if settings.trust and "trust" in {each.name for each in fields(family)} else {}
    if not settings.trust:
        require_said_trust(recipe.name, recipe.options, settings)
        _require_no_code(family(), recipe, weights)
    in_turns = settings.interleave
    if in_turns is None:
        in_turns = any(is_original(chain) for _, chain in chains)
    several = len(settings.threads) > 1  # then they tell rows apart
    counts = [(threads, {"threads": threads} if several else {}) for threads in settings.threads or (None,)]
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
            metrics=recipe.metrics,
            devices=settings.devices,
            batch_size=batch_size,
            setting=", ".join(f"{key}={value}" for key, value in {**options, **apart}.items()),
            threads=threads,
            interleave=in_turns and not is_original(chain),
            seed=settings.seed,
            limit=settings.limit,
            budget=settings.budget,
            folder=str(recipe.folder),
            requires={**recipe.requires, **settings.requires},
        )
        for options in checked
        for batch_size in settings.batch_sizes or (recipe.batch_size,)
        for threads, apart in counts
        for name, chain in chains
    ]


def require_said_trust(name: str, options: Mapping[str, Any], settings: Settings) -> None:
    """Complain about a recipe that says itself that it is trusted: that is for its reader to say.

    Raises:
        RecipeError: it does, and the command line does not.
    """
    written = options.get("trust", False)
    is_said = any(written) if isinstance(written, tuple) else written
    if is_said and not settings.trust and not any(settings.options.get("trust", ())):
        raise RecipeError(f"The recipe {name} says trust: true. Only you may let its code run: {trust_word()}")


def _count(recipe: Recipe, chains: Sequence[Named], settings: Settings) -> int:
    """Return how many variants a recipe's plan has."""
    counts = [len(values) for values in settings.options.values()]
    return math.prod([*counts, len(settings.batch_sizes) or 1, len(settings.threads) or 1, len(chains)])


def _require_no_code(family: Family, recipe: Recipe, weights: str) -> None:
    """Complain about code that would run without the user having said so."""
    code = [family.code("" if recipe.is_users_program else recipe.source, weights, recipe.folder)]
    code += [f"the metric {name} is Python code" for name in recipe.metrics if is_code(name)]
    if any(code):
        raise RecipeError(f"{'; '.join(filter(None, code))}. If you trust where it comes from, say so: {trust_word()}")


def _is_code(path: Path) -> bool:
    return path.suffix == ".py" and missing_files.exists(path)


def _of_file(path: Path, family: str, is_named: bool) -> Recipe:
    """Make a recipe of a Python file: its samples are scored, where it has some."""
    if family not in ("", _OWN):
        raise RecipeError(f"{path} is Python code, which the family {_OWN} serves: leave out --family {family}.")
    found = own_file.look(path)
    return Recipe(
        name=path.stem,
        family=_OWN,
        source=path.name,
        folder=path.parent.resolve(),
        data=found.own_data,
        metrics=found.metrics or registry.find("families", _OWN).metrics,
        variants=((ORIGINAL, parse_chain(ORIGINAL)),),
        is_users_program=is_named,
    )


def _metrics(data: Mapping[str, Any], folder: Path, others: Sequence[str]) -> Sequence[str]:
    """Return the metrics that a Python file names itself; else the others."""
    path = folder / data["source"]
    return (own_file.look(path).metrics if data["family"] == _OWN and _is_code(path) else ()) or others


def _made(name: str, family: str) -> Recipe:
    """Make a recipe of a model that has none."""
    if family:
        registry.find("families", family)
    if "/" in name and (said := missing_files.missing(name)):  # else it may be ORG/NAME on the hub
        raise RecipeError(said)
    found = recognise(name, family)
    if found is None:
        if said := missing_files.missing(name) or missing_files.weights_alone(name):
            raise RecipeError(said)
        raise UnknownName("model", name, names())
    return Recipe(
        name=found.name,
        family=found.family,
        source=found.source,
        folder=Path.cwd(),
        metrics=registry.find("families", found.family).metrics,
        variants=((ORIGINAL, parse_chain(ORIGINAL)),),
    )


def find(name: str) -> Path | None:
    """Return the path of a recipe; None where there is none of that name.

    Raises:
        RecipeError: it is a path of a recipe, and there is no such file.
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
    """Make a path absolute where it is one that exists, since the worker runs elsewhere."""
    return str(Path(text).resolve()) if missing_files.exists(Path(text)) else text
