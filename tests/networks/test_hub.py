from __future__ import annotations

import http.client
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import transformers
from packaging.version import InvalidVersion
from transformers.utils.import_utils import is_gguf_available

from mlflow_compress.errors import RecipeError, WeightsError
from mlflow_compress.networks import hub
from mlflow_compress.networks.hub import Origin, find_weights, load_tokenizer, load_transformer, unreachable

SOURCE = "some/model"
DISTILBERT: dict[str, Any] = {
    "model_type": "distilbert",
    "vocab_size": 60,
    "dim": 16,
    "hidden_dim": 32,
    "n_layers": 2,
    "n_heads": 2,
    "max_position_embeddings": 16,
}
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 60,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "tie_word_embeddings": True,
}
WHISPER: dict[str, Any] = {
    "model_type": "whisper",
    "vocab_size": 60,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "num_mel_bins": 8,
    "max_source_positions": 20,
    "max_target_positions": 20,
    "pad_token_id": 1,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "decoder_start_token_id": 2,
}
CLASSIFIER = "AutoModelForSequenceClassification"
KINDS = [(CLASSIFIER, DISTILBERT), ("AutoModelForCausalLM", LLAMA), ("AutoModelForSpeechSeq2Seq", WHISPER)]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is cached, and nobody answers, unless a test says otherwise."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda source, file: None)
    monkeypatch.setattr(hub, "_ask", lambda endpoint: f"{endpoint} can't be reached (no network)")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    yield
    transformers.logging.set_verbosity_warning()


def cache(patch: pytest.MonkeyPatch, *files: str) -> None:
    def look(source: str, file: str) -> Any:
        return f"/cache/{file}" if file in files else None

    patch.setattr(huggingface_hub, "try_to_load_from_cache", look)


def test_random_weights_need_nothing(tmp_path: Path) -> None:
    assert find_weights(SOURCE, "random", tmp_path) == Origin("random")


def test_without_a_network_auto_takes_random_weights_and_says_so(tmp_path: Path) -> None:
    origin = find_weights(SOURCE, "auto", tmp_path)
    assert (origin.kind, origin.location) == ("random", "")
    assert "RANDOM" in origin.caution
    assert SOURCE in origin.caution
    assert "no network" in origin.caution


def test_without_a_network_pretrained_weights_cannot_be_had(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=SOURCE) as told:
        find_weights(SOURCE, "pretrained", tmp_path)
    assert told.value.exit_code == 3
    assert "weights=random" in str(told.value)


@pytest.mark.parametrize("weights", ["auto", "pretrained"])
def test_the_hub_is_asked_when_it_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: str) -> None:
    monkeypatch.setattr(hub, "_ask", lambda endpoint: None)
    assert find_weights(SOURCE, weights, tmp_path) == Origin("pretrained", SOURCE)


@pytest.mark.parametrize("weights", ["auto", "pretrained"])
@pytest.mark.parametrize("file", ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"])
def test_cached_weights_need_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: str, file: str
) -> None:
    cache(monkeypatch, "config.json", file)
    assert find_weights(SOURCE, weights, tmp_path) == Origin("pretrained", SOURCE, offline=True)


@pytest.mark.parametrize("files", [["config.json"], ["model.safetensors"], []])
def test_half_a_cache_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str]) -> None:
    cache(monkeypatch, *files)
    assert find_weights(SOURCE, "auto", tmp_path).kind == "random"


def test_a_file_known_to_be_missing_is_not_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda source, file: object())
    assert not hub.is_cached(SOURCE)


@pytest.mark.parametrize("absolute", [False, True])
def test_a_folder_given_as_weights_is_taken(tmp_path: Path, absolute: bool) -> None:
    (tmp_path / "mine").mkdir()
    weights = str(tmp_path / "mine") if absolute else "mine"
    assert find_weights(SOURCE, weights, tmp_path) == Origin("local", str(tmp_path / "mine"), offline=True)


@pytest.mark.parametrize("weights", ["auto", "pretrained"])
def test_a_folder_as_source_is_taken(tmp_path: Path, weights: str) -> None:
    (tmp_path / "mine").mkdir()
    assert find_weights("mine", weights, tmp_path) == Origin("local", str(tmp_path / "mine"), offline=True)


def test_a_path_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="nowhere"):
        find_weights(SOURCE, "nowhere", tmp_path)


