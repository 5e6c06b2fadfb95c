"""Measure the energy per sample with codecarbon.

Covers: the CPU package, from its own counters (RAPL) or else from its rated power and its load, also in a GPU run; the
measured NVIDIA GPU, from its own counter (NVML); CPU and GPU of Apple silicon, as far as powermetrics, which estimates
them, may run without a password. Everything that they do in that time is included, also idling.
Does not cover: memory, disks, power supply, cooling: codecarbon uses constants for these, not measurements.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_JOULES_PER_KWH = 3.6e6
_READ_EVERY_SECONDS = 1
_SHORTEST_WINDOW_SECONDS = 3.0  # enough for a few readings
_COUNTERS = {"intel_rapl", "windows_emi", "intel_power_gadget"}


@dataclass(frozen=True)
class Energy:
    """The energy of a window of calls.

    Attributes:
        window_s: Length of the window, seconds.
        calls: Number of calls in the window.
        cpu_j: Energy of the CPU, joules.
        gpu_j: Energy of the GPU that the calls ran on, joules; 0 without a GPU.
        is_counted: Whether `cpu_j` comes from counters, not from the rated power.
        is_gpu_counted: Whether `gpu_j` comes from the GPU's own counter; Apple's powermetrics estimates it.
    """

    window_s: float
    calls: int
    cpu_j: float
    gpu_j: float
    is_counted: bool
    is_gpu_counted: bool = True


def measure(
    call: Callable[[], object], synchronise: Callable[[], object], seconds: float, gpu_index: int | None = None
) -> Energy:
    """Repeat calls for a number of seconds while codecarbon measures.

    Args:
        call: Makes one call.
        synchronise: Waits until the device has finished all calls.
        seconds: Length of the window; the last call may exceed it.
        gpu_index: The driver's index of the GPU that the calls run on; None: no GPU. Other GPUs are not measured.
    """
    from codecarbon import OfflineEmissionsTracker

    tracker = OfflineEmissionsTracker(
        country_iso_code="USA",  # required for emissions, which we don't use
        measure_power_secs=_READ_EVERY_SECONDS,
        output_methods=[],
        allow_multiple_runs=True,
        log_level="error",
        tracking_mode="machine",
        gpu_ids=[] if gpu_index is None else [gpu_index],
    )
    logging.getLogger("codecarbon").setLevel(logging.ERROR)
    tracker.start()
    started, calls = time.monotonic(), 0
    while time.monotonic() - started < seconds:
        call()
        calls += 1
    synchronise()
    window = time.monotonic() - started
    tracker.stop()
    data: Any = tracker.final_emissions_data
    return Energy(
        window_s=window,
        calls=calls,
        cpu_j=data.cpu_energy * _JOULES_PER_KWH,
        gpu_j=data.gpu_energy * _JOULES_PER_KWH,
        is_counted=_counted(tracker),
        is_gpu_counted=gpu_index is not None,
    )


def numbers(energy: Energy, group: str, batch_size: int) -> dict[str, float]:
    """Return the metrics of a window; none if it was too short.

    A number from counters is `energy_per_item_j`, one from the CPU's rated power `energy_per_item_estimated_j`. In a
    GPU run these are the GPU's, and the CPU's share is a separate number (`cpu_energy_per_item_j`).
    """
    if energy.window_s < _SHORTEST_WINDOW_SECONDS:
        return {}
    items = energy.calls * batch_size
    cpu_name = "energy_per_item_j" if energy.is_counted else "energy_per_item_estimated_j"
    totals = {f"cpu/{cpu_name}": energy.cpu_j}
    if group == "gpu":
        gpu_name = "energy_per_item_j" if energy.is_gpu_counted else "energy_per_item_estimated_j"
        totals = {f"gpu/{gpu_name}": energy.gpu_j, f"gpu/cpu_{cpu_name}": energy.cpu_j}
    return {name: joules / items for name, joules in totals.items() if joules > 0}


def _counted(tracker: Any) -> bool:
    """Return whether codecarbon read counters. There is no public API for this; in doubt it is an estimate."""
    modes = {getattr(hardware, "_mode", None) for hardware in getattr(tracker, "_hardware", [])}
    return bool(modes & _COUNTERS)
