"""Energy under its right name, or not at all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import codecarbon
import pytest

from mlflow_compress.meters import energy
from mlflow_compress.meters.energy import Energy


@pytest.mark.parametrize(
    ("taken", "group", "found"),
    [
        (Energy(5, 10, 30.0, 0.0, True), "cpu", {"cpu/energy_per_item_j": 1.5}),
        (Energy(5, 10, 30.0, 0.0, False), "cpu", {"cpu/energy_per_item_estimated_j": 1.5}),
        (
            Energy(5, 10, 30.0, 80.0, False),
            "gpu",
            {"gpu/energy_per_item_j": 4.0, "gpu/cpu_energy_per_item_estimated_j": 1.5},
        ),
        (Energy(5, 10, 30.0, 0.0, True), "gpu", {"gpu/cpu_energy_per_item_j": 1.5}),  # the GPU has no counter
        (Energy(2.9, 10, 30.0, 80.0, True), "cpu", {}),  # too short to say
        (Energy(5, 10, 0.0, 0.0, False), "cpu", {}),
    ],
)
def test_names(taken: Energy, group: str, found: dict[str, float]) -> None:
    assert energy.numbers(taken, group, 2) == found


def test_a_real_window() -> None:
    calls: list[int] = []
    waited: list[Any] = []
    taken = energy.measure(lambda: calls.append(sum(range(20_000))), lambda: waited.append(len(calls)), 1.2)
    assert taken.window_s >= 1.2
    assert taken.calls == len(calls) == waited[0]
    assert taken.cpu_j > 0  # counted or estimated: there is a CPU


@pytest.mark.parametrize(("index", "asked"), [(3, [3]), (None, [])])
def test_only_the_gpu_that_was_measured_counts(
    monkeypatch: pytest.MonkeyPatch, index: int | None, asked: list[int]
) -> None:
    """Of eight GPUs seven idle: their energy is nobody's."""
    given: dict[str, Any] = {}

    class Tracker:
        final_emissions_data = SimpleNamespace(cpu_energy=1e-6, gpu_energy=2e-6)

        def __init__(self, **options: Any) -> None:
            given.update(options)

        def start(self) -> None: ...

        def stop(self) -> None: ...

    monkeypatch.setattr(codecarbon, "OfflineEmissionsTracker", Tracker)
    taken = energy.measure(lambda: None, lambda: None, 0.0, index)
    assert given["gpu_ids"] == asked
    assert taken.cpu_j == pytest.approx(3.6)
    assert taken.gpu_j == pytest.approx(7.2)
