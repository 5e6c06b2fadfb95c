from __future__ import annotations

import jiwer
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError
from mlflow_compress.scoring.transcripts import ErrorRate

TRICKY = [
    (["hello world"], ["hello world"]),
    (["a b c", "d"], ["", "d e f g"]),
    (["", "word"], ["noise here", "word"]),
    (["  leading   and  inner  "], ["leading and inner"]),
    (["tab\tand\nline"], ["tab and line"]),
    (["Ёлка, ёж и é"], ["елка еж и e"]),
    (["日本語 テキスト"], ["日本 テキスト"]),
    (["it's, well: fine!"], ["its well fine"]),
    (["a" * 50 + " b"], ["b"]),
]
texts = st.lists(
    st.tuples(*[st.text(alphabet="ab é\t.日", max_size=12)] * 2), min_size=1, max_size=5
)  # few letters, so that some match


@pytest.mark.parametrize(("references", "predictions"), TRICKY)
def test_it_is_jiwers_number(references: list[str], predictions: list[str]) -> None:
    assert registry.build("metrics", "wer").compute(references, predictions) == jiwer.wer(references, predictions)
    assert registry.build("metrics", "cer").compute(references, predictions) == jiwer.cer(references, predictions)


@settings(max_examples=60, deadline=None)
@given(texts)
def test_it_is_jiwers_number_for_any_texts(pairs: list[tuple[str, str]]) -> None:
    references, predictions = (list(side) for side in zip(*pairs, ("a", "a"), strict=True))
    assert registry.build("metrics", "wer").compute(references, predictions) == jiwer.wer(references, predictions)
    assert registry.build("metrics", "cer").compute(references, predictions) == jiwer.cer(references, predictions)


def test_it_is_a_corpus_rate_and_no_mean_of_utterances() -> None:
    assert registry.build("metrics", "wer").compute(["a", "b c d"], ["x", "b c d"]) == 0.25


def test_words_heard_in_silence_are_insertions() -> None:
    # five reference words; two words are recognised in silence, and one is wrong
    references, predictions = ["", "one two three", "", "four five"], ["thank you", "one two tree", "", "four five"]
    assert registry.build("metrics", "wer").compute(references, predictions) == pytest.approx(3 / 5)
    # 'thank you' has 8 letters and a blank, and one letter is missing, over 13 and 9
    assert registry.build("metrics", "cer").compute(references, predictions) == pytest.approx(10 / 22)


@pytest.mark.full
@pytest.mark.parametrize("prediction", ["", "one two three"])
@pytest.mark.parametrize("name", ["wer", "cer", "wer_normalized", "cer_normalized"])
def test_where_nothing_is_stated_there_is_no_rate(name: str, prediction: str) -> None:
    with pytest.raises(ValueError, match="not a finite number: all references are empty"):
        registry.build("metrics", name).compute([""], [prediction])


def test_what_is_no_text_is_rejected() -> None:
    with pytest.raises(ValueError, match="text"):
        registry.build("metrics", "wer").compute(["a"], [None])


@pytest.mark.full
@pytest.mark.parametrize(
    ("message", "normalized"),
    [
        # from Whisper's tests of its normaliser
        ("Let's", "let us"),
        ("he's like", "he is like"),
        ("she's been like", "she has been like"),
        ("10km", "10 km"),
        ("RC232", "rc 232"),
        ("Mr. Park visited Assoc. Prof. Kim Jr.", "mister park visited associate professor kim junior"),
        ("forty three thousand two hundred and sixty", "43260"),
        ("two dollars and seventy cents", "$2.70"),
        ("mobilisation", "mobilization"),
        # and from the description of its rules
        ("The colour was mobilised, um, grey", "the color was mobilized gray"),
        ("(laughs) well [noise] then", "well then"),
    ],
)
def test_english_is_made_alike_as_whisper_does(message: str, normalized: str) -> None:
    metric = registry.build("metrics", "wer_normalized")
    assert isinstance(metric, ErrorRate)
    assert " ".join(metric.normalized([message])[0].split()) == normalized
    assert metric.compute([normalized], [message]) == 0
    assert registry.build("metrics", "cer_normalized").compute([message], [normalized]) == 0


@pytest.mark.full
def test_other_languages_keep_their_words_and_numbers() -> None:
    metric = registry.build("metrics", "wer_normalized", {"language": "other"})
    assert metric.normalized(["Ёлка — двадцать один!", "colour one"]) == ["ёлка двадцать один ", "colour one"]
    assert metric.compute(["Ёлка — двадцать один!"], ["ёлка двадцать один"]) == 0
    assert "language=other" in metric.protocol


@pytest.mark.full
def test_normalized_rates_are_jiwers_of_normalized_texts() -> None:
    references = ["Mr. Smith's colour, please!", "two hundred", "uh"]
    predictions = ["mister smith is color", "200 dogs", "hm"]
    metric = registry.build("metrics", "wer_normalized")
    normalized_references, normalized_predictions = metric.normalized(references), metric.normalized(predictions)
    assert metric.compute(references, predictions) == jiwer.wer(normalized_references, normalized_predictions)
    assert registry.build("metrics", "cer_normalized").compute(references, predictions) == jiwer.cer(
        normalized_references, normalized_predictions
    )


def test_an_unknown_language_is_rejected() -> None:
    with pytest.raises(RecipeError, match="language"):
        registry.build("metrics", "wer_normalized", {"language": "ru"})
