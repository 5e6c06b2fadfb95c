"""Text classification: the same labels in batches and alone, and texts cut to the model's maximum."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from tiny import tiny_model

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError
from mlflow_compress.networks.transformers_models import companions
from mlflow_compress.sockets import Model

TEXTS = ["a fine film", "dull", "the pictures are beautiful, but the story is thin"]


def test_each_text_gets_the_label_that_the_model_gives_it_alone() -> None:
    family, model = tiny_model("text_classification", {"initializer_range": 1.0})
    expected = []
    for text in TEXTS:
        encoded = companions(model).tokenizer([text], return_tensors="pt")
        with torch.no_grad():
            logits = model.module(**{key: encoded[key] for key in ("input_ids", "attention_mask")}).logits
        expected.append(model.config.id2label[int(logits.argmax())])
    assert family.predict(model, TEXTS * 7) == expected * 7  # more than one batch
    assert [family.predict(model, [text])[0] for text in TEXTS] == expected


def test_texts_are_cut_to_the_tokens_that_the_options_say() -> None:
    family, model = tiny_model("text_classification", {"initializer_range": 1.0}, scored_tokens=4)
    lengths = []
    forward = model.module.forward

    def watched(**inputs: torch.Tensor) -> object:
        lengths.append(inputs["input_ids"].shape[1])
        return forward(**inputs)

    model.module.forward = watched
    family.predict(model, ["a", TEXTS[2]])
    assert lengths == [4]
    assert family.around(model, 2, 0)["preprocess"]()["input_ids"].shape == (2, 16)  # type: ignore[index]


BERT = {
    "model_type": "bert",
    "vocab_size": 300,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": 1.0,
    "num_labels": 2,
}
PAIRS = [["the cat sat", "a cat is sitting"], ["it rains", "the sun shines over the whole valley"], ["a", "b"]]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a BERT and a tokenizer that tells the two texts of a pair apart."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        *sorted({word for pair in PAIRS for text in pair for word in text.split()}),
    ]
    rules = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    rules.pre_tokenizer = pre_tokenizers.Whitespace()
    rules.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder = tmp_path_factory.mktemp("bert")
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    PreTrainedTokenizerFast(tokenizer_object=rules, model_input_names=inputs, **names).save_pretrained(folder)
    family = registry.build("families", "text_classification", {"architecture": BERT, "tokens": 16})
    family.load("tiny", "random", folder, 0).module.save_pretrained(folder)
    return folder


def logits_of(model: Model, first: str, second: str) -> torch.Tensor:
    encoded = companions(model).tokenizer(first, second, return_tensors="pt")
    assert int(encoded["token_type_ids"].sum()) > 0
    with torch.no_grad():
        logits: torch.Tensor = model.module(**encoded).logits
    return logits


@pytest.mark.parametrize("names", [("sentence1", "sentence2"), ("premise", "hypothesis"), ("question", "sentence")])
def test_pairs_are_classified_as_by_transformers(bert: Path, tmp_path: Path, names: tuple[str, str]) -> None:
    family = registry.build("families", "text_classification", {"tokens": 16})
    model = family.load(str(bert), "auto", tmp_path, 0)
    expected = [model.config.id2label[int(logits_of(model, *pair).argmax())] for pair in PAIRS]
    lines = ["\t".join(["index", *names, "label"]), *(f"{n}\t{a}\t{b}\t{n % 2}" for n, (a, b) in enumerate(PAIRS))]
    (tmp_path / "dev.tsv").write_text("\n".join(lines))
    assert family.predict(model, PAIRS) == expected
    samples = family.samples(model, "dev.tsv:limit=2", tmp_path, None, 0)
    inputs = [sample.inputs for sample in samples]
    assert all(item in PAIRS for item in inputs)
    assert family.predict(model, PAIRS) == expected
    (batch,) = family.calibration(model, 1, 0, 1)  # the third pair
    encoded = companions(model).tokenizer(*next([a, b] for a, b in PAIRS if [a, b] not in inputs), return_tensors="pt")
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        name: tensor.tolist() for name, tensor in encoded.items()
    }
    timed = family.batch(model, 2, 0)
    assert timed["token_type_ids"].sum(dim=1).tolist() == [8, 8]
    calls = {name: graph.module for name, graph in family.graphs(model).items()}
    exported = family.attach(dataclasses.replace(model, module=None), calls)
    assert family.predict(exported, PAIRS) == expected
    assert torch.equal(family.run(exported, timed, lambda stage: None), family.run(model, timed, lambda stage: None))


def test_a_model_exported_for_single_texts_takes_no_pairs(bert: Path, tmp_path: Path) -> None:
    family = registry.build("families", "text_classification", {"tokens": 16})
    model = family.load(str(bert), "auto", tmp_path, 0)
    calls = {name: graph.module for name, graph in family.graphs(model).items()}
    exported = family.attach(dataclasses.replace(model, module=None), calls)
    assert family.predict(exported, ["it rains"]) == family.predict(model, ["it rains"])
    with pytest.raises(RecipeError, match="was exported for single texts and can't tell the texts of a pair apart"):
        family.predict(exported, PAIRS)


def test_a_table_of_single_texts_has_no_pairs(tmp_path: Path) -> None:
    family, model = tiny_model("text_classification")
    (tmp_path / "a.csv").write_text("sentence,label\nfine,1\n")
    assert [sample.inputs for sample in family.samples(model, "a.csv", tmp_path, None, 0)] == ["fine"]
    (tmp_path / "b.csv").write_text("a,b,label\nfine,dull,1\n")
    samples = family.samples(model, "b.csv:text=a,pair=b", tmp_path, None, 0)
    assert [sample.inputs for sample in samples] == [["fine", "dull"]]
    assert len(family.predict(model, ["fine", ["fine", "dull"], "dull"])) == 3
    with pytest.raises(RecipeError, match="has no column 'c' for pair"):
        family.samples(model, "b.csv:text=a,pair=c", tmp_path, None, 0)
