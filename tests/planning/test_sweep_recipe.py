"""Sweep recipes: the plan matches them, and invalid ones are rejected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_compress.errors import RecipeError, UnknownName
from mlflow_compress.planning import catalogue, recipe, sweep_recipe
from mlflow_compress.planning.recipe import Settings
from mlflow_compress.records import Variant, to_json

TRUST = Settings(trust=True)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two custom models, for a sweep recipe beside them."""
    path = tmp_path_factory.mktemp("sweeps")
    (path / "model.py").write_text("def model(): ...")
    for name, fields in (("mine", {}), ("yours", {"batch_size": 8, "variants": ["fp16", "original"]})):
        (path / f"{name}.yaml").write_text(yaml.safe_dump({"family": "python", "source": "model.py", **fields}))
    return path


def sweep(folder: Path, **content: Any) -> str:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({"models": ["mine", "yours"], **content}), encoding="utf-8")
    return str(path)


def planned(folder: Path, settings: Settings = TRUST, **content: Any) -> list[str]:
    return [f"{variant.model} {variant.label}" for variant in sweep_recipe.plan([sweep(folder, **content)], settings)]


def test_without_methods_each_model_has_its_own_variants_and_its_own_batch_size(folder: Path) -> None:
    assert planned(folder) == ["mine original", "yours original [batch 8]", "yours fp16 [batch 8]"]


def test_a_grid_is_the_product_minus_exclusions(folder: Path) -> None:
    plan = planned(
        folder,
        methods=["original", {"name": "small", "method": "prune_magnitude:amount=0.5+int8_dynamic"}],
        batch_size=[1, 4],
        threads=[1, 2],
        exclude=[
            {"model": "your*", "method": ["small", "fp16"]},
            {"batch_size": 4, "threads": 1},
            {"method": "*+int8_dynamic", "threads": 2},
        ],
    )
    assert plan == [
        "mine original [threads=1]",
        "mine small [threads=1]",
        "mine original [threads=2]",
        "mine original [batch 4, threads=2]",
        "yours original [threads=1]",
        "yours original [threads=2]",
        "yours original [batch 4, threads=2]",
    ]


def test_options_go_to_the_models_whose_family_has_them(folder: Path) -> None:
    content: dict[str, Any] = {
        "models": ["mine", "distilbert"],
        "methods": ["original"],
        "options": {"tokens": [64, 128]},
    }
    assert planned(folder, **content) == [
        "mine original",
        "distilbert original [tokens=64]",
        "distilbert original [tokens=128]",
    ]
    assert planned(folder, **content, exclude=[{"tokens": 64}])[1:] == ["distilbert original [tokens=128]"]
    requested = Settings(trust=True, options={"tokens": ["32"]})
    assert planned(folder, requested, **content) == ["mine original", "distilbert original [tokens=32]"]
    with pytest.raises(UnknownName, match="Did you mean 'tokens'"):
        planned(folder, **{**content, "options": {"token": 64}})


def test_the_command_line_has_priority_and_exclusions_are_checked_against_the_recipe(folder: Path) -> None:
    content: dict[str, Any] = {
        "methods": ["original"],
        "batch_size": [1, 4],
        "threads": [1, 2],
        "exclude": [{"batch_size": 4, "threads": 1}, {"model": "yours"}],
        "requires": {"min_ram_gb": 8, "gpu": "none"},
    }
    requested = Settings(trust=True, batch_sizes=(4, 16), threads=(2,), requires={"gpu": "any"})
    assert planned(folder, requested, **content) == ["mine original [batch 4]", "mine original [batch 16]"]
    for variant in sweep_recipe.plan([sweep(folder, **content)], requested):
        assert (variant.threads, variant.requires) == (2, {"min_ram_gb": 8, "gpu": "any"})
    with pytest.raises(RecipeError, match="nothing is left"):
        planned(folder, Settings(trust=True, batch_sizes=(4,), threads=(1,)), **content)


