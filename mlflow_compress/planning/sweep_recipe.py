"""Sweep recipes: many models times methods, batch sizes and threads, less what is excluded.

    models: [digits_cnn, ./mine.yaml, dslim/bert-large-NER]   # what lies beside this file, else as on the command line
    methods: [original, int8_dynamic, {name: small, method: fp16}]    # left out: each model's own variants
    batch_size: [1, 4]                    # a number or several; left out: each recipe's own
    threads: [1, 2]                       # a number or several
    options: {tokens: [64, 128]}          # for the models whose family has such an option; one that none has is refused
    exclude:                              # each leaves out what matches all that it names; a list matches any of it
      - {model: dslim/*, method: "*int8*"} # names may have * ? [abc]
      - {batch_size: 4, threads: 1}
    requires: {min_ram_gb: 8}             # what a machine must have, see `requirements`

The command line wins: `--threads 1` takes the place of the grid's threads.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError, UnknownName
from mlflow_compress.plain_text import plain
from mlflow_compress.planning import chains, missing_files, recipe, recipe_parts, requirements
from mlflow_compress.planning.chains import Named
from mlflow_compress.planning.order import originals_first
from mlflow_compress.planning.recipe import Recipe, Settings
from mlflow_compress.records import Scalar, Variant, to_json
from mlflow_compress.untrusted_yaml import shown

_KEYS = ("models", "methods", "batch_size", "threads", "options", "exclude", "requires")
_MOST_EXCLUSIONS = 1000
_LONGEST_EXCLUSION = 200  # characters of one in a sentence
_NAMES, _NUMBERS = ("model", "method"), ("batch_size", "threads")  # what is excluded by


@dataclass(frozen=True)
class Grid:
    """A sweep recipe.

    Attributes:
        path: where it lies: what its models are called by may lie beside it.
        models: as they are written.
        methods: name and chain of each; empty: each model's own variants.
        batch_sizes, threads: empty: the recipes' own, and torch's choice.
        options: values of each option of the families.
        exclude: what each leaves out, by key.
        requires: what a machine must have, see `requirements`.
    """

    path: Path
    models: tuple[str, ...]
    methods: tuple[Named, ...] = ()
    batch_sizes: tuple[int, ...] = ()
    threads: tuple[int, ...] = ()
    options: Mapping[str, tuple[Scalar, ...]] = field(default_factory=dict)
    exclude: tuple[Mapping[str, tuple[Scalar, ...]], ...] = ()
    requires: Mapping[str, Scalar] = field(default_factory=dict)


def read(name: str) -> Grid | None:
    """Read a sweep recipe by its name or its path.

    Returns:
        None where there is none of that name, or it is a recipe of one model.

    Raises:
        UnknownName: a key, method or option in it is unknown.
        RecipeError: something in it is not what it should be.
    """
    path = recipe.find(name)
    if path is None or not recipe_parts.is_sweep(data := recipe_parts.load(path)):
        return None
    recipe_parts.require_known_keys(path, data, _KEYS)
    models = recipe_parts.listed(path, "models", data.get("models"))
    recipe_parts.require_few(len(models), str(path))
    for model in models:
        if not isinstance(model, str) or not model.strip():
            raise RecipeError(f"{path}: a model is a name or a path, not {shown(model)}.")
        recipe_parts.require_inside(path, "models", model)
    options = recipe_parts.mapping(path, "options", data.get("options"))
    return Grid(
        path=path,
        models=tuple(models),
        methods=chains.named_chains(path, "methods", data["methods"]) if "methods" in data else (),
        batch_sizes=_counts(path, "batch_size", data["batch_size"]) if "batch_size" in data else (),
        threads=_counts(path, "threads", data["threads"]) if "threads" in data else (),
        options={str(key): _scalars(path, f"options: {key}", value) for key, value in options.items()},
        exclude=tuple(
            _exclusion(path, each, options)
            for each in (_exclusions(path, data["exclude"]) if "exclude" in data else ())
        ),
        requires=requirements.check(recipe_parts.mapping(path, "requires", data.get("requires"))),
    )


def plan(names: Sequence[str], settings: Settings, family: str = "") -> list[Variant]:
    """Make the variants of recipes, of sweep recipes, and of models without one: each once, originals first.

    Args:
        names: as `recipe.read` takes them, or of sweep recipes.
        settings: of the command line.
        family: of models without a recipe.

    Raises:
        UnknownName, RecipeError: something is not right, see `recipe.plan`; an exclusion matches nothing, or nothing is
            left.
        WeightsError: what kind of model one is can't be found out.
    """
    found: list[Variant] = []
    for name in names:
        if (grid := read(name)) is None:
            model = recipe.read(name, family, is_named=True)
            found += recipe.plan(model, model.variants, settings)
        elif family:
            raise RecipeError(f"{grid.path} says which models it has: leave out --family.")
        else:
            found += _variants(grid, settings)
        recipe_parts.require_few(len(found), "The command")
    return originals_first(_once(found))


def _variants(grid: Grid, settings: Settings) -> list[Variant]:
    """Make the variants of a grid, with what the command line says instead."""
    recipe.require_said_trust(grid.path.stem, grid.options, settings)
    models = [(name, recipe.read(_beside(grid, name))) for name in grid.models]
    written = dataclasses.replace(
        settings,
        batch_sizes=grid.batch_sizes,
        threads=grid.threads,
        options=grid.options,
        requires={**grid.requires, **settings.requires},
    )
    asked = dataclasses.replace(
        written,
        batch_sizes=settings.batch_sizes or grid.batch_sizes,
        threads=settings.threads or grid.threads,
        options={**grid.options, **settings.options},
    )
    points = _points(grid, models, written)
    told = [(variant, _known_by(name, variant)) for name, variant in points]
    for number, exclusion in enumerate(grid.exclude, 1):
        if not any(_matches(exclusion, known) for _, known in told):
            raise RecipeError(f"{grid.path}: number {number} of exclude, {_told(exclusion)}, matches nothing.")
    if asked != written:
        told = [(variant, _known_by(name, variant)) for name, variant in _points(grid, models, asked)]
    left = [variant for variant, known in told if not any(_matches(exclusion, known) for exclusion in grid.exclude)]
    if not left:
        raise RecipeError(f"{grid.path}: nothing is left to measure, exclude matches all of the {len(told)} variants.")
    return left


def _points(grid: Grid, models: Sequence[tuple[str, Recipe]], settings: Settings) -> list[tuple[str, Variant]]:
    """Make all variants of a grid, with the name that it has for their model."""
    known = {found.family: {each.name for each in dataclasses.fields(_family(found))} for _, found in models}
    for option in settings.options:
        if not any(option in names for names in known.values()):
            raise UnknownName(f"option of {' or '.join(known)}", option, set().union(*known.values()))
    points = []
    for name, found in models:
        options = {key: values for key, values in settings.options.items() if key in known[found.family]}
        own = dataclasses.replace(settings, options=options)
        points += [(name, variant) for variant in recipe.plan(found, grid.methods or found.variants, own)]
        recipe_parts.require_few(len(points), str(grid.path))
    return points


def _family(found: Recipe) -> type[Any]:
    return registry.find("families", found.family)


def _beside(grid: Grid, name: str) -> str:
    """Return the path of what a grid's model names, where that lies beside the grid; else the name as it is."""
    folder = grid.path.parent
    if name.endswith((".yaml", ".yml")):
        return str(folder / name)
    for path in (folder / f"{name}.yaml", folder / name):
        if missing_files.exists(path):
            return str(path)
    return name


