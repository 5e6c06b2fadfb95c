from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from mlflow import MlflowClient

from mlflow_compress.cli.bench import main
from mlflow_compress.errors import CompressError, RecipeError, StoreError
from mlflow_compress.measuring import quality
from mlflow_compress.measuring.quality import CLASSES, CONFUSION, PREDICTIONS, STATISTICS
from mlflow_compress.networks.class_scores import rankings
from mlflow_compress.planning import chains
from mlflow_compress.records import Budget, MetricFacts, Result, Variant
from mlflow_compress.scoring import statistics_file
from mlflow_compress.sockets import Family, Model, Sample
from mlflow_compress.tracking import reading, rescore, writing
from mlflow_compress.tracking.connection import Store
from mlflow_compress.tracking.spool import Spool

REFERENCES = ["the cat sat", "on the mat", "a dog", "barked at night"] * 5
PREDICTIONS_OF = {reference: reference for reference in REFERENCES} | {"a dog": "the dog", "on the mat": "on mat"}


class Echo:
    """A family whose answers come from a table."""

    metrics: tuple[str, ...] = ()

    def __init__(self, answers: dict[Any, Any] | None = None) -> None:
        self.table = PREDICTIONS_OF if answers is None else answers

    def scored_rates(self, *_: Any) -> dict[str, float]:
        return {}

    def kinds(self, model: Model) -> tuple[str, ...]:
        return ("texts",)

    def samples(self, *_: Any) -> list[Sample]:
        return [Sample(reference, reference) for reference in REFERENCES]

    def answers(self, model: Model, inputs: list[Any]) -> list[Any]:
        return [self.table[text] for text in inputs]


def variant_of(*metrics: str, family: str = "asr", seed: int = 3) -> Variant:
    return Variant(
        "m", "fp16", "t", family, "x", data="d", metrics=metrics, seed=seed, chain=chains.parse_chain("fp16")
    )


def logged(
    store: Store, folder: Path, *metrics: str, keep: bool = True, said: tuple[str, ...] = ()
) -> tuple[str, dict[str, float]]:
    variant = variant_of(*metrics)
    part = quality.score(cast(Family, Echo()), Model(None), variant, folder, lambda *_: None)
    files = {name: (folder / name).read_bytes() for name in (PREDICTIONS, STATISTICS)} if keep else {}
    run_id = writing.start(store, writing.experiment_id(store, "rescored"), "m fp16", {})
    writing.write_result(
        store,
        run_id,
        Result(replace(variant, metrics=said or metrics), "ok", measurements=part.measurements, facts=part.facts),
        {},
        "",
        files,
    )
    writing.end(store, run_id, succeeded=True)
    return run_id, dict(part.measurements)


def test_the_runs_own_metrics_come_out_the_same(store: Store, tmp_path: Path) -> None:
    run_id, old_numbers = logged(store, tmp_path, "wer", "cer")
    rescored = rescore.of_run(store, run_id, (), log=False)
    assert rescored.scores.numbers() == old_numbers
    assert [line.endswith("(n=20; as logged)") for line in rescored.lines()] == [True, True]
    assert rescored.lines()[0].startswith("wer: 0.181818 [")


def test_new_metrics_are_as_if_they_had_been_scored_at_once(store: Store, tmp_path: Path) -> None:
    run_id, _ = logged(store, tmp_path, "wer")
    _, expected_numbers = logged(store, tmp_path, "wer", "cer_normalized", "chrf")
    rescored = rescore.of_run(store, run_id, ("cer_normalized", "chrf"), log=True)
    assert rescored.scores.numbers().items() <= expected_numbers.items()
    run = reading.run(store, run_id)
    assert {name: value for name, value in run.metrics.items() if name.startswith("quality/")} == expected_numbers
    assert run.tags["compress.protocol.chrf"] == rescored.scores.protocols()["chrf"]
    assert MetricFacts.from_text(run.tags["compress.metric.chrf"]) == rescored.scores.facts()["chrf"]
    assert run.lifecycle == "FINISHED"
    content = reading.artifact(store, run_id, STATISTICS)
    assert content is not None
    (tmp_path / "again.npz").write_bytes(content)
    statistics, expected = statistics_file.read(tmp_path / "again.npz"), statistics_file.read(tmp_path / STATISTICS)
    assert set(statistics) == {"wer", "cer_normalized", "chrf"}
    assert all(np.array_equal(statistics[name].values, expected[name].values) for name in statistics)


