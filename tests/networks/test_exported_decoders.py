"""Exported decoders accept a cache under each name in transformers, and reject arguments without an input."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny import TINY

from mlflow_compress import registry
from mlflow_compress.errors import WorkerError
from mlflow_compress.networks import exported_decoders
from mlflow_compress.networks.decoding import CACHE_NAMES, cache_keyword
from mlflow_compress.sockets import Family, Model


def attached(name: str) -> tuple[Family, Model]:
    family: Family = registry.build("families", name, TINY[name])
    model = family.load("tiny", "random", Path(), 0)
    calls = {key: graph.module for key, graph in family.graphs(model).items()}
    return family, family.attach(dataclasses.replace(model, module=None), calls)


@pytest.mark.parametrize("keyword", CACHE_NAMES)
@pytest.mark.parametrize("name", ["asr", "causal_lm", "seq2seq"])
def test_a_cache_is_taken_under_either_name(name: str, keyword: str) -> None:
    family, model = attached(name)
    batch = family.batch(model, 1, 0)
    with torch.inference_mode():
        if name == "causal_lm":
            inputs: dict[str, Any] = {}
        elif name == "asr":
            inputs = family._features(model, batch)  # type: ignore[attr-defined]
        else:
            inputs = dict(batch)
        key = "input_ids" if name == "causal_lm" else "decoder_input_ids"
        tokens = torch.tensor([[5, 6, 7]])
        expected = model.module(**inputs, **{key: tokens}).logits[:, -1]
        first = model.module(**inputs, **{key: tokens[:, :2]})
        later: dict[str, Any] = {key: tokens[:, 2:], keyword: first[cache_keyword()]}
        torch.testing.assert_close(model.module(**inputs, **later).logits[:, -1], expected)


@pytest.mark.parametrize("name", ["asr", "causal_lm", "seq2seq"])
def test_an_unknown_argument_is_an_error(name: str) -> None:
    _, model = attached(name)
    tokens = torch.tensor([[5, 6]])
    inputs = {"input_ids": tokens} if name == "causal_lm" else {"decoder_input_ids": tokens}
    message = f"transformers {re.escape(transformers.__version__)} passes 'new_memory' to the decoder"
    with pytest.raises(WorkerError, match=message):
        model.module(**inputs, new_memory=tokens)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"position_ids": torch.tensor([[0, 1]])}, "can't use position_ids: positions must be consecutive"),
        ({"cache_position": torch.tensor([1, 2])}, "can't use cache_position"),
        ({"attention_mask": torch.tensor([[0, 1, 1, 1, 1]])}, "can't use padding"),
        ({"decoder_attention_mask": torch.tensor([[1, 0]])}, "can't use padding"),
        ({"cache_position": torch.tensor([3, 4, 5])}, "can't use cache_position"),
        ({"attention_mask": {"full": torch.ones(1, 5)}}, "can't use attention_mask: the only mask is one of padding"),
        ({"attention_mask": torch.ones(1, 1, 2, 5)}, "can't use attention_mask: the only mask is one of padding"),
        ({"return_dict": False}, "passes 'return_dict'"),
        ({"output_attentions": True}, "passes 'output_attentions'"),
        ({"inputs_embeds": torch.zeros(1, 2, 4)}, "passes 'inputs_embeds'"),
    ],
)
def test_what_would_change_the_numbers_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(WorkerError, match=message):
        exported_decoders.require_plain(arguments, past=3, tokens=2)


def test_what_says_nothing_is_taken() -> None:
    arguments = {
        "position_ids": torch.tensor([[3, 4], [3, 4]]),
        "cache_position": torch.tensor([3, 4]),
        "attention_mask": torch.ones(2, 5),
        "use_cache": False,
        "return_dict": True,
        "output_attentions": False,
        "inputs_embeds": None,
    }
    exported_decoders.require_plain(arguments, past=3, tokens=2)


def test_a_cache_under_two_names_is_an_error() -> None:
    with pytest.raises(WorkerError, match="two names"):
        exported_decoders.take_cache(dict.fromkeys(CACHE_NAMES, object()))
    assert exported_decoders.take_cache(dict.fromkeys(CACHE_NAMES)) is None
