from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError, UnknownName
from mlflow_compress.networks import hub
from mlflow_compress.records import MetricFacts
from mlflow_compress.scoring.hf_evaluate import Evaluated, as_evaluate, from_evaluate, metrics_of

evaluate = pytest.importorskip("evaluate")

SCRIPT = """
import datasets
import evaluate

class Same(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description="Share of texts that are the same, and how many.",
            citation="",
            features=datasets.Features(references=datasets.Value("string"), predictions=datasets.Value("string")),
        )

    def _compute(self, references, predictions):
        right = sum(one == other for one, other in zip(references, predictions))
        return {"same": right / len(references), "count": right, "kind": "text"}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a recipe's folder with custom metrics."""
    (tmp_path / "same_texts.py").write_text(SCRIPT)
    (tmp_path / "in_folder").mkdir()
    (tmp_path / "in_folder" / "in_folder.py").write_text(SCRIPT)
    (tmp_path / "needy.py").write_text("import a_module_that_nobody_has\n" + SCRIPT)
    (tmp_path / "no_number.py").write_text(SCRIPT.replace('return {"same"', 'return {"kind": "none"} or {"same"'))
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "references", "predictions"),
    [
        ("wer", ["a b", "1 2"], ["a c", "1"]),
        ("cer", ["true", "null"], ["true", "nul"]),
        ("bleu", ["the cat sat on the mat today"], ["the cat sat on a mat today"]),
        ("rouge1", ["a b c"], ["a b"]),
        ("accuracy", ["cat", "dog"], ["cat", "cow"]),
        ("accuracy", [1, 2, 3], [1, 2, 4]),
        ("accuracy", [1, 2], [[1, 2], [1, 2]]),
        ("accuracy", [1.5, 1], [1, 1]),
        ("top5_accuracy", ["a", "b"], [["a", "b"], ["c", "d"]]),
        ("f1", [0, 1, 1], [0, 1, 0]),
        ("seqeval_f1", [["B-X", "I-X", "O"], []], [["B-X", "I-X", "B-Y"], []]),
        ("bits_per_byte", ["ab"], [{"nll": 1.25, "tokens": 1, "words": 1, "bytes": 2}]),
        (
            "map50",
            [{"boxes": [], "labels": []}, {"boxes": [[0, 0, 9, 9.5]], "labels": [3]}],
            [{"boxes": [], "labels": [], "scores": []}, {"boxes": [[0, 0, 9, 9]], "labels": [3], "scores": [0.7]}],
        ),
    ],
)
def test_a_metric_of_ours_is_one_of_evaluate(
    folder: Path, name: str, references: list[Any], predictions: list[Any]
) -> None:
    metric = as_evaluate(name)
    assert isinstance(metric, evaluate.Metric)
    expected = {name: registry.build("metrics", name).compute(references, predictions)}
    assert metric.compute(references=references, predictions=predictions) == expected
    for reference, prediction in zip(references, predictions, strict=True):
        metric.add_batch(references=[reference], predictions=[prediction])
    assert metric.compute() == expected
    metric.add(reference=references[-1], prediction=predictions[-1])
    assert len(metric) == 1
    assert set(metric.compute()) == {name}
    assert metric.description == registry.build("metrics", name).protocol


def test_a_metric_of_ours_has_its_options_there_and_its_errors(folder: Path) -> None:
    metric = as_evaluate("f1", average="micro")
    assert metric.compute(references=[0, 0, 0, 1], predictions=[0, 0, 0, 0]) == {"f1": 0.75}
    with pytest.raises(ValueError, match="Mismatch in the number"):
        metric.compute(references=[0, 1], predictions=[0])
    with pytest.raises(UnknownName):
        as_evaluate("f1", averag="micro")
    with pytest.raises(UnknownName):
        as_evaluate("f2")
    combined = evaluate.combine([as_evaluate("wer"), as_evaluate("cer")])
    assert combined.compute(references=["a b"], predictions=["a c"]) == {"wer": 0.5, "cer": 1 / 3}