class Classifier(Echo):
    """A family whose answers have the scores of all classes."""

    def kinds(self, model: Model) -> tuple[str, ...]:
        return ("labels", "scores")

    def answers(self, model: Model, inputs: list[Any]) -> list[Any]:
        classes = tuple(sorted(set(REFERENCES)))
        generator = torch.Generator().manual_seed(len(inputs))
        logits = torch.randn((len(inputs), len(classes)), generator=generator)
        logits[torch.arange(len(inputs)), [classes.index(text) for text in inputs]] += 1
        return list(rankings(logits, classes))


def test_metrics_of_class_scores_are_computed_from_the_file_of_statistics(tmp_path: Path) -> None:
    names = ("accuracy", "roc_auc", "log_loss")
    family = cast(Family, Classifier())
    at_once = quality.score(family, Model(None), variant_of(*names, family="text"), tmp_path, lambda *_: None)
    (tmp_path / "later").mkdir()
    quality.score(family, Model(None), variant_of("accuracy", family="text"), tmp_path / "later", lambda *_: None)
    rescored = rescore.of_file(tmp_path / "later" / PREDICTIONS, names, seed=3)
    assert rescored.scores.numbers() == at_once.measurements
    (tmp_path / "later" / STATISTICS).unlink()
    with pytest.raises(RecipeError, match=r"roc_auc takes the scores of all classes, which .* did not keep"):
        rescore.of_file(tmp_path / "later" / PREDICTIONS, names)


def test_a_classifier_leaves_its_confusion_matrix_and_its_classes(tmp_path: Path) -> None:
    family = cast(Family, Classifier())
    part = quality.score(family, Model(None), variant_of("accuracy", family="text"), tmp_path, lambda *_: None)
    confusion = json.loads((tmp_path / CONFUSION).read_text())["data"]
    right = sum(count for true, answer, count in confusion if true == answer)
    assert right / 20 == part.measurements["quality/accuracy"]
    classes = json.loads((tmp_path / CLASSES).read_text())
    assert [row[0] for row in classes["data"]] == sorted(set(REFERENCES))
    assert [row[1] for row in classes["data"]] == [5, 5, 5, 5]
    predictions = json.loads((tmp_path / PREDICTIONS).read_text())["data"]
    assert all(isinstance(answer, str) for _, answer in predictions)


def test_texts_have_no_confusion_matrix(tmp_path: Path) -> None:
    quality.score(cast(Family, Echo()), Model(None), variant_of("wer"), tmp_path, lambda *_: None)
    assert not (tmp_path / CONFUSION).exists()


def test_without_log_the_run_stays_as_it_was(store: Store, tmp_path: Path) -> None:
    run_id, old_numbers = logged(store, tmp_path, "wer")
    assert rescore.of_run(store, run_id, ("chrf",), log=False).lines()[0].endswith("; new)")
    assert set(reading.run(store, run_id).metrics) == set(old_numbers)


def test_a_different_number_is_reported(store: Store, tmp_path: Path) -> None:
    run_id, _ = logged(store, tmp_path, "wer")
    MlflowClient(store.uri).log_metric(run_id, "quality/wer", 0.5)
    assert "; logged: 0.5)" in rescore.of_run(store, run_id, (), log=False).lines()[0]


