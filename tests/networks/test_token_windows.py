from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_compress.networks.token_windows import Window, blocks, likelihoods, rolling, sliding

VOCABULARY = 50


class Tiny(torch.nn.Module):
    """A causal model with four layers: each token sees the mean of the tokens up to it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = torch.nn.Embedding(VOCABULARY, 16)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(16, 16) for _ in range(4))
        self.head = torch.nn.Linear(16, VOCABULARY)

    def forward(self, ids: Any) -> Any:
        hidden = self.embedding(ids) * 3
        for layer in self.layers:
            counts = torch.arange(1, ids.shape[1] + 1)[:, None]
            hidden = hidden + torch.tanh(layer(hidden.cumsum(1) / counts) * 3)
        return self.head(hidden) * 3


def windows_of(texts: list[list[int]], window: int, stride: int) -> list[Window]:
    return [part for index, text in enumerate(texts) for part in sliding(index, len(text), window, stride)]


@given(st.integers(0, 200), st.integers(2, 64), st.data())
@settings(max_examples=200, deadline=None)
def test_each_token_but_the_first_is_scored_once(length: int, window: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, window - 1))
    windows = list(sliding(0, length, window, stride))
    scored = [place for part in windows for place in range(part.end - part.scored, part.end)]
    assert scored == list(range(1, length))
    assert all(part.length <= window for part in windows)
    assert all(part.scored <= stride for part in windows[1:])


def test_windows_side_by_side_do_not_predict_their_first() -> None:
    assert [part.scored for part in sliding(0, 10, 4, 4)] == [3, 3, 1]


@pytest.mark.parametrize(("window", "stride"), [(16, 4), (16, 16), (1000, 500), (2, 1)])
def test_likelihoods_are_those_of_a_loop_over_tokens(window: int, stride: int) -> None:
    model = Tiny()
    texts = [torch.randint(0, VOCABULARY, (length,)).tolist() for length in (37, 1, 0, 2, 90, 16, 17)]
    with torch.no_grad():
        results = likelihoods(model, texts, windows_of(texts, window, stride), VOCABULARY)
        for text, (nll, tokens) in zip(texts, results, strict=True):
            expected, count, done = 0.0, 0, 1
            for start in range(0, len(text), stride):
                for place in range(max(done, start + 1), min(start + window, len(text))):
                    logits = model(torch.tensor([text[start:place]]))[0, -1]
                    expected -= float(logits.log_softmax(-1)[text[place]])
                    count += 1
                done = max(done, min(start + window, len(text)))
                if done == len(text):
                    break
            assert tokens == count
            assert nll == pytest.approx(expected, rel=1e-5)


def test_as_many_go_together_as_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlflow_compress.networks.token_windows._MOST_LOGITS", 64 * VOCABULARY)
    model, shapes = Tiny(), []

    def run(ids: Any) -> Any:
        shapes.append(tuple(ids.shape))
        return model(ids)

    with torch.no_grad():
        texts = [[1] * 100, [2] * 20, [3] * 16, [4] * 4]
        likelihoods(run, texts, windows_of(texts, 32, 16), VOCABULARY)
    assert shapes[3:] == [(2, 31), (2, 31), (2, 31), (3, 19)]  # three calls found out that batching is possible


def test_what_depends_on_its_neighbours_goes_alone() -> None:
    model, shapes = Tiny(), []

    def run(ids: Any) -> Any:
        shapes.append(tuple(ids.shape))
        logits = model(ids)
        scale = logits.abs().max() / 127  # of the whole batch
        return (logits / scale).round() * scale

    with torch.no_grad():
        texts = [[1, 2, 3, 4], [5, 6], [7, 8, 9]]
        together = likelihoods(run, texts, windows_of(texts, 32, 16), VOCABULARY)
        assert [rows for rows, _ in shapes[-3:]] == [1, 1, 1]
        assert together == [likelihoods(run, [text], windows_of([text], 32, 16), VOCABULARY)[0] for text in texts]


def test_half_precision_may_round(monkeypatch: pytest.MonkeyPatch) -> None:
    model, shapes = Tiny().bfloat16(), []

    def run(ids: Any) -> Any:
        shapes.append(tuple(ids.shape))
        return model(ids)

    with torch.no_grad():
        texts = [[1, 2, 3, 4], [5, 6, 7, 8]]
        results = likelihoods(run, texts, windows_of(texts, 32, 16), VOCABULARY)
    assert shapes[-1] == (2, 3)
    assert all(math.isfinite(nll) and tokens == 3 for nll, tokens in results)


def test_rolling_windows_are_those_of_lm_evaluation_harness() -> None:
    """34 tokens after a prefix, ten at a time: the pairs in lm-eval's own test of get_rolling_token_windows."""
    text = [-100, *range(34)]
    pairs = [
        (text[part.start : part.end - 1], text[part.end - part.scored : part.end])
        for part in rolling(0, len(text), window=10)
    ]
    assert pairs == [
        ([-100, *range(9)], list(range(10))),
        (list(range(9, 19)), list(range(10, 20))),
        (list(range(19, 29)), list(range(20, 30))),
        (list(range(23, 33)), list(range(30, 34))),
    ]


@given(st.integers(0, 200), st.integers(1, 64))
@settings(max_examples=200, deadline=None)
def test_rolling_predicts_every_token_behind_the_prefix_once(length: int, window: int) -> None:
    windows = list(rolling(0, length, window))
    scored = [place for part in windows for place in range(part.end - part.scored, part.end)]
    assert scored == list(range(1, length))
    assert all(part.length - 1 <= window for part in windows)


def test_blocks_and_rolling_windows_score_as_a_loop_over_tokens_does() -> None:
    model = Tiny()
    texts = [torch.randint(0, VOCABULARY, (length,)).tolist() for length in (40, 7, 1)]
    with torch.no_grad():
        logged = model(torch.tensor([texts[1]]))[0].log_softmax(-1)
        ((nll, tokens),) = likelihoods(model, texts[1:2], blocks(0, 7), VOCABULARY)
        assert tokens == 6
        assert nll == pytest.approx(-sum(float(logged[token, texts[1][token + 1]]) for token in range(6)), rel=1e-5)
        rolled = [part for index, text in enumerate(texts) for part in rolling(index, len(text), 16)]
        results = likelihoods(model, texts, rolled, VOCABULARY)
        for text, (nll, tokens) in zip(texts, results, strict=True):
            expected = 0.0
            for place in range(1, len(text)):
                start = (place - 1) // 16 * 16  # the window that predicts it
                stop = min(start + 16, len(text) - 1)
                context = text[max(0, stop - 16) : place]
                expected -= float(model(torch.tensor([context]))[0, -1].log_softmax(-1)[text[place]])
            assert tokens == len(text) - 1
            assert nll == pytest.approx(expected, rel=1e-5)
