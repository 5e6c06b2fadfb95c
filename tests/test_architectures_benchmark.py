"""What the benchmark of architectures counts as a refusal, and what as a failure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import architectures
from benchmarks.architectures import Tried
from mlflow_compress.errors import RecipeError, Unsupported, WeightsError, WorkerError
from mlflow_compress.measuring.model_trial import ModelError


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (RecipeError("its tokens attend to later tokens"), "refused"),
        (WeightsError("there is no tokenizer"), "refused"),
        (Unsupported("it has no cache"), "refused"),
        (WorkerError("the restored model does not generate what it generated before it was saved"), "failed"),
        (ValueError("shapes"), "failed"),
    ],
)
def test_outputs_that_differ_are_a_failure(
    error: Exception, outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def go(*_: object) -> None:
        raise error

    monkeypatch.setattr(architectures, "_go", go)
    assert architectures._tried_once("causal_lm", "own", tmp_path / "tried", "original")[0] == outcome


def test_a_model_that_the_trial_refused_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def go(*_: object) -> None:
        reason = RecipeError("it hears, this family reads")
        raise ModelError(reason, str(reason), "loading the model") from reason

    monkeypatch.setattr(architectures, "_go", go)
    outcome = architectures._tried_once("causal_lm", "own", tmp_path / "tried", "original")
    assert outcome == ("refused", "it hears, this family reads")


@pytest.mark.full
def test_what_took_too_long_is_tried_alone_and_not_called_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def some(cells: object, most: int, seconds: int) -> Iterator[Tried]:
        calls.append((cells, most, seconds))
        yield Tried("causal_lm", "zamba", "too slow")

    monkeypatch.setattr(architectures, "_import_all", lambda: None)
    monkeypatch.setattr(architectures, "_some_at_once", some)
    assert [trial.outcome for trial in architectures._all([("causal_lm", "zamba")])] == ["too slow"]
    assert calls[1] == ([("causal_lm", "zamba")], 1, 900)


def test_the_page_lists_what_works_and_each_reason_once() -> None:
    refused = "can't be measured here: it needs a bbox"
    page = architectures.page(
        [
            Tried("causal_lm", "gpt2", "works", method="ok", when="2026-01-02 10:00"),
            Tried("causal_lm", "llama", "works", method="skipped: nothing"),
            Tried("causal_lm", "one", "refused", f"OneForCausalLM {refused}"),
            Tried("causal_lm", "two", "refused", f"TwoForCausalLM {refused}"),
            Tried("causal_lm", "three", "not built", "ImportError: ThreeModel requires the timm library but"),
        ]
    )
    lines = page.splitlines()
    assert "Works (2): `gpt2`, `llama`." in lines
    assert f"* `one`, `two`: It {refused}" in lines
    assert "* `three`: transformers requires timm, which is not installed here" in lines
    assert "* `llama`: skipped: nothing" in lines
