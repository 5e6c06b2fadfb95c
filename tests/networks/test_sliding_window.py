from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_compress.networks.sliding_window import likelihoods, windows

VOCABULARY = 50


class Tiny(torch.nn.Module):
    """A causal model of four layers: each token sees the mean of those up to it."""

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


@given(st.integers(0, 200), st.integers(2, 64), st.data())
@settings(max_examples=200, deadline=None)
def test_each_token_but_the_first_is_scored_once(length: int, window: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, window - 1))
    found = list(windows(0, length, window, stride))
    scored = [place for part in found for place in range(part.end - part.scored, part.end)]
    assert scored == list(range(1, length))
    assert all(part.length <= window for part in found)
    assert all(part.scored <= stride for part in found[1:])


def test_windows_side_by_side_do_not_predict_their_first() -> None:
    assert [part.scored for part in windows(0, 10, 4, 4)] == [3, 3, 1]


@pytest.mark.parametrize(("window", "stride"), [(16, 4), (16, 16), (1000, 500), (2, 1)])
def test_likelihoods_are_those_of_a_loop_over_tokens(window: int, stride: int) -> None:
    model = Tiny()
    texts = [torch.randint(0, VOCABULARY, (length,)).tolist() for length in (37, 1, 0, 2, 90, 16, 17)]
    with torch.no_grad():
        found = likelihoods(model, texts, window, stride, VOCABULARY)
        for text, (nll, tokens) in zip(texts, found, strict=True):
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
    monkeypatch.setattr("mlflow_compress.networks.sliding_window._MOST_LOGITS", 64 * VOCABULARY)
    model, shapes = Tiny(), []

    def run(ids: Any) -> Any:
        shapes.append(tuple(ids.shape))
        return model(ids)

    with torch.no_grad():
        likelihoods(run, [[1] * 100, [2] * 20, [3] * 16, [4] * 4], 32, 16, VOCABULARY)
    assert shapes[3:] == [(2, 32), (2, 32), (2, 32), (3, 20)]  # three were to find out that it may be done


def test_what_depends_on_its_neighbours_goes_alone() -> None:
    model, shapes = Tiny(), []

    def run(ids: Any) -> Any:
        shapes.append(tuple(ids.shape))
        logits = model(ids)
        scale = logits.abs().max() / 127  # of the whole batch
        return (logits / scale).round() * scale

    with torch.no_grad():
        texts = [[1, 2, 3, 4], [5, 6], [7, 8, 9]]
        together = likelihoods(run, texts, 32, 16, VOCABULARY)
        assert [rows for rows, _ in shapes[-3:]] == [1, 1, 1]
        assert together == [likelihoods(run, [text], 32, 16, VOCABULARY)[0] for text in texts]


def test_half_precision_may_round(monkeypatch: pytest.MonkeyPatch) -> None:
    model, shapes = Tiny().bfloat16(), []

    def run(ids: Any) -> Any:
        shapes.append(tuple(ids.shape))
        return model(ids)

    with torch.no_grad():
        found = likelihoods(run, [[1, 2, 3, 4], [5, 6, 7, 8]], 32, 16, VOCABULARY)
    assert shapes[-1] == (2, 4)
    assert all(math.isfinite(nll) and tokens == 3 for nll, tokens in found)
