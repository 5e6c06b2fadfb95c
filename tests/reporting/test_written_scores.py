"""Scores as people write them: read where they are clear, refused where they are ambiguous."""

from __future__ import annotations

import pytest

from mlflow_compress.reporting.table_headings import headings
from mlflow_compress.reporting.written_scores import read_scores
from mlflow_compress.reporting.written_units import Unreadable


def read(text: str, column: str = "Quality", scales: dict[str, str] | None = None) -> dict[str, float]:
    (heading,) = headings([column])
    return {
        name.removeprefix("quality/"): value for name, value in read_scores(text, heading, {}, scales or {})[0].items()
    }


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        ("80.00% accuracy", {"accuracy": 0.8}),
        ("accuracy: 0.8", {"accuracy": 0.8}),
        ("1 - WER = 0.9", {"wer": pytest.approx(0.1)}),
        ("WER 0.12, CER 0.05", {"wer": 0.12, "cer": 0.05}),
        ("BLEU 27.3", {"bleu": 27.3}),
        ("PPL 12.5", {"perplexity": 12.5}),
        ("Точность 0.91", {"accuracy": 0.91}),
    ],
)
def test_a_score_and_its_name_are_read_in_either_order(text: str, scores: dict[str, float]) -> None:
    assert read(text) == scores


def test_the_header_names_what_the_cell_does_not() -> None:
    assert read("0.12", "WER") == {"wer": 0.12}
    assert read("12%", "WER") == {"wer": 0.12}


@pytest.mark.parametrize("text", [":", "BLEU 0.6", "0.8", "accuracy 180%", "accuracy 0.8, accuracy 0.9"])
def test_what_could_mean_two_things_is_refused(text: str) -> None:
    with pytest.raises(Unreadable, match=r"\w"):  # with a reason
        read(text)
