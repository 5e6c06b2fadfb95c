from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError
from mlflow_compress.scoring import bootstrap, statistics_file
from mlflow_compress.scoring.hf_evaluate import metrics_of
from mlflow_compress.sockets import AdditiveMetric, Metric


def metrics(*names: str) -> dict[str, Metric]:
    return {name: registry.build("metrics", name) for name in names}


def answers(right: Any) -> tuple[list[int], list[int]]:
    return [1] * len(right), [int(is_right) for is_right in right]


def statistics(right: Any) -> statistics_file.Statistics:
    return statistics_file.Statistics(additive("accuracy").statistics(*answers(right)))


def additive(name: str, **options: Any) -> AdditiveMetric:
    metric = registry.build("metrics", name, options)
    assert isinstance(metric, AdditiveMetric)
    return metric


def test_numbers_have_the_servers_names() -> None:
    references, predictions = ["a b", "c d e", "f"] * 5, ["a b", "c x e", "f g"] * 5
    scored = bootstrap.score(metrics("wer", "cer"), references, predictions, seed=3)
    numbers = scored.numbers()
    assert set(numbers) == {
        "quality/samples",
        *(f"quality/{name}{end}" for name in ("wer", "cer") for end in ("", "_low", "_high")),
    }
    assert numbers["quality/samples"] == 15
    assert numbers["quality/wer"] == registry.build("metrics", "wer").compute(references, predictions) == 2 / 6
    assert numbers["quality/wer_low"] < numbers["quality/wer"] < numbers["quality/wer_high"]
    assert scored.protocols()["wer"] == registry.build("metrics", "wer").protocol


def test_the_same_seed_gives_the_same_interval() -> None:
    right = np.random.default_rng(0).random(50) < 0.7

    def ends(seed: int) -> tuple[float | None, float | None]:
        score = bootstrap.score(metrics("accuracy"), *answers(right), seed=seed).by_name["accuracy"]
        return score.low, score.high

    assert ends(1) == ends(1)
    assert len({ends(seed) for seed in range(4)}) > 1


def test_few_samples_and_samples_alike_have_no_interval() -> None:
    right = [1, 0, 1, 1, 0, 1, 1, 0, 1]
    assert set(bootstrap.score(metrics("accuracy"), *answers(right), seed=0).numbers()) == {
        "quality/samples",
        "quality/accuracy",
    }
    assert "quality/accuracy_low" in bootstrap.score(metrics("accuracy"), *answers([*right, 1]), seed=0).numbers()
    assert "quality/accuracy_low" not in bootstrap.score(metrics("accuracy"), *answers([1] * 50), seed=0).numbers()


def test_the_interval_of_a_share_is_the_binomials() -> None:
    right = np.arange(400) < 300
    score = bootstrap.score(metrics("accuracy"), *answers(right), seed=0).by_name["accuracy"]
    half = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert score.low == pytest.approx(0.75 - half, abs=0.006)
    assert score.high == pytest.approx(0.75 + half, abs=0.006)


@pytest.mark.full
def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(7)
    metric = additive("word_perplexity")
    covered = 0
    for seed in range(200):
        words = generator.integers(5, 20, 80)
        nll = words * generator.normal(3, 0.8, 80)  # so the true value is exp(3)
        predictions = [{"nll": loss, "words": count} for loss, count in zip(nll, words, strict=True)]
        score = bootstrap.score({"p": metric}, [""] * 80, predictions, seed).by_name["p"]
        assert score.low is not None
        assert score.high is not None
        covered += score.low <= np.exp(3) <= score.high
    assert 0.89 <= covered / 200 <= 0.99


def test_the_interval_of_a_mean_over_rare_classes_holds_its_value() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 50, 500)
    references: list[int] = labels.tolist()
    predictions: list[int] = np.where(generator.random(500) < 0.8, labels, generator.integers(0, 50, 500)).tolist()
    metric = additive("f1")
    score = bootstrap.score({"f1": metric}, references, predictions, seed=0).by_name["f1"]
    assert score.low is not None
    assert score.high is not None
    assert score.low < score.value < score.high
    # resamples miss samples of a class, so they score less
    values = metric.statistics(references, predictions)
    resampled = [metric.reduce(values[generator.integers(0, 500, 500)].sum(axis=0)) for _ in range(300)]
    assert np.median(resampled) < score.value - 0.003


@dataclass
class Variety(AdditiveMetric):
    """The number of distinct values: resamples always have fewer."""

    unit = ""
    greater_is_better = True

    def statistics(self, references: Sequence[Any], predictions: Sequence[Any]) -> Any:
        return np.eye(len(references))

    def reduce(self, sums: Any) -> float:
        return float((sums > 0).sum())


