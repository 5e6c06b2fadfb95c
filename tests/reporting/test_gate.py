from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlflow_compress import registry
from mlflow_compress.compression.coverage import SMALL_COVERAGE
from mlflow_compress.errors import RecipeError
from mlflow_compress.metrics.accuracy import Accuracy
from mlflow_compress.percentiles import launch_interval, launch_mean
from mlflow_compress.records import Comparison, Reference, Row, Run
from mlflow_compress.reporting.compare import compare
from mlflow_compress.reporting.gate import (
    EXIT_CODES,
    PRESETS,
    Check,
    Demands,
    Verdict,
    check,
    of_variants,
    verdict,
)
from mlflow_compress.reporting.quality_drop import Drop
from mlflow_compress.reporting.table_text import cells, columns, label
from mlflow_compress.scoring import bootstrap
from mlflow_compress.scoring.statistics_file import Statistics

MakeRun = Callable[..., Run]
SPEED, RATIO, SCORE = "cpu/latency_p50_ms", "cpu/latency_ratio", "quality/accuracy"
ORIGINAL = {
    "size/weights_mib": 100.0,
    "size/disk_mib": 100.0,
    SPEED: 10.0,
    "cpu/ram_peak_mib": 1000.0,
    SCORE: 0.9,
    "quality/samples": 1000.0,
}
ALL = Demands(1.5, Drop.read("1%"), 0.6, 0.6, 0.8)
NO_GPU = {"compress.reason.gpu": "CPU only"}


def scored(value: float, low: float, high: float) -> dict[str, float]:
    """Return a variant's score, by its difference from the original's 0.9."""
    ends = {"_difference": value, "_difference_low": low, "_difference_high": high}
    return {SCORE: 0.9 + value, **{f"{SCORE}{end}": number for end, number in ends.items()}}


def in_turns(ratio: float, low: float, high: float) -> dict[str, float]:
    """Return the latency ratio of five pairs of launches."""
    return {SPEED: 10 * ratio, RATIO: ratio, f"{RATIO}_low": low, f"{RATIO}_high": high, "cpu/pairs": 5.0}


GOOD = {
    "size/weights_mib": 50.0,
    "size/disk_mib": 50.0,
    "cpu/ram_peak_mib": 700.0,
    "quality/samples": 1000.0,
    **in_turns(0.5, 0.45, 0.55),
    **scored(0.001, -0.002, 0.004),
}


def without(numbers: Mapping[str, float], *beginnings: str) -> dict[str, float]:
    return {name: value for name, value in numbers.items() if not name.startswith(beginnings)}


def moved(numbers: Mapping[str, float]) -> dict[str, float]:
    """Return a CPU's numbers as a GPU's."""
    return {name.replace("cpu/", "gpu/").replace("ram_", "vram_"): value for name, value in numbers.items()}


class Scene:
    """Creates the runs of one state of a row."""

    def __init__(self, make_run: MakeRun) -> None:
        self._make_run = make_run

    def run(self, method: str, numbers: Mapping[str, float], **settings: object) -> Run:
        tags = {
            "compress.data_digest": "abc",
            "compress.protocol.accuracy": "top 1",
            **settings.pop("tags", {}),  # type: ignore[dict-item]
        }
        return self._make_run(method=method, metrics=dict(numbers), tags=tags, **settings)

    def original(self, numbers: Mapping[str, float] = ORIGINAL, **settings: object) -> Run:
        return self.run("original", numbers, **settings)

    def variant(self, numbers: Mapping[str, float] = GOOD, **settings: object) -> Run:
        return self.run("int8", numbers, **settings)

    def beside(self, numbers: Mapping[str, float], **settings: object) -> list[Run]:
        """Return a variant with the usual original."""
        return [self.original(), self.variant(numbers, **settings)]


def bad(scene: Scene) -> list[Run]:
    sizes = {"size/weights_mib": 90.0, "size/disk_mib": 90.0, "cpu/ram_peak_mib": 900.0}
    return scene.beside(GOOD | sizes | in_turns(1.0, 0.9, 1.1) | scored(-0.1, -0.12, -0.08))


def unseen(scene: Scene) -> list[Run]:
    few = {"quality/samples": 20.0}
    return [scene.original(ORIGINAL | few), scene.variant(GOOD | few | scored(0.0, 0.0, 0.0))]


