from __future__ import annotations

import pytest

from mlflow_compress import registry
from mlflow_compress.scoring import writing_style

SAID = ["Mister Quilter is the apostle of the middle classes.", "He tells us, at this festive season, of roast beef."]
CAPITALS = [text.upper().replace(".", "").replace(",", "") for text in SAID]


def messages(references: list[str], answers: list[str], metric: str = "wer") -> list[str]:
    metrics = {metric: registry.build("metrics", metric)}
    return [caution.message for caution in writing_style.compared(metrics, references, answers)]


@pytest.mark.full
def test_capitals_without_punctuation_are_reported_in_both_languages() -> None:
    metrics = {name: registry.build("metrics", name) for name in ("wer", "wer_normalized")}
    (caution,) = writing_style.compared(metrics, CAPITALS, SAID)
    assert caution.code == "written_otherwise"
    assert caution.message.startswith(
        "references have capital letters only and no punctuation, but answers have capital and small letters and "
        "punctuation:"
    )
    assert "только прописные буквы и нет знаков препинания" in caution.texts["message"]["ru"]
    # the reason: for perfect transcripts, one metric counts every word as wrong
    assert metrics["wer"].compute(CAPITALS, SAID) == 1
    assert metrics["wer_normalized"].compute(CAPITALS, SAID) == 0


@pytest.mark.parametrize(
    ("references", "answers", "word"),
    [
        ([text.lower() for text in SAID], SAID, "small letters only"),
        ([text.replace(".", "").replace(",", "") for text in SAID], SAID, "no punctuation, but answers have punct"),
        (SAID, [text.replace(".", "").replace(",", "") for text in SAID], "have punctuation, but answers have no"),
    ],
)
def test_each_difference_is_named(references: list[str], answers: list[str], word: str) -> None:
    (message,) = messages(references, answers)
    assert word in message


def test_what_is_written_alike_or_says_nothing_is_not_told() -> None:
    assert messages(SAID, SAID[::-1]) == []
    assert messages(CAPITALS, CAPITALS) == []
    assert messages(CAPITALS, ["", ""]) == []
    assert messages(["你好世界"] * 9, ["你好"] * 9) == []
    assert messages(["A"], ["a"]) == []
    assert messages(CAPITALS, SAID, "accuracy") == []


def test_the_normalized_rate_stands_for_speech() -> None:
    ranks = {name: registry.find("metrics", name).rank for name in ("wer_normalized", "wer", "cer_normalized", "cer")}
    assert sorted(ranks, key=lambda name: ranks[name]) == list(ranks)
