from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

import pytest

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError, UnknownName
from mlflow_compress.measuring import published, quality
from mlflow_compress.networks import model_card
from mlflow_compress.networks.model_card import CardScore
from mlflow_compress.planning import recipe
from mlflow_compress.records import PublishedScore, PublishedVerdict, Variant
from mlflow_compress.scoring import bootstrap
from mlflow_compress.sockets import Family, Model, Sample

CARD = """---
language: en
model-index:
- name: tiny
  results:
  - task: {type: text-classification}
    dataset: {name: GLUE SST2, type: glue, config: sst2, split: validation}
    metrics:
    - {type: accuracy, value: 0.9}
    - {type: f1, value: 91.5}
  - task: {type: text-classification}
    dataset: {name: other, type: other}
    metrics:
    - {type: accuracy, value: 0.5}
---
# Tiny
"""


def scores(right: int, all_samples: int = 1000) -> bootstrap.Scores:
    answers = [1] * right + [0] * (all_samples - right)
    return bootstrap.score({"accuracy": registry.build("metrics", "accuracy")}, [1] * all_samples, answers, seed=0)


def verdict(right: int, stated: PublishedScore, data: str = "own", is_subset: bool = False) -> PublishedVerdict:
    return published.verdicts(scores(right), {"accuracy": stated}, data, is_subset)["accuracy"]


@pytest.mark.parametrize(
    ("right", "stated", "expected"),
    [
        (911, PublishedScore(0.911, "own"), "as published"),
        (908, PublishedScore(0.911, "own"), "as published"),  # within 0.5 %
        (905, PublishedScore(0.911, "own"), "differs"),
        (905, PublishedScore(0.911, "own", tolerance=0.01), "as published"),
        (910, PublishedScore(0.911, "own", tolerance=0.0005), "differs"),
        (945, PublishedScore(0.9, "own"), "as published"),  # rounded to one digit
        (911, PublishedScore(91.1, "own"), "as published"),
        (911, PublishedScore(0.911, "other"), "not comparable"),
        (911, PublishedScore(0.911), "not comparable"),
        (911, PublishedScore(0.911, "own:split=train"), "not comparable"),
    ],
)
def test_verdicts(right: int, stated: PublishedScore, expected: str) -> None:
    assert verdict(right, stated).verdict == expected


def test_a_part_of_the_data_is_judged_by_its_interval() -> None:
    stated = PublishedScore(0.92, "own")
    assert verdict(905, stated).verdict == "differs"
    assert verdict(905, stated, is_subset=True).verdict == "as published"
    assert verdict(850, stated, is_subset=True).verdict == "differs"


def test_a_metric_that_was_not_scored_is_not_comparable() -> None:
    judged = published.verdicts(scores(9, 10), {"f1": PublishedScore(0.9, "own")}, "own", False)["f1"]
    assert (judged.verdict, judged.reason, judged.own) == ("not comparable", "not_scored", None)
    assert judged.text == "not comparable with the published 0.9 (recipe): it was not scored"


def test_a_verdict_is_the_same_when_it_is_read_again_and_says_what_it_means() -> None:
    judged = verdict(900, PublishedScore(0.911, "own", "a paper"))
    assert PublishedVerdict.from_text(judged.to_text()) == judged
    assert judged.text == "differs by -0.011 from the published 0.911 (a paper); another protocol?"
    assert verdict(911, PublishedScore(0.911, "own")).text == "as published: 0.911 (recipe)"
    assert PublishedVerdict.from_text("{}") is None
    assert PublishedVerdict.from_text('{"verdict": "maybe", "published": 1, "own": 1, "source": ""}') is None


@pytest.mark.full
def test_a_model_card_publishes_scores_by_data_set(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "README.md").write_text(CARD)
    path = model_card.find("model", "auto", tmp_path)
    assert path is not None
    card = model_card.read(path)
    assert card[0] == CardScore("accuracy", 0.9, "glue", "sst2", "validation")
    metrics = ["accuracy", "f1", "f1:average=micro", "recall"]
    same = published.of_card(card, metrics, "nyu-mll/glue:config=sst2,split=validation")
    assert same["accuracy"] == PublishedScore(0.9, "nyu-mll/glue:config=sst2,split=validation", "model card")
    assert set(same) == {"accuracy", "f1"}
    assert published.of_card(card, ["accuracy"], "other")["accuracy"].value == 0.5
    apart = published.of_card(card, ["accuracy"], "reviews.csv")["accuracy"]
    assert (apart.value, apart.data) == (0.9, "glue, sst2, validation")
    assert published.verdicts(scores(900), {"accuracy": apart}, "reviews.csv", False)["accuracy"].reason == "other_data"


