from __future__ import annotations

from typing import Any

import pytest
import sacrebleu
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError

REFERENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "",
    "Он сказал: «Да, конечно!» — и ушёл.",
    "He didn't pay $3,000.50 for it.",
    "日本語のテキスト",
    "short",
]
PREDICTIONS = [
    "The quick brown fox jumped over a lazy dog .",
    "noise",
    "Он сказал: Да, конечно, и ушел.",
    "",
    "日本のテキスト",
    "Short",
]


@pytest.mark.parametrize(
    "options", [{}, {"tokenize": "intl"}, {"tokenize": "zh"}, {"tokenize": "char"}, {"lowercase": True}]
)
def test_bleu_is_sacrebleus(options: dict[str, Any]) -> None:
    expected = BLEU(**options)
    score = expected.corpus_score(PREDICTIONS, [REFERENCES]).score
    metric = registry.build("metrics", "bleu", options)
    assert metric.compute(REFERENCES, PREDICTIONS) == pytest.approx(score, rel=1e-13)
    assert metric.protocol == f"sacrebleu BLEU {expected.get_signature()}"
    assert score > 0


@pytest.mark.parametrize("options", [{}, {"word_order": 2}, {"lowercase": True}])
def test_chrf_is_sacrebleus(options: dict[str, Any]) -> None:
    expected = CHRF(**options)
    score = expected.corpus_score(PREDICTIONS, [REFERENCES]).score
    metric = registry.build("metrics", "chrf", options)
    assert metric.compute(REFERENCES, PREDICTIONS) == pytest.approx(score, rel=1e-13)
    assert metric.protocol == f"sacrebleu CHRF {expected.get_signature()}"


def test_the_signature_says_how() -> None:
    protocol = registry.build("metrics", "bleu").protocol
    assert f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{sacrebleu.__version__}" in protocol


@pytest.mark.parametrize("predictions", [[""], ["x"]])
def test_nothing_in_common_is_nought(predictions: list[str]) -> None:
    for name in ("bleu", "chrf"):
        assert registry.build("metrics", name).compute(["abc def"], predictions) == 0


def test_options_out_of_range_are_rejected() -> None:
    with pytest.raises(RecipeError, match="tokenize"):
        registry.build("metrics", "bleu", {"tokenize": "flores200"})
    with pytest.raises(RecipeError, match="word_order"):
        registry.build("metrics", "chrf", {"word_order": 3})