def test_there_is_no_interval_where_drawn_samples_score_quite_otherwise() -> None:
    score = bootstrap.score({"variety": Variety()}, range(30), range(30), seed=0).by_name["variety"]
    assert (score.value, score.low, score.high) == (30, None, None)


def test_a_pair_of_identical_runs_differs_by_exactly_nothing() -> None:
    generator = np.random.default_rng(0)
    predictions = [{"nll": loss, "tokens": 7} for loss in generator.normal(20, 3, 333)]
    statistics = (
        bootstrap.score(metrics("perplexity"), [""] * 333, predictions, seed=0).by_name["perplexity"].statistics
    )
    assert statistics is not None
    copied = statistics_file.Statistics(statistics.values.copy())
    assert bootstrap.paired(statistics, copied, additive("perplexity"), seed=0) == (0, 0, 0)


def test_a_pair_is_reported_apart_where_two_intervals_overlap() -> None:
    generator = np.random.default_rng(0)
    original = generator.random(500) < 0.8
    changed = original.copy()
    changed[np.flatnonzero(original)[:12]] = False  # 12 samples became wrong, none became correct
    own, base = (bootstrap.score(metrics("accuracy"), *answers(right), seed=0) for right in (changed, original))
    assert own.numbers()["quality/accuracy_high"] > base.numbers()["quality/accuracy_low"]
    difference, low, high = bootstrap.paired(statistics(changed), statistics(original), additive("accuracy"), seed=0)
    assert difference == pytest.approx(-12 / 500)
    assert low is not None
    assert high is not None
    assert -0.041 < low < difference < high < -0.007
    back = bootstrap.paired(statistics(original), statistics(changed), additive("accuracy"), seed=0)
    assert back == pytest.approx((-difference, -high, -low))


@pytest.mark.full
def test_models_that_differ_by_chance_only_are_seldom_distinguished() -> None:
    generator = np.random.default_rng(5)
    distinguished = 0
    for seed in range(100):
        first, second = generator.random((2, 100)) < 0.7
        _, low, high = bootstrap.paired(statistics(first), statistics(second), additive("accuracy"), seed)
        assert low is not None
        assert high is not None
        distinguished += not low <= 0 <= high
    assert distinguished / 100 <= 0.11


@pytest.mark.parametrize(("became_wrong", "are_told_apart"), [(1, False), (5, False), (6, True), (12, True)])
def test_few_samples_are_distinguished_where_mcnemars_test_does(became_wrong: int, are_told_apart: bool) -> None:
    """By hand: 2 / 2^5 is 6 %, 2 / 2^6 is 3 %."""
    original = np.ones(20)
    changed = np.arange(20) >= became_wrong
    difference, low, high = bootstrap.paired(statistics(changed), statistics(original), additive("accuracy"), seed=0)
    assert difference == pytest.approx(-became_wrong / 20)
    assert low is not None
    assert high is not None
    assert low < difference < high
    assert (high < 0) == are_told_apart


@pytest.mark.full
def test_models_of_which_few_samples_differ_are_seldom_distinguished() -> None:
    """The bootstrap alone found a difference in 25 of 100 cases."""
    generator = np.random.default_rng(3)
    distinguished = 0
    for seed in range(100):
        words = generator.integers(5, 30, 20)
        original = np.stack([generator.binomial(words, 0.05), words], axis=1).astype(float)
        own = original.copy()
        changed = generator.random(20) < 0.1
        own[changed, 0] = generator.binomial(words[changed], 0.05)
        own_statistics, base_statistics = statistics_file.Statistics(own), statistics_file.Statistics(original)
        _, low, high = bootstrap.paired(own_statistics, base_statistics, additive("wer"), seed)
        assert low is not None
        assert high is not None
        distinguished += not low <= 0 <= high
    assert distinguished <= 5


def test_the_interval_is_wider_where_samples_are_few() -> None:
    """By hand: for ten samples t is 2.262, times the root of 10 / 9; for many 1.96."""
    assert bootstrap._width(10) == pytest.approx(2.3845, abs=1e-3)
    assert bootstrap._width(100_000) == pytest.approx(1.96, abs=1e-3)