def few(scene: Scene) -> list[Run]:
    numbers = without(GOOD | {"quality/samples": 4.0}, f"{SCORE}_difference")
    return [scene.original(ORIGINAL | {"quality/samples": 4.0}), scene.variant(numbers)]


def of_others(scene: Scene, numbers: Mapping[str, float]) -> list[Run]:
    return [scene.original(team="beta"), scene.variant(numbers)]


def failed(scene: Scene, status: str, reason: str, **settings: object) -> Run:
    return scene.variant(
        {}, tags={"compress.outcome.cpu": None, "status": status, "compress.reason": reason}, **settings
    )


def copied(scene: Scene, **settings: object) -> Run:
    """Return a copied row with a number that no measured row has, so that the table shows both."""
    return scene.variant(GOOD | {"quality/f1": 0.9}, tags={"compress.source": "imported"}, **settings)


def in_progress(scene: Scene) -> Run:
    return scene.variant({}, tags={"compress.outcome.cpu": None, "status": None}, lifecycle="RUNNING")


LITTLE = {
    "compress.cautions": "small_coverage",
    "compress.caution.1": SMALL_COVERAGE.of(reached=96, total=64322, share="0.1 %").to_text(),
}
APART = {"compress.env.cpu_model": "EPYC"}
LAUNCHES = without(GOOD, RATIO, "cpu/pairs")  # one launch each: without the ratio in turns
ONE_PAIR = GOOD | {"cpu/pairs": 1.0}
ONLY_GPU = without(GOOD, "cpu/")
STATES: Mapping[str, Callable[[Scene], list[Run]]] = {
    "meets all": lambda scene: scene.beside(GOOD),
    "misses all": bad,
    "within noise of all": lambda scene: scene.beside(GOOD | in_turns(0.6, 0.5, 0.72) | scored(-0.005, -0.012, 0.002)),
    "measured in one launch": lambda scene: scene.beside(LAUNCHES),
    "measured in turns, in one pair of launches": lambda scene: scene.beside(ONE_PAIR),
    "measured in turns, of which two pairs were left": lambda scene: scene.beside(GOOD | {"cpu/pairs": 2.0}),
    "scored on fewer than ten samples": few,
    "scored by a metric without an interval": lambda scene: scene.beside(without(GOOD, f"{SCORE}_difference")),
    "scored on few samples, none of which changed": unseen,
    "scored on other samples than the original": lambda scene: scene.beside(GOOD, tags={"compress.data_digest": "x"}),
    "not scored": lambda scene: scene.beside(without(GOOD, "quality/")),
    "with random weights": lambda scene: scene.beside(GOOD, tags={"compress.weights": "random"}),
    "with a caution about what was made": lambda scene: scene.beside(GOOD, tags=LITTLE),
    "whose original has random weights": lambda scene: [
        scene.original(tags={"compress.weights": "random"}),
        scene.variant(),
    ],
    "whose original scores nothing right": lambda scene: [
        scene.original(ORIGINAL | {SCORE: 0.0}),
        scene.variant(GOOD | scored(0.0, 0.0, 0.0) | {SCORE: 0.0}),
    ],
    "not measured on the device": lambda scene: scene.beside(moved(GOOD), gpu="ok"),
    "measured under other circumstances than the original": lambda scene: scene.beside(LAUNCHES, tags=APART),
    "without an original": lambda scene: [scene.variant(LAUNCHES)],
    "beside another team's original": lambda scene: of_others(scene, LAUNCHES),
    "beside another team's original, in turns with its own": lambda scene: of_others(scene, GOOD),
    "beside an original copied by hand": lambda scene: [
        scene.original(tags={"compress.source": "imported"}),
        scene.variant(LAUNCHES),
    ],
    "copied by hand": lambda scene: scene.beside(GOOD, tags={"compress.source": "imported"}),
    "copied by hand, beside a measured one that misses all": lambda scene: [*bad(scene), copied(scene)],
    "failed": lambda scene: [scene.original(), failed(scene, "failed", "out of memory")],
    "failed, after it was measured once": lambda scene: [*scene.beside(GOOD), failed(scene, "failed", "out of memory")],
    "failed on the device, measured on another": lambda scene: scene.beside(
        ONLY_GPU | GOOD, gpu="ok", cpu="failed", tags={"compress.reason.cpu": "out of memory"}
    ),
    "failed on another device": lambda scene: scene.beside(
        GOOD, cpu="ok", gpu="failed", tags={"compress.reason.gpu": "out of memory"}
    ),
    "failed in scoring": lambda scene: scene.beside(
        without(GOOD, "quality/"), cpu="ok", quality="failed", tags={"compress.reason.quality": "no idea"}
    ),
    "in progress": lambda scene: [scene.original(), in_progress(scene)],
    "in progress, after it was measured once": lambda scene: [*scene.beside(GOOD), in_progress(scene)],
    "skipped": lambda scene: [scene.original(), failed(scene, "skipped", "needs a GPU")],
    "skipped on the device, measured on another": lambda scene: scene.beside(
        moved(GOOD), gpu="ok", cpu="skipped", tags={"compress.reason.cpu": "needs a GPU"}
    ),
    "skipped on another device": lambda scene: scene.beside(GOOD, cpu="ok", gpu="skipped", tags=dict(NO_GPU)),
    "with a negative number": lambda scene: scene.beside(
        LAUNCHES | {SPEED: -5.0, "size/weights_mib": -1.0, "size/disk_mib": -1.0, "cpu/ram_peak_mib": -1.0}
    ),
    "with a number of 0": lambda scene: scene.beside(
        LAUNCHES | {SPEED: 0.0, "size/weights_mib": 0.0, "size/disk_mib": 0.0, "cpu/ram_peak_mib": 0.0}
    ),
    "with a score beyond its scale": lambda scene: scene.beside(GOOD | {SCORE: 93.0}),
    "with a ratio that no compression reaches": lambda scene: scene.beside(
        LAUNCHES | {SPEED: 1e-6, "size/weights_mib": 1e-6, "size/disk_mib": 1e-6, "cpu/ram_peak_mib": 1e-6}
    ),
    "with a ratio outside its own interval": lambda scene: scene.beside(
        GOOD | in_turns(0.5, 0.1, 0.2) | scored(0.001, 0.02, 0.03)
    ),
}