def test_a_hub_that_must_not_be_asked_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "_ask", lambda endpoint: pytest.fail("it was asked"))
    assert unreachable() == "HF_HUB_OFFLINE is set"


def test_a_server_that_never_answers_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(hub, "_REACH_SECONDS", 0.05)
    monkeypatch.setattr(hub, "_ask", lambda endpoint: released.wait(60) and None)
    assert "did not answer" in str(unreachable())
    released.set()


class TestAsk:
    ask = staticmethod(hub._ask)  # as it was before the network was taken away

    def answer(self, patch: pytest.MonkeyPatch, error: Exception | None) -> None:
        class Response:
            def close(self) -> None:
                """Close nothing."""

        def open_(request: Any, timeout: float) -> Response:
            assert request.get_method() == "HEAD"
            assert 0 < timeout < 10
            if error is not None:
                raise error
            return Response()

        patch.setattr(urllib.request, "urlopen", open_)

    def test_an_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answer(monkeypatch, None)
        assert self.ask("https://hub") is None

    def test_a_refusal_is_an_answer_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answer(monkeypatch, urllib.error.HTTPError("https://hub", 503, "busy", None, None))  # type: ignore[arg-type]
        assert self.ask("https://hub") is None

    @pytest.mark.parametrize(
        "error",
        [
            urllib.error.URLError("Name or service not known"),
            TimeoutError("timed out"),
            ConnectionResetError("reset"),
            http.client.BadStatusLine("<html>"),
            http.client.RemoteDisconnected("gone"),
            ValueError("unknown url type"),
        ],
    )
    def test_no_answer(self, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        self.answer(monkeypatch, error)
        assert "https://hub can't be reached" in str(self.ask("https://hub"))

    def test_an_endpoint_that_is_none(self) -> None:
        assert "can't be reached" in str(self.ask("not an address"))


@pytest.mark.parametrize(("auto_class", "architecture"), KINDS)
def test_random_weights_are_the_seeds(auto_class: str, architecture: dict[str, Any]) -> None:
    states = []
    for seed in (1, 1, 2):
        origin = Origin("random", caution="careful")
        model = load_transformer(auto_class, SOURCE, origin, architecture, seed)
        assert (model.weights, model.caution, model.module.training) == ("random", "careful", False)
        assert not any(parameter.requires_grad for parameter in model.module.parameters())
        assert {parameter.dtype for parameter in model.module.parameters()} == {torch.float32}
        states.append(model.module.state_dict())
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert not all(torch.equal(tensor, states[2][name]) for name, tensor in states[0].items())
    assert architecture["model_type"]  # the recipe's own mapping is left whole


def test_random_weights_need_an_architecture() -> None:
    with pytest.raises(WeightsError, match=r"options\.architecture"):
        load_transformer(CLASSIFIER, SOURCE, Origin("random"), {}, 0)


@pytest.mark.parametrize(
    "architecture", [{"dim": 16}, {"model_type": "no such type"}, {**DISTILBERT, "n_layers": "many"}]
)
def test_an_architecture_that_is_none_is_told(architecture: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="architecture"):
        load_transformer(CLASSIFIER, SOURCE, Origin("random"), architecture, 0)


def saved(folder: Path, auto_class: str, architecture: dict[str, Any]) -> Any:
    """Write a model as `save_pretrained` does, and give it."""
    model = load_transformer(auto_class, SOURCE, Origin("random"), architecture, 3)
    model.module.save_pretrained(folder)
    return model.module


@pytest.mark.parametrize(("auto_class", "architecture"), KINDS)
def test_a_local_folder_is_loaded(tmp_path: Path, auto_class: str, architecture: dict[str, Any]) -> None:
    original = saved(tmp_path, auto_class, architecture)
    origin = find_weights(SOURCE, str(tmp_path), tmp_path)
    model = load_transformer(auto_class, SOURCE, origin, {}, 0)
    assert (model.weights, model.caution) == ("local", "")
    assert model.assets["config"].model_type == architecture["model_type"]
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
    assert "classifier" in model.caution
    assert "random" in model.caution


def test_another_architectures_weights_are_refused(tmp_path: Path) -> None:
    saved(tmp_path, "AutoModelForCausalLM", LLAMA)
    saved(tmp_path / "other", CLASSIFIER, DISTILBERT)
    (tmp_path / "other/model.safetensors").replace(tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="not this model's") as told:
        load_transformer("AutoModelForCausalLM", SOURCE, Origin("local", str(tmp_path), offline=True), {}, 0)
    assert str(tmp_path) in str(told.value)


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    saved(tmp_path, CLASSIFIER, DISTILBERT)
    transformers.AutoConfig.for_model(**{**DISTILBERT, "dim": 8}).save_pretrained(tmp_path)
    with pytest.raises(WeightsError) as told:
        load_transformer(CLASSIFIER, SOURCE, Origin("local", str(tmp_path), offline=True), {}, 0)
    assert str(tmp_path) in str(told.value)


@pytest.mark.parametrize("damage", ["noise", "cut in half", "empty", "gone", "config"])
def test_a_damaged_folder_is_told_with_its_path(tmp_path: Path, damage: str) -> None:
    saved(tmp_path, CLASSIFIER, DISTILBERT)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    if damage == "noise":
        path.write_bytes(b"\x00\xff" * 5000)
    elif damage == "cut in half":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "gone":
        path.unlink()
    else:
        (tmp_path / "config.json").write_text("{")
    with pytest.raises(WeightsError) as told:
        load_transformer(CLASSIFIER, SOURCE, Origin("local", str(tmp_path), offline=True), {}, 0)
    assert str(tmp_path) in str(told.value)
    assert "\n" not in str(told.value)


def test_random_weights_have_a_tokenizer_that_needs_no_file() -> None:
    tokenizer = load_tokenizer(Origin("random"))
    encoded = tokenizer(["hello", "й"], padding=True, return_tensors="pt")
    assert encoded["input_ids"].shape == (2, 6)
    assert tokenizer.decode(encoded["input_ids"][0], skip_special_tokens=True) == "hello"
    assert tokenizer.pad_token is not None


@pytest.mark.parametrize(("auto_class", "architecture"), KINDS)
def test_a_missing_tokenizer_is_told(tmp_path: Path, auto_class: str, architecture: dict[str, Any]) -> None:
    saved(tmp_path, auto_class, architecture)
    with pytest.raises(WeightsError, match="tokenizer") as told:
        load_tokenizer(Origin("local", str(tmp_path), offline=True))
    assert str(tmp_path) in str(told.value)


def test_a_tokenizer_without_a_padding_token_pads_with_its_last(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {"hello": 0, "there": 1, "<end>": 2}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="<end>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<end>", unk_token="<end>")
    made.save_pretrained(tmp_path)
    tokenizer = load_tokenizer(Origin("local", str(tmp_path), offline=True))
    assert tokenizer(["hello", "hello there"], padding=True)["input_ids"] == [[0, 2], [0, 1]]


@pytest.mark.parametrize(("auto_class", "architecture"), KINDS)
def test_a_saved_transformer_is_restored_unfilled(
    tmp_path: Path, auto_class: str, architecture: dict[str, Any]
) -> None:
    model = load_transformer(auto_class, SOURCE, Origin("random"), architecture, 0)
    model.assets["tokenizer"] = load_tokenizer(Origin("random"))
    hub.save_transformer(model, tmp_path, "tokenizer")
    restored = hub.restore_transformer(auto_class, hub.restore_assets(tmp_path, tokenizer="AutoTokenizer"))
    assert type(restored.module) is type(model.module)
    assert all(parameter.is_meta for parameter in restored.module.parameters())
    assert not any(buffer.is_meta for buffer in restored.module.buffers())
    assert restored.assets["tokenizer"]("abc")["input_ids"] == model.assets["tokenizer"]("abc")["input_ids"]
    shapes = {name: tensor.shape for name, tensor in model.module.state_dict().items()}
    assert {name: tensor.shape for name, tensor in restored.module.state_dict().items()} == shapes


# GGUF files and packages


def gguf_file(path: Path, seed: int = 0) -> Path:
    """Write a tiny LLaMA of 8-bit weights, with a tokenizer."""
    import gguf
    import numpy as np

    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    tokens = ["<unk>", "<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz", "Ġ", "th", "the"]
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3, *[1] * (len(tokens) - 3)])
    writer.add_token_merges(["t h", "th e"])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    shapes = {"token_embd": (len(tokens), 32), "output_norm": (32,)}
    for layer in range(2):
        block = {"attn_norm": (32,), "ffn_norm": (32,), "attn_q": (32, 32), "attn_output": (32, 32)}
        block |= {
            "attn_k": (16, 32),
            "attn_v": (16, 32),
            "ffn_gate": (64, 32),
            "ffn_up": (64, 32),
            "ffn_down": (32, 64),
        }
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in block.items()}
    generator = np.random.default_rng(seed)
    for name, shape in shapes.items():
        values = generator.normal(0, 0.3, shape).astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(f"{name}.weight", np.ones(shape, np.float32))
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(f"{name}.weight", gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_file_is_found_beside_nothing_else(tmp_path: Path) -> None:
    file = gguf_file(tmp_path / "mine" / "a.gguf")
    expected = Origin("local", str(tmp_path / "mine"), offline=True, file="a.gguf")
    assert find_weights("mine", "auto", tmp_path) == expected
    assert find_weights("mine/a.gguf", "auto", tmp_path) == expected
    assert find_weights(SOURCE, "mine", tmp_path) == expected
    assert find_weights(SOURCE, str(file), tmp_path) == expected
    gguf_file(tmp_path / "mine" / "b.gguf")
    with pytest.raises(WeightsError, match=r"several GGUF files: a\.gguf, b\.gguf"):
        find_weights("mine", "auto", tmp_path)
    assert find_weights("mine/b.gguf", "auto", tmp_path).file == "b.gguf"


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
    assert not hasattr(model.assets["config"], "quantization_config")
    assert (model.weights, model.caution) == ("local", "")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="a.gguf", dtype=torch.float32)
    ids = torch.tensor([[5, 6, 7, 8]])
    assert torch.equal(module(ids).logits, theirs(ids).logits)
    assert module(ids).logits.abs().max() > 0.1

    tokenizer = load_tokenizer(origin)
    assert tokenizer.convert_ids_to_tokens(tokenizer("the cat")["input_ids"]) == ["the", "Ġ", "c", "a", "t"]
    assert tokenizer.pad_token is not None

    model.assets["tokenizer"] = tokenizer
    hub.save_transformer(model, tmp_path / "saved", "tokenizer")
    restored = hub.restore_transformer(
        "AutoModelForCausalLM", hub.restore_assets(tmp_path / "saved", tokenizer="AutoTokenizer")
    )
    restored.module.load_state_dict(module.state_dict(), assign=True)
    assert torch.equal(restored.module(ids).logits, module(ids).logits)
    assert restored.assets["tokenizer"]("the cat")["input_ids"] == tokenizer("the cat")["input_ids"]


