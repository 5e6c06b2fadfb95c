"""Judges what the meters saw: each check is a caution that says what is wrong and what to do about it.

The meters measure and this file judges, so that a threshold can be argued about in one place.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

from mlflow_compress.meters.energy import Energy
from mlflow_compress.meters.latency import Timing
from mlflow_compress.meters.usage import Usage
from mlflow_compress.percentiles import MLPERF_COUNTS, carries, interval, percentile
from mlflow_compress.records import Caution

_NOISY_SPREAD = 0.10  # of the median, between the quartiles
_DRIFT = 0.05
_BUSY_SHARE = 0.15  # of all cores, before measuring
_BUSY_GPU_SHARE = 0.05
_SWITCHES_PER_SECOND = 60  # of wall time, each thread: 31 were seen on a quiet machine, 96 beside a busy process
_IDLE_SHARE = 0.8  # of wall time times threads, below which our threads waited for something
_FAULT_SECONDS = 1e-6  # to hand out a page of 4 KiB and clear it: half of that on bare metal, 2.4 seen on a virtual one
_FAULT_SHARE = 0.10
_SLOW_CLOCK = 0.95
_TINY_SAMPLE = 100
_MANY = 10  # from where a decimal says nothing


def timing(seen: Timing, group: str) -> list[Caution]:
    """Judge latency samples: too few, not settled, spread out, drifting."""
    return [*_few(seen.wall_ms, group), *_unsettled(seen, group), *_spread(seen.wall_ms, group), *_drift(seen, group)]


def usage(used: Usage, calls: int, threads: int, group: str) -> list[Caution]:
    """Judge what the timed calls cost: interference, allocation, swapping, throttling.

    Args:
        used: what the calls used together.
        calls: how many calls there were.
        threads: threads that the library may use.
        group: `cpu` or `gpu`.
    """
    found = []
    per_second = used.switches / used.wall_s / threads
    share = used.cpu_s / (used.wall_s * threads)
    often = used.switches / calls
    digits = 0 if often >= _MANY else 1
    if group == "cpu" and per_second > _SWITCHES_PER_SECOND and share < _IDLE_SHARE:
        found.append(
            Caution(
                "interference",
                f"cpu: other programs took the cores away {often:.{digits}f} times in each call, and "
                f"the threads ran {share:.0%} of the time",
                "Close other programs, or leave them a core: --threads 1. Threads that wait for others suffer most.",
            )
        )
    if used.minor_faults * _FAULT_SECONDS > _FAULT_SHARE * used.wall_s:
        found.append(
            Caution(
                "page_faults",
                f"{group}: each call gets {used.minor_faults / calls:.0f} pages of memory anew from the kernel, which "
                "takes more than a tenth of its time",
                "Try an allocator that keeps memory: LD_PRELOAD of jemalloc or tcmalloc.",
            )
        )
    if used.major_faults > calls:
        found.append(
            Caution(
                "swapping",
                f"{group}: each call read {used.major_faults / calls:.0f} pages from the disk",
                "The machine has too little free memory: close other programs, or take a smaller batch.",
            )
        )
    if used.throttled:
        found.append(
            Caution(
                "throttled",
                f"{group}: the cores were slowed down {used.throttled} times because they were hot",
                "Let the machine cool down, put it on mains power, and measure again.",
            )
        )
    return found


def clock(share: float | None = None, gpu_reason: str = "") -> list[Caution]:
    """Judge the clocks right after the timed calls.

    Args:
        share: the fastest core's clock over the rated one; None where the kernel does not tell.
        gpu_reason: why the GPU's clock is slowed down; empty when it is not.
    """
    found = []
    if share is not None and share < _SLOW_CLOCK:
        what = f"cpu: after the calls the fastest core ran at {share:.0%} of its rated clock"
        advice = "Plug the machine in, set the frequency governor to performance, and measure again."
        found.append(Caution("slow_clock", what, advice))
    if gpu_reason:
        what = f"gpu: the driver slowed the clock down: {gpu_reason}"
        found.append(Caution("throttled", what, "Let the GPU cool down, raise its power limit, and measure again."))
    return found


def busy(cpu_share: float, gpu_share: float = 0.0) -> list[Caution]:
    """Judge how busy others kept the machine before measuring began.

    Args:
        cpu_share: share of all cores, 0 to 1.
        gpu_share: share of the GPU's time, 0 to 1.
    """
    found = []
    if cpu_share > _BUSY_SHARE:
        what = f"other programs kept {cpu_share:.0%} of the cores busy before measuring began"
        found.append(Caution("busy_machine", what, "Close other programs and measure again."))
    if gpu_share > _BUSY_GPU_SHARE:
        what = f"other programs kept the GPU busy for {gpu_share:.0%} of the time before measuring began"
        found.append(Caution("busy_gpu", what, "Wait for them to end (nvidia-smi shows them) and measure again."))
    return found


def threads(used: int) -> list[Caution]:
    """Judge the number of threads against the cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if used <= cores:
        return []
    what = f"{used} threads share {cores} cores"
    return [Caution("oversubscribed", what, f"Set --threads to {cores} or less.")]


