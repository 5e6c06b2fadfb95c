"""What the timed calls cost the machine, and who got in their way.

Covers: CPU time of all threads, involuntary context switches, page faults, pages swapped in, thermal throttling of the
cores, and stops for more time than a container allows, between two moments; the clock at one moment.
Does not cover: what other processes did; what a hypervisor took away.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from mlflow_compress.meters import cgroup


@dataclass(frozen=True)
class Usage:
    """What was used between two moments.

    Attributes:
        wall_s: seconds that passed.
        cpu_s: CPU seconds of all threads of this process, user and system.
        switches: involuntary context switches: how often another thread was put in the place of one of ours.
        minor_faults: page faults served without the disk: memory handed out anew.
        major_faults: page faults served from the disk: swapped out, or read from a file.
        throttled: how often a core was slowed down because it was hot; 0 where the kernel does not tell.
        stopped: in how many periods, mostly of 0.1 s, all threads were stopped, as a container's time was used up.
    """

    wall_s: float
    cpu_s: float
    switches: int
    minor_faults: int
    major_faults: int
    throttled: int
    stopped: int = 0

    def __sub__(self, earlier: Usage) -> Usage:
        """Return what was used since an earlier moment."""
        return Usage(
            self.wall_s - earlier.wall_s,
            self.cpu_s - earlier.cpu_s,
            self.switches - earlier.switches,
            self.minor_faults - earlier.minor_faults,
            self.major_faults - earlier.major_faults,
            self.throttled - earlier.throttled,
            self.stopped - earlier.stopped,
        )


def now(root: Path = Path("/")) -> Usage:
    """Read all counters; the difference of two readings is what was used between them.

    Args:
        root: where `proc` and `sys` are; another folder in tests.
    """
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    counts = (root / "sys/devices/system/cpu").glob("cpu*/thermal_throttle/core_throttle_count")
    return Usage(
        wall_s=time.monotonic(),
        cpu_s=used.ru_utime + used.ru_stime,
        switches=used.ru_nivcsw,
        minor_faults=used.ru_minflt,
        major_faults=used.ru_majflt,
        throttled=sum(int(path.read_text()) for path in counts),
        stopped=cgroup.stopped(root),
    )


def clock_share(root: Path = Path("/")) -> float | None:
    """Return the fastest core's clock over the rated one; read it while the cores are still warm from work.

    Args:
        root: where `sys` is; another folder in tests.

    Returns:
        Above 1 when the clock is boosted; None where the kernel does not tell both.
    """
    policies = list((root / "sys/devices/system/cpu/cpufreq").glob("policy*"))
    shares = [
        int((policy / "scaling_cur_freq").read_text()) / int((policy / "base_frequency").read_text())
        for policy in policies
        if (policy / "scaling_cur_freq").is_file() and (policy / "base_frequency").is_file()
    ]
    return max(shares, default=None)


def numbers(used: Usage, calls: int, threads: int, group: str) -> dict[str, float]:
    """Return the metrics of so many timed calls.

    Args:
        used: what they used together.
        calls: how many there were.
        threads: threads that the library may use.
        group: `cpu` or `gpu`.
    """
    return {
        f"{group}/context_switches_per_call": used.switches / calls,
        f"{group}/page_faults_per_call": used.minor_faults / calls,
        f"{group}/cpu_time_share": used.cpu_s / (used.wall_s * threads),
    }