def test_a_gguf_file_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUFnothing")
    with pytest.raises(WeightsError, match="can't be loaded"):
        load_transformer("AutoModelForCausalLM", "a.gguf", find_weights("a.gguf", "auto", tmp_path), {}, 0)


def test_a_package_carries_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site" / "some_weights_x"
    file = gguf_file(folder / "a.gguf")
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr(hub, "_ask", lambda endpoint: pytest.fail("it was asked"))
    for weights in ("auto", "pretrained"):
        origin = find_weights("package:some_weights_x", weights, tmp_path)
        assert origin == Origin("pretrained", str(folder), offline=True, file="a.gguf")
    assert find_weights("package:some_weights_x/a.gguf", "auto", tmp_path) == origin
    assert find_weights("package:some_weights_x", str(file), tmp_path).kind == "local"
    assert find_weights("package:some_weights_x", "random", tmp_path) == Origin("random")


@pytest.mark.parametrize("weights", ["auto", "pretrained"])
def test_a_package_that_is_missing_is_told(tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match=r"no_such_x.*mlflow-compress\[demo\].*--no-deps no-such-x.*weights=random"):
        find_weights("package:no_such_x", weights, tmp_path)
    (tmp_path / "site" / "empty_x").mkdir(parents=True)
    (tmp_path / "site" / "empty_x" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(WeightsError, match=r"there is no 'a\.gguf' in the Python package 'empty_x'"):
        find_weights("package:empty_x/a.gguf", weights, tmp_path)


def test_the_version_of_a_package_is_that_of_its_distribution() -> None:
    path, version = hub.in_package("package:torch/nn")
    assert path.name == "nn"
    assert version.startswith(torch.__version__.partition("+")[0])
