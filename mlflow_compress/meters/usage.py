"""Measure the resources of the timed calls, and what disturbed them.

Covers: CPU time of all threads, involuntary context switches, page faults, pages swapped in, thermal throttling of the
cores, and pauses by a container's CPU limit, between two moments; the clock at one moment.
Does not cover: the work of other processes; CPU time taken by a hypervisor; on Windows, switches and page faults.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from mlflow_compress.meters import cgroup


@dataclass(frozen=True)
class Usage:
    """Resources used between two moments.

    Attributes:
        wall_s: Elapsed seconds.
        cpu_s: CPU seconds of all threads of this process, user and system.
        switches: Involuntary context switches: how often another thread replaced one of ours; None if unknown.
        minor_faults: Page faults without the disk: newly allocated memory; None if unknown.
        major_faults: Page faults with the disk: swapped out, or read from a file; None if unknown.
        throttled: How often a core was slowed down because of heat; 0 if the kernel does not report it.
        stopped: Number of periods, usually of 0.1 s, in which all threads were paused by a container's CPU limit.
    """

    wall_s: float
    cpu_s: float
    switches: int | None
    minor_faults: int | None
    major_faults: int | None
    throttled: int
    stopped: int = 0

    def __sub__(self, earlier: Usage) -> Usage:
        """Return the resources used since an earlier moment."""
        return Usage(
            self.wall_s - earlier.wall_s,
            self.cpu_s - earlier.cpu_s,
            _more(self.switches, earlier.switches),
            _more(self.minor_faults, earlier.minor_faults),
            _more(self.major_faults, earlier.major_faults),
            self.throttled - earlier.throttled,
            self.stopped - earlier.stopped,
        )


def now(root: Path = Path("/")) -> Usage:
    """Read all counters; the difference of two readings is the usage between them.

    Args:
        root: Folder with `proc` and `sys`; another one in tests.
    """
    cpu_s, switches, minor_faults, major_faults = _of_this_process()
    counts = (root / "sys/devices/system/cpu").glob("cpu*/thermal_throttle/core_throttle_count")
    return Usage(
        wall_s=time.monotonic(),
        cpu_s=cpu_s,
        switches=switches,
        minor_faults=minor_faults,
        major_faults=major_faults,
        throttled=sum(int(path.read_text()) for path in counts),
        stopped=cgroup.stopped(root),
    )


def _of_this_process() -> tuple[float, int | None, int | None, int | None]:
    """Return CPU seconds, involuntary switches, and page faults without and with the disk, since the process began."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        times = psutil.Process().cpu_times()
        return times.user + times.system, None, None, None
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime, used.ru_nivcsw, used.ru_minflt, used.ru_majflt


def _more(now: int | None, earlier: int | None) -> int | None:
    return None if now is None or earlier is None else now - earlier


def clock_share(root: Path = Path("/")) -> float | None:
    """Return the clock of the fastest core relative to the rated clock. Call it right after the timed work.

    Args:
        root: Folder with `sys`; another one in tests.

    Returns:
        Above 1 if the clock is boosted; None if the kernel does not report both.
    """
    policies = list((root / "sys/devices/system/cpu/cpufreq").glob("policy*"))
    shares = [
        int((policy / "scaling_cur_freq").read_text()) / int((policy / "base_frequency").read_text())
        for policy in policies
        if (policy / "scaling_cur_freq").is_file() and (policy / "base_frequency").is_file()
    ]
    return max(shares, default=None)


def numbers(used: Usage, calls: int, threads: int, group: str) -> dict[str, float]:
    """Return the metrics of the timed calls; what the system does not report is absent.

    Args:
        used: Resources of all calls together.
        calls: Number of calls.
        threads: Number of threads that the library may use.
        group: `cpu` or `gpu`.
    """
    counts = {"context_switches_per_call": used.switches, "page_faults_per_call": used.minor_faults}
    return {
        **{f"{group}/{name}": count / calls for name, count in counts.items() if count is not None},
        f"{group}/cpu_time_share": used.cpu_s / (used.wall_s * threads),
    }
