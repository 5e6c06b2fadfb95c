from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_compress.errors import CompressError, RecipeError, UnknownName, WeightsError
from mlflow_compress.networks import hub
from mlflow_compress.planning import recipe
from mlflow_compress.planning.chains import parse_chain
from mlflow_compress.planning.recipe import Recipe, Settings, plan
from mlflow_compress.records import Budget, Step

GOOD = {"family": "python", "source": "model.py"}


def write(folder: Path, content: Any, name: str = "mine.yaml") -> str:
    text = content if isinstance(content, str) else yaml.safe_dump(content)
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_a_recipe_has_defaults(tmp_path: Path) -> None:
    assert recipe.read(write(tmp_path, GOOD)) == Recipe(
        name="mine",
        family="python",
        source="model.py",
        folder=tmp_path,
        metrics=("accuracy",),
        variants=(("original", (Step("original"),)),),
    )


def test_a_recipe_with_all_keys(tmp_path: Path) -> None:
    text = """
family: python
source: model.py
options: {function: net}
data: own
metrics: [cer, wer]
batch_size: 4
variants:
  - fp16
  - {name: "small | <b>", method: "prune_magnitude:amount=0.5 + fp16"}
"""
    model_recipe = recipe.read(write(tmp_path, text))
    assert model_recipe.options == {"function": "net"}
    assert (model_recipe.data, model_recipe.metrics, model_recipe.batch_size) == ("own", ("cer", "wer"), 4)
    assert [name for name, _ in model_recipe.variants] == ["fp16", "small | <b>"]
    assert model_recipe.variants[1][1] == (Step("prune_magnitude", {"amount": 0.5}), Step("fp16"))


@pytest.mark.parametrize("missing", ["family", "source"])
def test_a_missing_key_is_named(tmp_path: Path, missing: str) -> None:
    content = {key: value for key, value in GOOD.items() if key != missing}
    with pytest.raises(RecipeError, match=missing):
        recipe.read(write(tmp_path, content))


@pytest.mark.parametrize(
    ("change", "nearest"),
    [
        ({"metric": ["wer"]}, "metrics"),
        ({"famly": "yolo"}, "family"),
        ({1: 2}, None),
        ({None: 2}, None),
        ({"family": "pyton"}, "python"),
        ({"metrics": ["acuracy"]}, "accuracy"),
        ({"options": {"functoin": "f"}}, "function"),
        ({"options": {1: "f"}}, None),
        ({"variants": ["fp61"]}, "fp16"),
        ({"requires": {"min_ram": 64}}, "min_ram_gb"),
        ({"exclude": []}, None),
    ],
)
def test_an_unknown_name_is_reported_with_the_nearest(
    tmp_path: Path, change: dict[Any, Any], nearest: str | None
) -> None:
    with pytest.raises(UnknownName) as raised:
        recipe.read(write(tmp_path, {**GOOD, **change}))
    assert raised.value.nearest == nearest


