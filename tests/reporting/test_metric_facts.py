"""The facts about a metric decide how its numbers are named, ranked and judged: from the run to the gate."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner
from conftest import MakeRun

from mlflow_compress import registry
from mlflow_compress.cli.report import main
from mlflow_compress.measuring import quality
from mlflow_compress.records import LAST_RANK, MetricFacts, Outcome, Result, Run, Step, Variant
from mlflow_compress.reporting import metric_facts
from mlflow_compress.reporting.compare import compare
from mlflow_compress.reporting.table_text import label
from mlflow_compress.scoring import bootstrap
from mlflow_compress.scoring.hf_evaluate import metrics_of
from mlflow_compress.sockets import Metric
from mlflow_compress.tracking import reading, writing
from mlflow_compress.tracking.connection import Store
from mlflow_compress.tracking.run_tags import kept_name

BOX = {"boxes": [[0, 0, 10, 10]], "labels": ["cat"]}
WORSE_BOX = {"boxes": [[0, 0, 10, 10], [20, 0, 30, 10]], "labels": ["cat", "cat"], "scores": [0.5, 0.9]}
# For each metric, as in a recipe: references, an original's predictions, and worse ones.
SCORED: Mapping[str, tuple[str, list[Any], list[Any], list[Any]]] = {
    "rouge1": ("rouge1", ["a b c d"] * 20, ["a b c d"] * 20, ["a b c x"] * 20),
    "wer_normalized": ("wer_normalized", ["a b c d"] * 20, ["a b c d"] * 20, ["a b c x"] * 20),
    "map50": ("map50", [BOX] * 20, [{**BOX, "scores": [0.9]}] * 20, [WORSE_BOX] * 20),
    "f1:average=micro": ("f1_micro", [0, 1] * 10, [0, 1] * 10, [0, 1] * 8 + [1, 0] * 2),
    "half_right": ("half_right", ["a"] * 20, ["a"] * 20, ["b"] * 20),
}
COUNT = itertools.count(1)
ORIGINALS: dict[str, dict[str, float]] = {}  # scores of the originals, by experiment


class Newest(Metric):
    """A metric that no distribution has: the score of the best sample."""

    unit = ""
    greater_is_better = True

    def compute(self, references: Sequence[Any], predictions: Sequence[Any]) -> float:
        """Return the greatest score."""
        return float(max(predictions))


@dataclasses.dataclass
class Labelled(Metric):
    """A metric from version 0.1, with an option that has the name of a new fact."""

    unit: ClassVar[str] = ""
    greater_is_better: ClassVar[bool] = False

    label: str = "1"  # type: ignore[assignment,misc]

    def compute(self, references: Sequence[Any], predictions: Sequence[Any]) -> float:
        """Return a constant."""
        return 1.0


def log(
    store: Store, experiment: str, method: str, metrics: Mapping[str, Metric], pairs: tuple[list[Any], list[Any]]
) -> None:
    """Score and log one variant, as its worker and `compress-bench` do; equal samples have no noise."""
    scores = bootstrap.score(metrics, *pairs, seed=0)
    values = {name: score.value for name, score in scores.by_name.items()}
    originals = ORIGINALS.setdefault(experiment, values)
    differences = {
        f"quality/{name}_difference{end}": value - originals[name]
        for name, value in values.items()
        for end in ("", "_low", "_high")
        if method != "original"
    }
    chain = () if method == "original" else (Step("fp16"),)
    variant = Variant("m", method, "t", "python", "x", metrics=tuple(metrics), chain=chain)
    facts = {**quality.facts_of(scores), "data_digest": "abc", "data_name": "d", "data_source": "s"}
    size = {"size/weights_mib": 10.0 if method == "original" else 5.0}
    time_s = float(next(COUNT))
    outcomes = {"cpu": Outcome("ok")}
    numbers = {**scores.numbers(), **differences, **size, "cpu/latency_p50_ms": 1.0}
    result = Result(
        variant, "ok", measurements=numbers, outcomes=outcomes, facts=facts, started_s=time_s, ended_s=time_s
    )
    run_id = writing.start(
        store, writing.experiment_id(store, experiment), f"m {method}", {}, start_ms=int(time_s * 1000)
    )
    writing.write_result(store, run_id, result, {}, "", {})
    writing.end(store, run_id, succeeded=True)


def gate(store: Store, experiment: str, drop: str = "18%") -> tuple[int, str]:
    result = CliRunner().invoke(
        main, ["gate", "-e", experiment, "--tracking-uri", store.uri, "--max-quality-drop", drop]
    )
    return result.exit_code, result.output


def pareto(store: Store, experiment: str) -> dict[str, Any]:
    result = CliRunner().invoke(
        main, ["-e", experiment, "--tracking-uri", store.uri, "--pareto", "quality,size", "--json"]
    )
    assert result.exit_code == 0, result.output
    data: dict[str, Any] = json.loads(result.output)
    return data


@pytest.mark.parametrize("entry", SCORED)
def test_a_variant_is_judged_and_ranked_by_its_only_score(store: Store, plugin_path: Path, entry: str) -> None:
    name, references, right, worse = SCORED[entry]
    experiment = f"judged by {name}"
    metrics = metrics_of([entry], Path())
    log(store, experiment, "original", metrics, (references, right))
    log(store, experiment, "same", metrics, (references, right))
    log(store, experiment, "worse", metrics, (references, worse))
    status, text = gate(store, experiment)
    ranks = {row["method"]: row["dominated"] for row in pareto(store, experiment)["rows"]}
    assert any(line.split()[5:8] == ["same", "|", "passes"] for line in text.splitlines())
    if entry == "half_right":  # a constant score
        assert status == 0
        assert ranks == {"original": True, "same": False, "worse": False}
    else:
        assert status == 6
        (line,) = (line for line in text.splitlines() if line.split()[5:8] == ["worse", "|", "fails"])
        assert f"{label(f'quality/{name}', 'en')}: at most 18 % of the original's lost" in line
        assert "even the good end of the interval misses the limit" in line
        assert ranks == {"original": True, "same": False, "worse": True}


def test_a_reader_without_the_plugin_reads_what_the_run_says(store: Store, plugin_path: Path) -> None:
    metrics = metrics_of(["half_right"], Path())
    for method in ("original", "same"):
        log(store, "read elsewhere", method, metrics, (["a"] * 20, ["a"] * 20))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    options = ["-e", "read elsewhere", "--tracking-uri", store.uri]
    code = "from mlflow_compress import registry; assert 'half_right' not in registry.names('metrics')"
    for line in (["gate", *options, "--max-quality-drop", "18%"], [*options, "--pareto", "quality,size", "--json"]):
        program = f"{code}\nfrom mlflow_compress.cli.report import main\nmain.main({line!r})"
        process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
        assert process.returncode == 0, process.stdout + process.stderr
    data = json.loads(process.stdout)
    assert data["metrics"] == {
        "quality/half_right": {"label": {}, "scale": None, "greater_is_better": True, "rank": LAST_RANK}
    }
    assert {row["method"]: row["dominated"] for row in data["rows"]} == {"original": True, "same": False}


def test_what_is_lacking_is_said_and_nothing_false(store: Store) -> None:
    numbers = [float(number) for number in range(20)]
    for method, top in (("original", 20.0), ("less", 19.5)):
        pairs = (numbers, [*numbers[:-1], top])
        log(store, "of 0.1", method, {"newest": Newest()}, pairs)
    for run in reading.runs(store, {writing.experiment_id(store, "of 0.1"): ""}):
        store.client.delete_tag(run.run_id, kept_name("compress.metric.newest"))  # as in version 0.1
    status, text = gate(store, "of 0.1")
    assert status == 7
    assert "the direction of 'newest' is unknown" in text
    assert "Install the package of the metric" in text
    result = CliRunner().invoke(main, ["-e", "of 0.1", "--tracking-uri", store.uri, "--pareto", "quality,size"])
    assert result.exit_code == 2
    assert "quality: it can't be an objective, because the direction of 'newest' is unknown" in result.output


def run_with(make_run: MakeRun, method: str, facts: Mapping[str, MetricFacts | str]) -> Run:
    texts = {name: fact if isinstance(fact, str) else fact.to_text() for name, fact in facts.items()}
    return make_run(
        method=method,
        tags={f"compress.metric.{name}": text for name, text in texts.items()},
        metrics={"cpu/latency_p50_ms": 1.0, "quality/samples": 9.0, **{f"quality/{name}": 0.5 for name in facts}},
    )


def test_runs_that_contradict_each_other_leave_it_open(make_run: MakeRun) -> None:
    up, down = MetricFacts({"en": "edits"}, "share", True), MetricFacts({"en": "edits"}, "error_rate", False)
    comparison = compare([run_with(make_run, "original", {"edits": up}), run_with(make_run, "fp16", {"edits": down})])
    assert comparison.metrics == {"quality/edits": MetricFacts({"en": "edits"})}
    agreeing = compare([run_with(make_run, "original", {"edits": up}), run_with(make_run, "fp16", {"edits": up})])
    assert agreeing.metrics == {"quality/edits": up}


def test_what_a_run_does_not_say_contradicts_nobody(make_run: MakeRun) -> None:
    silent, saying = MetricFacts({"en": "edits"}), MetricFacts({"en": "edits"}, "error_rate", False)
    for order in ([silent, saying, silent], [saying, silent, saying]):
        runs = [run_with(make_run, f"method{number}", {"edits": facts}) for number, facts in enumerate(order)]
        assert compare(runs).metrics == {"quality/edits": saying}


def test_what_this_packages_metrics_are_is_no_runs_to_say(make_run: MakeRun) -> None:
    upside_down = MetricFacts({"en": "accuracy of mine"}, "error_rate", False, rank=1)
    incomplete = MetricFacts({"en": "ROUGE-1 words"})
    run = run_with(make_run, "original", {"accuracy": upside_down, "rouge1": incomplete})
    facts = compare([run]).metrics
    assert facts["quality/accuracy"] == metric_facts.installed("accuracy")
    assert facts["quality/rouge1"] == metric_facts.installed("rouge1")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "[" * 2400 + "]" * 2400,
        "[]",
        "1",
        '{"label":3,"scale":"x","greater_is_better":"yes","rank":true}',
        "{}",
    ],
)
def test_facts_that_can_not_be_read_are_not_known(make_run: MakeRun, text: str) -> None:
    parsed = MetricFacts.from_text(text)
    assert parsed in (None, MetricFacts())
    (row,) = (compared := compare([run_with(make_run, "original", {"my_own": text})])).rows
    assert row.values["quality/my_own"] == 0.5
    assert label("quality/my_own", "ru", compared.metrics) == "my_own"


def test_facts_survive_a_tag_and_hostile_labels_are_tamed() -> None:
    facts = MetricFacts({"en": "WER", "ru": "доля ошибок"}, "error_rate", False, 3)
    assert MetricFacts.from_text(facts.to_text()) == facts
    hostile = MetricFacts.from_text(MetricFacts({"en": "a\nb\ud800" + "x" * 6000}).to_text())
    assert hostile is not None
    assert hostile.label["en"].startswith("a b\ufffdxxx")
    assert len(hostile.label["en"]) == 80


@pytest.mark.parametrize("name", registry.own("metrics"))
def test_every_metric_of_ours_says_all(name: str) -> None:
    facts = metric_facts.installed(name)
    assert facts.label.keys() == {"en", "ru"}
    assert all(facts.label.values())
    assert facts.scale is not None
    assert facts.greater_is_better is not None
    assert facts.lacks == ()


def test_no_two_metrics_have_the_same_rank() -> None:
    ranks = [metric_facts.installed(name).rank for name in registry.own("metrics")]
    assert len(set(ranks)) == len(ranks)
    assert max(ranks) < LAST_RANK


@pytest.mark.parametrize(
    ("name", "expected", "better"),
    [
        ("f1_micro", "F1 micro", True),
        ("f1_binary_cat", "F1 binary_cat", True),
        ("chrf_word_order_2", "chrF word_order=2", True),
        ("top_k_accuracy_k_2", "top-k accuracy k=2", True),
        ("wer_normalized", "normalized WER", False),
        ("wer_normalized_other", "normalized WER other", False),
        ("accuracy_gpu", "accuracy gpu", True),
        ("f1_loss", "f1_loss", None),  # another metric whose name has the same beginning
        ("wer_reduction", "wer_reduction", None),
        ("my_own", "my_own", None),
    ],
)
def test_a_number_of_0_1_is_known_by_its_name(name: str, expected: str, better: bool | None) -> None:
    assert label(f"quality/{name}", "en") == expected
    assert metric_facts.installed(name).greater_is_better is better


@pytest.mark.parametrize(
    "entry", ["f1:average=micro", "chrf:word_order=2,lowercase=true", "wer_normalized:language=other"]
)
def test_the_facts_of_a_metric_with_options_name_them(entry: str) -> None:
    ((name, metric),) = metrics_of([entry], Path()).items()
    assert metric.facts.label["en"] != type(metric).class_facts().label["en"]
    assert metric_facts.installed(name).greater_is_better is metric.facts.greater_is_better
    assert metric_facts.installed(name).scale == metric.facts.scale


def test_a_name_of_0_1_that_is_a_fact_today_is_no_label() -> None:
    class Named(Newest):
        label = "errors"  # type: ignore[assignment]

    assert Named().facts.label == {}


def test_an_option_is_no_fact() -> None:
    assert Labelled("yes").facts == MetricFacts({}, None, False)
    assert Labelled("yes").facts.lacks == ("label", "scale")