@pytest.mark.parametrize("source", ["./same_texts.py", "in_folder", "./in_folder", "in_folder/in_folder.py"])
def test_a_script_of_evaluate_is_a_metric_of_ours(folder: Path, source: str) -> None:
    metric = from_evaluate(source, folder=folder)
    assert metric.compute(["a", "b", "c", "d"], ["a", "b", "c", "x"]) == 0.75
    assert metric.compute(["a", "b"], [["a", "x"], ["x", "b"]]) == 0.5  # the best of a ranking
    assert from_evaluate(source, key="count", folder=folder).compute(["a", "b"], ["a", "x"]) == 1
    assert "code " in metric.protocol
    with pytest.raises(ValueError, match="can't be scored"):
        metric.compute(["a"], [])


def test_what_a_script_does_not_give_is_reported(folder: Path) -> None:
    with pytest.raises(ValueError, match="no number 'kind', only same, count"):
        from_evaluate("./same_texts.py", key="kind", folder=folder).compute(["a"], ["a"])
    with pytest.raises(ValueError, match="returns no number"):
        from_evaluate("./no_number.py", folder=folder).compute(["a"], ["a"])
    with pytest.raises(RecipeError, match="a_module_that_nobody_has"):
        from_evaluate("./needy.py", folder=folder)
    with pytest.raises(RecipeError, match=r"no metric at .*nothing\.py"):
        from_evaluate("./nothing.py", folder=folder)


@pytest.mark.parametrize("name", ["accuracy", "owner/name"])
def test_the_hub_that_does_not_answer_is_reported_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("HF_MODULES_CACHE", str(folder))
    monkeypatch.setattr(hub, "unreachable", lambda: "the hub can't be reached")
    monkeypatch.setattr(evaluate, "load", lambda *args, **options: pytest.fail("it tries for long"))
    with pytest.raises(RecipeError, match=r"can't be reached.* not in the local cache.*path of its script"):
        metrics_of([f"evaluate:{name}"], folder, load=True)


def test_a_recipes_metrics_are_built_by_name(folder: Path) -> None:
    metrics = metrics_of(
        [
            "accuracy",
            " f1 ",
            "f1:average=micro",
            "chrf:word_order=2",
            "wer_normalized:language=other",
            "./same_texts.py",
            "./same_texts.py:key=count,greater_is_better=false",
            "evaluate:./in_folder",
            "evaluate:owner/name:key=a-b",
        ],
        folder,
    )
    assert list(metrics) == [
        "accuracy",
        "f1",
        "f1_micro",
        "chrf_word_order_2",
        "wer_normalized_other",
        "same_texts",
        "same_texts_count",
        "in_folder",
        "name_a-b",
    ]
    assert metrics["f1_micro"] == registry.build("metrics", "f1", {"average": "micro"})
    assert isinstance(metrics["same_texts"], Evaluated)
    assert metrics["same_texts"].greater_is_better
    assert not metrics["same_texts_count"].greater_is_better
    assert metrics["same_texts_count"].compute(["a", "b"], ["a", "b"]) == 2


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["acuracy"], "Did you mean 'accuracy'"),
        (["f1:averag=micro"], "Did you mean 'average'"),
        (["f1:average=mini"], "average"),
        (["f1:average=micro,micro"], "'micro' is not an option"),
        (["accuracy", "accuracy"], "Two metrics"),
        (["./missing.py"], "no metric at"),
        (["./same_texts.py:keys=count"], "Did you mean 'key'"),
        (["./same_texts.py:greater_is_better=maybe"], "true or false"),
        (["evaluate:"], "is not the name of a metric"),
        ([""], "is not the name of a metric"),
    ],
)
def test_what_names_no_metric_is_reported(folder: Path, entries: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        metrics_of(entries, folder)


def test_a_module_says_what_a_recipe_says_of_it(folder: Path) -> None:
    entry = "./same_texts.py:key=same,greater_is_better=false,scale=error_rate"
    ((name, metric),) = metrics_of([entry], folder).items()
    assert name == "same_texts_same"
    assert metric.facts == MetricFacts({"en": "same_texts same"}, "error_rate", greater_is_better=False)
    plain = from_evaluate("same_texts.py", folder=folder, scale="share")
    assert plain.facts == MetricFacts({"en": "same_texts"}, "share", greater_is_better=True)
    assert as_evaluate("f1", average="micro").facts.label["en"] == "F1 micro"
    with pytest.raises(
        RecipeError, match="scale must be share, hundred, error_rate, correlation, unbounded, not 'ten'"
    ):
        metrics_of(["./same_texts.py:scale=ten"], folder)
