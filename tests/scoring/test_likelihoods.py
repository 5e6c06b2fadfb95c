"""Compare with the formulas of lm-evaluation-harness, lm_eval/api/metrics.py."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from mlflow_compress import registry

TEXTS = ["A short text.", "Another one,  a little\nlonger than that.", "Ёлка и 日本"]
NLLS = [12.25, 40.5, 31.125]
TOKENS = [4, 9, 11]


def predictions() -> list[dict[str, Any]]:
    # the words and bytes of its task wikitext
    words = [len(re.split(r"\s+", text)) for text in TEXTS]
    sizes = [len(text.encode("utf-8")) for text in TEXTS]
    rows = zip(NLLS, TOKENS, words, sizes, strict=True)
    return [{"nll": nll, "tokens": tokens, "words": count, "bytes": size} for nll, tokens, count, size in rows]


def weighted_mean(items: list[tuple[float, int]]) -> float:
    return sum(value for value, _ in items) / sum(weight for _, weight in items)


def items(unit: str) -> list[tuple[float, int]]:
    return [(-prediction["nll"], prediction[unit]) for prediction in predictions()]


def test_they_are_the_harness_numbers() -> None:
    def found(name: str) -> float:
        return float(registry.build("metrics", name).compute(TEXTS, predictions()))

    assert found("word_perplexity") == pytest.approx(math.exp(-weighted_mean(items("words"))), rel=1e-14)
    assert found("bits_per_byte") == pytest.approx(-weighted_mean(items("bytes")) / math.log(2), rel=1e-14)
    assert found("perplexity") == pytest.approx(math.exp(sum(NLLS) / sum(TOKENS)), rel=1e-14)


def test_a_model_that_guesses_among_n_has_perplexity_n() -> None:
    certain = [{"nll": 7 * math.log(50), "tokens": 7}]
    assert registry.build("metrics", "perplexity").compute(["x"], certain) == pytest.approx(50)
    assert registry.build("metrics", "bits_per_byte").compute(["x"], [{"nll": 8 * math.log(2), "bytes": 1}]) == 8


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        ({"nll": 1.0}, "tokens"),
        ({"tokens": 1}, "nll"),
        (3.0, "nll"),
        ({"nll": float("nan"), "tokens": 1}, "finite"),
        ({"nll": 1.0, "tokens": 0}, "finite"),
        ({"nll": float("inf"), "tokens": 1}, "finite"),
    ],
)
def test_what_makes_no_number_is_reported(prediction: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        registry.build("metrics", "perplexity").compute(["x"], [prediction])


@pytest.mark.parametrize("name", ["perplexity", "word_perplexity", "bits_per_byte"])
def test_where_no_token_is_predicted_that_is_reported(name: str) -> None:
    no_tokens = {"nll": 0.0, "tokens": 0, "words": 0, "bytes": 0}
    with pytest.raises(ValueError, match="not a finite number: no token is predicted"):
        registry.build("metrics", name).compute(["a"], [no_tokens])
    two_tokens = {"nll": 2.0, "tokens": 2, "words": 1, "bytes": 4}
    one_text, two_texts = (["ab"], [two_tokens]), (["a", "ab"], [no_tokens, two_tokens])
    assert registry.build("metrics", name).compute(*two_texts) == registry.build("metrics", name).compute(*one_text)