def test_what_can_not_be_rescored(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nonesuch"):
        rescore.of_run(store, "nonesuch", (), log=False)
    bare = writing.start(store, writing.experiment_id(store, "rescored"), "someone's", {})
    with pytest.raises(StoreError, match="not a run of compress-bench"):
        rescore.of_run(store, bare, (), log=False)
    without, _ = logged(store, tmp_path, "wer", keep=False)
    with pytest.raises(StoreError, match="has no predictions"):
        rescore.of_run(store, without, (), log=False)
    run_id, _ = logged(store, tmp_path, "wer")
    with pytest.raises(RecipeError, match=r"accuracy takes labels, but the model returns texts.*wer_normalized"):
        rescore.of_run(store, run_id, ("accuracy",), log=False)
    with pytest.raises(RecipeError, match="Did you mean 'chrf'"):
        rescore.of_run(store, run_id, ("chrff",), log=False)


@pytest.mark.parametrize("name", ["./evil.py", "evaluate:someone/evil"])
def test_code_that_a_run_names_is_not_run(store: Store, tmp_path: Path, name: str) -> None:
    run_id, _ = logged(store, tmp_path, "wer", said=(name,))
    with pytest.raises(RecipeError, match=r"The run's metric .*evil.* is Python code\. If you trust"):
        rescore.of_run(store, run_id, (), log=False)


def table(path: Path, *rows: tuple[Any, Any]) -> Path:
    path.write_text(json.dumps({"columns": ["reference", "prediction"], "data": rows}))
    return path


@pytest.mark.parametrize(
    ("metric", "row", "fits"),
    [
        ("wer", ("a b", "a c"), True),
        ("wer", (1, 0), False),
        ("accuracy", (1, [0, 1]), True),
        ("accuracy", ("x", {"nll": 1.0}), False),
        ("perplexity", ("a b", {"nll": 2.0, "tokens": 2}), True),
        ("perplexity", ("a b", "a c"), False),
        ("seqeval_f1", (["O", "B-x"], ["O", "B-x"]), True),
        ("seqeval_f1", ("O", "O"), False),
        ("map50", ("x", "y"), False),
        (
            "map50",
            ({"boxes": [[0, 0, 9, 9]], "labels": [0]}, {"boxes": [[0, 0, 9, 9]], "labels": [0], "scores": [0.9]}),
            True,
        ),
    ],
)
def test_a_file_is_scored_by_what_takes_it(tmp_path: Path, metric: str, row: tuple[Any, Any], fits: bool) -> None:
    path = table(tmp_path / PREDICTIONS, row)
    if fits:
        assert list(rescore.of_file(path, (metric,)).scores.by_name) == [metric]
    else:
        with pytest.raises(RecipeError, match=f"{metric} takes"):
            rescore.of_file(path, (metric,))


@pytest.mark.parametrize("text", ["[]", "{}", "no json", '{"data": [1]}', '{"data": [[1]]}', '{"data": []}'])
def test_a_file_that_is_no_table(tmp_path: Path, text: str) -> None:
    (tmp_path / PREDICTIONS).write_text(text)
    with pytest.raises(CompressError):
        rescore.of_file(tmp_path / PREDICTIONS, ("accuracy",))


def test_arrays_of_a_models_own_predict_are_kept_as_numbers(tmp_path: Path) -> None:
    family = Echo({reference: np.array([[1, 2]]) if reference == "a dog" else np.int64(1) for reference in REFERENCES})
    (tmp_path / PREDICTIONS).write_text(quality._table([1, 2], family.answers(Model(None), ["a dog", "the cat sat"])))
    assert quality.read_predictions((tmp_path / PREDICTIONS).read_text()) == ([1, 2], [[[1, 2]], 1])


def test_the_command(store: Store, tmp_path: Path) -> None:
    run_id, old_numbers = logged(store, tmp_path, "wer")

    def command(*words: str) -> Any:
        return CliRunner().invoke(main, ["rescore", *words])

    output = command(run_id, "--tracking-uri", store.uri, "--json")
    assert json.loads(output.stdout) == old_numbers
    assert command(run_id, "--tracking-uri", store.uri, "--metric", "chrf").stdout.startswith("chrf: ")
    assert command(str(tmp_path / PREDICTIONS), "--metric", "wer").stdout.startswith("wer: 0.181818 [")
    assert command(str(tmp_path / PREDICTIONS)).exit_code == 2
    assert command(str(tmp_path / PREDICTIONS), "--metric", "wer", "--log").exit_code == 2
    assert command("nonesuch", "--tracking-uri", store.uri).exit_code == 4


# The files that scoring leaves


def test_scoring_stops_when_the_time_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(1000))
    monkeypatch.setattr("time.monotonic", lambda: float(next(now)))  # each reading of the clock takes a second
    monkeypatch.setattr(quality, "_AT_ONCE", 3)
    variant = Variant("m", "fp16", "t", "asr", "x", data="d", metrics=("wer",), budget=Budget(score_seconds=1.5))
    events: list[int] = []
    part = quality.score(
        cast(Family, Echo()), Model(None), variant, tmp_path, lambda done, total, left: events.append(done)
    )
    assert events == [3, 6]
    assert part.measurements["quality/samples"] == 6
    cut = next(caution for caution in part.cautions if caution.code == "scoring_cut")
    assert "the first 6 of 20 samples" in cut.message
    assert quality.read_predictions((tmp_path / PREDICTIONS).read_text())[0] == REFERENCES[:6]
    assert statistics_file.read(tmp_path / STATISTICS)["wer"].values.shape[0] == 6


