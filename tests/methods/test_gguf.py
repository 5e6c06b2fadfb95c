"""One GGUF file, run by llama.cpp: `gguf`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from mlflow_compress import registry
from mlflow_compress.compression.gguf_writing import write_gguf
from mlflow_compress.errors import MachineLacks, Unsupported, WeightsError, WorkerError
from mlflow_compress.meters import size
from mlflow_compress.networks import llama_binding, model_folder
from mlflow_compress.networks.decoding import cache_keyword
from mlflow_compress.networks.gguf_header import read_header
from mlflow_compress.networks.llama_binding import quantize
from mlflow_compress.networks.transformers_models import companions
from mlflow_compress.planning.chains import parse_chain
from mlflow_compress.records import Variant
from mlflow_compress.sockets import Family, Method, Model

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

SIZES = {
    "vocab_size": 384,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 128}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "tied, with biases": {
        "model_type": "llama",
        "tie_word_embeddings": True,
        "attention_bias": True,
        "mlp_bias": True,
    },
    "llama3": {"model_type": "llama", "rope_parameters": {**LLAMA3, "original_max_position_embeddings": 16}},
    "linear": {"model_type": "llama", "rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}},
    "yarn": {"model_type": "llama", "rope_parameters": YARN},
    "wide heads": {"model_type": "llama", "head_dim": 128},
    "mistral": {"model_type": "mistral", "sliding_window": None},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "head_dim": 64},
}
ALONE = """
import sys, numpy
from llama_cpp import Llama
model = Llama(sys.argv[1], logits_all=True, verbose=False, n_ctx=256, n_threads=1)
ids = numpy.load(sys.argv[2])
model.eval(ids.tolist())
numpy.save(sys.argv[3], numpy.array(model.scores[: len(ids)]))
print([name for name in sys.modules if name.split(".")[0] in ("mlflow_compress", "torch", "transformers")])
"""


def small_model(name: str, **options: Any) -> tuple[Model, Family]:
    """Return a small model whose norms and biases all have an effect."""
    family = registry.build(
        "families",
        "causal_lm",
        {"architecture": {**SIZES, **ARCHITECTURES[name]}, "prompt_tokens": 12, "new_tokens": 6} | options,
    )
    model = family.load("none", "random", Path(), 0)
    for parameter in model.module.parameters():
        if parameter.dim() == 1:
            parameter.data.normal_(0.5, 0.2)
        else:
            parameter.data.mul_(2)
    return model, family


def compressed(model: Model, family: Family, kind: str) -> Model:
    method: Method = registry.build("methods", "gguf", {"type": kind})
    return method.compress(model, family)


def moved(outputs: Any, expected: Any) -> float:
    return float((outputs - expected).norm() / expected.norm())


@pytest.fixture
def ids() -> Any:
    return torch.randint(0, SIZES["vocab_size"], (2, 40), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logits_are_those_of_torch(name: str, ids: Any) -> None:
    model, family = small_model(name)
    with torch.no_grad():
        expected = family.forward(model, ids)
    model = compressed(model, family, "f32")
    assert moved(family.forward(model, ids), expected) < 0.01  # keys and values are float16
    assert family.run(model, ids[:, :12], lambda stage: None).shape == (2, 6)


@pytest.mark.parametrize(("kind", "tolerance", "bits"), [("bf16", 0.02, 16.0), ("q8_0", 0.03, 8.5), ("q6_k", 0.1, 6.6)])
def test_types(kind: str, tolerance: float, bits: float, ids: Any) -> None:
    model, family = small_model("qwen2")
    with torch.no_grad():
        expected = family.forward(model, ids)
    count = sum(parameter.numel() for parameter in model.module.parameters())
    model = compressed(model, family, kind)
    assert moved(family.forward(model, ids), expected) < tolerance
    numbers = size.in_memory(model.module)
    assert numbers["size/params"] == count
    assert numbers["size/params_nonzero"] > 0.9 * count
    assert numbers["size/weights_mib"] * 2**20 * 8 / count == pytest.approx(bits, rel=0.05)
    assert kind in model.facts["types"]


@pytest.mark.parametrize("kind", ["q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q3_k_m", "q4_k_s", "q4_k_m", "q5_k_m"])
def test_llama_cpp_makes_all_types(kind: str, ids: Any) -> None:
    model, family = small_model("llama")
    model = compressed(model, family, kind)
    assert torch.isfinite(family.forward(model, ids)).all()
    counts = [tensor.type for tensor in model.module.calls["model"].header.tensors]
    assert kind.removesuffix("_m").removesuffix("_s") in counts
    assert size.in_memory(model.module)["size/params_nonzero"] > 0


def test_half_precision_is_written_without_widening(ids: Any) -> None:
    model, family = small_model("llama")
    model.module.to(torch.bfloat16)
    with torch.no_grad():
        expected = family.forward(model, ids).float()
    model = compressed(model, family, "bf16")
    assert moved(family.forward(model, ids), expected) < 0.05
    assert {tensor.type for tensor in model.module.calls["model"].header.tensors} == {"bf16", "f32"}


def test_the_binding_reads_the_saved_file_without_this_package(tmp_path: Path, ids: Any) -> None:
    model, family = small_model("tied, with biases")
    with torch.no_grad():
        expected = family.forward(model, ids[:1])[0].numpy()
    saved(model, family, "f32", tmp_path)
    np.save(tmp_path / "ids.npy", ids[0].numpy())
    command = [sys.executable, "-c", ALONE, *(str(tmp_path / name) for name in ("model.gguf", "ids.npy", "made.npy"))]
    output = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert json.loads(output.splitlines()[-1]) == []
    logits = np.load(tmp_path / "made.npy")
    assert np.linalg.norm(logits - expected) / np.linalg.norm(expected) < 0.01


def saved(model: Model, family: Family, kind: str, folder: Path) -> Model:
    """Compress a model and save its folder."""
    chain = parse_chain(f"gguf:type={kind}")
    methods = model_folder.methods_of(chain)
    model = methods[0].compress(model, family)
    options = {"architecture": {**SIZES, "model_type": "llama"}, "prompt_tokens": 12, "new_tokens": 6}
    variant = Variant(
        team="t", model="m", family="causal_lm", source="none", options=options, method="gguf", chain=chain
    )
    model_folder.save(model, family, methods, variant, folder)
    return model


def test_restored_it_gives_the_same(tmp_path: Path, ids: Any) -> None:
    model, family = small_model("llama")
    model = saved(model, family, "q4_0", tmp_path)
    expected, text = family.forward(model, ids), family.predict(model, ["Once"])
    restored = model_folder.restore_others(tmp_path)
    assert torch.equal(restored.family.forward(restored.model, ids), expected)
    assert restored.family.predict(restored.model, ["Once"]) == text
    assert restored.model.runtime == "llama-cpp-python"


@pytest.mark.parametrize("harm", ["cut", "missing"])
def test_a_harmed_file_is_refused(harm: str, tmp_path: Path) -> None:
    model, family = small_model("llama")
    saved(model, family, "q8_0", tmp_path)
    path = tmp_path / "model.gguf"
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-64])
    else:
        path.unlink()
    with pytest.raises(WeightsError, match=r"truncated|no model\.gguf"):
        model_folder.restore_others(tmp_path)


def test_texts_of_a_batch_are_generated_as_single_texts(ids: Any) -> None:
    model, family = small_model("llama")
    model = compressed(model, family, "f32")
    together = family.run(model, ids[:, :12], lambda stage: None)
    for text in range(2):
        assert torch.equal(family.run(model, ids[text : text + 1, :12], lambda stage: None)[0], together[text])


def test_memory_grows_while_a_text_is_generated(ids: Any) -> None:
    architecture = {**SIZES, "model_type": "llama", "max_position_embeddings": 1024}
    model, family = small_model("llama", new_tokens=420, architecture=architecture)
    model = compressed(model, family, "f32")
    made_tokens = family.generate(model, ids[:1, :30], 420)
    assert made_tokens is not None
    assert moved(made_tokens.logits, made_tokens.at_once) < 0.02  # the past was moved and not lost


def test_the_past_of_another_text_is_refused(ids: Any) -> None:
    model, family = small_model("llama")
    model = compressed(model, family, "f32")
    first = model.module(ids[:1])[cache_keyword()]
    model.module(ids[1:])
    with pytest.raises(WorkerError, match="cache of another text"):
        model.module(ids[:1, :1], **{cache_keyword(): first})


def test_perplexity_is_near() -> None:
    model, family = small_model("llama")
    texts = ["The little boat left the harbour at dawn.", "Nobody on the pier could say when."]
    expected = family.answers(model, texts)
    model = compressed(model, family, "q8_0")
    for answer, reference in zip(family.answers(model, texts), expected, strict=True):
        assert answer["tokens"] == reference["tokens"]
        assert answer["nll"] == pytest.approx(reference["nll"], rel=0.02)


def test_a_sliding_window_that_llama_cpp_lacks_has_a_caution() -> None:
    model, family = small_model("mistral")
    model.config.sliding_window = 16
    codes = [caution.code for caution in compressed(model, family, "f32").cautions]
    assert "gguf_sees_all" in codes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt_neox"}, "architecture is gpt_neox"),
        ({"hidden_act": "relu"}, "activation is relu"),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "scaled by dynamic"),
    ],
)
def test_unsupported_architectures_are_rejected(change: dict[str, Any], message: str) -> None:
    family = registry.build("families", "causal_lm", {"architecture": {**SIZES, "model_type": "llama", **change}})
    model = family.load("none", "random", Path(), 0)
    with pytest.raises(Unsupported, match=message):
        compressed(model, family, "q8_0")


TEXTS = ["Hello world, it's 12345 boats!", "  two  spaces\n\nand lines", "naïve café, 日本"]


def bytes_of(pre: Any) -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=360, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["the little boat left the harbour at dawn"] * 5, trainer)
    return tokenizer


def pieces() -> Any:
    """Return a tokenizer like that of LLaMA 2 and Mistral: pieces with spaces, and bytes for unknown text."""
    steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.normalizer = normalizers.Sequence(steps)
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=360, special_tokens=special)
    trained.train_from_iterator(["the little boat left the harbour at dawn, naive"] * 5, trainer)
    description = json.loads(trained.to_str())["model"]
    merges = [tuple(pair) for pair in description["merges"]]
    tokenizer = Tokenizer(
        models.BPE(description["vocab"], merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


TOKENIZERS = {
    "gpt-2": lambda: bytes_of(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "smollm": lambda: bytes_of(
        pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    ),
    "pieces": pieces,
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_llama_cpp_reads_texts_as_the_tokenizer_does(name: str, tmp_path: Path) -> None:
    from llama_cpp import Llama

    model, _ = small_model("llama")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=TOKENIZERS[name](), bos_token="<s>", eos_token="</s>", unk_token=None
    )
    path = tmp_path / "model.gguf"
    assert write_gguf(model.module, model.config, tokenizer, path, "f16") == ""
    assert len(read_header(path).fields["tokenizer.ggml.tokens"]) == SIZES["vocab_size"]
    reader = Llama(str(path), vocab_only=True, verbose=False)
    for text in TEXTS:
        assert reader.tokenize(text.encode(), add_bos=False) == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_tokenizer_that_llama_cpp_lacks_is_recorded() -> None:
    model, family = small_model("llama")
    assert type(companions(model).tokenizer).__name__ == "ByT5Tokenizer"
    model = compressed(model, family, "f16")
    assert model.facts["tokenizer"].startswith("not in the file: it is ByT5Tokenizer")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a GGUF file like a published one: with a tokenizer, mostly in q8_0."""
    model, _ = small_model("llama")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=TOKENIZERS["gpt-2"](), bos_token="<s>", eos_token="</s>")
    assert write_gguf(model.module, model.config, tokenizer, tmp_path / "float.gguf", "f16") == ""
    (tmp_path / "given").mkdir()
    quantize(tmp_path / "float.gguf", tmp_path / "given" / "boats.gguf", "Q8_0", 1)
    return tmp_path / "given" / "boats.gguf"


