from __future__ import annotations

import pytest
from conftest import MakeRun

from mlflow_compress.records import PublishedVerdict
from mlflow_compress.reporting import published_scores
from mlflow_compress.reporting.compare import compare
from mlflow_compress.reporting.gate import Demands, check
from mlflow_compress.reporting.quality_drop import Drop

SAME = PublishedVerdict("as published", 0.911, 0.91, "recipe")
DIFFERS = PublishedVerdict("differs", 0.95, 0.91, "model card")
APART = PublishedVerdict("not comparable", 0.95, 0.91, "model card", "other_data", "glue, sst2")


def runs(make_run: MakeRun, verdict: PublishedVerdict | None) -> list[object]:
    tags = {"compress.data_digest": "abc", "compress.protocol.accuracy": "share"}
    published = {} if verdict is None else {"compress.published.accuracy": verdict.to_text()}
    scores = {"quality/accuracy": 0.91, "quality/samples": 2000.0}
    moved = {"quality/accuracy_difference": 0.0, "quality/accuracy_difference_low": -0.0005}
    moved["quality/accuracy_difference_high"] = 0.0005
    return [
        make_run(tags={**tags, **published}, metrics=scores),
        make_run(method="fp16", tags=tags, metrics={**scores, **moved}),
    ]


@pytest.mark.parametrize(
    ("verdict", "english", "russian"),
    [
        (
            SAME,
            "the original's score is as published: accuracy 0.9100, published 0.9110 (recipe)",
            "оценка оригинала совпадает с опубликованной: accuracy 0.9100, опубликовано 0.9110 (recipe)",
        ),
        (
            DIFFERS,
            "the original's score differs from the published one (another protocol?): accuracy 0.9100, published "
            "0.9500 (model card)",
            "оценка оригинала отличается от опубликованной (другой протокол?): accuracy 0.9100, опубликовано 0.9500 "
            "(model card)",
        ),
        (
            APART,
            "the original's score can't be compared with the published one: accuracy 0.9500 (model card) is on glue, "
            "sst2",
            "оценку оригинала нельзя сравнить с опубликованной: accuracy 0.9500 (model card) измерено на glue, sst2",
        ),
    ],
)
def test_a_footnote_of_the_original_says_whether_it_is_right(
    make_run: MakeRun, verdict: PublishedVerdict, english: str, russian: str
) -> None:
    for language, footnote in (("en", english), ("ru", russian)):
        comparison = compare(runs(make_run, verdict), language=language)  # type: ignore[arg-type]
        original, variant = comparison.rows
        assert [comparison.footnotes[index] for index in original.notes if "ublish" in comparison.footnotes[index]
                or "опубликован" in comparison.footnotes[index]] == [footnote]  # fmt: skip
        assert (original.published, variant.published) == (verdict.verdict, "")
        assert variant.original is not None
        assert variant.original.published == verdict.verdict


@pytest.mark.parametrize(
    ("verdict", "expected", "reason"),
    [
        (SAME, "passes", ""),
        (DIFFERS, "undecided", "the original's score differs from the published one"),
        (APART, "undecided", "the original's score can't be compared with the published one"),
        (None, "undecided", "no published score of the original is known"),
    ],
)
def test_a_strict_gate_believes_no_difference_from_a_doubtful_original(
    make_run: MakeRun, verdict: PublishedVerdict | None, expected: str, reason: str
) -> None:
    comparison = compare(runs(make_run, verdict))  # type: ignore[arg-type]
    (judged,) = check(comparison, Demands(max_quality_drop=Drop.read("1%"), is_strict=True))
    assert (judged.verdict, judged.reason) == (expected, reason)
    (loose,) = check(comparison, Demands(max_quality_drop=Drop.read("1%")))
    assert loose.verdict == "passes"


def test_what_a_run_records_may_be_anything() -> None:
    tags = {"compress.published.accuracy": "{}", "compress.published.f1": DIFFERS.to_text(), "compress.model": "x"}
    assert published_scores.recorded(tags) == {"quality/f1": DIFFERS}
    assert published_scores.worst([SAME, APART]) == "not comparable"
    assert published_scores.worst([]) == ""
