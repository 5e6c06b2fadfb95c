"""Token classification: the same tags as transformers' example, for any tokenizer, length and batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TINY

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError
from mlflow_compress.families import token_classification
from mlflow_compress.networks.transformers_models import companions
from mlflow_compress.sockets import Family, Model

BERT = {
    **TINY["token_classification"]["architecture"],
    "max_position_embeddings": 64,
    "initializer_range": 1.0,
}
SENTENCES = [["Anna", "lives", "in", "Rome", "."], ["Ola", "and", "Bo-Bo", "left"], ["Oslo"], ["We", "saw", "Nice"] * 4]


def loaded(source: str = "tiny", weights: str = "random", **options: Any) -> tuple[Family, Model]:
    family: Family = registry.build("families", "token_classification", {"architecture": BERT, **options})
    return family, family.load(source, weights, Path(), 0)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that save_pretrained wrote, with a tokenizer that splits words into letters."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = [chr(number) for number in range(33, 127)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{letter}" for letter in letters), "##nn", "##om"]
    rules = Tokenizer(models.WordPiece({letter: index for index, letter in enumerate(vocabulary)}, unk_token="[UNK]"))
    rules.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    rules.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder = tmp_path_factory.mktemp("bert")
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=rules, **names).save_pretrained(folder)
    _, model = loaded()
    model.module.save_pretrained(folder)
    return folder


def tagged_as_in_the_example(folder: Path, words: list[str]) -> list[str]:
    """Tag a sentence like transformers' run_ner.py: the first token of a word counts, the others are -100."""
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    module = AutoModelForTokenClassification.from_pretrained(folder).eval()
    encoded = tokenizer(words, is_split_into_words=True, truncation=True, max_length=64, return_tensors="pt")
    with torch.no_grad():
        best = module(input_ids=encoded["input_ids"]).logits[0].argmax(-1).tolist()
    previous, tags = None, []
    for number, word in zip(best, encoded.word_ids(), strict=True):
        if word is not None and word != previous:
            tags.append(module.config.id2label[number])
        previous = word
    return tags