@pytest.mark.parametrize(
    "change",
    [
        {"family": 3},
        {"family": ["python"]},
        {"source": None},
        {"options": ["function"]},
        {"options": "function"},
        {"metrics": "accuracy"},
        {"metrics": None},
        {"metrics": [["accuracy"]]},
        {"metrics": [1]},
        {"data": 3},
        {"data": ["own"]},
        {"batch_size": 0},
        {"batch_size": -1},
        {"batch_size": True},
        {"batch_size": 1.5},
        {"batch_size": "2"},
        {"requires": "gpu"},
        {"variants": "original"},
        {"variants": None},
        {"variants": []},
        {"variants": {"fp16": "fp16"}},
        {"variants": [3]},
        {"variants": [None]},
        {"variants": [{"name": "x"}]},
        {"variants": [{"name": "x", "method": "fp16", "more": 1}]},
    ],
)
def test_invalid_values_are_rejected(tmp_path: Path, change: dict[str, Any]) -> None:
    path = write(tmp_path, {**GOOD, **change})
    with pytest.raises(RecipeError) as raised:
        recipe.read(path)
    assert not isinstance(raised.value, UnknownName)
    assert path in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "family: [",
        "a: b: c",
        "\tfamily: python",
        "- family",
        "just a text",
        "42",
        "!!python/object/apply:os.system ['true']",
        "family: 2020-13-45",
        "family: python\nsource: &a [*a]",
        "{[a, b]: c}",
        "\x00",
    ],
)
def test_invalid_recipes_are_rejected(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(RecipeError) as raised:
        recipe.read(path)
    assert path in str(raised.value)


def test_an_empty_file_has_no_family(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="family is missing"):
        recipe.read(write(tmp_path, "# nothing\n"))


def test_what_is_not_utf8_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes("family: модель".encode("cp1251"))
    with pytest.raises(RecipeError, match="can't be read as YAML"):
        recipe.read(str(path))


@pytest.mark.parametrize("name", ["nowhere.yaml", "nowhere/at/all.yml", f"{'x' * 300}.yaml", "\0.yaml"])
def test_a_path_without_a_recipe_is_rejected(name: str) -> None:
    with pytest.raises(RecipeError, match="no recipe"):
        recipe.read(name)


def test_a_folder_is_not_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").mkdir()
    with pytest.raises(RecipeError, match="can't be read"):
        recipe.read(str(tmp_path / "mine.yaml"))


@pytest.mark.full
@settings(max_examples=60, deadline=None)
@given(st.text(max_size=20))
def test_a_hostile_name_is_an_unknown_model(name: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub, "unreachable", lambda: "there is no network")
        if name not in recipe.names():
            with pytest.raises((RecipeError, WeightsError)):  # WeightsError for `org/name`
                recipe.read(name)


@pytest.mark.full
def test_an_unknown_model_is_reported_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'distilbert'"):
        recipe.read("distilbrt")


def test_a_recipe_beside_the_user_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes").mkdir()
    write(tmp_path / "recipes", GOOD, "distilbert.yaml")
    monkeypatch.chdir(tmp_path)
    model_recipe = recipe.read("distilbert")
    assert (model_recipe.family, model_recipe.folder) == ("python", tmp_path / "recipes")
    assert recipe.read("bert_base").family == "text_classification"
    assert recipe.names().count("distilbert") == 1


def test_a_plan_uses_the_recipe_without_settings(tmp_path: Path) -> None:
    model_recipe = recipe.read(
        write(tmp_path, {**GOOD, "data": "own", "batch_size": 3, "options": {"function": "net"}})
    )
    (variant,) = plan(model_recipe, model_recipe.variants, Settings())
    assert (variant.model, variant.method, variant.team) == ("mine", "original", "none")
    assert (variant.data, variant.batch_size, variant.weights) == ("own", 3, "auto")
    assert (variant.options, variant.metrics, variant.folder) == ({"function": "net"}, ("accuracy",), str(tmp_path))
    assert (variant.devices, variant.threads, variant.limit, variant.budget) == (("cpu",), None, None, Budget())


def test_settings_override_the_recipe(tmp_path: Path) -> None:
    model_recipe = recipe.read(
        write(tmp_path, {**GOOD, "data": "own", "batch_size": 3, "options": {"function": "net"}})
    )
    budget = Budget(min_iterations=7)
    chains = [("a", parse_chain("fp16")), ("b", parse_chain("bf16+prune_magnitude:amount=0.1"))]
    settings = Settings("alpha", ("cuda",), "random", "none", (8,), (2,), 9, 10, {"function": ["other"]}, budget)
    a, b = plan(model_recipe, chains, settings)
    assert (a.method, b.method, b.chain) == ("a", "b", chains[1][1])
    assert (a.team, a.devices, a.weights, a.data) == ("alpha", ("cuda",), "random", None)
    assert (a.batch_size, a.threads, a.seed, a.limit, a.budget) == (8, 2, 9, 10, budget)
    assert a.options == {"function": "other"}
    assert a.setting == "function=other"


def test_a_plan_has_a_variant_for_each_batch_size_and_setting(tmp_path: Path) -> None:
    model_recipe = recipe.read("distilbert")
    settings = Settings(batch_sizes=(1, 4), options={"tokens": ["64", "256"]})
    variants = plan(model_recipe, [("original", parse_chain("original"))], settings)
    assert [(variant.options["tokens"], variant.setting, variant.batch_size) for variant in variants] == [
        (64, "tokens=64", 1),
        (64, "tokens=64", 4),
        (256, "tokens=256", 1),
        (256, "tokens=256", 4),
    ]
    with pytest.raises(RecipeError, match="tokens"):
        plan(model_recipe, model_recipe.variants, Settings(options={"tokens": ["64", "0"]}))


def test_several_threads_are_part_of_the_label() -> None:
    model_recipe = recipe.read("distilbert")
    chains = [("original", parse_chain("original"))]
    planned = plan(model_recipe, chains, Settings(threads=(2,)))
    assert [(variant.threads, variant.setting) for variant in planned] == [(2, "")]
    planned_variants = plan(model_recipe, chains, Settings(threads=(1, 2), options={"tokens": ["64"]}))
    assert [(variant.threads, variant.label) for variant in planned_variants] == [
        (1, "original [tokens=64, threads=1]"),
        (2, "original [tokens=64, threads=2]"),
    ]


def test_requirements_of_the_command_line_override_the_recipes_by_key(tmp_path: Path) -> None:
    model_recipe = recipe.read(write(tmp_path, {**GOOD, "data": "own", "requires": {"gpu": "A100", "min_ram_gb": 64}}))
    assert model_recipe.requires == {"gpu": "A100", "min_ram_gb": 64}
    (variant,) = plan(model_recipe, model_recipe.variants, Settings(requires={"gpu": "any", "min_cores": 4}))
    assert variant.requires == {"gpu": "any", "min_ram_gb": 64, "min_cores": 4}


def test_a_sweep_recipe_is_not_a_recipe_of_one_model(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="compress-bench sweep"):
        recipe.read(write(tmp_path, {"models": ["distilbert"]}))


def test_a_plan_rejects_an_unknown_option(tmp_path: Path) -> None:
    model_recipe = recipe.read(write(tmp_path, GOOD))
    with pytest.raises(UnknownName, match="function"):
        plan(model_recipe, model_recipe.variants, Settings(options={"functions": "x"}))


def test_paths_that_exist_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("weights.pt").touch()
    Path("data").mkdir()
    model_recipe = recipe.read(write(tmp_path, GOOD))
    (variant,) = plan(model_recipe, model_recipe.variants, Settings(weights="weights.pt", data="data"))
    assert variant.weights == str(tmp_path / "weights.pt")
    assert variant.data == str(tmp_path / "data")
    (variant,) = plan(model_recipe, model_recipe.variants, Settings(weights="gone.pt", data="x" * 5000))
    assert variant.weights == "gone.pt"
    assert variant.data == "x" * 5000


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_recipe_is_rejected(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    Path(path).chmod(0)
    with pytest.raises(CompressError, match="can't be read"):
        recipe.read(path)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            "source: " + "[" * 5000,
            "can't be read as YAML: it has more than 20 nested lists and mappings",
        ),
        (
            "variants: [{name: " + "x" * 251 + ", method: fp16}]",
            "a variant's name can have 250 characters, not 251.",
        ),
        ("metrics: [" + "accuracy, " * 101 + "]", "a recipe can have at most 100 metrics, not 101."),
        (
            "batch_size: [" + "'x', " * 10_000 + "]",
            "batch_size must be a whole number of at least 1, not ['x', 'x', 'x', ",
        ),
        ("variants: {a: [1, 2]}", "variants must be a non-empty list, not {'a': [1, 2]}."),
    ],
)
def test_an_error_about_a_large_recipe_is_short(tmp_path: Path, line: str, sentence: str) -> None:
    (tmp_path / "a.yaml").write_text(f"family: python\nsource: a.py\n{line}\n")
    with pytest.raises(RecipeError) as raised:
        recipe.read(str(tmp_path / "a.yaml"))
    assert sentence in str(raised.value)
    assert len(str(raised.value)) < 500
