"""A newly loaded decoder is rejected if it attends to later tokens, and timed without a cache if it has none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import tiny_model

from mlflow_compress.errors import RecipeError
from mlflow_compress.networks.decoding import uses_cache
from mlflow_compress.networks.first_texts import settle_decoder
from mlflow_compress.sockets import Continuation

GPT = {"model_type": "openai-gpt", "vocab_size": 300, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32}
BERT = {  # with weights large enough for tokens to affect each other
    "model_type": "bert",
    "num_hidden_layers": 1,
    "max_position_embeddings": 32,
    "initializer_range": 1.0,
}
MAMBA = {"model_type": "mamba", "state_size": 4, "num_hidden_layers": 1}


def test_a_decoder_with_a_right_cache_uses_it() -> None:
    _, model = tiny_model("causal_lm")
    assert uses_cache(model.module)
    assert not model.cautions


def test_a_state_is_a_cache_too() -> None:
    family, model = tiny_model("causal_lm", architecture=MAMBA)
    assert uses_cache(model.module)
    assert len(family.predict(model, ["a"])) == 1


def test_a_decoder_without_a_cache_is_timed_without_one_and_says_so(tmp_path: Path) -> None:
    family, model = tiny_model("causal_lm", architecture=GPT)
    assert [caution.code for caution in model.cautions] == ["no_cache"]
    assert not uses_cache(model.module)
    stages: list[str] = []
    with torch.inference_mode():
        assert family.run(model, family.batch(model, 2, 0), stages.append).shape == (2, 3)
    assert stages == ["prefill", "token", "token"]
    family.save(model, tmp_path)
    assert not uses_cache(family.restore(tmp_path).module)


def test_a_model_whose_tokens_see_later_ones_is_refused() -> None:
    with pytest.raises(
        RecipeError, match=r"BertLMHeadModel is not a causal language model .* perplexity would mean nothing"
    ):
        tiny_model("causal_lm", architecture=BERT)
    _, model = tiny_model("causal_lm", architecture=BERT | {"is_decoder": True})
    assert not model.cautions


def test_running_out_of_memory_is_not_a_missing_cache() -> None:
    family, model = tiny_model("causal_lm")

    def generate(ids: torch.Tensor) -> Continuation:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(RuntimeError, match="can't allocate memory"):
        settle_decoder(model, lambda ids: family.forward(model, ids), generate)
    assert uses_cache(model.module)
    assert not model.cautions


def test_a_cache_that_gives_other_tokens_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import LlamaForCausalLM

    forward = LlamaForCausalLM.forward

    def forgets(self: LlamaForCausalLM, input_ids: torch.Tensor, **options: object):  # type: ignore[no-untyped-def]
        if input_ids.shape[1] == 1:  # with a cache, only the newest token
            options.pop("cache", None), options.pop("past_key_values", None)
        return forward(self, input_ids, **options)

    monkeypatch.setattr(LlamaForCausalLM, "forward", forgets)
    _, model = tiny_model("causal_lm")
    assert not uses_cache(model.module)
    assert [caution.code for caution in model.cautions] == ["no_cache"]