def _known_by(name: str, variant: Variant) -> Mapping[str, tuple[str, ...]]:
    """Return what a variant is excluded by, as text by key.

    Args:
        name: what the grid calls the variant's model.
        variant: it.
    """
    return {
        **{key: (str(value),) for key, value in variant.options.items()},
        "model": (name, variant.model),
        "method": (variant.method, chains.chain_name(variant.chain)),
        "batch_size": (str(variant.batch_size),),
        "threads": (str(variant.threads),),
    }


def _matches(exclusion: Mapping[str, Sequence[Scalar]], known: Mapping[str, tuple[str, ...]]) -> bool:
    """Return whether all that an exclusion names is so of a variant, as `_known_by` gives it."""
    return all(
        any(_alike(key, one, str(other)) for one in known.get(key, ()) for other in values)
        for key, values in exclusion.items()
    )


def _alike(key: str, value: str, pattern: str) -> bool:
    return fnmatchcase(value, pattern) if key in _NAMES else value == pattern


def _once(variants: Iterable[Variant]) -> list[Variant]:
    """Leave out what is there already; what a variant requires makes it no other."""
    found: dict[str, Variant] = {}
    for variant in variants:
        found.setdefault(json.dumps({**to_json(variant), "requires": {}}, sort_keys=True, default=str), variant)
    return list(found.values())


def _exclusions(path: Path, data: Any) -> Sequence[Any]:
    exclusions = recipe_parts.listed(path, "exclude", data)
    if len(exclusions) > _MOST_EXCLUSIONS:
        raise RecipeError(
            f"{path}: exclude holds {len(exclusions):,} entries, more than the {_MOST_EXCLUSIONS:,} of one recipe: a "
            "list as a value, as in {batch_size: [1, 2, 4]}, matches any of it."
        )
    return exclusions


def _exclusion(path: Path, data: Any, options: Mapping[str, Any]) -> Mapping[str, tuple[Scalar, ...]]:
    if not isinstance(data, Mapping) or not data:
        raise RecipeError(
            f"{path}: each of exclude must name what to leave out, as in {{method: fp16}}, not {shown(data)}."
        )
    known = (*_NAMES, *_NUMBERS, *map(str, options))
    for key in data:
        if key not in known:
            raise UnknownName(f"key in exclude of {path.name}", str(key), known)
    read = {key: _counts if key in _NUMBERS else _scalars for key in data}
    return {str(key): read[key](path, f"exclude: {key}", value) for key, value in data.items()}


def _counts(path: Path, what: str, data: Any) -> tuple[int, ...]:
    numbers = data if isinstance(data, (list, tuple)) else (data,)
    if not numbers or any(type(each) is not int or each < 1 for each in numbers):
        raise RecipeError(f"{path}: {what} must be a whole number from 1, or a list of such, not {shown(data)}.")
    return tuple(dict.fromkeys(numbers))


def _scalars(path: Path, what: str, data: Any) -> tuple[Scalar, ...]:
    values = data if isinstance(data, (list, tuple)) else (data,)
    if not values or any(not isinstance(each, (str, int, float)) for each in values):
        raise RecipeError(f"{path}: {what} must be a value, or a list of values, not {shown(data)}.")
    return tuple(values)


def _told(exclusion: Mapping[str, Sequence[Scalar]]) -> str:
    parts = (f"{key}: {', '.join(map(str, values))}" for key, values in exclusion.items())
    return plain("{" + "; ".join(parts) + "}", _LONGEST_EXCLUSION)