def family_of(**options: Any) -> Family:
    family: Family = registry.build("families", "causal_lm", {"prompt_tokens": 12, "new_tokens": 6, **options})
    return family


def test_a_gguf_file_is_measured_as_it_is(file: Path, tmp_path: Path, ids: Any) -> None:
    family = family_of()
    model = family.load(str(file), "auto", Path(), 0)
    assert model.facts["packed"] == "gguf q8_0"
    assert model.runtime == "llama-cpp-python"
    unpacked = family_of(dtype="float32").load(str(file), "auto", Path(), 0)
    with torch.no_grad():
        expected = family.forward(unpacked, ids)
    assert moved(family.forward(model, ids), expected) < 0.02
    texts = ["the little boat left the harbour at dawn"]
    packed_answer, unpacked_answer = (family.answers(candidate, texts)[0] for candidate in (model, unpacked))
    assert packed_answer["nll"] == pytest.approx(unpacked_answer["nll"], rel=0.01)

    variant = Variant(
        team="t",
        model="m",
        family="causal_lm",
        source=str(file),
        options={"new_tokens": 6},
        method="original",
        chain=(),
    )
    folder = tmp_path / "saved"
    folder.mkdir()
    model_folder.save(model, family, [], variant, folder)
    assert (folder / "model.gguf").read_bytes() == file.read_bytes()
    restored = model_folder.restore_others(folder)
    assert torch.equal(restored.family.forward(restored.model, ids), family.forward(model, ids))
    assert restored.model.facts["packed"] == "gguf q8_0"
    with pytest.raises(Unsupported, match="on the CPU"):
        model_folder.restore(folder, "cuda")


