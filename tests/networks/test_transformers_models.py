"""Models that transformers builds are loaded in float32 or rejected, and saved so that they can be built again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import pytest
import torch
import transformers
from packaging.version import InvalidVersion
from tiny import TINY, gguf_file
from transformers.utils.import_utils import is_gguf_available

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError, WeightsError
from mlflow_compress.networks import hub
from mlflow_compress.networks.gguf_checkpoints import add_special_tokens
from mlflow_compress.networks.hub import Origin, find_weights
from mlflow_compress.networks.text_inputs import longest, must_fit, token_ids
from mlflow_compress.networks.transformers_models import (
    Companions,
    built,
    companions,
    load_tokenizer,
    load_transformer,
)
from mlflow_compress.sockets import Family

SOURCE = "some/model"
CLASSIFIER = "AutoModelForSequenceClassification"
DISTILBERT, LLAMA, WHISPER = (TINY[name]["architecture"] for name in ("text_classification", "causal_lm", "asr"))
KINDS = [(CLASSIFIER, DISTILBERT), ("AutoModelForCausalLM", LLAMA), ("AutoModelForSpeechSeq2Seq", WHISPER)]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the cache empty and the hub unreachable."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda source, file: None)
    monkeypatch.setattr(hub, "_ask", lambda endpoint: f"{endpoint} can't be reached (no network)")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    yield
    transformers.logging.set_verbosity_warning()


@pytest.mark.parametrize(("auto_class", "architecture"), KINDS)
def test_random_weights_are_the_seeds(auto_class: str, architecture: dict[str, Any]) -> None:
    states = []
    for seed in (1, 1, 2):
        origin = Origin("random", caution="careful")
        model = load_transformer(auto_class, SOURCE, origin, architecture, seed)
        assert (model.weights, model.module.training) == ("random", False)
        assert [caution.message for caution in model.cautions] == ["careful"]
        assert [caution.code for caution in model.cautions] == ["random_weights"]
        assert not any(parameter.requires_grad for parameter in model.module.parameters())
        assert {parameter.dtype for parameter in model.module.parameters()} == {torch.float32}
        states.append(model.module.state_dict())
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert not all(torch.equal(tensor, states[2][name]) for name, tensor in states[0].items())
    assert architecture["model_type"]  # the recipe's own mapping is not changed


def test_random_weights_need_an_architecture() -> None:
    with pytest.raises(WeightsError, match=r"options\.architecture"):
        load_transformer(CLASSIFIER, SOURCE, Origin("random"), {}, 0)


@pytest.mark.parametrize(
    "architecture", [{"dim": 16}, {"model_type": "no such type"}, {**DISTILBERT, "n_layers": "many"}]
)
def test_an_invalid_architecture_is_reported(architecture: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="architecture"):
        load_transformer(CLASSIFIER, SOURCE, Origin("random"), architecture, 0)


def saved(folder: Path, auto_class: str, architecture: dict[str, Any]) -> Any:
    """Write a model as `save_pretrained` does, and return it."""
    model = load_transformer(auto_class, SOURCE, Origin("random"), architecture, 3)
    model.module.save_pretrained(folder)
    return model.module


@pytest.mark.parametrize(("auto_class", "architecture"), KINDS)
def test_a_local_folder_is_loaded(tmp_path: Path, auto_class: str, architecture: dict[str, Any]) -> None:
    original = saved(tmp_path, auto_class, architecture)
    origin = find_weights(SOURCE, str(tmp_path), tmp_path)
    model = load_transformer(auto_class, SOURCE, origin, {}, 0)
    assert (model.weights, model.cautions) == ("local", [])
    assert model.config.model_type == architecture["model_type"]
    for name, tensor in original.state_dict().items():
        assert torch.equal(tensor, model.module.state_dict()[name])


def test_half_precision_weights_are_loaded_in_full(tmp_path: Path) -> None:
    saved(tmp_path, "AutoModelForCausalLM", LLAMA).half().save_pretrained(tmp_path)
    model = load_transformer("AutoModelForCausalLM", SOURCE, Origin("local", str(tmp_path), offline=True), {}, 0)
    assert {parameter.dtype for parameter in model.module.parameters()} == {torch.float32}


def test_a_missing_head_is_a_caution(tmp_path: Path) -> None:
    original = saved(tmp_path, CLASSIFIER, DISTILBERT)
    original.distilbert.save_pretrained(tmp_path)
    model = load_transformer(CLASSIFIER, SOURCE, Origin("local", str(tmp_path), offline=True), {}, 0)
    (caution,) = model.cautions
    assert caution.code == "partly_random_weights"
    assert "classifier" in caution.message
    assert "random" in caution.message


def test_another_architectures_weights_are_refused(tmp_path: Path) -> None:
    saved(tmp_path, "AutoModelForCausalLM", LLAMA)
    saved(tmp_path / "other", CLASSIFIER, DISTILBERT)
    (tmp_path / "other/model.safetensors").replace(tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="not this model's") as caught:
        load_transformer("AutoModelForCausalLM", SOURCE, Origin("local", str(tmp_path), offline=True), {}, 0)
    assert str(tmp_path) in str(caught.value)


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    saved(tmp_path, CLASSIFIER, DISTILBERT)
    transformers.AutoConfig.for_model(**{**DISTILBERT, "dim": 8}).save_pretrained(tmp_path)
    with pytest.raises(WeightsError) as caught:
        load_transformer(CLASSIFIER, SOURCE, Origin("local", str(tmp_path), offline=True), {}, 0)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("damage", ["noise", "cut in half", "empty", "gone", "config"])
def test_a_damaged_folder_is_reported_with_its_path(tmp_path: Path, damage: str) -> None:
    saved(tmp_path, CLASSIFIER, DISTILBERT)
    path = tmp_path / "model.safetensors"
    valid = path.read_bytes()
    if damage == "noise":
        path.write_bytes(b"\x00\xff" * 5000)
    elif damage == "cut in half":
        path.write_bytes(valid[: len(valid) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "gone":
        path.unlink()
    else:
        (tmp_path / "config.json").write_text("{")
    with pytest.raises(WeightsError) as caught:
        load_transformer(CLASSIFIER, SOURCE, Origin("local", str(tmp_path), offline=True), {}, 0)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_random_weights_have_a_tokenizer_that_needs_no_file() -> None:
    tokenizer = load_tokenizer(Origin("random"))
    encoded = tokenizer(["hello", "й"], padding=True, return_tensors="pt")
    assert encoded["input_ids"].shape == (2, 6)
    assert tokenizer.decode(encoded["input_ids"][0], skip_special_tokens=True) == "hello"
    assert tokenizer.pad_token is not None


@pytest.mark.parametrize(("auto_class", "architecture"), KINDS)
def test_a_missing_tokenizer_is_reported(tmp_path: Path, auto_class: str, architecture: dict[str, Any]) -> None:
    saved(tmp_path, auto_class, architecture)
    with pytest.raises(WeightsError, match="tokenizer") as caught:
        load_tokenizer(Origin("local", str(tmp_path), offline=True))
    assert str(tmp_path) in str(caught.value)


def test_a_tokenizer_without_a_padding_token_pads_with_its_last(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {"hello": 0, "there": 1, "<end>": 2}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="<end>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<end>", unk_token="<end>")
    fast.save_pretrained(tmp_path)
    tokenizer = load_tokenizer(Origin("local", str(tmp_path), offline=True))
    assert tokenizer(["hello", "hello there"], padding=True)["input_ids"] == [[0, 2], [0, 1]]


@pytest.mark.parametrize("name", ["text_classification", "causal_lm", "asr", "seq2seq", "image_classification"])
def test_a_saved_transformer_is_restored_unfilled(tmp_path: Path, name: str) -> None:
    family: Family = registry.build("families", name, TINY[name])
    model = family.load(SOURCE, "random", tmp_path, 0)
    family.save(model, tmp_path)
    restored = family.restore(tmp_path)
    assert type(restored.module) is type(model.module)
    assert all(parameter.is_meta for parameter in restored.module.parameters())
    assert not any(buffer.is_meta for buffer in restored.module.buffers())
    shapes = {key: tensor.shape for key, tensor in model.module.state_dict().items()}
    assert {key: tensor.shape for key, tensor in restored.module.state_dict().items()} == shapes
    saved_parts, read = companions(model), companions(restored)
    assert [part is None for part in vars(read).values()] == [part is None for part in vars(saved_parts).values()]
    if saved_parts.tokenizer is not None:
        assert read.tokenizer("abc")["input_ids"] == saved_parts.tokenizer("abc")["input_ids"]
    if saved_parts.generation is not None:
        assert restored.module.generation_config is read.generation
        assert read.generation.decoder_start_token_id == saved_parts.generation.decoder_start_token_id


def test_the_longest_text_is_what_model_and_tokenizer_take(tmp_path: Path) -> None:
    family: Family = registry.build("families", "text_classification", TINY["text_classification"])
    model = family.load(SOURCE, "random", tmp_path, 0)
    assert longest(model) == 512  # positions of DistilBERT; the byte tokenizer has no limit
    companions(model).tokenizer.model_max_length = 20
    assert longest(model) == 20
    model.config.max_position_embeddings = 10**9
    companions(model).tokenizer.model_max_length = 10**30
    assert longest(model) is None
    must_fit(model, 10**6, "tokens")


def test_token_ids_are_the_seeds_and_of_the_vocabulary(tmp_path: Path) -> None:
    family: Family = registry.build("families", "causal_lm", TINY["causal_lm"])
    model = family.load(SOURCE, "random", tmp_path, 0)
    ids = token_ids(model, 3, 500, 7)
    assert (ids.shape, ids.dtype) == ((3, 500), torch.int64)
    assert torch.equal(ids, token_ids(model, 3, 500, 7))
    assert not torch.equal(ids, token_ids(model, 3, 500, 8))
    assert 250 < int(ids.max()) < 300


def test_a_gguf_file_becomes_a_plain_model(tmp_path: Path) -> None:
    try:
        is_gguf_available()
    except InvalidVersion:
        pytest.skip("transformers 5.0 can't tell the version of gguf on Python 3.10")
    gguf_file(tmp_path / "a.gguf")
    origin = find_weights("a.gguf", "auto", tmp_path)
    model = load_transformer("AutoModelForCausalLM", "a.gguf", origin, {}, 0)
    module = model.module
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert module.lm_head.weight is module.model.embed_tokens.weight
    assert not hasattr(model.config, "quantization_config")
    assert (model.weights, model.cautions) == ("local", [])
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="a.gguf", dtype=torch.float32)
    ids = torch.tensor([[5, 6, 7, 8]])
    assert torch.equal(module(ids).logits, theirs(ids).logits)
    assert module(ids).logits.abs().max() > 0.1

    tokenizer = load_tokenizer(origin)
    assert tokenizer.convert_ids_to_tokens(tokenizer("the cat")["input_ids"]) == ["the", "Ġ", "c", "a", "t"]
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token) == ("<s>", "</s>", "<unk>")
    assert tokenizer.pad_token is not None

    model.family_data = Companions(tokenizer=tokenizer)
    family: Family = registry.build("families", "causal_lm")
    family.save(model, tmp_path / "saved")
    restored = family.restore(tmp_path / "saved")
    restored.module.load_state_dict(module.state_dict(), assign=True)
    assert torch.equal(restored.module(ids).logits, module(ids).logits)
    restored_tokenizer = companions(restored).tokenizer
    assert restored_tokenizer("the cat")["input_ids"] == tokenizer("the cat")["input_ids"]
    assert restored_tokenizer.bos_token_id == tokenizer.bos_token_id


def test_special_tokens_that_transformers_does_not_read_are_those_of_the_gguf_file(tmp_path: Path) -> None:
    gguf_file(tmp_path / "a.gguf")
    tokenizer = transformers.ByT5Tokenizer(extra_ids=0)
    tokenizer.bos_token = tokenizer.unk_token = None
    tokenizer.eos_token = "kept"
    add_special_tokens(tokenizer, find_weights("a.gguf", "auto", tmp_path))
    assert tokenizer.bos_token_id == 1
    assert tokenizer.unk_token_id == 0
    assert tokenizer.eos_token == "kept"


def test_an_invalid_gguf_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUFnothing")
    with pytest.raises(WeightsError, match="can't be loaded"):
        load_transformer("AutoModelForCausalLM", "a.gguf", find_weights("a.gguf", "auto", tmp_path), {}, 0)


@pytest.mark.parametrize(
    "setting", [{"attn_implementation": "evil/kernels:run"}, {"_experts_implementation": {"": "evil/k"}}]
)
def test_kernels_of_the_hub_are_never_run(setting: dict[str, Any], tmp_path: Path) -> None:
    fields = {**DISTILBERT, **setting}
    with pytest.raises(WeightsError, match="That is code from the hub, which is never run"):
        load_transformer(CLASSIFIER, SOURCE, Origin("random"), fields, 0)
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(WeightsError, match="That is code from the hub, which is never run"):
        load_transformer(CLASSIFIER, SOURCE, Origin("local", str(tmp_path), offline=True), {}, 0)
    with pytest.raises(WeightsError, match="That is code from the hub, which is never run"):
        registry.build("families", "text_classification").restore(tmp_path)


def test_a_config_that_no_class_builds_is_reported() -> None:
    for architectures in (None, ["NewerThanThis"]):
        config = transformers.DistilBertConfig(architectures=architectures)
        with pytest.raises(ValueError, match="Unrecognized configuration class"):
            built("AutoModelForCausalLM", config)


@pytest.mark.skipif(
    "mllama_text_model" not in transformers.CONFIG_MAPPING, reason="this transformers can't read such a config itself"
)
def test_a_language_model_within_one_that_sees_is_restored(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2}
    text = {**sizes, "num_hidden_layers": 1, "cross_attention_layers": [], "vocab_size": 300, "pad_token_id": 0}
    config = transformers.MllamaConfig(text_config={**text, "bos_token_id": 1, "eos_token_id": 2})
    folder = tmp_path / "folder"
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    config.save_pretrained(folder)  # the config of the whole model, as in its folders
    load_tokenizer(Origin("random")).save_pretrained(folder)
    family: Family = registry.build("families", "causal_lm", {"prompt_tokens": 4, "new_tokens": 2})
    model = family.load(str(folder), "auto", tmp_path, 0)
    target = tmp_path / "kept"
    target.mkdir()
    family.save(model, target)
    restored = family.restore(target)
    assert type(restored.module) is type(model.module)
    assert [*restored.module.state_dict()] == [*model.module.state_dict()]
