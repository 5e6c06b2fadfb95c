"""Greedy decoding in a runtime generates the same as `generate` of transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig

from mlflow_compress.networks.decoding import ONE_ANSWER, cache_keyword
from mlflow_compress.networks.greedy_loop import Greedy


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=6, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, eos_token_id=2
    )
    module = AutoModelForCausalLM.from_config(config).eval()
    for parameter in module.parameters():
        parameter.data.mul_(8)
    return module


def greedy(model: Any, refused: bool = False, **settings: Any) -> Greedy:
    def advance(cache: Any, ids: Any) -> Any:
        return model(input_ids=ids, logits_to_keep=1, use_cache=True, **{cache_keyword(): cache}).logits.clone()

    def whole(**options: Any) -> str:
        assert refused, options
        return "transformers"

    return Greedy(advance, GenerationConfig(**{"eos_token_id": 2, "pad_token_id": 0, **settings}), whole)


@pytest.mark.parametrize("least", [0, 5, 12])
@pytest.mark.parametrize("seed", range(6))
def test_it_is_generate_of_transformers(model: Any, seed: int, least: int) -> None:
    ids = torch.randint(0, 6, (3, 4), generator=torch.Generator().manual_seed(seed))
    options: dict[str, Any] = {
        **ONE_ANSWER,
        "max_new_tokens": 12,
        "min_new_tokens": least,
        "attention_mask": torch.ones_like(ids),
        "pad_token_id": 0,
        "return_dict_in_generate": True,
        "output_logits": True,
    }
    with torch.inference_mode():
        expected = model.generate(input_ids=ids, **options)
        output = greedy(model)(input_ids=ids, **options)
        assert torch.equal(output.sequences, expected.sequences)
        assert torch.allclose(torch.stack(output.logits), torch.stack(expected.logits), atol=1e-4)
        plain = greedy(model)(input_ids=ids, **{**options, "return_dict_in_generate": False})
    assert torch.equal(plain, expected.sequences)


def test_some_texts_end_before_others(model: Any) -> None:
    endings = set()
    for seed in range(6):
        ids = torch.randint(0, 6, (3, 4), generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode():
            output = greedy(model)(input_ids=ids, max_new_tokens=12, pad_token_id=0)
        endings |= {int((row == 2).sum() > 0) for row in output[:, 4:]}
    assert endings == {0, 1}  # otherwise the loop above does not test both cases


def test_a_streamer_gets_the_prompt_and_each_token(model: Any) -> None:
    events: list[Any] = []

    class Streamer:
        def put(self, tokens: Any) -> None:
            events.append(tuple(tokens.shape))

        def end(self) -> None:
            events.append("end")

    with torch.inference_mode():
        greedy(model)(input_ids=torch.zeros((1, 3), dtype=torch.long), max_new_tokens=2, streamer=Streamer())
    assert events == [(1, 3), (1,), (1,), "end"]


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({"repetition_penalty": 1.2}, {}),
        ({"suppress_tokens": [3]}, {}),
        ({}, {"num_beams": 2}),
        ({}, {"do_sample": True}),
        ({}, {"attention_mask": torch.tensor([[0, 1, 1]])}),
        ({}, {"max_new_tokens": None}),
        ({}, {"logits_processor": ["any"]}),
    ],
)
def test_all_else_goes_to_transformers(model: Any, settings: dict[str, Any], options: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"max_new_tokens": 4, **options}
    answer = greedy(model, refused=True, **settings)(input_ids=torch.zeros((1, 3), dtype=torch.long), **arguments)
    assert answer == "transformers"