def test_tags_and_scores_are_those_of_transformers_and_seqeval(saved: Path, tmp_path: Path) -> None:
    from seqeval.metrics import f1_score, precision_score, recall_score

    expected = [tagged_as_in_the_example(saved, words) for words in SENTENCES]
    true_tags = [[tag if index % 3 else "B-LOC" for index, tag in enumerate(tags)] for tags in expected]
    rows = [{"words": words, "tags": tags} for words, tags in zip(SENTENCES, true_tags, strict=True)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    family, model = loaded(str(saved), "auto")
    samples = family.samples(model, "a.jsonl", tmp_path, None, 0)
    assert [sample.inputs for sample in samples] == SENTENCES
    answers = family.answers(model, [sample.inputs for sample in samples])
    assert answers == expected
    references = [sample.reference for sample in samples]
    assert references == true_tags
    for name, reference in {"f1": f1_score, "precision": precision_score, "recall": recall_score}.items():
        score = registry.build("metrics", f"seqeval_{name}").compute(references, answers)
        assert 0 < score < 1
        assert score == pytest.approx(reference(true_tags, expected))


def test_the_batch_does_not_change_the_tags(saved: Path) -> None:
    family, model = loaded(str(saved), "auto")
    sentences = SENTENCES * 6
    assert family.predict(model, sentences) == [family.predict(model, [sentence])[0] for sentence in sentences]


def test_a_text_is_split_at_white_space(saved: Path) -> None:
    family, model = loaded(str(saved), "auto")
    assert family.predict(model, ["Anna  lives\nin Rome ."]) == family.predict(model, SENTENCES[:1])
    assert family.predict(model, ["", []]) == [[], []]


def test_long_sentences_are_tagged_in_halves(saved: Path) -> None:
    family, model = loaded(str(saved), "auto")
    words = [word for sentence in SENTENCES for word in sentence]
    (tags,) = family.predict(model, [words])
    middle = len(words) // 2
    halves = family.predict(model, [words[:middle], words[middle:]])
    assert tags == halves[0] + halves[1]
    assert len(family.predict(model, [["x" * 100, "Rome"]])[0]) == 2  # a word that is too long itself


def test_words_without_a_token_are_outside(saved: Path) -> None:
    family, model = loaded(str(saved), "auto")
    (tags,) = family.predict(model, [["Rome", "\u200b", "Rome"]])
    assert len(tags) == 3


def test_tokenizers_of_python_find_the_first_tokens_too() -> None:
    _, model = loaded()
    ids, firsts = token_classification._encode(companions(model).tokenizer, ["ab", "c", "ü", "d"])
    assert ids == [100, 101, 102, 198, 191, 103, 1]  # bytes and 3, and the end
    assert firsts == [0, 2, 3, 5]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "words,tags\nAnna sleeps,B-PER O\nNew York,B-LOC I-LOC\n"),
        (
            "a.jsonl",
            '{"tokens": ["Anna", "sleeps"], "ner_tags": [1, 0]}\n{"tokens": ["New", "York"], "ner_tags": [3, 4]}\n',
        ),
        (
            "a.conll",
            "-DOCSTART- -X- O O\n\nAnna NNP I-NP B-PER\nsleeps VB I-VP O\n\n\nNew NNP I B-LOC\nYork NNP I I-LOC",
        ),
        ("a.txt", "Anna\tB-PER\r\nsleeps\tO\r\n\r\nNew\tB-LOC\r\nYork\tI-LOC\r\n"),
    ],
)
def test_sentences_are_read_from_tables_and_from_conll(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_bytes(text.encode())
    family, model = loaded()
    samples = family.samples(model, name, tmp_path, None, 0)
    assert [(sample.inputs, sample.reference) for sample in samples] == [
        (["Anna", "sleeps"], ["B-PER", "O"]),
        (["New", "York"], ["B-LOC", "I-LOC"]),
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "words,tags\nAnna sleeps,O\n", r"a\.csv, row 2: there are 2 words but 1 tags"),
        ("a.csv", "words,tags\nAnna,B-ORG\n", r"row 2: the tag 'B-ORG' is not one of the model's: O, B-PER"),
        ("a.csv", "words,tags\nAnna,PER\n", r"the tag 'PER' .*labels=PER=TAG"),
        ("a.csv", "words,tags\nAnna,9\n", r"the tag '9' is not one of the model's"),
        ("a.conll", "Anna B-PER\n\nBo\n", r"a\.conll, line 3: there is a word without a tag"),
        ("a.jsonl", '{"words": 3, "tags": ["O"]}', r"line 1: words must be a list"),
    ],
)
def test_invalid_sentences_are_reported(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    family, model = loaded()
    with pytest.raises(RecipeError, match=message):
        family.samples(model, name, tmp_path, None, 0)


def test_tags_can_be_mapped(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("words,tags\nAnna sleeps,B-person O\n")
    family, model = loaded()
    (sample,) = family.samples(model, "a.csv:labels=B-person=B-PER|I-person=I-PER", tmp_path, None, 0)
    assert sample.reference == ["B-PER", "O"]
    (tmp_path / "a.jsonl").write_text('{"words": ["Anna", "sleeps"], "tags": ["1.0", "0"]}\n')
    (sample,) = family.samples(model, "a.jsonl:labels=1=B-LOC", tmp_path, None, 0)
    assert sample.reference == ["B-LOC", "O"]


def test_sentences_to_calibrate_on_are_not_those_that_are_scored(tmp_path: Path) -> None:
    lines = [f"{chr(97 + index) * 5},O" for index in range(12)]
    (tmp_path / "a.csv").write_text("\n".join(["words,tags", *lines]))
    family, model = loaded()
    scored = {sample.inputs[0] for sample in family.samples(model, "a.csv", tmp_path, 6, 0)}
    batches = family.calibration(model, 3, 0, size=2)
    decode = companions(model).tokenizer.batch_decode
    drawn = {text for batch in batches for text in decode(batch["input_ids"], skip_special_tokens=True)}
    assert len(drawn) == 6
    assert not scored & drawn
    assert not model.cautions
    family.forward(model, batches[0])


def test_parts_of_speech_are_scored_word_by_word_with_a_caution(tmp_path: Path) -> None:
    family, model = loaded(architecture={**BERT, "id2label": {0: "NOUN", 1: "VERB"}})
    (tmp_path / "a.jsonl").write_text('{"words": ["Boats", "sail"], "tags": ["NOUN", "VERB"]}\n')
    (sample,) = family.samples(model, "a.jsonl", tmp_path, None, 0)
    assert sample.reference == ["NOUN", "VERB"]
    assert [caution.code for caution in model.cautions] == ["word_tags"]
    assert family.metrics_for(model) == ("tag_accuracy",)
    assert family.metrics_for(loaded()[1]) == ("seqeval_f1", "seqeval_precision", "seqeval_recall")
