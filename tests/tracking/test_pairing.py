from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlflow_compress import registry
from mlflow_compress.measuring.quality import FLIPS, PREDICTIONS, STATISTICS
from mlflow_compress.networks.class_scores import Ranking
from mlflow_compress.planning import chains
from mlflow_compress.records import Result, Variant
from mlflow_compress.scoring import bootstrap, statistics_file
from mlflow_compress.scoring.class_table import POOL, ClassTable
from mlflow_compress.tracking import pairing

COUNT = 200


def result(folder: Path, method: str, right: Any, digest: str = "abc", **changes: Any) -> Result:
    """Return a result whose scoring left statistics in the folder."""
    folder.mkdir(exist_ok=True)
    answers = [int(is_right) for is_right in right]
    scores = bootstrap.score({"accuracy": registry.build("metrics", "accuracy")}, [1] * len(answers), answers, seed=0)
    statistics_file.write(scores.statistics(), folder / STATISTICS)
    variant = Variant(
        "m", method, "t", "python", "m.py", data="own", chain=chains.parse_chain(method), metrics=("accuracy",)
    )
    variant = dataclasses.replace(variant, **changes)
    return Result(variant, "ok", measurements=scores.numbers(), facts={"data_digest": digest})


@pytest.fixture
def right() -> Any:
    return np.random.default_rng(0).random(COUNT) < 0.8


def test_a_variant_is_paired_with_its_original(tmp_path: Path, right: Any) -> None:
    originals = pairing.Originals()
    original = result(tmp_path, "original", right)
    assert originals.pair(original, tmp_path) == original
    worse_answers = right.copy()
    worse_answers[np.flatnonzero(right)[:20]] = False
    paired = originals.pair(result(tmp_path, "fp16", worse_answers, batch_size=4), tmp_path)
    numbers = {name: value for name, value in paired.measurements.items() if "difference" in name}
    assert numbers["quality/accuracy_difference"] == pytest.approx(-20 / COUNT)
    low, high = numbers["quality/accuracy_difference_low"], numbers["quality/accuracy_difference_high"]
    # The difference is a share of samples: its standard error is known.
    error = np.sqrt(0.1 * 0.9 / COUNT)
    assert (low, high) == pytest.approx((-0.1 - 1.96 * error, -0.1 + 1.96 * error), abs=0.01)
    assert paired.facts["significant.accuracy"] == "yes"


def test_noise_is_not_significant(tmp_path: Path, right: Any) -> None:
    originals = pairing.Originals()
    originals.pair(result(tmp_path, "original", right), tmp_path)
    changed = right.copy()
    changed[np.flatnonzero(right)[:4]] = False
    changed[np.flatnonzero(~right)[:3]] = True
    paired = originals.pair(result(tmp_path, "fp16", changed), tmp_path)
    assert paired.measurements["quality/accuracy_difference"] == pytest.approx(-1 / COUNT)
    assert paired.facts["significant.accuracy"] == "no"
    unchanged = originals.pair(result(tmp_path, "bf16", right), tmp_path)
    assert unchanged.measurements["quality/accuracy_difference_low"] == 0
    assert unchanged.facts["significant.accuracy"] == "no"


@pytest.mark.parametrize(
    "changes",
    [{"digest": "other"}, {"options": {"tokens": 2}}, {"model": "n"}, {"seed": 1}, {"metrics": ("f1",)}, {"limit": 5}],
)
def test_other_samples_are_not_paired(tmp_path: Path, right: Any, changes: dict[str, Any]) -> None:
    originals = pairing.Originals()
    originals.pair(result(tmp_path, "original", right), tmp_path)
    paired = originals.pair(result(tmp_path, "fp16", right, **changes), tmp_path)
    assert not [name for name in (*paired.measurements, *paired.facts) if "differ" in name or "significant" in name]


def test_scoring_that_was_cut_is_not_paired(tmp_path: Path, right: Any) -> None:
    originals = pairing.Originals()
    originals.pair(result(tmp_path, "original", right), tmp_path)
    paired = originals.pair(result(tmp_path, "fp16", right[:150]), tmp_path)
    assert "quality/accuracy_difference" not in paired.measurements


def test_what_was_not_scored_is_left_as_it_is(tmp_path: Path) -> None:
    variant = Variant("m", "fp16", "t", "python", "m.py")
    unscored = Result(variant, "ok")
    assert pairing.Originals().pair(unscored, tmp_path) is unscored


def classifier(folder: Path, method: str, shares: list[float], digest: str = "abc") -> Result:
    """Return a result of a classifier whose scoring left tables in the folder; all references are `a`."""
    folder.mkdir(exist_ok=True)
    references = ["a"] * len(shares)
    predictions = [Ranking(["a" if share > 0.5 else "b"], ("a", "b"), np.log([share, 1 - share])) for share in shares]
    scores = bootstrap.score({"accuracy": registry.build("metrics", "accuracy")}, references, predictions, seed=0)
    table = ClassTable.of(references, predictions)
    statistics_file.write({POOL: table.statistics(), **scores.statistics()}, folder / STATISTICS)
    rows = [[reference, answer[0]] for reference, answer in zip(references, predictions, strict=True)]
    (folder / PREDICTIONS).write_text(json.dumps({"columns": ["reference", "prediction"], "data": rows}))
    variant = Variant(
        "m", method, "t", "python", "m.py", data="own", chain=chains.parse_chain(method), metrics=("accuracy",)
    )
    return Result(variant, "ok", measurements=scores.numbers(), facts={"data_digest": digest})


