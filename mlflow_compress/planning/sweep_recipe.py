"""Sweep recipes: several models times methods, batch sizes and threads, minus exclusions.

    models: [digits_cnn, ./mine.yaml, dslim/bert-large-NER]   # files beside this one, else as on the command line
    methods: [original, int8_dynamic, {name: small, method: fp16}]    # left out: the variants of each model's recipe
    batch_size: [1, 4]                    # one number or several; left out: that of each recipe
    threads: [1, 2]                       # one number or several
    options: {tokens: [64, 128]}          # for models whose family has the option; at least one family must have it
    exclude:                              # an entry excludes variants that match all its keys; a list matches any value
      - {model: dslim/*, method: "*int8*"} # names may contain * ? [abc]
      - {batch_size: 4, threads: 1}
    requires: {min_ram_gb: 8}             # what a machine must have, see `requirements`

The command line has priority: `--threads 1` replaces the grid's threads.
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
from mlflow_compress.records import Scalar, Variant
from mlflow_compress.untrusted_yaml import shown

_KEYS = ("models", "methods", "batch_size", "threads", "options", "exclude", "requires")
_MOST_EXCLUSIONS = 1000
_LONGEST_EXCLUSION = 200  # characters in a message
_NAMES, _NUMBERS = ("model", "method"), ("batch_size", "threads")  # keys of exclusions


@dataclass(frozen=True)
class Grid:
    """A sweep recipe.

    Attributes:
        path: its path; the recipes of its models may lie beside it.
        models: names of the models, as written.
        methods: name and chain of each; empty: the variants of each model's recipe.
        batch_sizes, threads: empty: those of the recipes, and torch's choice.
        options: values of each option of the families.
        exclude: the exclusions, each a mapping from key to values.
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
        None if no recipe has that name, or it is a recipe of one model.

    Raises:
        UnknownName: a key, method or option in it is unknown.
        RecipeError: something in it is not valid.
    """
    path = recipe.find(name)
    if path is None or not recipe_parts.is_sweep(data := recipe_parts.load(path)):
        return None
    recipe_parts.require_known_keys(path, data, _KEYS)
    models = recipe_parts.listed(path, "models", data.get("models"))
    recipe_parts.require_few(len(models), str(path))
    for model in models:
        if not isinstance(model, str) or not model.strip():
            raise RecipeError(f"{path}: a model must be a name or a path, not {shown(model)}.")
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
            _exclusion(path, entry, options)
            for entry in (_exclusions(path, data["exclude"]) if "exclude" in data else ())
        ),
        requires=requirements.check(recipe_parts.mapping(path, "requires", data.get("requires"))),
    )


def plan(names: Sequence[str], settings: Settings, family: str = "") -> list[Variant]:
    """Create the variants of recipes, sweep recipes, and models without a recipe: each once, originals first.

    Args:
        names: names as `recipe.read` takes them, or names of sweep recipes.
        settings: settings from the command line.
        family: family of models without a recipe.

    Raises:
        UnknownName, RecipeError: something is not valid, see `recipe.plan`; an exclusion matches nothing, or nothing is
            left.
        WeightsError: the kind of a model can't be determined.
    """
    variants: list[Variant] = []
    for name in names:
        if (grid := read(name)) is None:
            model = recipe.read(name, family, is_named=True)
            variants += recipe.plan(model, model.variants, settings)
        elif family:
            raise RecipeError(f"{grid.path} already states its models: leave out --family.")
        else:
            variants += _variants(grid, settings)
        recipe_parts.require_few(len(variants), "The command")
    return originals_first(_once(variants))


def _variants(grid: Grid, settings: Settings) -> list[Variant]:
    """Create the variants of a grid; values from the command line replace the grid's."""
    recipe.require_users_trust(grid.path.stem, grid.options, settings)
    models = [(name, recipe.read(_beside(grid, name))) for name in grid.models]
    defaults = dataclasses.replace(
        settings,
        batch_sizes=grid.batch_sizes,
        threads=grid.threads,
        options=grid.options,
        requires={**grid.requires, **settings.requires},
    )
    requested = dataclasses.replace(
        defaults,
        batch_sizes=settings.batch_sizes or grid.batch_sizes,
        threads=settings.threads or grid.threads,
        options={**grid.options, **settings.options},
    )
    keyed = [(variant, _exclusion_keys(name, variant)) for name, variant in _points(grid, models, defaults)]
    for number, exclusion in enumerate(grid.exclude, 1):
        if not any(_matches(exclusion, keys) for _, keys in keyed):
            raise RecipeError(f"{grid.path}: entry {number} of exclude, {_shown(exclusion)}, matches nothing.")
    if requested != defaults:
        keyed = [(variant, _exclusion_keys(name, variant)) for name, variant in _points(grid, models, requested)]
    left = [variant for variant, keys in keyed if not any(_matches(exclusion, keys) for exclusion in grid.exclude)]
    if not left:
        raise RecipeError(f"{grid.path}: nothing is left to measure: exclude matches all {len(keyed)} variants.")
    return left


