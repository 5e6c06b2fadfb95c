"""Language models: equal work in every timed call, and the same continuations as transformers."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_model

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError
from mlflow_compress.model import Model
from mlflow_compress.networks.transformers_models import companions


def test_a_timed_call_generates_the_given_number_of_tokens() -> None:
    family, model = tiny_model("causal_lm", new_tokens=5)
    stages: list[str] = []
    with torch.inference_mode():
        tokens = family.run(model, family.batch(model, 3, 0), stages.append)
    assert tokens.shape == (3, 5)
    assert stages == ["prefill", *["token"] * 4]


def test_rates_are_tokens_over_time() -> None:
    family, _ = tiny_model("causal_lm", prompt_tokens=8, new_tokens=4)
    rates = family.rates(20.0, {"prefill": 10.0, "token": 2.0}, 3)
    assert rates == {
        "tokens_per_s": pytest.approx(600),
        "decode_tokens_per_s": pytest.approx(1500),
        "prefill_tokens_per_s": pytest.approx(2400),
    }


def test_a_continuation_equals_that_of_transformers() -> None:
    family, model = tiny_model("causal_lm", {"initializer_range": 1.0}, new_tokens=6)
    tokenizer = companions(model).tokenizer
    ids = tokenizer("Once upon", return_tensors="pt").input_ids
    with torch.no_grad():
        output = model.module.generate(ids, max_new_tokens=6, do_sample=False, pad_token_id=tokenizer.pad_token_id)
    tokens = [token for token in output[0, ids.shape[1] :].tolist() if token < len(tokenizer)]
    assert family.predict(model, ["Once upon"]) == [tokenizer.decode(tokens, skip_special_tokens=True)]


TEXTS = ["Once upon a time there was a cat.", " It sat. ", "Once upon a time, and a day, it sat on a mat. " * 3]


def logged(model: Model, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        scores: torch.Tensor = model.module(torch.tensor([ids])).logits[0].log_softmax(-1)
    return scores


def test_lm_eval_predicts_every_token_from_a_prefix_in_windows_side_by_side() -> None:
    """Compare with a separate loop over the tokens, as lm-evaluation-harness describes it."""
    family, model = tiny_model("causal_lm", {"initializer_range": 1.0}, window=16)
    tokenizer = companions(model).tokenizer
    for text, answer in zip(TEXTS, family.answers(model, TEXTS), strict=True):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        expected, done = 0.0, 0
        while done < len(ids):
            end = min(done + 16, len(ids))
            window = [tokenizer.eos_token_id, *ids][
                max(0, end - 16) : end
            ]  # the tokenizer has no beginning-of-sequence token
            scores = logged(model, window)
            expected -= sum(float(scores[place - end, ids[place]]) for place in range(done, end))
            done = end
        assert answer["nll"] == pytest.approx(expected, rel=1e-4)
        assert answer["tokens"] == len(ids)
        assert answer["words"] == len(re.split(r"\s+", text))
        assert answer["bytes"] == len(text.encode())


def test_wikitext2_joins_all_texts_and_cuts_them_into_blocks(tmp_path: Path) -> None:
    family, model = tiny_model("causal_lm", {"initializer_range": 1.0}, protocol="wikitext2", window=12)
    tokenizer = companions(model).tokenizer
    rows = ["", " = Cats = ", "", *TEXTS, ""]
    (tmp_path / "wiki.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    samples = family.samples(model, "wiki.jsonl", tmp_path, None, 0)
    ids = tokenizer("\n\n".join(rows))["input_ids"]
    blocks = [ids[start : start + 12] for start in range(0, len(ids) // 12 * 12, 12)]
    assert [sample.inputs for sample in samples] == blocks
    assert len(blocks) > 5
    losses = [
        -float(logged(model, block)[torch.arange(11), torch.tensor(block[1:])].mean()) for block in blocks
    ]  # as in the papers' code: the mean of the blocks' means
    answers = family.answers(model, [sample.inputs for sample in samples])
    metric = registry.build("metrics", "perplexity")
    score = metric.compute([sample.reference for sample in samples], answers)
    assert score == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-4)
    assert len(family.samples(model, "wiki.jsonl", tmp_path, 2, 0)) == 2
    assert len(family.samples(model, "wiki.jsonl:limit=3", tmp_path, None, 0)) == 3
    assert "blocks of 12 tokens" in model.facts["scoring"]
    default_family, default_model = tiny_model("causal_lm", protocol="wikitext2")
    with pytest.raises(RecipeError, match=r"blocks of 2048 tokens, but all texts together have \d+"):
        default_family.samples(default_model, "wiki.jsonl", tmp_path, None, 0)


def test_sliding_windows_leave_the_first_token_out() -> None:
    family, model = tiny_model("causal_lm", {"initializer_range": 1.0}, protocol="sliding")
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


def test_blank_rows_of_text_are_not_samples(tmp_path: Path) -> None:
    family, model = tiny_model("causal_lm")
    (tmp_path / "wiki.jsonl").write_text('{"text": ""}\n{"text": "a cat"}\n{"text": " "}\n')
    assert [sample.inputs for sample in family.samples(model, "wiki.jsonl", tmp_path, None, 0)] == ["a cat"]
    assert model.facts["scoring"].startswith("lm-evaluation-harness: prefix token 1, rolling windows of ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 8}, "stride is an option of protocol=sliding"),
        ({"protocol": "wikitext2", "with_bos": True}, "with_bos is an option of protocol=sliding"),
        ({"protocol": "sliding", "window": 8, "stride": 9}, "would skip tokens"),
    ],
)
def test_options_of_other_protocols_are_rejected(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    family, model = tiny_model("causal_lm", **options)
    with pytest.raises(RecipeError, match=message):
        family.samples(model, "wiki.jsonl", tmp_path, None, 0)
