"""Energy has the name of its source, or is left out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import codecarbon
import pytest

from mlflow_compress.meters import energy
from mlflow_compress.meters.energy import Energy


@pytest.mark.parametrize(
    ("window", "group", "metrics"),
    [
        (Energy(5, 10, 30.0, 0.0, True), "cpu", {"cpu/energy_per_item_j": 1.5}),
        (Energy(5, 10, 30.0, 0.0, False), "cpu", {"cpu/energy_per_item_estimated_j": 1.5}),
        (
            Energy(5, 10, 30.0, 80.0, False),
            "gpu",
            {"gpu/energy_per_item_j": 4.0, "gpu/cpu_energy_per_item_estimated_j": 1.5},
        ),
        (Energy(5, 10, 30.0, 0.0, True), "gpu", {"gpu/cpu_energy_per_item_j": 1.5}),  # the GPU has no counter
        (Energy(2.9, 10, 30.0, 80.0, True), "cpu", {}),  # too short
        (Energy(5, 10, 0.0, 0.0, False), "cpu", {}),
    ],
)
def test_names(window: Energy, group: str, metrics: dict[str, float]) -> None:
    assert energy.numbers(window, group, 2) == metrics


def test_a_real_window() -> None:
    calls: list[int] = []
    waited: list[Any] = []
    window = energy.measure(lambda: calls.append(sum(range(20_000))), lambda: waited.append(len(calls)), 1.2)
    assert window.window_s >= 1.2
    assert window.calls == len(calls) == waited[0]
    assert window.cpu_j > 0  # counted or estimated: there is a CPU


@pytest.mark.parametrize(("index", "gpu_ids"), [(3, [3]), (None, [])])
def test_only_the_gpu_that_was_measured_counts(
    monkeypatch: pytest.MonkeyPatch, index: int | None, gpu_ids: list[int]
) -> None:
    """The energy of the other, idle GPUs is not counted."""
    tracker_options: dict[str, Any] = {}

    class Tracker:
        final_emissions_data = SimpleNamespace(cpu_energy=1e-6, gpu_energy=2e-6)

        def __init__(self, **options: Any) -> None:
            tracker_options.update(options)

        def start(self) -> None: ...

        def stop(self) -> None: ...

    monkeypatch.setattr(codecarbon, "OfflineEmissionsTracker", Tracker)
    window = energy.measure(lambda: None, lambda: None, 0.0, index)
    assert tracker_options["gpu_ids"] == gpu_ids
    assert window.cpu_j == pytest.approx(3.6)
    assert window.gpu_j == pytest.approx(7.2)