@pytest.mark.full
@pytest.mark.parametrize(
    "text",
    [
        "",
        "# Tiny",
        "---\nmodel-index: [1]\n---\n",
        "---\n: [\n---\n",
        "---\nmodel-index: {a: 1}\n---\n",
        "---\na: 1\n---",
    ],
)
def test_a_card_without_scores_publishes_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(text)
    assert model_card.read(tmp_path / "README.md") == []


@pytest.mark.full
def test_without_a_card_there_is_none(tmp_path: Path) -> None:
    assert model_card.find("nowhere", "auto", tmp_path) is None
    assert model_card.find("model", "random", tmp_path) is None


def write(folder: Path, lines: str) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(f"family: text_classification\nsource: x/y\ndata: reviews\n{lines}\n")
    return path


def test_a_recipe_states_scores_of_its_own_data(tmp_path: Path) -> None:
    path = write(tmp_path, "published: {accuracy: 0.911, f1: {value: 91, source: a paper, data: glue, tolerance: 0}}")
    model = recipe.read(str(path))
    assert model.published == {
        "accuracy": PublishedScore(0.911, "reviews"),
        "f1": PublishedScore(91.0, "glue", "a paper", 0.0),
    }
    (variant,) = recipe.plan(model, model.variants, recipe.Settings())
    assert variant.published == model.published


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("published: 0.9", "published"),
        ("published: {accuracy: high}", "published: accuracy: value must be a number, not 'high'"),
        ("published: {accuracy: {data: x}}", "value must be a number, not None"),
        ("published: {accuracy: true}", "value must be a number"),
        ("published: {accuracy: -1}", "value can't be negative, but is -1"),
        ("published: {accuracy: {value: 1, source: 3}}", "source must be text"),
    ],
)
def test_a_score_that_is_none_is_rejected(tmp_path: Path, lines: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe.read(str(write(tmp_path, lines)))
    with pytest.raises(UnknownName, match="key of published: accuracy"):
        recipe.read(str(write(tmp_path, "published: {accuracy: {vaule: 1}}")))


class Constant:
    """A family that answers `a`."""

    metrics: tuple[str, ...] = ()

    def scored_rates(self, *_: Any) -> dict[str, float]:
        return {}

    def kinds(self, model: Model) -> tuple[str, ...]:
        return ("labels",)

    def samples(self, *_: Any) -> list[Sample]:
        return [Sample("a", "a")] * 18 + [Sample("b", "b")] * 2

    def answers(self, model: Model, inputs: list[Any]) -> list[Any]:
        return ["a"] * len(inputs)


@pytest.mark.full
def test_the_original_alone_gets_the_verdict(tmp_path: Path) -> None:
    stated = {"accuracy": PublishedScore(0.95, "own")}
    variant = Variant("m", "original", "t", "f", "x", data="own", metrics=("accuracy",), published=stated)
    part = quality.score(cast(Family, Constant()), Model(None), variant, tmp_path, lambda *_: None)
    judged = PublishedVerdict.from_text(part.facts["published.accuracy"])
    assert judged is not None
    assert (judged.verdict, judged.own) == ("differs", 0.9)


@pytest.mark.full
def test_a_metric_without_a_value_is_a_caution_and_alone_an_error(tmp_path: Path) -> None:
    variant = Variant("m", "original", "t", "f", "x", data="own", metrics=("accuracy", "f1:average=binary"))
    part = quality.score(cast(Family, Constant()), Model(None), variant, tmp_path, lambda *_: None)
    assert part.measurements["quality/accuracy"] == 0.9
    (caution,) = [caution for caution in part.cautions if caution.code == "metric_undefined"]
    assert caution.message.startswith("f1_binary has no value: average=binary needs two classes")
    alone = dataclasses.replace(variant, metrics=("f1:average=binary",))
    with pytest.raises(RecipeError, match=r"^f1_binary has no value: average=binary needs two classes"):
        quality.score(cast(Family, Constant()), Model(None), alone, tmp_path, lambda *_: None)


@pytest.mark.full
@pytest.mark.parametrize("value", [".nan", ".inf", str(2**1024 - 1), "1" + "0" * 400, "true", "'0.9'"])
def test_what_is_not_a_number_is_not_a_published_score(tmp_path: Path, value: str) -> None:
    (tmp_path / "README.md").write_text(CARD.replace("value: 0.9", f"value: {value}"))
    assert 0.9 not in [score.value for score in model_card.read(tmp_path / "README.md")]
    assert all(abs(score.value) < 100 for score in model_card.read(tmp_path / "README.md"))
    path = write(tmp_path, f"published: {{accuracy: {value}}}")
    with pytest.raises(RecipeError, match=r"must be a number|hundreds of digits"):
        recipe.read(str(path))
