"""Vocabulary pruning: texts of kept tokens keep their tokens and outputs exactly, for each kind of tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_model
from words import BAD, GOOD, OTHERS, labelled_folder, labels, reviews, saved, word_piece, write_rows

from mlflow_compress import registry
from mlflow_compress.errors import Unsupported
from mlflow_compress.networks import model_folder, smaller_tokenizers
from mlflow_compress.networks.transformers_models import companions
from mlflow_compress.planning import chains
from mlflow_compress.records import Variant
from mlflow_compress.sockets import Family, Model

TEXTS = [text for text, _ in reviews(60, 3)] + ["the plot was very grey, fine!", "Ünïcode and naïve cafés 123"]


def trained(kind: str) -> Any:
    """Train a tokenizer of the library tokenizers on the texts."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    texts = [*TEXTS, *(" ".join(OTHERS) for _ in range(5)), "unseen words that nobody reads again and again"]
    if kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.normalizer = normalizers.NFKC()
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        trainer: Any = trainers.UnigramTrainer(
            vocab_size=150, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], unk_token="<unk>"
        )
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        special_tokens=[("<s>", tokenizer.token_to_id("<s>")), ("</s>", tokenizer.token_to_id("</s>"))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


KINDS: dict[str, Callable[[], Any]] = {
    "word_piece": word_piece,
    "unigram": lambda: trained("unigram"),
    "bpe": lambda: trained("bpe"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_texts_of_kept_tokens_are_split_as_before(kind: str) -> None:
    tokenizer = KINDS[kind]()
    known = TEXTS[:30]
    before = tokenizer(known)["input_ids"]
    kept = smaller_tokenizers.closed(tokenizer, {token for ids in before for token in ids})
    assert len(kept) < len(tokenizer)
    smaller = smaller_tokenizers.smaller(tokenizer, kept)
    assert len(smaller) == len(kept)
    after = smaller(known)["input_ids"]
    assert [[kept[number] for number in ids] for ids in after] == before
    assert smaller.batch_decode(after) == tokenizer.batch_decode(before)
    for name in ("pad_token", "unk_token"):
        assert getattr(smaller, name) == getattr(tokenizer, name)
        assert kept[getattr(smaller, f"{name}_id")] == getattr(tokenizer, f"{name}_id")
    others = smaller(["words that were never there: zzz 42"])["input_ids"][0]  # still readable
    assert all(0 <= number < len(kept) for number in others)


@pytest.mark.parametrize("kind", KINDS)
def test_a_smaller_tokenizer_is_read_again_from_its_folder(kind: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = KINDS[kind]()
    ids = tokenizer(TEXTS)["input_ids"]
    kept = smaller_tokenizers.closed(tokenizer, {token for text in ids for token in text})
    smaller = smaller_tokenizers.smaller(tokenizer, kept)
    smaller.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again(TEXTS)["input_ids"] == smaller(TEXTS)["input_ids"]


def pruned(family: Family, model: Model, **options: Any) -> Model:
    result: Model = registry.build("methods", "prune_vocabulary", options).compress(model, family)
    return result


def classifier(tmp_path: Path) -> tuple[Family, Model]:
    labelled_folder(tmp_path / "data")
    family: Family = registry.build("families", "text_classification")
    model = family.load(str(saved(tmp_path / "bert", **labels())), "auto", tmp_path, 0)
    family.samples(model, "data", tmp_path, None, 0)
    return family, model


def logits(family: Family, model: Model, texts: list[str]) -> torch.Tensor:
    batch = dict(family._encode(model, texts, 64))  # type: ignore[attr-defined]
    with torch.no_grad():
        scores: torch.Tensor = family.forward(model, batch)
    return scores


def test_a_classifier_gives_exactly_the_same_for_kept_tokens(tmp_path: Path) -> None:
    family, model = classifier(tmp_path)
    texts = [text for text, _ in reviews(40, 9)]
    before, rows = logits(family, model, texts), model.module.get_input_embeddings().weight.shape[0]
    pruned(family, model)
    assert torch.equal(logits(family, model, texts), before)
    left = model.module.get_input_embeddings().weight.shape[0]
    assert left == model.config.vocab_size == len(companions(model).tokenizer) < rows
    words = set(companions(model).tokenizer.get_vocab())
    assert {*GOOD, *BAD} <= words
    assert not {"unused", "spare", "never", "##ing"} & words
    assert model.facts["vocabulary"] == f"{left} of {rows} tokens, those of 160 texts"
    assert model.cautions[0].code == "smaller_vocabulary"
    assert model.config.pad_token_id == companions(model).tokenizer.pad_token_id


def test_it_is_restored_as_an_ordinary_model(tmp_path: Path) -> None:
    import transformers

    family, model = classifier(tmp_path)
    chain = chains.parse_chain("prune_vocabulary")
    pruned(family, model)
    texts = [text for text, _ in reviews(10, 9)]
    target = tmp_path / "saved"
    target.mkdir()
    variant = Variant("m", "v", "t", "text_classification", "s", chain=chain)
    model_folder.save(model, family, model_folder.methods_of(chain), variant, target)
    restored = model_folder.restore(target)
    assert torch.equal(logits(restored.family, restored.model, texts), logits(family, model, texts))
    plain = transformers.pipeline("text-classification", str(target), device="cpu")
    assert [answer["label"] for answer in plain(texts)] == family.predict(model, texts)


def test_the_most_frequent_tokens_are_kept(tmp_path: Path) -> None:
    family, model = classifier(tmp_path)
    pruned(family, model, most=10)
    words = set(companions(model).tokenizer.get_vocab())
    assert not {*GOOD, *BAD} <= words
    assert "those of 160 texts; " in model.facts["vocabulary"]
    assert model.facts["vocabulary"].endswith("of these texts are split as before")


def test_a_tied_head_stays_tied_and_has_as_many_rows(tmp_path: Path) -> None:
    write_rows(tmp_path / "texts.jsonl", ("text",), [(text,) for text, _ in reviews(40, 5)])
    folder = saved(tmp_path / "mlm", "AutoModelForMaskedLM")
    family: Family = registry.build("families", "masked_lm")
    model = family.load(str(folder), "auto", tmp_path, 0)
    family.samples(model, "texts.jsonl:limit=10", tmp_path, None, 0)
    before = family.answers(model, ["the film was very good"])[0]
    pruned(family, model)
    module = model.module
    assert module.get_output_embeddings().weight is module.get_input_embeddings().weight
    assert module.get_output_embeddings().bias.shape == (model.config.vocab_size,)
    after = family.answers(model, ["the film was very good"])[0]
    assert after["tokens"] == before["tokens"]
    assert after["nll"] < before["nll"], "fewer tokens share the probability"


def test_random_weights_keep_a_number_of_tokens() -> None:
    family, model = tiny_model("text_classification")
    with pytest.raises(Unsupported, match="random weights have no texts whose tokens could be kept: set most=TOKENS"):
        pruned(family, model)
    pruned(family, model, most=280)
    assert model.module.get_input_embeddings().weight.shape[0] == model.config.vocab_size == 280
    assert model.facts["vocabulary"] == "280 of 300 tokens"
    family.run(model, family.batch(model, 1, 0), lambda stage: None)
    with pytest.raises(Unsupported, match="280 tokens must stay, and the vocabulary has 280: none can be removed"):
        pruned(family, model, most=280)


def test_where_it_does_not_apply_the_reason_is_given(tmp_path: Path) -> None:
    family, model = tiny_model("image_classification")
    with pytest.raises(Unsupported, match="the model has no tokenizer of transformers"):
        pruned(family, model, most=1)
    family = registry.build("families", "text_classification")
    model = family.load(str(saved(tmp_path / "bert", **labels())), "auto", tmp_path, 0)
    with pytest.raises(Unsupported, match="there are no texts whose tokens should be kept: provide data"):
        pruned(family, model)
    from transformers import ByT5Tokenizer

    with pytest.raises(Unsupported, match="a ByT5Tokenizer has no list of tokens that can be shortened"):
        smaller_tokenizers.closed(ByT5Tokenizer(), [1])