def matrix() -> dict[str, list[str]]:
    """Return the matrix of the documentation: the cells of each state."""
    text = Path(__file__).parents[2].joinpath("docs/how-to/gate.md").read_text(encoding="utf-8")
    lines = text.split("| the row |")[1].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {first: values for first, *values in cells}


def test_the_matrix_names_every_state() -> None:
    assert list(matrix()) == list(STATES)


@pytest.mark.parametrize("state", STATES)
def test_every_cell_of_the_matrix(make_run: MakeRun, state: str) -> None:
    checks = check(compare(STATES[state](Scene(make_run))), ALL)
    by_option: dict[str, Check] = {}
    for result in checks:
        if result.method == "int8":
            by_option.setdefault(result.option, result)  # before the lines of a copied row
    speed, quality, sizes, memory, code, why = matrix()[state]
    assert [by_option[option].verdict for option in by_option if option] == [speed, quality, sizes, sizes, memory]
    assert EXIT_CODES[verdict(checks)] == int(code)
    assert (why in " ".join(f"{result.reason} {result.advice}" for result in by_option.values())) or not why
    for result in checks:
        assert result.verdict == "passes" or result.reason
        assert result.advice or result.verdict != "undecided"
        assert "1.00x, more than 1x" not in f"{result.result}, {result.reason}"


def test_an_original_whose_scoring_failed_is_listed_once_without_demands(make_run: MakeRun) -> None:
    scene = Scene(make_run)
    tags = {"compress.reason.quality": "no idea"}
    original = scene.original(without(ORIGINAL, "quality/"), cpu="ok", quality="failed", tags=tags)
    checks = check(compare([original, scene.variant()]), ALL)
    (judged,) = (result for result in checks if result.method == "original")
    assert (judged.option, judged.verdict) == ("", "fails")
    assert "no idea" in judged.reason
    verdicts = {result.option: result.verdict for result in checks if result.method != "original"}
    assert (verdicts["--max-size-ratio"], verdicts["--max-quality-drop"]) == ("passes", "undecided")


