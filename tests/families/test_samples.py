"""Samples for scoring and calibration: labels, transcripts and texts in the form of the metrics."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tiny import TINY

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError
from mlflow_compress.model import SCORING
from mlflow_compress.networks import hub, model_folder
from mlflow_compress.networks.text_inputs import longest
from mlflow_compress.networks.transformers_models import companions, load_tokenizer
from mlflow_compress.planning import chains
from mlflow_compress.sockets import Family, Model

REVIEWS = [("a fine film", "POSITIVE"), ("dull", "NEGATIVE"), ("good", "POSITIVE"), ("bad", "NEGATIVE")]


def loaded(name: str, **options: Any) -> tuple[Family, Model]:
    family: Family = registry.build("families", name, {**TINY[name], **options})
    return family, family.load("tiny", "random", Path(), 0)


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path.name


def answered(family: Family, model: Model, data: str, folder: Path) -> tuple[list[Any], list[Any]]:
    samples = family.samples(model, data, folder, None, 0)
    return [sample.reference for sample in samples], family.answers(model, [sample.inputs for sample in samples])


@pytest.mark.parametrize("name", ["text_classification", "causal_lm", "asr", "asr_ctc"])
def test_the_metrics_of_a_family_take_what_it_answers(name: str, tmp_path: Path) -> None:
    family, model = loaded(name)
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 8000), 16_000)
    labels = list(model.config.id2label.values())
    speech_roles = ("audio", "text")
    data = write(
        tmp_path / "a.jsonl",
        [{"text": "hello there", "label": label, "audio": "a.wav"} for label in labels],
    )
    columns = {"text_classification": ROLES, "causal_lm": ("text",)}.get(name, speech_roles)
    (tmp_path / "b.jsonl").write_text(
        "".join(json.dumps({key: json.loads(line)[key] for key in columns}) + "\n" for line in (tmp_path / data).open())
    )
    references, predictions = answered(family, model, "b.jsonl", tmp_path)
    assert family.metrics
    for metric in family.metrics:
        assert math.isfinite(registry.build("metrics", metric).compute(references, predictions))


ROLES = ("text", "label")


def test_texts_that_are_cut_are_counted(tmp_path: Path) -> None:
    for name, column in (("text_classification", "label"), ("seq2seq", "target")):
        family, model = loaded(name)
        limit = longest(model)
        assert limit is not None
        tokenizer = companions(model).tokenizer
        text = "a " * 2 * limit
        while len(tokenizer(text)["input_ids"]) > limit:
            text = text[:-1]  # the longest that fits
        rows = [{"text": cell, "source": cell, column: "0"} for cell in (text, text + " a" * limit, "a")]
        family.samples(model, write(tmp_path / f"{name}.jsonl", rows), tmp_path, None, 0)
        (caution,) = model.cautions
        assert caution.message == f"1 of 3 texts are longer than {limit} tokens; only their beginning is read"


def test_a_text_of_which_no_token_is_predicted_counts_for_nothing() -> None:
    family, model = loaded("causal_lm", protocol="wikitext2")
    ids = companions(model).tokenizer("boats", add_special_tokens=False)["input_ids"][:4]
    single, several = family.answers(model, [ids[:1], ids])
    assert single == {"nll": 0.0, "tokens": 0, "words": 0, "bytes": 0}
    assert (several["tokens"], several["words"]) == (len(ids) - 1, 1)


# Speech


def test_silence_is_scored_with_a_caution(tmp_path: Path) -> None:
    family, model = loaded("asr")
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, np.zeros(1600), 16_000)
    (tmp_path / "a.csv").write_text("audio,text\na.wav,\nb.wav,hello\n")
    samples = family.samples(model, "a.csv", tmp_path, None, 0)
    assert [sample.reference for sample in samples] == ["", "hello"]
    assert [caution.code for caution in model.cautions] == ["silent_sounds"]
    (tmp_path / "b.csv").write_text("audio,text\na.wav,\n")
    with pytest.raises(RecipeError, match="all 1 transcripts are empty"):
        family.samples(model, "b.csv", tmp_path, None, 0)


# Text classification


def classifier() -> tuple[Family, Model]:
    family, model = loaded("text_classification")
    model.config.id2label = {0: "NEGATIVE", 1: "POSITIVE"}
    return family, model


@pytest.mark.parametrize(
    "spell", [lambda label: label, str.lower, str.title, lambda label: int(label == "POSITIVE"), {"POSITIVE": "1"}.get]
)
def test_labels_are_names_or_numbers_of_the_models(tmp_path: Path, spell: Any) -> None:
    family, model = classifier()
    rows = [{"text": text, "label": spell(label) or "0"} for text, label in REVIEWS]
    samples = family.samples(model, write(tmp_path / "a.jsonl", rows), tmp_path, None, 0)
    assert [(sample.inputs, sample.reference) for sample in samples] == REVIEWS


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["POSITIVE", "neutral"], "line 2: the label 'neutral' is not one of the model's: NEGATIVE, POSITIVE"),
        (["1", "2"], r"line 2: the label '2' .* \(or 0, 1\)"),
        (["POSITIVE", "0"], "line 2: the label '0'"),
        (["pos", "neg"], r"line 1: the label 'pos' .*labels=pos=LABEL"),
        (["1.5"], "the label '1.5'"),
    ],
)
def test_labels_that_are_not_the_models_are_rejected(tmp_path: Path, labels: list[str], message: str) -> None:
    family, model = classifier()
    data = write(tmp_path / "a.jsonl", [{"text": "x", "label": label} for label in labels])
    with pytest.raises(RecipeError, match=message):
        family.samples(model, data, tmp_path, None, 0)


def test_labels_can_be_mapped(tmp_path: Path) -> None:
    family, model = classifier()
    data = write(tmp_path / "a.jsonl", [{"text": "x", "label": "pos"}, {"text": "y", "label": "neg"}])
    samples = family.samples(model, f"{data}:labels=pos=POSITIVE|neg=NEGATIVE", tmp_path, None, 0)
    assert [sample.reference for sample in samples] == ["POSITIVE", "NEGATIVE"]


def test_texts_are_scored_as_long_as_the_model_takes_them() -> None:
    family, model = loaded("text_classification", tokens=4)
    short_text, long_text = "abcd", "abcd" + "z" * 400
    lengths: list[int] = []
    module = model.module

    def run(**batch: Any) -> Any:
        lengths.append(batch["input_ids"].shape[1])
        return module(**batch)

    model.module = run
    family.predict(model, [short_text, long_text])
    loaded("text_classification", scored_tokens=8)[0].predict(model, [long_text])
    assert lengths == [405, 8]


def test_calibration_keeps_away_from_what_is_scored(tmp_path: Path) -> None:
    family, model = classifier()
    data = write(tmp_path / "a.jsonl", [{"text": chr(97 + index) * 5, "label": 1} for index in range(20)])
    scored = {sample.inputs for sample in family.samples(model, data, tmp_path, 12, 0)}
    batches = family.calibration(model, 2, 0, size=3)
    decode = companions(model).tokenizer.batch_decode
    drawn = [text for batch in batches for text in decode(batch["input_ids"], skip_special_tokens=True)]
    assert len(set(drawn)) == 6
    assert not scored & set(drawn)
    assert all(batch["attention_mask"].shape == batch["input_ids"].shape for batch in batches)
    assert not model.cautions
    family.forward(model, batches[0])
    repeated = family.calibration(model, 2, 0, size=3)
    ids, repeated_ids = ([batch["input_ids"] for batch in part] for part in (batches, repeated))
    assert all(map(torch.equal, ids, repeated_ids))
    assert len(ids) == len(repeated_ids)


@pytest.mark.parametrize("name", ["text_classification", "causal_lm", "asr", "asr_ctc"])
def test_without_data_calibration_is_random_and_says_so(name: str) -> None:
    family, model = loaded(name)
    assert len(family.calibration(model, 2, 0)) == 2
    assert [caution.code for caution in model.cautions] == ["random_calibration"]


@pytest.mark.parametrize("name", ["text_classification", "token_classification", "causal_lm", "seq2seq"])
def test_a_call_with_too_many_tokens_is_rejected(name: str) -> None:
    family, model = loaded(name)
    family.batch(model, 1, 0)
    model.config.max_position_embeddings = 4
    with pytest.raises(RecipeError, match=r"takes 4 tokens at most, not \d+ in a call: make .*tokens smaller"):
        family.batch(model, 1, 0)


def test_a_tokenizer_without_a_token_to_pad_with_pads(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    family, model = classifier()
    tokenizer = AutoTokenizer.from_pretrained(_without_special_tokens(model, tmp_path))
    assert tokenizer.pad_token is None
    assert tokenizer.eos_token is None
    companions(model).tokenizer = load_tokenizer(hub.find_weights(str(tmp_path), "auto", Path()))
    texts = ["a", "a longer one"]
    assert family.predict(model, texts) == [family.predict(model, [text])[0] for text in texts]


def _without_special_tokens(model: Model, folder: Path) -> Path:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    letters = {chr(97 + index): index for index in range(26)} | {"?": 26}
    rules = Tokenizer(models.BPE(vocab=letters, merges=[], unk_token="?"))
    PreTrainedTokenizerFast(tokenizer_object=rules, unk_token="?").save_pretrained(folder)
    model.module.save_pretrained(folder)
    return folder


# Speech recognition


def speech(folder: Path, *seconds: float) -> str:
    for index, length in enumerate(seconds):
        soundfile.write(folder / f"{index}.flac", np.random.default_rng(index).normal(0, 0.1, int(length * 8000)), 8000)
    return write(
        folder / "a.jsonl", [{"file": f"{index}.flac", "text": f"text {index}"} for index in range(len(seconds))]
    )


def test_sounds_are_decoded_only_when_they_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family, model = loaded("asr")
    data = speech(tmp_path, 0.5, 1)
    read = soundfile.read
    reads: list[Any] = []

    def hear(*args: Any, **options: Any) -> Any:
        reads.append(1)
        return read(*args, **options)

    monkeypatch.setattr(soundfile, "read", hear)
    samples = family.samples(model, data, tmp_path, None, 0)
    assert [sample.reference for sample in samples] == ["text 0", "text 1"]
    assert not reads
    assert len(family.answers(model, [samples[0].inputs])) == 1
    assert len(reads) == 1
    decoded = np.asarray(samples[0].inputs)
    assert family.answers(model, [decoded, decoded.tolist()]) == 2 * family.answers(model, [samples[0].inputs])


@pytest.mark.parametrize("name", ["asr", "asr_ctc"])
def test_long_sounds_are_heard_in_windows_and_the_protocol_says_so(name: str, tmp_path: Path) -> None:
    family, model = loaded(name, **({"window_seconds": 30} if name == "asr_ctc" else {}))
    family.samples(model, speech(tmp_path, 0.5, 30), tmp_path, None, 0)
    assert SCORING not in model.facts
    family.samples(model, speech(tmp_path, 0.5, 31, 30), tmp_path, None, 0)
    assert model.facts[SCORING] == "sounds longer than 30 s in windows that overlap by 10 s"
    assert model.cautions == []


def test_the_parts_of_a_long_sound_are_recognised_and_joined() -> None:
    family, model = loaded("asr")
    parts: list[int] = []

    def recognised(model: Model, samples: Any) -> list[int]:
        """Return one token for each second, by its number in the sound."""
        parts.append(len(samples))
        return [3 + int(value) for value in samples[8000::16_000]]

    family._recognised = recognised  # type: ignore[attr-defined]
    seconds = np.repeat(np.arange(65, dtype=np.float32), 16_000)
    expected = companions(model).tokenizer.decode(list(range(3, 68)))
    assert family.predict(model, [seconds]) == [expected.strip()]
    assert parts == [480_000, 480_000, 400_000]


def test_a_fixed_language_is_in_the_protocol_and_chooses_the_normalisation(tmp_path: Path) -> None:
    family, model = loaded("asr")
    generation = companions(model).generation
    generation.lang_to_id, generation.task_to_id = {"<|ru|>": 41}, {"transcribe": 51, "translate": 50}
    data = speech(tmp_path, 0.5)
    family.samples(model, data, tmp_path, None, 0)
    assert [caution.code for caution in model.cautions] == ["detected_language"]
    assert family.metrics_for(model) == family.metrics
    model.cautions.clear()
    generation.language = "ru"
    chosen = dataclasses.replace(family, language="ru")  # type: ignore[call-arg]
    chosen.samples(model, data, tmp_path, None, 0)
    assert (model.facts[SCORING], model.cautions) == ("language ru", [])
    assert chosen.metrics_for(model) == ("wer", "cer", "wer_normalized:language=other", "cer_normalized:language=other")
    generation.task = "translate"
    assert chosen.metrics_for(model) == family.metrics


def test_the_real_time_factor_over_the_data(tmp_path: Path) -> None:
    for name in ("asr", "asr_ctc"):
        family, model = loaded(name)
        samples = family.samples(model, speech(tmp_path, 0.5, 1.5), tmp_path, None, 0)
        inputs = [sample.inputs for sample in samples]
        assert family.scored_rates(inputs, 4.0) == {"real_time_factor_scored": pytest.approx(2.0)}
        arrays = [np.zeros(8000), [0.0] * 24_000]
        assert family.scored_rates(arrays, 4.0) == {"real_time_factor_scored": pytest.approx(2.0)}
    assert loaded("causal_lm")[0].scored_rates(["a"], 4.0) == {}


@pytest.mark.parametrize("name", ["asr", "asr_ctc"])
def test_sounds_to_calibrate_on(name: str, tmp_path: Path) -> None:
    family, model = loaded(name)
    data = speech(tmp_path, 0.5, 0.75, 1)
    scored = family.samples(model, data, tmp_path, 1, 0)
    batches = family.calibration(model, 1, 0, size=2)
    lengths = {len(sound) for sound in batches[0]} | {len(np.asarray(scored[0].inputs))}
    assert lengths == {8000, 12_000, 16_000}
    assert family.forward(model, batches[0]).shape[0] == 2


# Language models

TEXTS = ["a" * 150, "hello world. " * 9, "x", "ab", "déjà vu 🙂 " * 6]


@pytest.mark.parametrize(("window", "stride"), [(32, 8), (32, 32), (32, None), (1024, None)])
def test_likelihood_is_that_of_transformers_guide(window: int, stride: int | None) -> None:
    family, model = loaded("causal_lm", protocol="sliding", window=window, stride=stride)
    answers = family.answers(model, TEXTS)
    step = stride or window // 2
    for text, answer in zip(TEXTS, answers, strict=True):
        ids = companions(model).tokenizer(text, return_tensors="pt").input_ids
        total, tokens, previous = 0.0, 0, 0
        for begin in range(0, ids.size(1), step):
            end = min(begin + window, ids.size(1))
            targets = ids[:, begin:end].clone()
            targets[:, : -(end - previous)] = -100
            count = int((targets[:, 1:] != -100).sum())
            if count:
                total += float(model.module(ids[:, begin:end], labels=targets).loss) * count
            tokens, previous = tokens + count, end
            if end == ids.size(1):
                break
        assert answer["tokens"] == tokens
        assert answer["nll"] == pytest.approx(total, rel=1e-5)
        assert (answer["words"], answer["bytes"]) == (len(text.split()), len(text.encode()))


@pytest.mark.parametrize("chain", ["original", "int8_dynamic"])
def test_the_batch_does_not_change_the_likelihood(chain: str) -> None:
    family, model = loaded("causal_lm", protocol="sliding", window=32, stride=8)
    for method in model_folder.methods_of(chains.parse_chain(chain)):
        model = method.compress(model, family)
    together = family.answers(model, TEXTS)
    for text, answer in zip(TEXTS, together, strict=True):
        assert family.answers(model, [text])[0]["nll"] == pytest.approx(answer["nll"], rel=1e-5)


def test_a_window_is_no_longer_than_what_the_model_takes() -> None:
    family, model = loaded("causal_lm", window=512)
    model.config.max_position_embeddings = 16
    lengths: list[int] = []
    module = model.module

    def run(**batch: Any) -> Any:
        lengths.append(batch["input_ids"].shape[1])
        return module(**batch)

    model.module = run
    assert family.answers(model, ["a" * 100])[0]["tokens"] == 100
    assert max(lengths) == 16


def test_a_stride_may_not_skip_tokens(tmp_path: Path) -> None:
    family, model = loaded("causal_lm", protocol="sliding", window=8, stride=9)
    data = write(tmp_path / "a.jsonl", [{"text": "x"}])
    with pytest.raises(RecipeError, match="stride=9 would skip tokens: it is larger than window=8"):
        family.samples(model, data, tmp_path, None, 0)


def test_the_first_token_is_predicted_behind_one_that_begins_texts() -> None:
    plain, model = loaded("causal_lm", protocol="sliding")
    family_with_bos, _ = loaded("causal_lm", protocol="sliding", with_bos=True)
    without_bos, with_bos = plain.answers(model, ["hello"])[0], family_with_bos.answers(model, ["hello"])[0]
    assert with_bos["tokens"] == without_bos["tokens"] + 1
    companions(model).tokenizer.bos_token = companions(model).tokenizer.decode([107])  # as the text begins
    assert family_with_bos.answers(model, ["hello"])[0] == without_bos


def test_exported_graphs_are_scored_alike() -> None:
    family, model = loaded("causal_lm", protocol="sliding", window=32, stride=8)
    expected = family.answers(model, TEXTS)
    graphs = family.graphs(model)
    attached = family.attach(
        dataclasses.replace(model, module=None), {name: graph.module for name, graph in graphs.items()}
    )
    for answer, reference in zip(family.answers(attached, TEXTS), expected, strict=True):
        assert answer["nll"] == pytest.approx(reference["nll"], rel=1e-5)


def test_texts_to_calibrate_on_fill_their_rows(tmp_path: Path) -> None:
    family, model = loaded("causal_lm")
    data = write(tmp_path / "a.jsonl", [{"text": chr(97 + index) * 11} for index in range(20)])
    scored = {sample.inputs[0] for sample in family.samples(model, data, tmp_path, 12, 0)}
    batches = family.calibration(model, 3, 0, size=2)
    assert [batch.shape for batch in batches] == [(2, 128)] * 3
    letters = set(companions(model).tokenizer.decode(torch.cat(batches).flatten(), skip_special_tokens=True))
    assert letters
    assert not scored & letters
    assert not model.cautions
    repeated = family.calibration(model, 4, 1, size=16)  # more than there is: texts are repeated
    assert repeated[0].shape == (16, 128)
