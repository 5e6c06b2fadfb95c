"""What the benchmark of architectures counts as a refusal, and what as a failure."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import architectures
from mlflow_compress.errors import RecipeError, Unsupported, WeightsError, WorkerError


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (RecipeError("its tokens see those behind them"), "refused"),
        (WeightsError("there is no tokenizer"), "refused"),
        (Unsupported("it has no cache"), "refused"),
        (WorkerError("the restored model generates something else than before it was saved"), "failed"),
        (ValueError("shapes"), "failed"),
    ],
)
def test_outputs_that_differ_are_a_failure(
    error: Exception, outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def go(*_: object) -> None:
        raise error

    monkeypatch.setattr(architectures, "_go", go)
    assert architectures._went("causal_lm", "own", tmp_path / "tried", "original")[0] == outcome
