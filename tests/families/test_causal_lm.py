"""Language models: equal work in every timed call, continuations as transformers makes them."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_model

from mlflow_compress.networks.transformers_models import companions


def test_a_timed_call_makes_as_many_tokens_as_it_says() -> None:
    family, model = tiny_model("causal_lm", new_tokens=5)
    stages: list[str] = []
    with torch.inference_mode():
        made = family.run(model, family.batch(model, 3, 0), stages.append)
    assert made.shape == (3, 5)
    assert stages == ["prefill", *["token"] * 4]


def test_rates_are_tokens_over_time() -> None:
    family, _ = tiny_model("causal_lm", prompt_tokens=8, new_tokens=4)
    rates = family.rates(20.0, {"prefill": 10.0, "token": 2.0}, 3)
    assert rates == {
        "tokens_per_s": pytest.approx(600),
        "decode_tokens_per_s": pytest.approx(1500),
        "prefill_tokens_per_s": pytest.approx(2400),
    }


def test_a_continuation_is_what_transformers_makes_of_the_text() -> None:
    family, model = tiny_model("causal_lm", {"initializer_range": 1.0}, new_tokens=6)
    tokenizer = companions(model).tokenizer
    ids = tokenizer("Once upon", return_tensors="pt").input_ids
    with torch.no_grad():
        made = model.module.generate(ids, max_new_tokens=6, do_sample=False, pad_token_id=tokenizer.pad_token_id)
    known = [token for token in made[0, ids.shape[1] :].tolist() if token < len(tokenizer)]
    assert family.predict(model, ["Once upon"]) == [tokenizer.decode(known, skip_special_tokens=True)]


def test_an_answer_is_how_likely_the_text_is() -> None:
    family, model = tiny_model("causal_lm", {"initializer_range": 1.0})
    text = "Once upon a time"
    ids = companions(model).tokenizer(text, return_tensors="pt").input_ids
    with torch.no_grad():
        logits = model.module(ids).logits[0, :-1]
    expected = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum")
    (answer,) = family.answers(model, [text])
    assert answer == {
        "nll": pytest.approx(float(expected), rel=1e-4),
        "tokens": ids.shape[1] - 1,
        "words": 4,
        "bytes": 16,
    }