def _points(grid: Grid, models: Sequence[tuple[str, Recipe]], settings: Settings) -> list[tuple[str, Variant]]:
    """Create all variants of a grid, each with the grid's name of its model."""
    options_of = {model.family: {option.name for option in dataclasses.fields(_family(model))} for _, model in models}
    for option in settings.options:
        if not any(option in names for names in options_of.values()):
            raise UnknownName(f"option of {' or '.join(options_of)}", option, set().union(*options_of.values()))
    points = []
    for name, model in models:
        options = {key: values for key, values in settings.options.items() if key in options_of[model.family]}
        of_model = dataclasses.replace(settings, options=options)
        points += [(name, variant) for variant in recipe.plan(model, grid.methods or model.variants, of_model)]
        recipe_parts.require_few(len(points), str(grid.path))
    return points


def _family(model: Recipe) -> type[Any]:
    return registry.find("families", model.family)


def _beside(grid: Grid, name: str) -> str:
    """Return the path of a grid's model if it lies beside the grid; else its name."""
    folder = grid.path.parent
    if name.endswith((".yaml", ".yml")):
        return str(folder / name)
    for path in (folder / f"{name}.yaml", folder / name):
        if missing_files.exists(path):
            return str(path)
    return name


def _exclusion_keys(name: str, variant: Variant) -> Mapping[str, tuple[str, ...]]:
    """Return the values of a variant that exclusions match, as text by key.

    Args:
        name: the grid's name of the variant's model.
        variant: the variant.
    """
    return {
        **{key: (str(value),) for key, value in variant.options.items()},
        "model": (name, variant.model),
        "method": (variant.method, chains.chain_name(variant.chain)),
        "batch_size": (str(variant.batch_size),),
        "threads": (str(variant.threads),),
    }


def _matches(exclusion: Mapping[str, Sequence[Scalar]], keys: Mapping[str, tuple[str, ...]]) -> bool:
    """Return whether a variant, described by `_exclusion_keys`, matches all keys of an exclusion."""
    return all(
        any(_alike(key, value, str(pattern)) for value in keys.get(key, ()) for pattern in patterns)
        for key, patterns in exclusion.items()
    )


def _alike(key: str, value: str, pattern: str) -> bool:
    return fnmatchcase(value, pattern) if key in _NAMES else value == pattern


def _once(variants: Iterable[Variant]) -> list[Variant]:
    """Remove duplicates; variants that differ only in their requirements are duplicates."""
    unique: dict[str, Variant] = {}
    for variant in variants:
        unique.setdefault(json.dumps({**vars(variant), "requires": {}}, sort_keys=True, default=_plain), variant)
    return list(unique.values())


def _plain(part: Any) -> Any:
    return vars(part) if dataclasses.is_dataclass(part) else str(part)


def _exclusions(path: Path, data: Any) -> Sequence[Any]:
    exclusions = recipe_parts.listed(path, "exclude", data)
    if len(exclusions) > _MOST_EXCLUSIONS:
        raise RecipeError(
            f"{path}: exclude has {len(exclusions):,} entries, and a recipe can have {_MOST_EXCLUSIONS:,}. Use lists: "
            "{batch_size: [1, 2, 4]} matches any of these values."
        )
    return exclusions


def _exclusion(path: Path, data: Any, options: Mapping[str, Any]) -> Mapping[str, tuple[Scalar, ...]]:
    if not isinstance(data, Mapping) or not data:
        raise RecipeError(
            f"{path}: each entry of exclude must name what to exclude, as in {{method: fp16}}, not {shown(data)}."
        )
    valid_keys = (*_NAMES, *_NUMBERS, *map(str, options))
    for key in data:
        if key not in valid_keys:
            raise UnknownName(f"key in exclude of {path.name}", str(key), valid_keys)
    readers = {key: _counts if key in _NUMBERS else _scalars for key in data}
    return {str(key): readers[key](path, f"exclude: {key}", value) for key, value in data.items()}


def _counts(path: Path, field: str, data: Any) -> tuple[int, ...]:
    numbers = data if isinstance(data, (list, tuple)) else (data,)
    if not numbers or any(type(number) is not int or number < 1 for number in numbers):
        raise RecipeError(
            f"{path}: {field} must be a whole number of at least 1, or a list of such numbers, not {shown(data)}."
        )
    return tuple(dict.fromkeys(numbers))


def _scalars(path: Path, field: str, data: Any) -> tuple[Scalar, ...]:
    values = data if isinstance(data, (list, tuple)) else (data,)
    if not values or any(not isinstance(value, (str, int, float)) for value in values):
        raise RecipeError(f"{path}: {field} must be a value or a list of values, not {shown(data)}.")
    return tuple(values)


def _shown(exclusion: Mapping[str, Sequence[Scalar]]) -> str:
    parts = (f"{key}: {', '.join(map(str, values))}" for key, values in exclusion.items())
    return plain("{" + "; ".join(parts) + "}", _LONGEST_EXCLUSION)