@pytest.mark.full
def test_runs_that_answer_other_classes_are_paired_too() -> None:
    references = ["a", "b", "c", "a"] * 10
    own_answers, base_answers = ["a", "b", "b", "z"] * 10, ["c", "b", "c", "a"] * 10
    for name, averages in {"f1": ("macro", "weighted", "micro"), "recall": ("macro",)}.items():
        for average in averages:
            metric = additive(name, average=average)
            own, base = (
                bootstrap.score({name: metric}, references, predictions, seed=0).by_name[name]
                for predictions in (own_answers, base_answers)
            )
            assert own.statistics is not None
            assert base.statistics is not None
            assert own.statistics.columns != base.statistics.columns
            difference, low, high = bootstrap.paired(own.statistics, base.statistics, metric, seed=0)
            assert difference == pytest.approx(own.value - base.value, abs=1e-14)
            assert low is not None
            assert high is not None
            assert low < difference < high


def test_few_samples_have_a_difference_without_an_interval() -> None:
    difference, *ends = bootstrap.paired(statistics([1, 0, 1]), statistics([1, 1, 1]), additive("accuracy"), seed=0)
    assert difference == pytest.approx(-1 / 3)
    assert ends == [None, None]


def test_other_samples_and_other_metrics_are_not_paired() -> None:
    with pytest.raises(ValueError, match="3 samples can't be paired with 2"):
        bootstrap.paired(statistics([1, 0, 1]), statistics([1, 1]), additive("accuracy"), seed=0)
    of_other_metric = statistics_file.Statistics(np.zeros((3, 5)))
    with pytest.raises(ValueError, match="different metrics"):
        bootstrap.paired(statistics([1, 0, 1]), of_other_metric, additive("accuracy"), seed=0)


def test_what_is_no_number_is_reported_with_its_sample() -> None:
    predictions = [{"nll": 1.0, "tokens": 1}, {"nll": float("nan"), "tokens": 1}]
    with pytest.raises(ValueError, match="perplexity has no value: sample 1 "):
        bootstrap.score(metrics("perplexity"), ["", ""], predictions, seed=0)
    with pytest.raises(ValueError, match="not a finite number"):
        bootstrap.score(metrics("perplexity"), [""], [{"nll": 1.0, "tokens": 0}], seed=0)
    with pytest.raises(ValueError, match="2 references and 1 predictions"):
        bootstrap.score(metrics("accuracy"), [1, 2], [1], seed=0)


@pytest.mark.parametrize(
    ("entry", "references", "reason"),
    [
        ("roc_auc", ["a", "a"], "all references belong to one class"),
        ("f1:average=binary,positive=b", ["a", "c"], "needs two classes, one of them positive=b; these are a, c"),
        ("roc_auc:average=binary,positive=b", ["a", "c"], "needs the class positive=b; the classes are a, c"),
        ("spearman", [0.5, 0.5], "all true values are equal"),
        ("pearson", [0.5, float("nan")], "not a finite number"),
    ],
)
def test_what_no_answers_can_score_is_known_before_they_are_given(
    entry: str, references: list[Any], reason: str
) -> None:
    (metric,) = metrics_of([entry], Path()).values()
    with pytest.raises(ValueError, match=reason):
        metric.require_scorable(references)


@pytest.mark.parametrize(
    ("entry", "references"),
    [
        ("roc_auc", ["a", "b"]),
        ("average_precision", ["a", "a"]),
        ("f1:average=binary,positive=b", ["a", "a"]),
        ("f1:average=binary,positive=b", ["a", "b"]),
        ("spearman", [0.5, 0.25]),
    ],
)
def test_what_some_answers_can_score_is_no_error(entry: str, references: list[Any]) -> None:
    (metric,) = metrics_of([entry], Path()).values()
    metric.require_scorable(references)


def test_a_metric_without_a_value_costs_the_others_nothing() -> None:
    answers = [{"a": 0.9, "b": 0.1}, {"a": 0.2, "b": 0.8}]
    scores = bootstrap.score(metrics("accuracy", "roc_auc", "top_k_accuracy"), ["a", "a"], answers, seed=0)
    assert {name: score.value for name, score in scores.by_name.items()} == {"accuracy": 0.5, "top_k_accuracy": 1.0}
    assert scores.undefined == {"roc_auc": "it is not a finite number: all references belong to one class"}


@pytest.mark.parametrize("name", ["f1", "precision", "recall", "roc_auc", "average_precision"])
def test_a_positive_class_needs_the_binary_average(name: str) -> None:
    with pytest.raises(RecipeError, match=r"positive=b names one class\. It needs average=binary, not average=macro"):
        metrics_of([f"{name}:positive=b"], Path())
    assert metrics_of([f"{name}:average=binary,positive=b"], Path())