def test_no_row_of_a_name_takes_anothers_place(make_run: MakeRun) -> None:
    scene = Scene(make_run)
    judged_twice = check(compare([*bad(scene), copied(scene)]), ALL)
    assert [check.verdict for check in judged_twice] == ["fails"] * 5 + ["not checked"] * 5
    checks = check(compare([scene.original(), copied(scene), failed(scene, "failed", "out of memory")]), ALL)
    assert [check.verdict for check in checks] == ["fails"] * 5 + ["not checked"] * 5
    rows = (measured(0.9, name="size/weights_mib"), measured(0.1, name="size/weights_mib"))
    assert [result.verdict for result in check(Comparison(rows), Demands(max_size_ratio=0.5))] == ["fails", "passes"]


def test_other_batch_sizes_and_settings_are_checked_by_themselves(make_run: MakeRun) -> None:
    scene = Scene(make_run)
    runs = scene.beside(GOOD)
    for tag, value in (("compress.batch_size", "4"), ("compress.setting", "tokens=64")):
        runs += [scene.original(tags={tag: value}), scene.variant(GOOD | {"size/weights_mib": 90.0}, tags={tag: value})]
    checks = check(compare(runs), Demands(max_size_ratio=0.6))
    assert {result.method: result.verdict for result in checks} == {
        "int8": "passes",
        "int8 [batch 4]": "fails",
        "int8 [tokens=64]": "fails",
    }


def test_what_passes_with_random_weights_says_that_its_quality_is_not_known(make_run: MakeRun) -> None:
    runs = Scene(make_run).beside(GOOD, tags={"compress.weights": "random"})
    checks = check(compare(runs), Demands(min_speedup=1.5, max_size_ratio=0.1))
    assert [(result.verdict, result.reason) for result in checks] == [
        ("passes", "random weights: the quality is unknown"),
        ("fails", "above the limit; random weights: the quality is unknown"),
    ]


def test_cautions_about_the_model_are_shown_and_those_about_a_busy_machine_not(make_run: MakeRun) -> None:
    tags = LITTLE | {"compress.cautions": "busy_machine,small_coverage"}
    checks = check(compare(Scene(make_run).beside(GOOD, tags=tags)), Demands(min_speedup=1.5, max_size_ratio=0.1))
    caution = "the method reached less than half of the weights"
    assert [result.reason for result in checks] == [caution, f"above the limit; {caution}"]


def checked(demands: Demands, row: Row) -> Check:
    """Check one demand on a row."""
    judged = check(Comparison((row,)), demands)
    assert len(judged) == 1
    return judged[0]


def measured(ratio: float, ends: tuple[float, float] | None = None, name: str = SPEED, **values: float) -> Row:
    """Return a row with one number and its ratio to its own team's original."""
    intervals = {} if ends is None else {name: ends}
    return Row(
        "alpha",
        "yolo",
        "int8",
        values={name: 1.0, **values},
        ratios={name: ratio},
        ratio_intervals=intervals,
        original=Reference("alpha"),
    )


@pytest.mark.parametrize(
    ("ends", "least", "expected"),
    [
        ((0.48, 0.5), 2.0, "passes"),  # 2.00 to 2.08 times as fast
        ((0.48, 0.51), 2.0, "undecided"),
        ((0.5, 0.52), 2.0, "undecided"),
        ((0.501, 0.52), 2.0, "fails"),
        ((0.9, 1.1), 1.0, "undecided"),
        ((0.9, 1.04), 0.95, "passes"),
    ],
)
def test_a_speed_up_is_judged_by_its_interval(ends: tuple[float, float], least: float, expected: Verdict) -> None:
    judged = checked(Demands(min_speedup=least), measured((ends[0] * ends[1]) ** 0.5, ends))
    assert judged.verdict == expected
    assert (judged.low, judged.high) == pytest.approx((1 / ends[1], 1 / ends[0]))