def test_answers_are_compared_with_the_originals_on_the_same_samples(tmp_path: Path) -> None:
    originals = pairing.Originals()
    originals.pair(classifier(tmp_path / "original", "original", [0.9, 0.8, 0.4, 0.7]), tmp_path / "original")
    folder = tmp_path / "fp16"
    paired = originals.pair(classifier(folder, "fp16", [0.9, 0.4, 0.6, 0.6]), folder)
    numbers = paired.measurements
    assert (numbers["quality/flips"], numbers["quality/top1_agreement"]) == (0.5, 0.5)
    assert (numbers["quality/samples_worse"], numbers["quality/samples_better"]) == (1, 1)
    before, after = ([[share, 1 - share] for share in shares] for shares in ([0.8, 0.4, 0.7], [0.4, 0.6, 0.6]))
    divergence = np.sum(np.array(before) * np.log(np.array(before) / np.array(after))) / 4
    assert numbers["quality/kl_divergence_nats"] == pytest.approx(divergence, rel=1e-6)
    assert numbers["quality/kl_divergence_reverse_nats"] > 0
    table = json.loads((folder / FLIPS).read_text())
    assert table["data"] == [
        [1, "became wrong", "a", "a", "b", 1.0, 0.0],
        [2, "became right", "a", "b", "a", 0.0, 1.0],
    ]
    assert not (tmp_path / "original" / FLIPS).exists()


def test_class_scores_that_do_not_fit_are_not_compared(tmp_path: Path) -> None:
    originals = pairing.Originals()
    originals.pair(classifier(tmp_path / "original", "original", [0.9, 0.8, 0.4]), tmp_path / "original")
    folder = tmp_path / "fp16"
    scored = classifier(folder, "fp16", [0.9, 0.8, 0.4])
    kept = statistics_file.read(folder / STATISTICS)
    broken = statistics_file.Statistics(kept[POOL].values, ("sample", "reference", '"a"', '"emu"'))
    statistics_file.write({**kept, POOL: broken}, folder / STATISTICS)
    paired = originals.pair(scored, folder)
    assert "quality/kl_divergence_nats" not in paired.measurements
    assert paired.measurements["quality/flips"] == 0


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"{}"])
def test_statistics_that_are_none_pair_nothing_and_say_so(tmp_path: Path, right: Any, content: bytes) -> None:
    scored = result(tmp_path, "fp16", right)
    (tmp_path / STATISTICS).write_bytes(content)
    result_paired = pairing.Originals().pair(scored, tmp_path)
    assert result_paired.measurements == scored.measurements
    assert result_paired.facts["unpaired"].startswith("statistics.npz can't be read: ")


@pytest.mark.full
def test_a_detector_is_paired_and_of_few_samples_there_is_the_difference_alone(tmp_path: Path) -> None:
    names = ("map50", "box_recall")
    image = {"boxes": [[0, 0, 20, 20]], "labels": ["cat"]}

    def detector(method: str, detected: int, images: int) -> Result:
        predictions: list[dict[str, Any]] = [
            {**image, "scores": [0.9]} if index < detected else {"boxes": [], "labels": [], "scores": []}
            for index in range(images)
        ]
        metrics = {name: registry.build("metrics", name) for name in names}
        scored = bootstrap.score(metrics, [image] * images, predictions, seed=0)
        statistics_file.write(scored.statistics(), tmp_path / STATISTICS)
        chain = chains.parse_chain(method)
        variant = Variant("m", method, "t", "yolo", "m.pt", data="own", chain=chain, metrics=names)
        return Result(variant, "ok", measurements=scored.numbers(), facts={"data_digest": str(images)})

    originals = pairing.Originals()
    for images in (40, 5):
        originals.pair(detector("original", images, images), tmp_path)
    paired = originals.pair(detector("fp16", 20, 40), tmp_path)
    numbers = {name: value for name, value in paired.measurements.items() if "recall_difference" in name}
    assert numbers["quality/box_recall_difference"] == pytest.approx(-0.5)
    error = np.sqrt(0.25 / 40)
    ends = numbers["quality/box_recall_difference_low"], numbers["quality/box_recall_difference_high"]
    assert ends == pytest.approx((-0.5 - 1.96 * error, -0.5 + 1.96 * error), abs=0.04)
    assert paired.facts["significant.map50"] == "yes"
    few = originals.pair(detector("fp16", 4, 5), tmp_path)
    assert few.measurements["quality/box_recall_difference"] == pytest.approx(-0.2)
    assert not [name for name in (*few.measurements, *few.facts) if "difference_low" in name or "significant" in name]


def test_a_metric_that_only_takes_all_samples_at_once_has_a_difference(tmp_path: Path, right: Any) -> None:
    script = tmp_path / "mine.py"
    script.write_text("")
    originals = pairing.Originals()
    for method, value in (("original", 0.75), ("fp16", 0.5)):
        scored = result(tmp_path, method, right, metrics=("accuracy", str(script)))
        scored = dataclasses.replace(scored, measurements={**scored.measurements, "quality/mine": value})
        paired = originals.pair(scored, tmp_path)
    assert paired.measurements["quality/mine_difference"] == -0.25
    assert "quality/mine_difference_low" not in paired.measurements
