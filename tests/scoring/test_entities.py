from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval import metrics as seqeval

from mlflow_compress import registry

pytestmark = pytest.mark.full

SCORES = {
    "seqeval_f1": seqeval.f1_score,
    "seqeval_precision": seqeval.precision_score,
    "seqeval_recall": seqeval.recall_score,
}
# from seqeval's documentation and tests
CASES = [
    (
        [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]],
        [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]],
    ),
    (
        [["O", "O", "B-MISC", "I-MISC", "B-MISC", "O", "O"], ["B-PER", "I-PER", "O"]],
        [["O", "O", "B-MISC", "I-MISC", "B-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]],
    ),
    ([["B-PER", "I-LOC", "I-LOC"]], [["I-PER", "B-LOC", "I-LOC"]]),
    ([["B-PER", "I-PER"], ["B-PER"]], [["B-PER", "I-PER"], ["O"]]),
]
tags = st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"])
samples = st.lists(st.lists(st.tuples(tags, tags), max_size=6), min_size=1, max_size=4)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize(("references", "predictions"), CASES)
def test_it_is_seqevals_number(references: list[list[str]], predictions: list[list[str]], name: str) -> None:
    assert registry.build("metrics", name).compute(references, predictions) == SCORES[name](references, predictions)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=60, deadline=None)
@given(samples)
def test_it_is_seqevals_number_for_any_tags(pairs: list[list[tuple[str, str]]]) -> None:
    references = [[reference for reference, _ in sentence] for sentence in pairs]
    predictions = [[prediction for _, prediction in sentence] for sentence in pairs]
    for name, score in SCORES.items():
        number = registry.build("metrics", name).compute(references, predictions)
        assert number == pytest.approx(score(references, predictions), abs=1e-15)


def test_each_word_needs_one_tag() -> None:
    with pytest.raises(ValueError, match="sample 1"):
        registry.build("metrics", "seqeval_f1").compute([["O"], ["O", "O"]], [["O"], ["O"]])
    with pytest.raises(ValueError, match="sample 0"):
        registry.build("metrics", "seqeval_f1").compute(["O"], ["O"])


def test_tags_that_are_no_entities_are_scored_word_by_word() -> None:
    references, predictions = [["NOUN", "VERB", "DET"], ["NOUN"]], [["NOUN", "NOUN", "DET"], ["NOUN"]]
    with pytest.raises(ValueError, match=r"the tags \(DET, NOUN, VERB\) are not entities.*tag_accuracy"):
        registry.build("metrics", "seqeval_f1").compute(references, predictions)
    accuracy = registry.build("metrics", "tag_accuracy").compute(references, predictions)
    assert accuracy == seqeval.accuracy_score(references, predictions) == 0.75


@pytest.mark.parametrize("scheme", ["S-PER", "I-PER", "B-PER"])
def test_tags_of_any_scheme_are_entities(scheme: str) -> None:
    assert registry.build("metrics", "seqeval_f1").compute([["O", scheme]], [["O", scheme]]) == 1
    assert registry.build("metrics", "seqeval_f1").compute([["O"]], [["O"]]) == 0