def test_a_gguf_file_is_not_compressed_again(file: Path) -> None:
    model = family_of().load(str(file), "auto", Path(), 0)
    assert family_of().refuses(model).startswith("boats.gguf is already quantised: set dtype=float32")


def test_a_file_with_a_wrong_header_is_rejected_before_loading(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-64])
    with pytest.raises(WeightsError, match="truncated"):
        family_of().load(str(file), "auto", Path(), 0)


def test_without_the_binding_a_file_is_not_measured(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llama_binding.binding.cache_clear()
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(MachineLacks, match=r'pip install "mlflow-compress\[gguf\]"'):
        family_of().load(str(file), "auto", Path(), 0)
    llama_binding.binding.cache_clear()


@pytest.mark.parametrize("setting", [{"beta_fast": 16.0}, {"attention_factor": 1.0}, {"truncate": False}])
def test_settings_of_yarn_that_the_file_would_lose_are_refused(setting: dict[str, Any], tmp_path: Path) -> None:
    model, _ = small_model("yarn")
    model.config.rope_parameters = {**YARN, **setting}
    with pytest.raises(Unsupported, match=f"sets {next(iter(setting))} of yarn"):
        write_gguf(model.module, model.config, companions(model).tokenizer, tmp_path / "model.gguf", "f32")


def test_rows_that_no_block_divides_are_not_reached() -> None:
    model, family = small_model("llama", architecture={**SIZES, "model_type": "llama", "hidden_size": 60,
        "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 20, "intermediate_size": 150})  # fmt: skip
    model = compressed(model, family, "q8_0")
    assert model.facts["reached"].startswith("reached 0 of ")
    assert "small_coverage" in [caution.code for caution in model.cautions]