def test_the_predictions_and_the_data_are_in_the_run(store: Store, tmp_path: Path) -> None:
    run_id, _ = logged(store, tmp_path, "wer")
    content = reading.artifact(store, run_id, PREDICTIONS)
    assert content is not None
    references, predictions = quality.read_predictions(content.decode())
    assert references == REFERENCES
    assert predictions == [PREDICTIONS_OF[reference] for reference in REFERENCES]
    run = MlflowClient(store.uri).get_run(run_id)
    assert json.loads(run.data.tags["mlflow.loggedArtifacts"]) == [{"path": PREDICTIONS, "type": "table"}]
    assert run.inputs is not None
    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, len(used.dataset.digest)) == ("d", 16)
    assert used.dataset.digest == run.data.tags["mlflow.compress.data_digest"]
    assert [(tag.key, tag.value) for tag in used.tags] == [("mlflow.data.context", "evaluation")]


def test_a_metric_that_takes_other_predictions_is_refused_before_anything_is_predicted(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="accuracy takes labels, but the model returns texts"):
        quality.score(cast(Family, Echo({})), Model(None), variant_of("accuracy"), tmp_path, lambda *_: None)


def test_two_at_once_add_to_one_file(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second process starts when the first one has read the files and has not written yet."""
    run_id, _ = logged(store, tmp_path, "wer")
    add, spool_alone = writing.add_to_run, Spool.alone
    second = threading.Thread(target=rescore.of_run, args=(store, run_id, ("chrf",), True))
    waits = threading.Event()

    def add_later(*args: Any) -> None:
        monkeypatch.setattr(writing, "add_to_run", add)
        second.start()
        assert waits.wait(timeout=120)
        add(*args)

    def told_alone(spool: Spool) -> Any:
        if threading.current_thread() is second:
            waits.set()
        return spool_alone(spool)

    monkeypatch.setattr(writing, "add_to_run", add_later)
    monkeypatch.setattr(Spool, "alone", told_alone)
    rescore.of_run(store, run_id, ("cer_normalized",), log=True)
    second.join(timeout=120)
    content = reading.artifact(store, run_id, STATISTICS)
    assert content is not None
    (tmp_path / "again.npz").write_bytes(content)
    assert set(statistics_file.read(tmp_path / "again.npz")) == {"wer", "cer_normalized", "chrf"}


IMAGE = {"boxes": [[0, 0, 9, 9]], "labels": ["a"]}


@pytest.mark.parametrize(
    ("metric", "reference", "prediction", "message"),
    [
        ("miou", {"pixels": {"size": [2, 2], "runs": [0, 10**13]}}, {"pixels": [[0]]}, "10000000000000 in its runs"),
        ("miou", {"pixels": {"size": [10**6, 10**7], "runs": [0, 10**13]}}, {"pixels": [[0]]}, "is too large"),
        ("miou", {"pixels": {"size": [2, 2], "runs": [0, 10**30]}}, {"pixels": [[0]]}, "OverflowError"),
        ("miou", {"pixels": None}, {"pixels": None}, "TypeError"),
        (
            "mask_map50",
            {**IMAGE, "masks": [{"size": [9, 9], "counts": [0, 10**13]}]},
            {**IMAGE, "masks": []},
            "in its runs",
        ),
        ("mask_map50", {**IMAGE, "masks": [{"size": [1, 1]}]}, {**IMAGE, "masks": []}, "KeyError"),
        ("mrr", "d", [["x"]], "TypeError: unhashable"),
        ("top_k_accuracy", "a", {"labels": 5, "probabilities": 5}, "TypeError"),
    ],
)
def test_predictions_of_any_json_are_scored_or_reported(
    tmp_path: Path, metric: str, reference: Any, prediction: Any, message: str
) -> None:
    path = table(tmp_path / PREDICTIONS, (reference, prediction))
    with pytest.raises(RecipeError, match=rf"can't be scored by these metrics: .*{message}"):
        rescore.of_file(path, (metric,))


def test_a_calibration_error_has_few_bins(tmp_path: Path) -> None:
    path = table(tmp_path / PREDICTIONS, ("a", {"a": 1}))
    with pytest.raises(RecipeError, match="less than or equal to 1000"):
        rescore.of_file(path, ("ece:bins=1000000000",))