@pytest.mark.parametrize(
    ("name", "ratio", "expected"),
    [
        ("cpu/ram_peak_mib", 1.009, "passes"),
        ("cpu/ram_peak_mib", 1.011, "fails"),
        ("size/weights_mib", 1.0, "passes"),
        ("size/weights_mib", 1.0001, "fails"),
        ("size/disk_mib", 1.0001, "fails"),
    ],
)
def test_memory_may_be_off_by_a_hundredth_and_sizes_by_nothing(name: str, ratio: float, expected: Verdict) -> None:
    demands = Demands(max_size_ratio=1.0, max_disk_ratio=1.0, max_memory_ratio=1.0)
    (judged,) = (
        result for result in check(Comparison((measured(ratio, name=name),)), demands) if result.metric == name
    )
    assert (judged.verdict, judged.value) == (expected, ratio)
    assert judged.result == {1.009: "1.01x", 1.011: "1.01x", 1.0: "1.00x", 1.0001: "1.0001x"}[ratio]


def test_each_size_is_its_own_demand() -> None:
    ratios = {"size/weights_mib": 1.0, "size/disk_mib": 0.14}
    row = replace(measured(1.0), values=ratios, ratios=ratios)
    judged = check(Comparison((row,)), Demands(max_size_ratio=0.3, max_disk_ratio=0.3))
    assert [(check.option, check.asked, check.verdict) for check in judged] == [
        ("--max-size-ratio", "weights: at most 0.3x", "fails"),
        ("--max-disk-ratio", "saved model: at most 0.3x", "passes"),
    ]


def test_the_gpu_has_its_own_numbers() -> None:
    row = replace(measured(0.5, (0.4, 0.6), "gpu/latency_p50_ms"), hardware="T4")
    assert checked(Demands(min_speedup=1.1, device="gpu"), row).verdict == "passes"
    assert checked(Demands(min_speedup=1.1), row).reason == "it was not measured"


@pytest.mark.parametrize(
    ("name", "original", "difference", "drop", "expected"),
    [
        ("accuracy", 0.8, (-0.004, -0.008, 0.0), "1%", "passes"),  # 1% of 0.8
        ("accuracy", 0.8, (-0.004, -0.009, 0.0), "1%", "undecided"),
        ("accuracy", 0.8, (-0.02, -0.03, -0.009), "1%", "fails"),
        ("accuracy", 0.8, (0.01, 0.001, 0.02), "0", "passes"),
        ("accuracy", 0.8, (0.01, -0.001, 0.02), "0", "undecided"),
        ("accuracy", 0.8, (-0.002, -0.005, 0.001), "0.005", "passes"),
        ("accuracy", 0.8, (-0.01, -0.02, -0.006), "0.005", "fails"),
        ("wer", 0.1, (0.004, 0.0, 0.009), "1%", "passes"),  # 0.891 of 0.9 words are right
        ("wer", 0.1, (0.004, 0.0, 0.01), "1%", "undecided"),
        ("wer", 0.1, (0.04, 0.02, 0.06), "1%", "fails"),
        ("wer", 0.1, (0.004, 0.0, 0.01), "0.01", "passes"),
        ("bleu", 30.0, (-0.1, -0.3, 0.1), "1%", "passes"),
        ("bleu", 30.0, (-0.1, -0.3, 0.1), "0.2", "undecided"),
        ("perplexity", 10.0, (0.05, 0.0, 0.1), "1%", "passes"),
        ("perplexity", 10.0, (0.05, 0.0, 0.2), "1%", "undecided"),
        ("perplexity", 10.0, (0.5, 0.2, 0.8), "1%", "fails"),
        ("map50_95", 0.4, (-0.001, -0.003, 0.001), "1%", "passes"),
        ("map50_95", 0.4, (-0.1, -0.15, -0.05), "1%", "fails"),
    ],
)
def test_quality_is_judged_by_the_interval_of_the_difference(
    name: str, original: float, difference: tuple[float, float, float], drop: str, expected: Verdict
) -> None:
    judged = checked(Demands(max_quality_drop=Drop.read(drop)), scored_row(name, original, difference, 1e5))
    assert judged.verdict == expected
    assert judged.metric == f"quality/{name}"
    assert judged.asked.startswith(label(judged.metric, "en"))


def scored_row(name: str, original: float, difference: tuple[float, float, float], samples: float = 1000) -> Row:
    """Return a row with a score and its difference from its own team's original."""
    names = (f"quality/{name}_difference{end}" for end in ("", "_low", "_high"))
    values = {f"quality/{name}": original + difference[0], "quality/samples": samples}
    return replace(measured(1.0), values={**values, **dict(zip(names, difference, strict=True))})


