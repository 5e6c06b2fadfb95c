"""LoRA adapters are merged as peft merges them, or rejected, but never ignored."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny import TINY, gguf_file

from mlflow_compress.errors import WeightsError
from mlflow_compress.networks import lora_adapters
from mlflow_compress.networks.hub import Origin, find_weights
from mlflow_compress.networks.transformers_models import load_transformer
from mlflow_compress.planning.recognise import recognise

CAUSAL, CLASSIFIER = "AutoModelForCausalLM", "AutoModelForSequenceClassification"
LLAMA = {**TINY["causal_lm"]["architecture"], "tie_word_embeddings": False}
DISTILBERT = TINY["text_classification"]["architecture"]
GPT2 = {"model_type": "gpt2", "vocab_size": 300, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32}
QUERY = "model.layers.0.self_attn.q_proj"
Tensors = dict[str, torch.Tensor]


def base(folder: Path, auto_class: str = CAUSAL, architecture: dict[str, Any] = LLAMA) -> Any:
    module = load_transformer(auto_class, "tiny", Origin("random"), architecture, 3).module
    module.save_pretrained(folder)
    return module


def thin(layer: str, rows: int = 16, columns: int = 16, rank: int = 2) -> Tensors:
    generator = torch.Generator().manual_seed(rank)
    return {
        f"base_model.model.{layer}.lora_A.weight": torch.randn(rank, columns, generator=generator),
        f"base_model.model.{layer}.lora_B.weight": torch.randn(rows, rank, generator=generator),
    }


def change(tensors: Tensors, layer: str) -> torch.Tensor:
    down, up = (tensors[f"base_model.model.{layer}.lora_{side}.weight"] for side in "AB")
    return up @ down


def adapter(folder: Path, tensors: Tensors, **fields: Any) -> Path:
    folder.mkdir(exist_ok=True)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": 2,
        "lora_alpha": 6,
        "base_model_name_or_path": "../base",
    }
    (folder / "adapter_config.json").write_text(json.dumps({**config, **fields}))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def loaded(folder: Path, auto_class: str = CAUSAL) -> Any:
    return load_transformer(auto_class, str(folder), find_weights(str(folder), "auto", folder), {}, 0)


@pytest.mark.parametrize(
    ("fields", "factor"),
    [
        ({}, 3.0),
        ({"use_rslora": True}, 6 / math.sqrt(2)),
        ({"alpha_pattern": {"layers.0.self_attn.q_proj": 1}}, 0.5),
        ({"alpha_pattern": {"^self_attn.q_proj": 1}}, 3.0),
        ({"alpha_pattern": {f"^{QUERY}": 1}}, 0.5),
    ],
)
def test_the_change_is_scaled_and_added(tmp_path: Path, fields: dict[str, Any], factor: float) -> None:
    before = base(tmp_path / "base").state_dict()
    tensors = thin(QUERY)
    model = loaded(adapter(tmp_path / "mine", tensors, **fields))
    after = model.module.state_dict()
    expected = before[f"{QUERY}.weight"] + factor * change(tensors, QUERY)
    assert torch.allclose(after[f"{QUERY}.weight"], expected, atol=1e-6)
    assert [name for name in before if not torch.equal(before[name], after[name])] == [f"{QUERY}.weight"]
    assert (model.weights, model.cautions) == ("local", [])
    assert model.facts["adapter"].startswith("LoRA of rank 2 in 1 layers, merged into the weights of ")


def test_an_adapter_beside_its_base_is_merged_into_it(tmp_path: Path) -> None:
    before = base(tmp_path).state_dict()
    tensors = thin(QUERY)
    adapter(tmp_path, tensors, base_model_name_or_path="gone/away")
    assert recognise(str(tmp_path)).family == "causal_lm"  # type: ignore[union-attr]
    after = loaded(tmp_path).module.state_dict()
    assert torch.allclose(after[f"{QUERY}.weight"], before[f"{QUERY}.weight"] + 3 * change(tensors, QUERY), atol=1e-6)


def test_a_weight_that_is_stored_transposed_is_changed_so(tmp_path: Path) -> None:
    layer = "transformer.h.0.attn.c_attn"
    before = base(tmp_path / "base", architecture=GPT2).state_dict()[f"{layer}.weight"]
    tensors = thin(layer, rows=48)
    after = loaded(adapter(tmp_path / "mine", tensors, fan_in_fan_out=True)).module.state_dict()[f"{layer}.weight"]
    assert torch.allclose(after, before + 3 * change(tensors, layer).T, atol=1e-6)


def test_a_head_that_was_trained_replaces_the_bases(tmp_path: Path) -> None:
    base(tmp_path / "base", CLASSIFIER, DISTILBERT).distilbert.save_pretrained(tmp_path / "base")
    query = "distilbert.transformer.layer.0.attention.q_lin"
    head = {
        "base_model.model.classifier.weight": torch.ones(5, 16),
        "base_model.model.classifier.bias": torch.ones(5),
        "base_model.model.pre_classifier.modules_to_save.weight": torch.ones(16, 16),
        "base_model.model.pre_classifier.modules_to_save.bias": torch.ones(16),
        f"base_model.model.{query}.base_layer.bias": torch.ones(16),
    }
    folder = adapter(tmp_path / "mine", {**head, **thin(query)}, task_type="SEQ_CLS", modules_to_save=["classifier"])
    assert recognise(str(folder)).family == "text_classification"  # type: ignore[union-attr]
    model = loaded(folder, CLASSIFIER)
    state = model.module.state_dict()
    assert all(bool((state[name] == 1).all()) for name in ("classifier.weight", "pre_classifier.bias", f"{query}.bias"))
    assert (model.config.num_labels, model.cautions) == (5, [])  # nothing is random


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"peft_type": "IA3"}, "of the kind 'IA3'"),
        ({"use_dora": True}, "with use_dora"),
        ({"something_new": {"a": 1}}, "with something_new"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa', which changes the base"),
        ({"alpha_pattern": {"q_proj|v_proj": 1}}, "regular expressions"),
    ],
)
def test_what_is_not_a_plain_lora_is_refused(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    base(tmp_path / "base")
    with pytest.raises(WeightsError, match=r"only plain LoRA is merged here.*merge_and_unload") as error:
        loaded(adapter(tmp_path / "mine", thin(QUERY), **fields))
    assert message in str(error.value)


EMBEDDING, HEAD = "base_model.model.model.embed_tokens", "base_model.model.lm_head"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (thin("model.layers.7.self_attn.q_proj"), "which its base does not have"),
        (thin(QUERY, columns=8), "was trained on another base"),
        (
            {f"{EMBEDDING}.weight": torch.ones(303, 16)},
            r"3 more rows .* its base's 300, as when tokens are added",
        ),
        ({**thin(QUERY), f"base_model.model.{QUERY}.lora_magnitude_vector": torch.ones(16)}, "not part of plain LoRA"),
        (dict(list(thin(QUERY).items())[:1]), "is incomplete"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(tmp_path: Path, tensors: Tensors, message: str) -> None:
    base(tmp_path / "base")
    with pytest.raises(WeightsError, match=message):
        loaded(adapter(tmp_path / "mine", tensors))


def test_a_tied_layer_is_not_changed_behind_the_others_back(tmp_path: Path) -> None:
    base(tmp_path / "base", architecture={**LLAMA, "tie_word_embeddings": True})
    place = "base_model.model.model.embed_tokens"
    tensors = {f"{place}.lora_embedding_A": torch.randn(2, 300), f"{place}.lora_embedding_B": torch.randn(16, 2)}
    with pytest.raises(WeightsError, match=r"embed_tokens\.weight, which is tied to another layer"):
        loaded(adapter(tmp_path / "mine", tensors))
    folder = adapter(tmp_path / "mine", tensors, ensure_weight_tying=True)
    before = loaded(tmp_path / "base").module.lm_head.weight
    down, up = tensors.values()
    assert torch.allclose(loaded(folder).module.lm_head.weight, before + 3 * (up @ down).T, atol=1e-5)


def test_tied_layers_that_were_replaced_are_equal_or_refused(tmp_path: Path) -> None:
    base(tmp_path / "base", architecture={**LLAMA, "tie_word_embeddings": True})
    replaced = {f"{EMBEDDING}.weight": torch.ones(300, 16), f"{HEAD}.weight": torch.ones(300, 16)}
    module = loaded(adapter(tmp_path / "mine", replaced)).module
    assert bool((module.lm_head.weight == 1).all())
    assert module.lm_head.weight is module.model.embed_tokens.weight
    with pytest.raises(WeightsError, match=r"changes model\.embed_tokens\.weight and lm_head\.weight differently"):
        loaded(adapter(tmp_path / "mine", {**replaced, f"{HEAD}.weight": torch.zeros(300, 16)}))
    one_only = {f"{EMBEDDING}.lora_embedding_A": torch.ones(2, 300), f"{EMBEDDING}.lora_embedding_B": torch.ones(16, 2)}
    with pytest.raises(WeightsError, match=r"embed_tokens\.weight, which is tied to another layer"):
        loaded(adapter(tmp_path / "mine", {**replaced, **one_only}))


def test_one_change_of_tied_layers_is_added_once(tmp_path: Path) -> None:
    before = base(tmp_path / "base", architecture={**LLAMA, "tie_word_embeddings": True}).lm_head.weight
    down, up = torch.randn(2, 300), torch.randn(16, 2)
    tensors = {
        f"{EMBEDDING}.lora_embedding_A": down,
        f"{EMBEDDING}.lora_embedding_B": up,
        f"{HEAD}.lora_A.weight": up.T.contiguous(),
        f"{HEAD}.lora_B.weight": down.T.contiguous(),
    }
    after = loaded(adapter(tmp_path / "mine", tensors, ensure_weight_tying=True)).module.lm_head.weight
    assert torch.allclose(after, before + 3 * (up @ down).T, atol=1e-5)
    with pytest.raises(WeightsError, match="differently"):
        loaded(adapter(tmp_path / "mine", {**tensors, f"{HEAD}.lora_B.weight": torch.ones(300, 2)}))
    with pytest.raises(WeightsError, match="differently"):
        loaded(adapter(tmp_path / "mine", tensors, alpha_pattern={"lm_head": 1}))


def test_an_adapter_with_its_bases_config_is_merged_into_the_base(tmp_path: Path) -> None:
    before = base(tmp_path / "base").state_dict()[f"{QUERY}.weight"]
    tensors = thin(QUERY)
    folder = adapter(tmp_path / "mine", tensors, task_type=None)
    (folder / "config.json").write_bytes((tmp_path / "base" / "config.json").read_bytes())
    assert recognise(str(folder)).family == "causal_lm"  # type: ignore[union-attr]
    after = loaded(folder).module.state_dict()[f"{QUERY}.weight"]
    assert torch.allclose(after, before + 3 * change(tensors, QUERY), atol=1e-6)


def test_an_adapter_is_not_dropped_for_a_gguf_file(tmp_path: Path) -> None:
    file = gguf_file(tmp_path / "base" / "a.gguf")
    folder = adapter(tmp_path / "mine", thin(QUERY))
    for source, weights in ((str(folder), "auto"), (str(file), str(folder)), (str(file.parent), str(folder))):
        with pytest.raises(WeightsError, match=r"mine can't be merged into a GGUF file, .*a\.gguf: give the base as"):
            find_weights(source, weights, tmp_path)


def test_an_adapter_on_an_adapter_is_refused(tmp_path: Path) -> None:
    stacked = adapter(tmp_path / "base", thin(QUERY), base_model_name_or_path="org/base")
    for name in ("config.json", "model.safetensors"):
        (stacked / name).touch()
    outer = adapter(tmp_path / "outer", thin(QUERY))
    for source, weights in ((outer, "auto"), (stacked, str(outer))):
        with pytest.raises(WeightsError, match=r"adapter in .*outer has another adapter, in .*base: merge that"):
            find_weights(str(source), weights, tmp_path)
    inner = adapter(tmp_path / "inner", thin(QUERY), base_model_name_or_path=".")
    outer = adapter(tmp_path / "outer", thin(QUERY), base_model_name_or_path="../inner")
    with pytest.raises(WeightsError, match=r"adapter in .*outer is itself an adapter: .*inner\. Merge that first"):
        find_weights(str(outer), "auto", tmp_path)
    with pytest.raises(WeightsError, match=r"inner names itself as its base"):
        find_weights(str(inner), "auto", tmp_path)


def test_an_unavailable_base_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    folder = adapter(tmp_path / "mine", thin(QUERY), base_model_name_or_path="org/base", revision="v2")
    assert recognise(str(folder)).family == "causal_lm"  # type: ignore[union-attr]
    with pytest.raises(WeightsError, match=r"mine is an adapter for org/base@v2\. .*weights=PATH") as error:
        find_weights(str(folder), "auto", tmp_path)
    assert "\n" not in str(error.value)
    base(tmp_path / "other")
    origin = find_weights(str(tmp_path / "other"), str(folder), tmp_path)  # the user chooses its base
    assert (origin.location, origin.adapter) == (str(tmp_path / "other"), str(folder))
    assert "adapter" in load_transformer(CAUSAL, "other", origin, {}, 0).facts


def test_a_folder_without_an_adapter_has_none(tmp_path: Path) -> None:
    assert lora_adapters.read(tmp_path) is None
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(WeightsError, match="can't be read"):
        lora_adapters.read(tmp_path)
