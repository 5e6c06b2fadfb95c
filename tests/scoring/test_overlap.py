from __future__ import annotations

from statistics import mean

import pytest
from rouge_score.rouge_scorer import RougeScorer

from mlflow_compress import registry

pytestmark = pytest.mark.full

REFERENCES = ["The cat sat on the mat.", "police killed the gunman", "", "It's running 2 jumps"]
PREDICTIONS = ["the cat was sitting on a mat", "the gunman killed police", "words", ""]
KINDS = ["rouge1", "rouge2", "rougeL"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stemmer", [False, True])
def test_it_is_rouge_scores_mean_f1(kind: str, stemmer: bool) -> None:
    scorer = RougeScorer([kind], use_stemmer=stemmer)
    pairs = zip(REFERENCES, PREDICTIONS, strict=True)
    expected = mean(scorer.score(reference, prediction)[kind].fmeasure for reference, prediction in pairs)
    metric = registry.build("metrics", kind, {"tokens": "stems" if stemmer else "latin"})
    assert metric.compute(REFERENCES, PREDICTIONS) == pytest.approx(expected, rel=1e-14)


def test_it_is_lins_example() -> None:
    # Lin 2004, section 3.1: ROUGE-L of "police kill the gunman" is 3/4 of "police killed the gunman", ROUGE-2 1/3
    texts = (["police killed the gunman"], ["police kill the gunman"])
    assert registry.build("metrics", "rougeL").compute(*texts) == pytest.approx(0.75)
    assert registry.build("metrics", "rouge2").compute(*texts) == pytest.approx(1 / 3)


@pytest.mark.parametrize("kind", KINDS)
def test_other_scripts_need_other_tokens(kind: str) -> None:
    texts = ["Кошка сидит на окне", "Собака бежит 2 часа"]
    with pytest.raises(ValueError, match="tokens=words"):
        registry.build("metrics", kind).compute(texts, texts)
    assert registry.build("metrics", kind, {"tokens": "words"}).compute(texts, texts) == 1
    score = registry.build("metrics", kind, {"tokens": "words"}).compute(texts, ["Кошка на окне", "Собака"])
    assert 0 < score < 1
