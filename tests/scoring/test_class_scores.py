"""Scores of all classes: metrics that need them, their table, and their form in files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn
from tiny import tiny_model

from mlflow_compress import registry
from mlflow_compress.networks.class_scores import Ranking, as_logits, best_classes, lacks_number, rankings, taken
from mlflow_compress.scoring import bootstrap, class_table, statistics_file
from mlflow_compress.scoring.class_table import ClassTable
from mlflow_compress.untrusted import Malformed

LABELS = ("cat", "dog", "cow", "hen")


def answers(samples: int, classes: int, seed: int = 0) -> tuple[list[Any], list[Ranking], Any]:
    """Return references, answers that are often right, and their probabilities."""
    generator = torch.Generator().manual_seed(seed)
    labels = LABELS[:classes] if classes <= len(LABELS) else tuple(range(classes))
    logits = torch.randn((samples, classes), generator=generator) * 2
    true = torch.where(
        torch.rand(samples, generator=generator) < 0.6,
        logits.argmax(-1),
        torch.randint(0, classes, (samples,), generator=generator),
    )
    return [labels[index] for index in true.tolist()], rankings(logits, labels), logits.double().softmax(-1).numpy()


def computed(name: str, references: list[Any], predictions: Any, **options: Any) -> float:
    return float(registry.build("metrics", name, options).compute(references, predictions))


@pytest.mark.parametrize("classes", [2, 4, 12])
@pytest.mark.parametrize("average", ["macro", "weighted"])
def test_areas_under_curves_are_scikit_learns(classes: int, average: str) -> None:
    references, predictions, probabilities = answers(200, classes)
    labels = list(predictions[0].classes)
    is_true = np.array([[reference == label for label in labels] for reference in references])
    for name, function in (
        ("roc_auc", sklearn.roc_auc_score),
        ("average_precision", sklearn.average_precision_score),
    ):
        expected = function(is_true, probabilities, average=average)
        assert computed(name, references, predictions, average=average) == pytest.approx(expected, abs=1e-12)


def test_one_class_may_be_the_positive_and_ties_are_one_step() -> None:
    references = [0, 1, 1, 0, 1, 0]
    positive = [0.2, 0.2, 0.9, 0.5, 0.5, 0.5]
    predictions = [{0: 1 - share, 1: share} for share in positive]
    area = computed("average_precision", references, predictions, average="binary")
    assert area == pytest.approx(sklearn.average_precision_score(references, positive), abs=1e-12)
    assert computed("roc_auc", references, predictions) == pytest.approx(
        sklearn.roc_auc_score(references, positive), abs=1e-12
    )
    with pytest.raises(ValueError, match=r"positive=2; the classes are 0, 1"):
        computed("roc_auc", references, predictions, average="binary", positive="2")


def test_an_area_of_one_class_is_undefined() -> None:
    with pytest.raises(ValueError, match="all references belong to one class"):
        computed("roc_auc", [1, 1], [{0: 0.4, 1: 0.6}, {0: 0.3, 1: 0.7}])


@pytest.mark.parametrize("classes", [2, 4, 12])
def test_loss_top_k_and_matthews_are_scikit_learns(classes: int) -> None:
    references, predictions, probabilities = answers(300, classes, seed=1)
    labels = list(predictions[0].classes)
    order = sorted(labels)
    sorted_probabilities = probabilities[:, [labels.index(label) for label in order]]
    loss = sklearn.log_loss(references, sorted_probabilities, labels=order)
    assert computed("log_loss", references, predictions) == pytest.approx(loss, rel=1e-6)
    if classes > 2:
        hits = sklearn.top_k_accuracy_score(references, sorted_probabilities, k=2, labels=order)
        assert computed("top_k_accuracy", references, predictions, k=2) == pytest.approx(hits, abs=1e-12)
    best = [answer[0] for answer in predictions]
    expected = sklearn.matthews_corrcoef(references, best)
    assert computed("matthews", references, best) == pytest.approx(expected, abs=1e-12)


def test_loss_is_the_cross_entropy_of_torch() -> None:
    references, predictions, _ = answers(50, 4, seed=2)
    logits = torch.tensor(np.stack([answer.logits for answer in predictions]))
    true = torch.tensor([LABELS.index(reference) for reference in references])
    expected = torch.nn.functional.cross_entropy(logits.double(), true).item()
    assert computed("log_loss", references, predictions) == pytest.approx(expected, rel=1e-12)
    certain = [{"cat": 1.0, "dog": 0.0}]
    assert computed("log_loss", ["dog"], certain) == pytest.approx(-np.log(np.finfo(np.float64).eps))
    assert computed("log_loss", ["cat"], certain) == 0


def test_calibration_error_by_hand() -> None:
    references = ["cat", "cat", "dog", "dog"]
    predictions = [{"cat": share, "dog": 1 - share} for share in (0.9, 0.95, 0.9, 0.3)]
    # bins of 0.1: 0.8 to 0.9 has two answers, one of them right; 0.9 to 1 has one right; 0.6 to 0.7 has one right
    expected = (abs(1 - 1.8) + abs(1 - 0.95) + abs(1 - 0.7)) / 4
    assert computed("ece", references, predictions, bins=10) == pytest.approx(expected, abs=1e-12)
    assert computed("ece", ["cat", "dog"], [{"cat": 1.0, "dog": 0.0}, {"cat": 0.0, "dog": 1.0}]) == 0


def test_matthews_of_one_class_is_0() -> None:
    assert computed("matthews", ["a", "b"], ["a", "a"]) == 0
    assert computed("matthews", ["a", "b"], ["b", "a"]) == -1


def test_metrics_of_labels_take_answers_with_scores_and_probabilities() -> None:
    references, predictions, _ = answers(40, 4)
    scores = bootstrap.score(
        {name: registry.build("metrics", name) for name in ("accuracy", "f1", "roc_auc", "log_loss")},
        references,
        predictions,
        seed=0,
    )
    best = [answer[0] for answer in predictions]
    assert scores.by_name["accuracy"].value == sklearn.accuracy_score(references, best)
    assert scores.by_name["f1"].value == pytest.approx(sklearn.f1_score(references, best, average="macro"))
    low, high = scores.by_name["roc_auc"].low, scores.by_name["roc_auc"].high
    assert low is not None
    assert high is not None
    assert low < scores.by_name["roc_auc"].value < high
    assert computed("accuracy", ["cat", "dog"], [{"cat": 0.9, "dog": 0.1}, {"cat": 0.6, "dog": 0.4}]) == 0.5


def test_an_answer_is_shown_as_before() -> None:
    (one,) = rankings(torch.tensor([[0.0, 3.0, 1.0, 2.0]]), LABELS)
    (three,) = rankings(torch.tensor([[0.0, 3.0, 1.0, 2.0]]), LABELS, 3)
    assert taken("labels", [one, three, "x"]) == ["dog", ["dog", "hen", "cow"], "x"]
    assert taken("scores", [one]) == [one]


@pytest.mark.parametrize("outputs", [[[0.25, 0.75], [1.0, 0.0]], [[0.2505, 0.75], [0.5, 0.5]]])
def test_probabilities_become_logits(outputs: list[list[float]]) -> None:
    logits = as_logits(torch.tensor(outputs))
    assert torch.allclose(logits.exp(), torch.tensor(outputs))


def test_logits_stay_logits() -> None:
    for outputs in ([[0.2, 0.9]], [[-1.0, 2.0]], [[0.5, 0.5], [3.0, 0.1]]):
        assert torch.equal(as_logits(torch.tensor(outputs)), torch.tensor(outputs))


def test_a_table_is_the_same_when_it_is_read_again(tmp_path: Path) -> None:
    references, predictions, _ = answers(20, 4)
    table = ClassTable.of(references, predictions)
    statistics_file.write({class_table.POOL: table.statistics()}, tmp_path / "statistics.npz")
    kept = statistics_file.read(tmp_path / "statistics.npz")[class_table.POOL]
    again = ClassTable.read(kept)
    assert again.labels == LABELS
    assert (again.true == table.true).all()
    assert np.array_equal(again.logits, table.logits)
    scored = class_table.with_scores([list(answer) for answer in predictions], kept)
    assert computed("roc_auc", references, scored) == computed("roc_auc", references, predictions)
    with pytest.raises(Malformed, match="19 predictions, and scores of 20"):
        class_table.with_scores(predictions[1:], kept)


def test_a_probability_of_0_is_0_when_it_is_read_again() -> None:
    table = ClassTable.of(["a"], [{"a": 1.0, "b": 0.0}])
    assert ClassTable.read(table.statistics()).log_probabilities.tolist() == [[0.0, -np.inf]]


@pytest.mark.parametrize(
    ("columns", "values"),
    [
        ((), [[0.0, 0.0, 1.0]]),
        (("sample", "reference", "{"), [[0.0, 0.0, 1.0]]),
        (("sample", "reference", "[1]"), [[0.0, 0.0, 1.0]]),
        (("sample", "reference", '"a"'), [[0.0, 7.0, 1.0]]),
        (("sample", "reference"), [[0.0, 0.0]]),
    ],
)
def test_a_table_that_is_none_is_malformed(columns: tuple[str, ...], values: list[list[float]]) -> None:
    with pytest.raises(Malformed):
        ClassTable.read(statistics_file.Statistics(np.array(values), columns))


@pytest.mark.parametrize(
    ("reference", "prediction", "message"),
    [
        ("emu", {"cat": 1.0}, "'emu' is not one of the model's classes"),
        ("cat", "cat", "must map each label to its probability"),
        ("cat", {"cat": -1.0}, "negative"),
        ("cat", {"cat": float("nan")}, "not a number"),
        ("cat", {}, "must map"),
    ],
)
def test_what_has_no_scores_raises(reference: str, prediction: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        computed("log_loss", [reference], [prediction])


def test_two_runs_are_paired_by_their_areas() -> None:
    references, original, _ = answers(200, 4)
    generator = np.random.default_rng(0)
    noisy = [Ranking(answer, answer.classes, answer.logits + generator.normal(0, 3, 4)) for answer in original]
    metric = registry.build("metrics", "roc_auc")
    statistics = [
        bootstrap.score({"roc_auc": metric}, references, side, seed=0).statistics()[class_table.POOL]
        for side in (noisy, original)
    ]
    value, low, high = bootstrap.paired(statistics[0], statistics[1], metric, seed=0)
    assert value == pytest.approx(
        computed("roc_auc", references, noisy) - computed("roc_auc", references, original), abs=1e-12
    )
    assert low is not None
    assert high is not None
    assert low < value < high < 0


@pytest.mark.parametrize("name", ["ece", "log_loss", "top_k_accuracy", "roc_auc", "average_precision"])
@pytest.mark.parametrize("logits", [[np.nan, 0, 0], [np.inf, 0, 0], [-np.inf] * 3])
def test_a_sample_without_scores_is_named(name: str, logits: list[float]) -> None:
    predictions = rankings(torch.tensor([[1.0, 2, 3], logits]), LABELS[:3])
    with pytest.raises(ValueError, match="sample 1 has no finite score"):
        computed(name, ["cat", "dog"], predictions)


def test_a_sample_without_a_finite_greatest_score_lacks_an_answer() -> None:
    nan, infinity = float("nan"), float("inf")
    scores = torch.tensor([[1.0, 2, 0], [nan, 1, 0], [infinity, 0, 1], [-infinity, 3, 2], [-infinity] * 3])
    assert [lacks_number(answer) for answer in rankings(scores, LABELS[:3])] == [False, True, True, False, True]
    assert np.array_equal(best_classes(scores).numpy(), [1, nan, nan, 1, nan], equal_nan=True)
    assert best_classes(scores[:1]).tolist() == [1]
    assert [lacks_number(answer) for answer in (nan, ["O", nan], ["a"], "nan", 1.5, {"a": nan})] == [
        True, True, False, False, False, False,
    ]  # fmt: skip


TEXT, SOUND = "a good film", np.zeros(8000, dtype=np.float32)
PICTURE = np.zeros((32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("name", "sample"),
    [
        ("text_classification", TEXT),
        ("token_classification", TEXT),
        ("asr_ctc", SOUND),
        ("image_classification", PICTURE),
        ("semantic_segmentation", PICTURE),
        ("text_embedding", (TEXT, TEXT)),
    ],
)
def test_families_tell_that_scores_are_not_numbers(name: str, sample: Any) -> None:
    family, model = tiny_model(name)
    if name == "token_classification":  # random weights have no tags
        model.config.id2label = dict(enumerate("abcdefghij"))
    assert not any(map(lacks_number, family.answers(model, [sample])))
    with torch.no_grad():
        for weight in model.module.parameters():
            weight.fill_(float("nan"))
    assert all(map(lacks_number, family.answers(model, [sample, sample])))