def precision(dtypes: Collection[str], emulated: Collection[str]) -> list[Caution]:
    """Judge the types of the weights against the precisions that this CPU has no instructions for."""
    return [
        Caution(
            "emulated_precision",
            f"this CPU has no {name} instructions: it emulates them, slower than float32",
            "Time this method on a GPU, or on a CPU that has them.",
        )
        for name in emulated
        if f"torch.{name}" in dtypes
    ]


def energy(seen: Energy) -> list[Caution]:
    """Judge whether the energy was counted."""
    if seen.is_counted or seen.cpu_j <= 0:
        return []
    what = "the CPU's energy is estimated from its rated power and its load, not counted"
    return [Caution("energy_estimated", what, "Compare it within one machine only; RAPL counters need read access.")]


def quality(samples: int) -> list[Caution]:
    """Judge the number of scored samples."""
    if samples >= _TINY_SAMPLE:
        return []
    what = f"quality was scored on {samples} samples only"
    return [Caution("tiny_quality_sample", what, "A difference of some points is noise: score more samples.")]


def _few(wall: Sequence[float], group: str) -> list[Caution]:
    for rank, least in MLPERF_COUNTS.items():
        if carries(len(wall), rank) and len(wall) < least:
            what = f"{group}: p{rank} stands on {len(wall)} calls, MLPerf asks for {least}"
            return [Caution("few_samples", what, f"Ask for more: --iterations {least}.")]
    if not carries(len(wall), min(MLPERF_COUNTS)):
        what = f"{group}: {len(wall)} calls fitted into the time, too few for a percentile above the median"
        return [Caution("few_samples", what, "Allow more time: --max-seconds.")]
    return []


def _unsettled(seen: Timing, group: str) -> list[Caution]:
    if seen.settled:
        return []
    what = f"{group}: the latency was not stable after {len(seen.warmup_ms)} calls of warm-up"
    return [Caution("not_settled", what, "Close other programs and measure again.")]


def _spread(wall: Sequence[float], group: str) -> list[Caution]:
    spread = (percentile(wall, 75) - percentile(wall, 25)) / percentile(wall, 50)
    if spread <= _NOISY_SPREAD:
        return []
    what = f"{group}: the middle half of the calls spreads over {spread:.0%} of the median"
    return [Caution("unstable", what, "Close other programs, or set --threads 1, and measure again.")]


def _drift(seen: Timing, group: str) -> list[Caution]:
    """Compare the first half of the calls with the second: their medians' 95 % intervals lie apart."""
    half = len(seen.wall_ms) // 2
    first, second = seen.wall_ms[:half], seen.wall_ms[half:]
    bounds, later = interval(first, 50), interval(second, 50)
    if bounds is None or later is None or (bounds[0] <= later[1] and later[0] <= bounds[1]):
        return []
    change = percentile(second, 50) / percentile(first, 50) - 1
    if abs(change) <= _DRIFT:
        return []
    what = f"{group}: the second half of the calls took {abs(change):.0%} {'more' if change > 0 else 'less'} time"
    return [Caution("drift", what, "The machine warms up, throttles, or others work on it: measure again.")]