def test_a_quality_is_said_as_the_table_says_it() -> None:
    row = scored_row("accuracy", 0.8, (-0.02, -0.03, -0.009))
    judged = checked(Demands(max_quality_drop=Drop.read("1%")), row)
    assert f"{judged.measured} (n=1000)" == cells(row, columns(("quality",)), "en")[0]
    assert (judged.result, judged.interval) == ("2.50 % lost", "1.12 % to 3.75 % lost")


@pytest.mark.parametrize(("samples", "expected"), [(367, "undecided"), (368, "passes")])
def test_samples_that_all_score_the_same_show_no_more_than_they_can(samples: int, expected: Verdict) -> None:
    row = scored_row("accuracy", 0.8, (0.0, 0.0, 0.0), samples)
    judged = checked(Demands(max_quality_drop=Drop.read("0.01")), row)
    assert (judged.verdict, judged.value) == (expected, 0.0)
    assert judged.high == pytest.approx(1 - 0.025 ** (1 / samples))
    assert "score at least 368 samples" in judged.advice or expected == "passes"


_RIGHT: Mapping[str, Sequence[object]] = {
    "labels": ("cat", "dog"),
    "texts": ("one two three four five", "six seven eight nine ten"),
    "tags": (["B-PER", "I-PER", "O"], ["O", "O", "B-LOC"]),
    "boxes": (
        {"boxes": [[0, 0, 10, 10]], "labels": ["cat"], "scores": [0.9]},
        {"boxes": [[5, 5, 20, 30], [40, 40, 60, 60]], "labels": ["dog", "cat"], "scores": [0.8, 0.7]},
    ),
}
_TOLD_RIGHT = [name for name in registry.names("metrics") if registry.find("metrics", name).takes in _RIGHT]


@pytest.mark.full
@pytest.mark.parametrize("name", _TOLD_RIGHT)
def test_perfect_answers_to_twenty_samples_do_not_show_one_percent_of_any_score(name: str) -> None:
    """Resampling finds no noise at all: the interval of every difference is 0 to 0."""
    metric = registry.build("metrics", name, {})
    answers = [*_RIGHT[metric.takes]] * 10
    ranked = [[answer] for answer in answers] if metric.takes == "labels" else answers
    scores = bootstrap.score({name: metric}, answers, ranked, seed=0)
    statistics = scores.statistics()[bootstrap.kept_as(name, metric)]
    difference = bootstrap.paired(statistics, statistics, metric, seed=0)
    assert difference == (0, 0, 0)
    row = scored_row(name, scores.by_name[name].value, (0.0, 0.0, 0.0), 20)
    judged = checked(Demands(max_quality_drop=Drop.read("1%")), row)
    assert (judged.verdict, judged.value) == ("undecided", 0)
    assert judged.reason == "20 samples may miss a loss that affects 17 % of all samples"
    (needed_samples,) = map(int, re.findall(r"\d+", judged.advice))
    assert 368 <= needed_samples <= 370, "a perfect mAP is 0.995"
    with_enough_samples = replace(row, values={**row.values, "quality/samples": float(needed_samples)})
    assert checked(Demands(max_quality_drop=Drop.read("1%")), with_enough_samples).verdict == "passes"


@pytest.mark.parametrize(
    ("name", "original", "difference", "samples", "expected", "needed_samples"),
    [
        ("wer", 0.1, (-0.005, -0.015, 0.0), 20, "undecided", 262),  # one transcript improved: no bad end was seen
        ("f1", 0.9, (-0.002, -0.004, 0.0), 300, "undecided", 526),
        ("f1", 0.9, (-0.002, -0.004, 0.0), 526, "passes", 0),
        ("bleu", 30.0, (0.0, -0.01, 0.01), 1000, "undecided", 1228),  # 0.3 of 100 points
        ("bleu", 30.0, (0.0, -0.01, 0.01), 1228, "passes", 0),
        ("map50_95", 0.4, (0.0, 0.0, 0.0), 128, "undecided", 921),
    ],
)
def test_few_samples_that_changed_hide_as_much_as_none(
    name: str,
    original: float,
    difference: tuple[float, float, float],
    samples: int,
    expected: Verdict,
    needed_samples: int,
) -> None:
    """Computed by hand: n = ln(0.025) / ln(1 - margin), with margin 0.01 * quality - loss, as a share of the scale."""
    judged = checked(Demands(max_quality_drop=Drop.read("1%")), scored_row(name, original, difference, samples))
    assert (judged.verdict, judged.advice) == (
        expected,
        f"score at least {needed_samples} samples" if needed_samples else "",
    )


