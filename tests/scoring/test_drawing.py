from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlflow_compress import registry
from mlflow_compress.scoring import bootstrap, drawing


@pytest.mark.parametrize(
    "table",
    [
        np.random.default_rng(1).integers(-3, 4, (400, 2)),  # counts with few distinct rows
        np.random.default_rng(1).integers(0, 10**6, (400, 2)),  # counts with many distinct rows
        np.random.default_rng(1).normal(size=(400, 2)),
        np.random.default_rng(1).integers(0, 2, (400, 1)) * 1e15,  # sums too large to be exact
        np.repeat(np.random.default_rng(1).normal(size=(4, 2)), 100, axis=0),
    ],
)
def test_the_drawn_samples_are_summed_up_one_way_or_another(table: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    table = table.astype(np.float64)
    expected = table[np.random.default_rng(7).integers(0, 400, (drawing.RESAMPLES, 400))].sum(axis=1)
    np.testing.assert_allclose(drawing.drawn_sums([table], 7)[0], expected, rtol=1e-12, atol=1e-9)
    monkeypatch.setattr(drawing, "_AT_ONCE", 3 * 400)
    np.testing.assert_allclose(drawing.drawn_sums([table], 7)[0], expected, rtol=1e-12, atol=1e-9)


def test_rows_that_only_have_the_same_key_are_distinguished(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ones:
        def integers(self, low: int, high: int, count: int, dtype: Any) -> Any:
            return np.ones(count, dtype)

    table = np.array([[1.0, 2.0], [2.0, 1.0]] * 100)
    assert len(drawing._kinds(table)[0]) == 2  # type: ignore[index]
    monkeypatch.setattr(np.random, "default_rng", lambda seed: Ones())
    assert drawing._kinds(table) is None


@pytest.mark.full
@pytest.mark.parametrize("samples", [1_000, 100_000])
def test_all_metrics_share_one_drawing_in_bounded_memory(monkeypatch: pytest.MonkeyPatch, samples: int) -> None:
    sizes: list[int] = []
    reports: list[tuple[int, int | None]] = []
    drawings = drawing.drawings

    def watched(count: int, seed: int) -> Any:
        for draw in drawings(count, seed):
            sizes.append(draw.samples.size)
            yield draw

    monkeypatch.setattr(drawing, "RESAMPLES", 20)
    monkeypatch.setattr(drawing, "_AT_ONCE", 200_000)
    monkeypatch.setattr(drawing, "drawings", watched)
    right = np.random.default_rng(0).random(samples) < 0.7
    bootstrap.score(
        {name: registry.build("metrics", name) for name in ("accuracy", "f1", "recall")},
        [1] * samples,
        right.astype(int).tolist(),
        0,
        lambda done, total, left: reports.append((done, total)),
    )
    assert sum(sizes) == 20 * samples
    assert max(sizes) <= 200_000
    assert reports[-1] == (20, 20)
