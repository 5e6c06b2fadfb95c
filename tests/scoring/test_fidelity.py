from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mlflow_compress import registry
from mlflow_compress.scoring import bootstrap
from mlflow_compress.scoring.class_table import ClassTable
from mlflow_compress.scoring.fidelity import Flips, chosen_metric, of_classes


def table(probabilities: list[list[float]], true: list[int]) -> ClassTable:
    predictions = [dict(enumerate(row)) for row in probabilities]
    return ClassTable.of(true, predictions)


def test_divergences_are_torchs_both_ways() -> None:
    generator = torch.Generator().manual_seed(0)
    sides = [torch.randn((30, 5), generator=generator).double().softmax(-1) for _ in range(2)]
    original, own = (table(side.tolist(), [0] * 30) for side in sides)
    numbers = of_classes(own, original)
    log_original, log_own = (side.log() for side in sides)
    for name, log_p, log_q in (
        ("quality/kl_divergence_nats", log_original, log_own),
        ("quality/kl_divergence_reverse_nats", log_own, log_original),
    ):
        expected = torch.nn.functional.kl_div(log_q, log_p, reduction="batchmean", log_target=True).item()
        assert numbers[name] == pytest.approx(expected, rel=1e-9)
    agreement = (sides[0].argmax(-1) == sides[1].argmax(-1)).double().mean().item()
    assert numbers["quality/top1_agreement"] == pytest.approx(agreement)


def test_a_class_that_only_one_model_excludes_is_infinitely_far_one_way() -> None:
    original, own = table([[0.5, 0.5]], [0]), table([[1.0, 0.0]], [0])
    numbers = of_classes(own, original)
    assert numbers["quality/kl_divergence_nats"] == np.inf
    assert numbers["quality/kl_divergence_reverse_nats"] == pytest.approx(np.log(2))
    same = of_classes(own, own)
    assert same == {
        "quality/top1_agreement": 1.0,
        "quality/kl_divergence_nats": 0.0,
        "quality/kl_divergence_reverse_nats": 0.0,
    }


def test_other_samples_raise() -> None:
    with pytest.raises(ValueError, match="different samples"):
        of_classes(table([[0.5, 0.5]], [0]), table([[0.5, 0.5]], [1]))


def flips(name: str, references: list[Any], original: list[Any], own: list[Any]) -> Flips | None:
    metric = registry.build("metrics", name)
    sides = [bootstrap.score({name: metric}, references, side, 0).statistics()[name] for side in (own, original)]
    return Flips.of(metric, *sides)


def test_flips_of_a_classifier_by_hand() -> None:
    references, original, own = ["a", "b", "a", "b"], ["a", "a", "b", "b"], ["b", "b", "b", "b"]
    changed = flips("accuracy", references, original, own)
    assert changed is not None
    assert changed.numbers() == {"quality/flips": 0.5, "quality/samples_worse": 1.0, "quality/samples_better": 1.0}
    assert changed.table(references, original, own) == {
        "columns": ["sample", "change", "reference", "original", "variant", "original_score", "variant_score"],
        "data": [[0, "became wrong", "a", "a", "b", 1.0, 0.0], [1, "became right", "b", "a", "b", 0.0, 1.0]],
    }


def test_flips_of_texts_are_graded_and_an_unknown_answer_is_null() -> None:
    references, original, own = ["one two", "three four"], ["one two", "three"], ["one", "three four"]
    changed = flips("wer", references, original, own)
    assert changed is not None
    assert changed.numbers()["quality/samples_worse"] == 1
    assert changed.table(references, [], own)["data"][0] == [0, "became worse", "one two", None, "one", 0.0, 0.5]


def test_half_wrong_texts_become_better_not_right() -> None:
    changed = flips("wer", ["one two", "a b"], ["one", "a b"], ["one two", "b"])
    assert changed is not None
    words = [row[1] for row in changed.table(["one two", "a b"], [], ["one two", "b"])["data"]]
    assert words == ["became better", "became worse"]


def test_scores_of_all_samples_together_have_no_flips() -> None:
    assert flips("f1", ["a", "b"], ["a", "a"], ["a", "b"]) is None


def test_the_metric_of_the_lowest_rank_judges_samples() -> None:
    metrics = {name: registry.build("metrics", name) for name in ("f1", "top_k_accuracy", "accuracy", "roc_auc")}
    predictions = [{"a": 0.9, "b": 0.1}, {"a": 0.2, "b": 0.8}]
    statistics = bootstrap.score(metrics, ["a", "b"], predictions, 0).statistics()
    assert chosen_metric(metrics, statistics) == "accuracy"
    assert chosen_metric({"f1": metrics["f1"]}, statistics) == ""
