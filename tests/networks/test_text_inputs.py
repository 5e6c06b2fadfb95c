"""Inputs of text models: padding, end tokens, positions and inputs of each architecture."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from tiny import tiny_model
from torch import nn

from mlflow_compress.errors import RecipeError
from mlflow_compress.networks.text_inputs import of_text, positions, require_pass, require_two_parts, taken, token_ids
from mlflow_compress.networks.transformers_models import Companions, companions
from mlflow_compress.sockets import Model

GPT2 = {"model_type": "gpt2", "vocab_size": 300, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32}
BART = {
    "model_type": "bart",
    "vocab_size": 300,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "max_position_embeddings": 32,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
ROBERTA = {
    "model_type": "roberta",
    "vocab_size": 300,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 20,
    "pad_token_id": 1,
}
FNET = {**ROBERTA, "model_type": "fnet", "max_position_embeddings": 32}


def test_a_classifier_without_a_padding_token_pads_and_reads_the_last_token(tmp_path: Path) -> None:
    family, model = tiny_model("text_classification", architecture=GPT2 | {"dim": 16}, tokens=16)
    assert model.config.pad_token_id == companions(model).tokenizer.pad_token_id
    texts = ["a", "a longer one"]
    assert family.predict(model, texts) == [family.predict(model, [text])[0] for text in texts]
    batch = family.batch(model, 2, 0)
    with torch.inference_mode():
        assert family.run(model, batch, lambda stage: None).shape == (2, 2)
    family.save(model, tmp_path)
    assert family.restore(tmp_path).config.pad_token_id == model.config.pad_token_id


def test_texts_are_filled_up_with_the_padding_of_the_config() -> None:
    family, model = tiny_model("text_classification", architecture=GPT2 | {"pad_token_id": 5, "num_labels": 40})
    assert companions(model).tokenizer.pad_token_id != 5
    texts = ["a", "a longer one", "and the longest of them"]
    assert family.predict(model, texts) == [family.predict(model, [text])[0] for text in texts]


def test_padding_that_no_embedding_has_is_left_as_it_is() -> None:
    family, model = tiny_model("text_classification")
    expected = family.predict(model, ["a", "a longer one"])
    for unknown in (-1, 300):
        model.config.pad_token_id = unknown
        assert family.predict(model, ["a", "a longer one"]) == expected


def test_random_texts_of_a_classifier_with_a_decoder_end_once() -> None:
    family, model = tiny_model("text_classification", architecture=BART, tokens=16)
    ids = family.batch(model, 8, 0)["input_ids"]
    assert (ids == 1).sum(dim=1).tolist() == [1] * 8
    assert bool((ids[:, -1] == 1).all())


def test_an_encoder_without_a_mask_is_given_none() -> None:
    family, model = tiny_model("text_classification", architecture=FNET, tokens=16)
    with torch.inference_mode():
        assert family.run(model, family.batch(model, 2, 0), lambda stage: None).shape == (2, 2)
    assert len(family.predict(model, ["one", "one more"])) == 2


def test_positions_before_the_paddings_own_are_not_for_tokens(tmp_path: Path) -> None:
    family, model = tiny_model("token_classification", architecture=ROBERTA, tokens=18)
    assert positions(model.config) == 18
    family.batch(model, 1, 0)
    family.predict(model, [["word"] * 40])  # more than the model takes: in two parts
    family.save(model, tmp_path)
    assert positions(family.restore_assets(tmp_path).config) == 18
    longer, _ = tiny_model("token_classification", architecture=ROBERTA, tokens=19)
    with pytest.raises(RecipeError, match="takes 18 tokens at most, not 19"):
        longer.batch(model, 1, 0)


def test_a_model_without_an_end_has_no_positions() -> None:
    assert positions(transformers.XLNetConfig()) is None


def test_a_config_of_several_parts_says_its_vocabulary_in_the_part_of_text() -> None:
    text = SimpleNamespace(vocab_size=77, max_position_embeddings=12)
    config: Any = SimpleNamespace(text_config=text, image_token_id=3)
    assert of_text(config, "vocab_size") == 77
    assert positions(config) == 12
    assert of_text(config, "num_mel_bins") is None
    ids = token_ids(Model(nn.Identity(), config=config, family_data=Companions()), 4, 200, 0)
    assert int(ids.max()) < 77
    assert not bool((ids == 3).any())  # a placeholder for an image


class OneInput(nn.Module):
    main_input_name = "inputs"

    def forward(self, inputs: Any) -> Any:
        return inputs


def test_inputs_are_named_as_the_model_names_them() -> None:
    assert taken(OneInput(), {"input_ids": 1, "attention_mask": 2}) == {"inputs": 1}
    assert taken(lambda: None, {"input_ids": 1}) == {"input_ids": 1}  # an exported replacement


def test_what_a_forward_takes_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    module = OneInput()
    taken(module, {"input_ids": 1})

    def asked(forward: Any) -> Any:
        raise AssertionError(f"{forward} was asked again, in a timed call")

    monkeypatch.setattr(inspect, "signature", asked)
    assert taken(module, {"input_ids": 3, "attention_mask": 2}) == {"inputs": 3}


def test_running_out_of_memory_is_not_a_need_of_other_inputs() -> None:
    def call() -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000000000 bytes")

    with pytest.raises(RuntimeError, match="can't allocate memory"):
        require_pass(Model(nn.Linear(1, 1)), call, "token ids")


def test_a_model_that_needs_other_inputs_is_refused_in_one_sentence() -> None:
    model = Model(nn.Linear(1, 1), config=SimpleNamespace(is_encoder_decoder=False))

    def call() -> None:
        raise ValueError("You have to specify\npixel_values")

    with pytest.raises(
        RecipeError, match=r"Linear can't be measured here: .* token ids, .*pixel_values\)\.$"
    ) as caught:
        require_pass(model, call, "token ids")
    assert "\n" not in str(caught.value)
    with pytest.raises(RecipeError, match="Linear is a language model with an audio or image encoder before it"):
        require_two_parts(model, "sound")


def test_a_folder_that_samples_is_saved_and_decodes_greedily(tmp_path: Path) -> None:
    family, model = tiny_model("causal_lm")
    source = tmp_path / "own"
    model.module.save_pretrained(source)
    companions(model).tokenizer.save_pretrained(source)
    settings = {"do_sample": True, "temperature": 0.6, "num_return_sequences": 3, "repetition_penalty": 1.5}
    settings |= {"return_dict_in_generate": True, "max_time": 1e-6, "use_cache": False}
    (source / "generation_config.json").write_text(json.dumps(settings))
    loaded = family.load(str(source), "auto", Path(), 0)
    assert loaded.facts["decoding"].startswith("greedy")
    stages: list[str] = []
    with torch.inference_mode():
        tokens = family.run(loaded, family.batch(loaded, 2, 0), stages.append)
    assert (tokens.shape, stages) == ((2, 3), ["prefill", "token", "token"])
    saved = tmp_path / "saved"
    saved.mkdir()
    family.save(loaded, saved)
    restored = json.loads((saved / "generation_config.json").read_text())
    assert (restored["do_sample"], restored["temperature"], restored["repetition_penalty"]) == (True, 0.6, 1.5)


def test_settings_that_contradict_each_other_are_saved_as_they_are(tmp_path: Path) -> None:
    family, model = tiny_model("causal_lm")
    source = tmp_path / "own"
    model.module.save_pretrained(source)
    companions(model).tokenizer.save_pretrained(source)
    settings = {"do_sample": False, "temperature": 0.6, "early_stopping": True, "pad_token_id": -1}
    (source / "generation_config.json").write_text(json.dumps(settings))
    loaded = family.load(str(source), "auto", Path(), 0)
    saved = tmp_path / "saved"
    saved.mkdir()
    family.save(loaded, saved)
    read = companions(family.restore_assets(saved)).generation
    assert {name: getattr(read, name) for name in settings} == settings
