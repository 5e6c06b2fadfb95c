"""CTranslate2: text-to-text models generate the same texts as in torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from exported import compress

from mlflow_compress import registry
from mlflow_compress.errors import Unsupported, WeightsError
from mlflow_compress.meters import size
from mlflow_compress.methods.ctranslate2 import cuts_off_sums
from mlflow_compress.networks import model_folder
from mlflow_compress.networks.transformers_models import companions
from mlflow_compress.planning.chains import parse_chain
from mlflow_compress.records import Variant
from mlflow_compress.sockets import Family, Model
from mlflow_compress.tracking.published_models import export

pytest.importorskip("ctranslate2")

BART = {
    "vocab_size": 300,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 64,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "bos_token_id": 2,
}
T5 = {
    "vocab_size": 300,
    "d_model": 32,
    "d_kv": 16,
    "d_ff": 64,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
}
KINDS: dict[str, dict[str, Any]] = {
    "marian": {**BART, "model_type": "marian", "decoder_start_token_id": 0, "scale_embedding": True},
    "bart": {**BART, "model_type": "bart", "decoder_start_token_id": 1},
    "mbart": {**BART, "model_type": "mbart", "decoder_start_token_id": 250, "scale_embedding": True},
    "m2m_100": {**BART, "model_type": "m2m_100", "decoder_start_token_id": 2, "eos_token_id": 2, "pad_token_id": 1},
    "pegasus": {**BART, "model_type": "pegasus", "decoder_start_token_id": 0},
    "t5": {**T5, "model_type": "t5"},
    "t5 without a tied head": {
        **T5,
        "model_type": "t5",
        "tie_word_embeddings": False,
        "feed_forward_proj": "gated-gelu",
    },
    "mt5": {**T5, "model_type": "mt5"},
    "umt5": {**T5, "model_type": "umt5"},
}
OPTIONS: dict[str, Any] = {"source_tokens": 8, "new_tokens": 6, "most_tokens": 8}
TEXTS = ["The boat left the harbour.", "At dawn.", "And nobody on the pier could say when"]
ALONE = """
import json, sys
sys.modules["mlflow_compress"] = None  # importing it fails
import ctranslate2
folder, source, more = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
translator = ctranslate2.Translator(folder + "/ctranslate2")
made = translator.translate_batch([source], beam_size=1, max_decoding_length=6, min_decoding_length=6, **more)
print(json.dumps([made[0].hypotheses[0], "torch" in sys.modules]))
"""


def translator(kind: str, **settings: Any) -> tuple[Family, Model]:
    """Return a tiny model with different weights everywhere and the given generation settings."""
    family = registry.build("families", "seq2seq", {**OPTIONS, "architecture": KINDS[kind]})
    model = family.load("tiny", "random", Path(), 0)
    torch.manual_seed(1)
    tables = {
        id(table.weight)
        for name, table in model.module.named_modules()
        if name.endswith("embed_positions") and hasattr(table, "weight")
    }
    for parameter in model.module.parameters():
        if id(parameter) not in tables:
            parameter.data.add_(torch.randn(parameter.shape), alpha=0.3 if parameter.dim() > 1 else 0.05)
    generation = companions(model).generation
    for name, value in settings.items():
        setattr(generation, name, value)
    model.module.generation_config = generation
    return family, model


def generated(family: Family, model: Model, count: int = 3) -> Any:
    with torch.inference_mode():
        continuation = family.generate(model, family.batch(model, count, 3), 6)
    assert continuation is not None
    return continuation


@pytest.mark.parametrize("kind", KINDS)
def test_it_generates_what_torch_does(kind: str) -> None:
    family, model = translator(kind)
    want, texts = generated(family, model), family.predict(model, TEXTS)
    batch = family.batch(model, 2, 5)
    with torch.inference_mode():
        logits = family.forward(model, batch)
    model = compress("ctranslate2:type=float32", family, model)
    continuation = generated(family, model)
    assert torch.equal(continuation.tokens, want.tokens)
    torch.testing.assert_close(continuation.logits, want.logits, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(continuation.at_once, want.at_once, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(family.forward(model, batch), logits, atol=1e-3, rtol=1e-3)
    if kind != "m2m_100":  # its padding is the end token of the stand-in's texts, which has no position
        assert family.predict(model, TEXTS) == texts


def test_what_it_generates_differs_from_text_to_text() -> None:
    continuation = generated(*translator("bart"))
    assert len({tuple(text) for text in continuation.tokens.tolist()}) > 1
    assert len({*continuation.tokens.flatten().tolist()}) > 3


@pytest.mark.parametrize(
    "settings",
    [
        {"forced_bos_token_id": 77},
        {"forced_eos_token_id": 1},
        {"forced_bos_token_id": 77, "forced_eos_token_id": 1, "num_beams": 3},
        {"bad_words_ids": [[0], [5, 6]], "suppress_tokens": [9]},
        {"no_repeat_ngram_size": 2},
        {"min_length": 6},
        {"num_beams": 2},
        {"num_beams": 4, "length_penalty": 0.6, "early_stopping": True},
        {"num_beams": 3, "length_penalty": 2.0, "early_stopping": True, "min_length": 3, "renormalize_logits": True},
        {"num_beams": 3, "no_repeat_ngram_size": 2, "bad_words_ids": [[5]], "renormalize_logits": True},
        {"eos_token_id": [1, 120]},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["bart", "t5"])
def test_settings_of_generation_are_obeyed(kind: str, settings: dict[str, Any]) -> None:
    family, model = translator(kind, **settings)
    model.module.get_output_embeddings().weight.data[1] *= 1.5  # so that some texts end early
    want, texts = generated(family, model), family.predict(model, TEXTS)
    model = compress("ctranslate2:type=float32", family, model)
    assert torch.equal(generated(family, model).tokens, want.tokens)
    assert family.predict(model, TEXTS) == texts


def test_padding_is_not_read() -> None:
    family, model = translator("marian")
    model = compress("ctranslate2:type=float32", family, model)
    assert family.predict(model, TEXTS) == [family.predict(model, [text])[0] for text in TEXTS]


@pytest.mark.parametrize("settings", [{}, {"forced_bos_token_id": 77}])
def test_each_call_makes_as_many_tokens_as_asked_and_marks_each(settings: dict[str, Any]) -> None:
    family, model = translator("bart", **settings)
    batch = family.batch(model, 2, 0)
    with torch.inference_mode():
        want = family.run(model, batch, lambda stage: None)
    model = compress("ctranslate2:type=float32", family, model)
    stages: list[str] = []
    tokens = family.run(model, batch, stages.append)
    assert torch.equal(tokens, want)
    assert stages == ["first_token", *["token"] * 5]
    assert family.rates(60.0, {"first_token": 10.0, "token": 10.0}, 2)["decode_tokens_per_s"] == 200


@pytest.mark.parametrize("kind", ["int8", "int8_float16", "float16", "int16"])
def test_other_types_are_smaller_and_close(kind: str) -> None:
    family, model = translator("marian")
    total = sum(weight.numel() for weight in {id(weight): weight for weight in model.module.parameters()}.values())
    batch = family.batch(model, 2, 5)
    with torch.inference_mode():
        logits = family.forward(model, batch)
    model = compress(f"ctranslate2:type={kind}", family, model)
    moved = float((family.forward(model, batch) - logits).norm() / logits.norm())
    cuts_off = any(caution.code == "cut_off_sums" for caution in model.cautions)
    assert cuts_off == cuts_off_sums(model.module.arithmetic)
    assert 0 < moved < (1 if cuts_off else 0.1)
    numbers = size.in_memory(model.module)
    assert numbers["size/params"] == pytest.approx(total, rel=0.05)
    assert model.files is not None
    file = Path(model.files.name) / "ctranslate2" / "model.bin"
    assert file.stat().st_size < (0.75 if kind != "int8" else 0.5) * 4 * total
    assert not [caution for caution in model.cautions if caution.code == "no_logits"]


def test_one_pass_of_the_library_scores_as_its_steps_do() -> None:
    family, model = translator("m2m_100")
    model = compress("ctranslate2:type=int8", family, model)
    continuation, batch = generated(family, model, 1), family.batch(model, 1, 3)
    runs = model.module
    tokens = continuation.tokens[0].tolist()
    token_names = [[runs._names[runs.settings.start], *(runs._names[token] for token in tokens)]]
    (scored,) = runs._model.score_batch(runs._sources(batch["input_ids"], None), token_names)
    steps = continuation.at_once[0].log_softmax(-1)[torch.arange(len(tokens)), tokens]
    assert scored.log_probs[: len(tokens)] == pytest.approx(steps.tolist(), abs=0.05)


def saved_in(folder: Path, **settings: Any) -> Path:
    family, model = translator("bart", **settings)
    chain = parse_chain("ctranslate2:type=int8")
    options = {**OPTIONS, "architecture": KINDS["bart"]}
    variant = Variant("t", "ctranslate2", "t", "seq2seq", "tiny", "random", chain=chain, options=options)
    methods = model_folder.methods_of(chain)
    model = methods[0].compress(model, family)
    (folder / "model").mkdir()
    model_folder.save(model, family, methods, variant, folder / "model")
    return folder / "model"


def test_the_exported_folder_is_opened_by_the_library_without_this_package(tmp_path: Path) -> None:
    saved = saved_in(tmp_path, forced_bos_token_id=77)
    restored = model_folder.restore(saved)
    family, model = restored.family, restored.model
    batch = family.batch(model, 1, 0)
    with torch.inference_mode():
        want = family.run(model, batch, lambda stage: None)[0].tolist()
    lines = export(str(saved), tmp_path / "to", lambda: pytest.fail("no store is needed for a folder"))
    names = json.loads((tmp_path / "to" / "ctranslate2" / "shared_vocabulary.json").read_text(encoding="utf-8"))
    assert f"target_prefix=[['{names[77]}']]" in lines[1]
    source = json.dumps([names[token] for token in batch["input_ids"][0].tolist()])
    options = json.dumps({"target_prefix": [[names[77]]]})
    command = [sys.executable, "-c", ALONE, str(tmp_path / "to"), source, options]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    texts, loaded_torch = json.loads(ran.stdout.splitlines()[-1])
    assert (texts[:5], loaded_torch) == ([names[token] for token in want[:5]], False)  # the last is forced


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"repetition_penalty": 1.3}, "repetition_penalty=1.3"),
        ({"encoder_no_repeat_ngram_size": 3}, "encoder_no_repeat_ngram_size=3"),
        ({"eos_token_id": None}, "do not define the start token or the end token"),
        ({"forced_bos_token_id": [4, 5]}, "a different first or last token"),
    ],
)
def test_unsupported_generation_settings_are_rejected(settings: dict[str, Any], reason: str) -> None:
    family, model = translator("bart", **settings)
    with pytest.raises(Unsupported, match=reason):
        compress("ctranslate2", family, model)


def test_architectures_that_the_converter_does_not_support_are_rejected() -> None:
    fields = {**T5, "model_type": "longt5"}
    family = registry.build("families", "seq2seq", {**OPTIONS, "architecture": fields})
    model = family.load("tiny", "random", Path(), 0)
    with pytest.raises(Unsupported, match="No conversion is registered"):
        compress("ctranslate2", family, model)


def test_positions_that_the_library_counts_differently_are_rejected() -> None:
    fields = {**KINDS["m2m_100"], "pad_token_id": 0}
    family = registry.build("families", "seq2seq", {**OPTIONS, "architecture": fields})
    with pytest.raises(Unsupported, match="padding is token 0"):
        compress("ctranslate2", family, family.load("tiny", "random", Path(), 0))


@pytest.mark.parametrize(
    ("flags", "arithmetic", "choice", "cuts_off"),
    [
        ("AuthenticAMD\nflags : avx2 fma", "int8_float32", "", True),
        ("AuthenticAMD\nflags : avx2 fma", "float32", "", False),
        ("AuthenticAMD\nflags : avx2 fma", "int8_float32", "1", False),
        ("AuthenticAMD\nflags : avx2 avx512_vnni", "int8_float32", "", False),
        ("GenuineIntel\nflags : avx2 fma", "int8_float32", "", False),
        ("GenuineIntel\nflags : avx2 fma", "int8_float32", "0", True),
    ],
)
def test_where_sums_of_products_saturate(
    flags: str, arithmetic: str, choice: str, cuts_off: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text(f"vendor_id : {flags}\n")
    monkeypatch.setenv("CT2_USE_MKL", choice)
    assert cuts_off_sums(arithmetic, tmp_path) is cuts_off


def test_a_folder_without_its_vocabulary_is_not_opened(tmp_path: Path) -> None:
    saved = saved_in(tmp_path)
    (saved / "ctranslate2" / "shared_vocabulary.json").write_text("[")
    with pytest.raises(WeightsError, match="is not a CTranslate2 vocabulary"):
        model_folder.restore(saved)
