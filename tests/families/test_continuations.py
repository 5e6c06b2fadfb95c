"""Metrics of generated text: a language model continues the beginning of each text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_model

from mlflow_compress.errors import RecipeError
from mlflow_compress.measuring import quality
from mlflow_compress.model import Model
from mlflow_compress.networks.continuations import Continued
from mlflow_compress.networks.transformers_models import companions
from mlflow_compress.records import Variant
from mlflow_compress.sockets import Family
from mlflow_compress.tracking import rescore

TEXTS = ["Once upon a time there was a cat.", "It sat on the mat, and it was a fat cat, and that is that."]


def write(folder: Path, rows: list[dict[str, str]]) -> str:
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "data.jsonl"


def scored(folder: Path, family: Family, model: Model, *metrics: str, data: str = "data.jsonl") -> Any:
    variant = Variant("m", "fp16", "t", "causal_lm", "x", data=data, metrics=metrics, folder=str(folder))
    return quality.score(family, model, variant, folder, lambda *_: None)


def test_the_models_own_continuation_is_an_exact_match(tmp_path: Path) -> None:
    family, model = tiny_model("causal_lm", {"initializer_range": 1.0}, continuation_prompt=6, continuation_tokens=5)
    tokenizer = companions(model).tokenizer
    model.asked = frozenset({"texts"})
    write(tmp_path, [{"text": text} for text in TEXTS])
    samples = family.samples(model, "data.jsonl", tmp_path, None, 0)
    for text, sample in zip(TEXTS, samples, strict=True):
        ids = tokenizer(text)["input_ids"]
        assert sample.inputs.prompt == tuple(ids[:6])
        assert sample.reference == tokenizer.decode(ids[6:11], skip_special_tokens=True)
    answers = family.answers(model, [sample.inputs for sample in samples])
    own = [family._continue(model, sample.inputs.prompt, 5) for sample in samples]  # type: ignore[attr-defined]
    assert answers == own


def test_a_text_of_one_token_has_no_continuation(tmp_path: Path) -> None:
    family, model = tiny_model("causal_lm", {})
    write(tmp_path, [{"text": text} for text in (*TEXTS, "a")])
    assert len(family.samples(model, "data.jsonl", tmp_path, None, 0)) == 3
    model.asked = frozenset({"texts"})
    with pytest.raises(RecipeError, match=r"The text 'a' is too short"):
        family.samples(model, "data.jsonl", tmp_path, None, 0)


def test_texts_and_likelihoods_are_scored_in_one_pass(tmp_path: Path) -> None:
    family, model = tiny_model("causal_lm", {"initializer_range": 1.0})
    write(tmp_path, [{"text": text} for text in TEXTS * 6])
    both = scored(tmp_path, family, model, "perplexity", "exact_match", "chrf")
    assert set(both.measurements) >= {"quality/perplexity", "quality/exact_match", "quality/chrf"}
    assert both.facts["protocol.chrf"].endswith(
        "greedy continuation of half the text, at most 512 tokens by at most 32 tokens"
    )
    assert "rolling windows" in both.facts["protocol.perplexity"]
    alone = scored(tmp_path, *tiny_model("causal_lm", {"initializer_range": 1.0}), "perplexity")
    assert alone.measurements["quality/perplexity"] == both.measurements["quality/perplexity"]
    assert alone.facts["protocol.perplexity"] == both.facts["protocol.perplexity"]


def test_kept_continuations_are_scored_again(tmp_path: Path) -> None:
    family, model = tiny_model("causal_lm", {"initializer_range": 1.0})
    write(tmp_path, [{"text": text} for text in TEXTS * 6])
    both = scored(tmp_path, family, model, "perplexity", "chrf")
    rescored = rescore.of_file(tmp_path / quality.PREDICTIONS, ("chrf", "perplexity")).scores.by_name
    assert rescored["chrf"].value == pytest.approx(both.measurements["quality/chrf"])
    assert rescored["perplexity"].value == pytest.approx(both.measurements["quality/perplexity"])
    only = scored(tmp_path, *tiny_model("causal_lm", {"initializer_range": 1.0}), "chrf")
    assert only.measurements["quality/chrf"] == both.measurements["quality/chrf"]
    table = json.loads((tmp_path / quality.PREDICTIONS).read_text())["data"]
    assert all(isinstance(answer, str) for _, answer in table)


def test_an_answer_is_the_first_line_of_the_continuation(tmp_path: Path) -> None:
    family, model = tiny_model("causal_lm", {"initializer_range": 1.0}, continuation_tokens=4)
    model.asked = frozenset({"texts"})
    write(tmp_path, [{"text": "Where?", "answer": "Here"}, {"text": "When?", "answer": "Now"}])
    samples = family.samples(model, "data.jsonl:answer=answer", tmp_path, None, 0)
    assert [sample.reference for sample in samples] == ["Here", "Now"]
    assert samples[0].inputs.prompt == tuple(companions(model).tokenizer("Where?")["input_ids"])
    assert Continued("", (), "", is_line=True).cut(" Here \nand there") == "Here"
    assert Continued("", (), "").cut(" Here \nand there") == " Here \nand there"
    assert len(family.answers(model, [sample.inputs for sample in samples])) == 2


def test_blocks_of_tokens_are_continued_too(tmp_path: Path) -> None:
    family, model = tiny_model("causal_lm", {"initializer_range": 1.0}, protocol="wikitext2", window=12)
    model.asked = frozenset({"texts", "likelihoods"})
    write(tmp_path, [{"text": text} for text in TEXTS * 3])
    samples = family.samples(model, "data.jsonl", tmp_path, 2, 0)
    assert [len(sample.inputs.prompt) for sample in samples] == [6, 6]
    (first, _) = family.answers(model, [sample.inputs for sample in samples])
    assert set(first) == {"nll", "tokens", "words", "bytes", "text"}


def test_without_metrics_of_texts_nothing_is_generated(tmp_path: Path) -> None:
    family, model = tiny_model("causal_lm")
    write(tmp_path, [{"text": "a cat"}])
    (sample,) = family.samples(model, "data.jsonl", tmp_path, None, 0)
    assert sample.inputs == "a cat"