def test_what_is_named_twice_is_measured_once(folder: Path) -> None:
    assert planned(folder, models=["mine", "./mine.yaml", "mine"], methods=["fp16", "fp16"]) == ["mine fp16"]
    variants = sweep_recipe.plan(
        [sweep(folder), str(folder / "mine.yaml"), sweep(folder, requires={"os": "linux"})], TRUST
    )
    assert len(variants) == 3


def test_originals_come_first(folder: Path) -> None:
    plan = planned(folder, models=["mine"], methods=["fp16", "original"], batch_size=[1, 4])
    assert plan == ["mine original", "mine fp16", "mine original [batch 4]", "mine fp16 [batch 4]"]
    plain = sweep_recipe.plan([str(folder / "yours.yaml")], TRUST)
    assert [variant.method for variant in plain] == ["original", "fp16"]


@pytest.mark.full
def test_models_lie_beside_the_recipe_or_are_found_as_usual(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("family: nonsense")
    plan = sweep_recipe.plan(
        [sweep(folder, models=["mine", str(folder / "yours.yaml"), "distilbert", "yolo11s"])], TRUST
    )
    assert dict.fromkeys(variant.model for variant in plan) == dict.fromkeys(["mine", "yours", "distilbert", "yolo11s"])
    with pytest.raises(RecipeError, match="no recipe"):
        planned(folder, models=["./theirs.yaml"])
    with pytest.raises(UnknownName, match="distilbrt"):
        planned(folder, models=["distilbrt"])


def test_a_local_model_without_a_recipe_lies_beside_the_recipe(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "tuned").mkdir()
    config = {"architectures": ["DistilBertForSequenceClassification"], "model_type": "distilbert"}
    (folder / "tuned" / "config.json").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    (variant,) = sweep_recipe.plan([sweep(folder, models=["./tuned"])], TRUST)
    assert (variant.model, variant.source) == ("tuned", str(folder / "tuned"))


@pytest.mark.parametrize(
    ("change", "nearest"),
    [
        ({"method": ["fp16"]}, "methods"),
        ({"batch": 4}, "batch_size"),
        ({"family": "yolo"}, None),
        ({"methods": ["fp61"]}, "fp16"),
        ({"exclude": [{"models": "mine"}]}, "model"),
        ({"exclude": [{"tokens": 64}]}, None),  # not an option of this grid
        ({"requires": {"min_ram": 4}}, "min_ram_gb"),
        ({"options": {"functoin": "f"}}, "function"),
    ],
    ids=str,
)
def test_an_unknown_name_is_reported_with_the_nearest(
    folder: Path, change: dict[str, Any], nearest: str | None
) -> None:
    with pytest.raises(UnknownName) as raised:
        planned(folder, **change)
    assert raised.value.nearest == nearest


@pytest.mark.full
def test_a_grid_without_models_is_recognised_as_a_grid(folder: Path) -> None:
    path = folder / "forgot.yaml"
    path.write_text("model: [mine]\nmethods: [fp16]\n")
    with pytest.raises(UnknownName, match="Did you mean 'models'"):
        sweep_recipe.plan([str(path)], TRUST)
    path.write_text("methods: [fp16]\n")
    with pytest.raises(RecipeError, match="models must be a non-empty list"):
        sweep_recipe.plan([str(path)], TRUST)


@pytest.mark.parametrize(
    "change",
    [
        {"models": []},
        {"models": "mine"},
        {"models": None},
        {"models": [3]},
        {"models": [" "]},
        {"models": ["../mine"]},
        {"models": ["./a/../../mine.yaml"]},
        {"models": ["sweep"]},  # itself
        {"methods": []},
        {"methods": None},
        {"methods": "fp16"},
        {"batch_size": 0},
        {"batch_size": []},
        {"batch_size": [True]},
        {"batch_size": "4"},
        {"threads": [1, 0]},
        {"threads": None},
        {"options": ["tokens"]},
        {"options": {"function": []}},
        {"options": {"function": [["a"]]}},
        {"exclude": {"model": "mine"}},
        {"exclude": []},
        {"exclude": ["mine"]},
        {"exclude": [{}]},
        {"exclude": [{"model": None}]},
        {"exclude": [{"model": []}]},
        {"exclude": [{"threads": "1"}]},
        {"exclude": [{"model": "mien"}]},
        {"exclude": [{"method": "fp16", "model": "mine"}]},  # only `yours` has it
        {"exclude": [{"model": "*"}]},
        {"requires": "gpu"},
    ],
    ids=str,
)
def test_invalid_values_are_rejected(folder: Path, change: dict[str, Any]) -> None:
    with pytest.raises(RecipeError) as raised:
        planned(folder, **change)
    assert "sweep.yaml" in str(raised.value)


def test_an_exclusion_that_matches_nothing_is_named(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"entry 2 of exclude, \{model: mien, yuors; threads: 1\}, matches nothing"):
        planned(folder, threads=1, exclude=[{"model": "yours"}, {"model": ["mien", "yuors"], "threads": 1}])


def test_a_family_is_for_models_without_a_recipe(folder: Path) -> None:
    with pytest.raises(RecipeError, match="leave out --family"):
        sweep_recipe.plan([sweep(folder)], TRUST, "yolo")


def test_code_of_a_grids_models_is_run_only_when_trusted(folder: Path) -> None:
    with pytest.raises(RecipeError, match="--trust"):
        sweep_recipe.plan([sweep(folder)], Settings())


def test_a_recipe_of_one_model_is_not_a_grid(folder: Path) -> None:
    assert sweep_recipe.read(str(folder / "mine.yaml")) is None
    assert sweep_recipe.read("distilbert") is None
    assert sweep_recipe.read("dslim/bert-large-NER") is None


def test_models_are_listed_with_the_sweeps_over_them() -> None:
    (row,) = [row for row in catalogue.rows("models") if row["name"] == "hw1"]
    assert row == {"name": "hw1", "family": "(sweep)", "source": "digits_cnn, distilbert"}
    assert "digits_cnn, distilbert" in "\n".join(catalogue.text([row]))


METHODS = ("original", "fp16", "int8_dynamic", "prune_magnitude:amount=0.5")
counts = st.lists(st.integers(1, 4), min_size=1, max_size=3, unique=True)


def some(names: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(names), min_size=1, max_size=len(names), unique=True)


exclusions = st.fixed_dictionaries(
    {},
    optional={
        "model": st.sampled_from(["mine", "y*", "?ours"]) | some(("mine", "yours")),
        "method": st.sampled_from(["original", "*8*", "prune*"]) | some(METHODS),
        "batch_size": counts,
        "threads": st.integers(1, 4),
    },
).filter(bool)


@settings(max_examples=60, deadline=None)
@given(some(("mine", "yours")), some(METHODS), counts, counts, st.lists(exclusions, max_size=3))
def test_a_plan_is_the_product_minus_the_exclusions(
    folder: Path, models: list[str], methods: list[str], batch_size: list[int], threads: list[int], exclude: list[Any]
) -> None:
    content = {"models": models, "methods": methods, "batch_size": batch_size, "threads": threads}
    all_variants = sweep_recipe.plan([sweep(folder, **content)], TRUST)
    expected = {(a, b, c, d) for a in models for b in methods for c in batch_size for d in threads}
    assert {point(candidate) for candidate in all_variants} == expected
    assert len(all_variants) == len(expected)
    excluded = {candidate: [rule for rule in exclude if holds(rule, candidate)] for candidate in expected}
    left = {candidate for candidate, rules in excluded.items() if not rules}
    useless = [rule for rule in exclude if not any(rule in rules for rules in excluded.values())]
    path = sweep(folder, **content, **({"exclude": exclude} if exclude else {}))
    if useless or not left:
        with pytest.raises(RecipeError, match="matches"):
            sweep_recipe.plan([path], TRUST)
        return
    plan = sweep_recipe.plan([path], TRUST)
    assert {point(candidate) for candidate in plan} == left
    remaining = [to_json(candidate) for candidate in all_variants if point(candidate) in left]
    assert sorted(map(repr, remaining)) == sorted(repr(to_json(planned)) for planned in plan)


def point(variant: Variant) -> tuple[str, str, int, int]:
    assert variant.threads is not None
    return variant.model, variant.method, variant.batch_size, variant.threads


def holds(rule: dict[str, Any], point: tuple[str, str, int, int]) -> bool:
    """Return whether an exclusion matches, implemented independently."""
    stars = {"y*": ("yours",), "?ours": ("yours",), "*8*": METHODS[2:3], "prune*": METHODS[3:]}
    for key, value in zip(("model", "method", "batch_size", "threads"), point, strict=True):
        if key in rule:
            requested = rule[key] if isinstance(rule[key], list) else [rule[key]]
            if value not in [expanded for name in requested for expanded in stars.get(name, (name,))]:
                return False
    return True


def test_the_shipped_sweep_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert "hw1" in recipe.names()
    by_name = sweep_recipe.plan(["hw1"], Settings())
    assert {variant.threads for variant in by_name} == {1}
    assert len(by_name) == len({(variant.model, variant.label) for variant in by_name}) == 29


def test_too_many_variants_are_counted_but_not_created(tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text("")
    (tmp_path / "small.yaml").write_text("family: python\nsource: small.py\nvariants: [original, fp16]\n")
    numbers = list(range(1, 101))
    (tmp_path / "grid.yaml").write_text(f"models: [small.yaml]\nbatch_size: {numbers}\nthreads: {numbers}\n")
    with pytest.raises(RecipeError, match=r"^small requests 20,000 variants, and one command measures at most 10,000:"):
        sweep_recipe.plan([str(tmp_path / "grid.yaml")], Settings(trust=True))
    grid = Settings(trust=True, options={"function": [str(number) for number in range(10**6)]})
    with pytest.raises(RecipeError, match=r"^small requests 2,000,000 variants"):
        sweep_recipe.plan([str(tmp_path / "small.yaml")], grid)
    (tmp_path / "grid.yaml").write_text(f"models: [small.yaml]\nbatch_size: {numbers}\nthreads: {numbers[:50]}\n")
    assert len(sweep_recipe.plan([str(tmp_path / "grid.yaml")], Settings(trust=True))) == 10_000


def test_several_recipes_of_one_command_are_counted_together(tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text("")
    (tmp_path / "small.yaml").write_text("family: python\nsource: small.py\nvariants: [original, fp16]\n")
    settings = Settings(trust=True, batch_sizes=tuple(range(1, 2501)))
    with pytest.raises(RecipeError, match=r"^The command requests 15,000 variants, and one command"):
        sweep_recipe.plan([str(tmp_path / "small.yaml")] * 3, settings)
    (tmp_path / "grid.yaml").write_text("models: [small.yaml, small.yaml, small.yaml]\n")
    with pytest.raises(RecipeError, match=r"requests 15,000 variants, and one command"):
        sweep_recipe.plan([str(tmp_path / "grid.yaml")], settings)


def test_the_number_of_exclusions_is_limited(tmp_path: Path) -> None:
    excluded = ", ".join(f"{{batch_size: {number}}}" for number in range(1, 1002))
    (tmp_path / "grid.yaml").write_text(f"models: [small.yaml]\nexclude: [{excluded}]\n")
    with pytest.raises(RecipeError, match="exclude has 1,001 entries, and a recipe can have 1,000"):
        sweep_recipe.plan([str(tmp_path / "grid.yaml")], Settings())