def test_outputs_of_a_language_model_that_are_the_same_are_the_same() -> None:
    judged = checked(Demands(max_quality_drop=Drop.read("0.1%")), scored_row("perplexity", 45.0, (0.0, 0.0, 0.0), 12))
    assert (judged.verdict, judged.high) == ("passes", 0.0)


@pytest.mark.parametrize(
    ("name", "original", "difference"),
    [
        ("perplexity", 10.0, (-10.0, -10.0, -10.0)),  # a perplexity of 0
        ("perplexity", 0.0, (0.0, 0.0, 0.0)),
        ("word_perplexity", 40.0, (-39.5, -39.5, -39.5)),  # 1 is perfect
        ("bits_per_byte", 0.0, (0.0, 0.0, 0.0)),
        ("accuracy", 0.9, (1.1, 1.0, 1.2)),
        ("accuracy", -0.5, (0.6, 0.5, 0.7)),
        ("wer", 0.1, (-0.2, -0.2, -0.2)),
        ("wer", 1.0, (0.0, 0.0, 0.0)),  # references in upper case, answers in lower case
        ("map50", 0.0, (0.0, 0.0, 0.0)),
        ("accuracy", 0.8, (0.5, -0.1, 0.1)),
    ],
)
@pytest.mark.parametrize("drop", ["1%", "0.01"])
def test_scores_that_show_nothing_pass_nothing(
    name: str, original: float, difference: tuple[float, float, float], drop: str
) -> None:
    judged = checked(Demands(max_quality_drop=Drop.read(drop)), scored_row(name, original, difference))
    assert judged.verdict == "undecided"
    assert judged.reason


@pytest.mark.parametrize("text", ["", "%", "one", "-1%", "nan", "inf%", "100%", "101%", "1e3%"])
def test_a_drop_that_is_none(text: str) -> None:
    with pytest.raises(RecipeError, match=r"is not a valid quality drop|allows all quality to be lost"):
        Drop.read(text)


@pytest.mark.parametrize(
    ("name", "drop", "hint"),
    [
        ("accuracy", "1", "Write 1% for a hundredth of the original's value, or 0.01 for one point of accuracy."),
        ("wer", "1", "or 0.01 for one point of WER"),
        ("map50_95", "5", "or 0.01 for one point"),
        ("bleu", "100", "or 1 for one point of BLEU"),
    ],
)
def test_a_drop_of_the_whole_scale_is_refused(name: str, drop: str, hint: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(hint)):
        checked(Demands(max_quality_drop=Drop.read(drop)), scored_row(name, 0.5, (0.0, -0.1, 0.1)))


def test_a_drop_of_one_is_little_for_other_scores() -> None:
    for name, original in (("bleu", 30.0), ("perplexity", 45.0)):
        row = scored_row(name, original, (0.0, -0.5, 0.5))
        assert checked(Demands(max_quality_drop=Drop.read("1")), row).verdict == "passes"


def test_mlperfs_rule_names_what_is_no_reference_in_fp32() -> None:
    drop = PRESETS["mlperf"].drop
    assert (drop.amount, drop.relative, PRESETS["mlperf-high"].drop.amount) == (0.01, True, 0.001)
    row = scored_row("accuracy", 0.8, (0.001, -0.002, 0.004))
    size = {"size/weights_mib": 50.0, "size/params": 50.0 * 2**20}
    for bytes_each, reason in ((4, ""), (2, "the original takes 2.0 bytes per parameter: it is not an FP32 reference")):
        ratios = {"size/weights_mib": 1 / bytes_each, "size/params": 1.0}
        judged = checked(Demands(max_quality_drop=drop), replace(row, values={**row.values, **size}, ratios=ratios))
        assert (judged.verdict, judged.reason) == ("passes", reason)
        for beginnings in (f"{SCORE}_difference_", f"{SCORE}_difference", SCORE):  # without interval, difference, score
            numbers = {**without(row.values, beginnings), **size}
            judged = checked(Demands(max_quality_drop=drop), replace(row, values=numbers, ratios=ratios))
            assert judged.verdict == "undecided"
            assert judged.reason.endswith(f"; {reason}") if reason else "FP32" not in judged.reason


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["passes", "passes"], "passes"),
        (["passes", "not checked"], "passes"),
        (["passes", "undecided"], "undecided"),
        (["undecided", "fails"], "fails"),
        (["not checked", "not checked"], "undecided"),
        ([], "undecided"),
    ],
)
def test_the_worst_counts_and_nothing_checked_is_undecided(verdicts: list[Verdict], expected: Verdict) -> None:
    checks = [
        Check("a", "m", f"x{number}", "--min-speedup", verdict=outcome) for number, outcome in enumerate(verdicts)
    ]
    assert verdict(checks) == expected
    assert list(of_variants(checks).values()) == verdicts


