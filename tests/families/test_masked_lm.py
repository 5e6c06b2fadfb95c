"""Masked language models: each token is predicted once where it is masked, and masks are filled."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_model
from words import OTHERS, reviews, saved, word_piece, write_rows

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError
from mlflow_compress.networks.transformers_models import companions
from mlflow_compress.sockets import Family, Model

TEXT = "the film was very good and the plot was dull"


def loaded(folder: Path, **options: Any) -> tuple[Family, Model]:
    family: Family = registry.build("families", "masked_lm", options)
    return family, family.load(str(folder), "auto", folder.parent, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("mlm") / "bert", "AutoModelForMaskedLM", initializer_range=0.3)


def likelihood(model: Model, groups: list[list[int]], ids: list[int]) -> tuple[float, int]:
    """Return the loss of each token where its group is masked, and how many are the likeliest."""
    loss, right = 0.0, 0
    for group in groups:
        masked = [companions(model).tokenizer.mask_token_id if i in group else token for i, token in enumerate(ids)]
        with torch.no_grad():
            scores = model.module(input_ids=torch.tensor([masked])).logits[0].log_softmax(-1)
        loss -= sum(float(scores[i, ids[i]]) for i in group)
        right += sum(int(scores[i].argmax()) == ids[i] for i in group)
    return loss, right


@pytest.mark.parametrize("masking", ["spread", "single"])
def test_each_token_is_predicted_once_behind_a_mask(masking: str, folder: Path) -> None:
    family, model = loaded(folder, masking=masking)
    ids = companions(model).tokenizer(TEXT)["input_ids"]
    places = list(range(1, len(ids) - 1))
    groups = [[place] for place in places] if masking == "single" else [places[first::7] for first in range(7)]
    loss, right = likelihood(model, groups, ids)
    (answer,) = family.answers(model, [TEXT])
    assert answer["nll"] == pytest.approx(loss, rel=1e-4)
    assert answer == {"nll": answer["nll"], "tokens": 10, "right": right, "words": 10, "bytes": len(TEXT)}
    perplexity = registry.build("metrics", "pseudo_perplexity").compute([TEXT], [answer])
    assert perplexity == pytest.approx(math.exp(loss / 10), rel=1e-4)
    assert registry.build("metrics", "masked_accuracy").compute([TEXT], [answer]) == right / 10


def test_the_protocol_is_a_fact_and_long_texts_are_cut(folder: Path, tmp_path: Path) -> None:
    family, model = loaded(folder, scored_tokens=12)
    write_rows(tmp_path / "texts.jsonl", ("text",), [(TEXT,), (f"{TEXT} in all",)])
    family.samples(model, "texts.jsonl", tmp_path, None, 0)
    assert (
        model.facts["scoring"] == "each token is predicted once, every 7th token is masked, texts of at most 12 tokens"
    )
    assert [caution.code for caution in model.cautions] == ["cut_texts"]
    whole, cut = family.answers(model, [TEXT, f"{TEXT} in all"])
    assert whole == cut


def test_masks_are_filled_with_the_likeliest_tokens(folder: Path) -> None:
    family, model = loaded(folder)
    text = "the film was [MASK] good"
    ids = companions(model).tokenizer(text)["input_ids"]
    with torch.no_grad():
        best = int(model.module(input_ids=torch.tensor([ids])).logits[0, 4].argmax())
    (filled,) = family.predict(model, [text])
    token = companions(model).tokenizer.decode([best])
    assert filled.split() == ["the", "film", "was", *token.split(), "good"] or token in word_piece().all_special_tokens


def test_targets_are_the_tokens_behind_the_masks(folder: Path, tmp_path: Path) -> None:
    family, model = loaded(folder)
    write_rows(tmp_path / "texts.jsonl", ("text",), [(text,) for text, _ in reviews(60, 1)])
    family.samples(model, "texts.jsonl:limit=10", tmp_path, None, 0)
    batches = family.labelled(model, 20, 0, 8)
    mask = companions(model).tokenizer.mask_token_id
    masked = total = 0
    for batch in batches:
        ids, is_target = batch.batch["input_ids"], batch.targets != -100
        assert torch.equal(ids == mask, is_target)
        masked += int(is_target.sum())
        total += int(batch.batch["attention_mask"].sum()) - 2 * len(ids)
        _, loss = family.forward_labelled(model, batch)
        assert math.isfinite(float(loss))
    assert 0.08 < masked / total < 0.22
    assert torch.equal(family.calibration(model, 20, 0, 8)[3]["input_ids"], batches[3].batch["input_ids"])


def test_a_model_learns_what_stands_behind_masks(tmp_path: Path) -> None:
    family, model = loaded(saved(tmp_path / "bert", "AutoModelForMaskedLM"))
    write_rows(
        tmp_path / "texts.jsonl", ("text",), [(f"{word} film {word} plot",) for word in OTHERS for _ in range(8)]
    )
    family.samples(model, "texts.jsonl:limit=4", tmp_path, None, 0)
    assert family.answers(model, ["the film the plot"])[0]["right"] < 2
    registry.build("methods", "fine_tune", {"steps": 150, "learning_rate": 3e-3}).compress(model, family)
    assert family.answers(model, ["the film the plot"])[0]["right"] >= 2


def test_a_tokenizer_without_a_mask_is_rejected(tmp_path: Path) -> None:
    tokenizer = word_piece()
    tokenizer.mask_token = None
    with pytest.raises(RecipeError, match="has no mask token: it is not a masked language model"):
        loaded(saved(tmp_path / "bert", "AutoModelForMaskedLM", tokenizer=tokenizer))


def test_random_weights_run() -> None:
    family, model = tiny_model("masked_lm")
    assert family.classes(model) == 300
    assert len(family.predict(model, ["dull"])) == 1
