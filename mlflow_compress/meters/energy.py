"""How much energy one sample takes, through codecarbon.

Covers: the CPU package, from its own counters (RAPL) or else from its rated power and its load, in a GPU's run too; the
one NVIDIA GPU that was measured, from its own counter (NVML). All that they do meanwhile is in it, idling included.
Does not cover: memory, disks, power supply, cooling: what codecarbon says of these is a constant, not a measurement.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_JOULES_PER_KWH = 3.6e6
_READ_EVERY_SECONDS = 1
_SHORTEST_WINDOW_SECONDS = 3.0  # some readings at least
_COUNTERS = {"intel_rapl", "windows_emi", "intel_power_gadget"}


@dataclass(frozen=True)
class Energy:
    """What a window of calls took.

    Attributes:
        window_s: how long it lasted, seconds.
        calls: how many calls it held.
        cpu_j: energy of the CPU, joules.
        gpu_j: energy of the GPU that the calls ran on, joules; 0 without one.
        is_counted: whether `cpu_j` comes from counters rather than from the rated power.
    """

    window_s: float
    calls: int
    cpu_j: float
    gpu_j: float
    is_counted: bool


def measure(
    call: Callable[[], object], synchronise: Callable[[], object], seconds: float, gpu_index: int | None = None
) -> Energy:
    """Call again and again for so many seconds under codecarbon's eyes.

    Args:
        call: makes one call.
        synchronise: waits until the device has done all calls.
        seconds: length of the window; the last call may exceed it.
        gpu_index: the driver's number of the GPU that the calls run on; None: on none. Others' energy is not theirs.
    """
    from codecarbon import OfflineEmissionsTracker

    tracker = OfflineEmissionsTracker(
        country_iso_code="USA",  # it wants one for its emissions, which we don't use
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
    )


def numbers(energy: Energy, group: str, batch_size: int) -> dict[str, float]:
    """Return the metrics of a window; none when it was too short to say anything.

    A number from counters is `energy_per_item_j`, one from the CPU's rated power `energy_per_item_estimated_j`. Of a
    GPU's run these are the GPU's, and the CPU's share has a number of its own (`cpu_energy_per_item_j`).
    """
    if energy.window_s < _SHORTEST_WINDOW_SECONDS:
        return {}
    items = energy.calls * batch_size
    cpus = "energy_per_item_j" if energy.is_counted else "energy_per_item_estimated_j"
    taken = {f"cpu/{cpus}": energy.cpu_j}
    if group == "gpu":
        taken = {"gpu/energy_per_item_j": energy.gpu_j, f"gpu/cpu_{cpus}": energy.cpu_j}
    return {name: joules / items for name, joules in taken.items() if joules > 0}


def _counted(tracker: Any) -> bool:
    """Return whether codecarbon read counters. It has no public word for it; in doubt it is an estimate."""
    modes = {getattr(each, "_mode", None) for each in getattr(tracker, "_hardware", [])}
    return bool(modes & _COUNTERS)