def test_a_demand_that_was_checked_on_no_variant_is_undecided() -> None:
    speed = [Check("a", "m", "x", "--min-speedup", verdict="not checked")]
    assert verdict([*speed, Check("a", "m", "x", "--max-size-ratio", verdict="passes")]) == "undecided"


def test_a_number_is_written_so_that_it_differs_from_the_limit() -> None:
    for ratio, expected in ((1.0004, "1.0004x"), (1.0, "1.00x"), (0.99996, "0.99996x"), (1.2, "1.20x")):
        assert checked(Demands(max_size_ratio=1.0), measured(ratio, name="size/weights_mib")).result == expected


@pytest.mark.parametrize(
    ("speed", "least", "most_passing", "most_failing"),
    [(1.0, 1.0, 0.05, 0.05), (1.0, 0.95, 1.0, 0.05), (0.9, 0.95, 0.05, 1.0), (0.5, 1.0, 0.0, 1.0)],
)
def test_launches_of_one_model_seldom_fail_and_twice_the_loss_seldom_passes(
    speed: float, least: float, most_passing: float, most_failing: float
) -> None:
    """Simulate 500 times five pairs of launches that differ by 5 %, like real ones."""
    rng = random.Random(1)
    verdicts: Counter[Verdict] = Counter()
    for _ in range(500):
        pairs = [rng.lognormvariate(-math.log(speed), 0.05) for _ in range(5)]
        row = measured(launch_mean(pairs), launch_interval(pairs))
        verdicts[checked(Demands(min_speedup=least), row).verdict] += 1
    assert verdicts["passes"] <= most_passing * 500
    assert verdicts["fails"] <= most_failing * 500


@pytest.mark.full
@pytest.mark.parametrize(("worse", "better"), [(0.03, 0.03), (0.02, 0.0), (0.03, 0.01)])
@pytest.mark.parametrize("samples", [50, 200])
def test_equal_models_seldom_fail_and_a_loss_of_two_points_seldom_passes_as_one(
    worse: float, better: float, samples: int
) -> None:
    """Simulate 100 test sets with this many changed answers; both models are paired like real ones."""
    rng, metric = np.random.default_rng(2), Accuracy()
    verdicts: Counter[Verdict] = Counter()
    for _ in range(100):
        original, chance = rng.random(samples) < 0.8, rng.random(samples)
        own = np.where(original, chance >= worse / 0.8, chance < better / 0.2)
        own_statistics, base = (
            Statistics(np.stack([is_right, np.ones(samples)], axis=1)) for is_right in (own, original)
        )
        value, low, high = bootstrap.paired(own_statistics, base, metric, seed=0)
        assert low is not None
        assert high is not None
        row = scored_row("accuracy", float(original.mean()), (value, low, high), samples)
        verdicts[checked(Demands(max_quality_drop=Drop.read("0.01")), row).verdict] += 1
    if worse == better:
        assert verdicts["fails"] <= 5
    else:
        assert verdicts["passes"] <= 5


def test_no_loss_is_no_negative_zero() -> None:
    row = Row("alpha", "yolo", "int8", values=GOOD | scored(0.0, -0.01, 0.01), original=Reference("alpha"))
    assert math.copysign(1, checked(Demands(max_quality_drop=Drop.read("5%")), row).value or 0.0) == 1
