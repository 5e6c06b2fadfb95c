"""Measure the peak memory of the process, by phase.

Covers: resident memory of this process, including shared libraries and touched memory-mapped weights, at the peak of
each phase. On Linux this is the kernel's own high-water mark, reset between phases, so that short peaks are not missed.
The mark of macOS and Windows can't be reset: it is the peak of each phase in which it rises, so the highest peak is
exact; the other phases are sampled every 2 ms. Child processes that are alive when the phase ends are added with their
own marks (Linux only). On CUDA, libraries that cuBLAS and cuDNN load at their first call count as the model's: 200 to
400 MiB.
Does not cover: swapped-out pages, memory of the device (see `gpu`), and memory for scoring, the energy window and our
own statistics after the last phase: the final peak of the process is higher. The kernel counts pages per CPU and adds
them about 64 at a time: a mark may be some hundred KiB too low for each CPU. The marks of child processes are added
even if they are from different moments: the sum may be larger than the real peak.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import psutil

ELSEWHERE = "none: the model runs in a service"  # a source
_MIB = 2**20
_SAMPLING_SECONDS = 0.002


class _Mark(Protocol):
    source: str

    def reset(self) -> None: ...

    def peak_mib(self) -> float: ...


class MemoryMeter:
    """Measures the process's resident memory in named phases.

    Attributes:
        source: Source of the peaks: `kernel`, `kernel, never reset`, `kernel, and sampled every 2 ms`, or
            `sampled every 2 ms`.
        peaks_mib: Peak resident memory of each phase so far.
        baseline_mib: Resident memory after the first phase: the process with only its imports.
    """

    def __init__(self, proc: Path = Path("/proc/self")) -> None:
        self._mark: _Mark = _Kernel(proc) if _keeps_mark(proc) else _Sampler()
        self.source = self._mark.source
        self.peaks_mib: dict[str, float] = {}
        self.baseline_mib = 0.0

    def end_phase(self, name: str) -> None:
        """End the current phase under a name, and begin the next."""
        self.peaks_mib[name] = self._mark.peak_mib()
        self._mark.reset()
        if len(self.peaks_mib) == 1:
            self.baseline_mib = self._mark.peak_mib()

    def numbers(self, group: str) -> dict[str, float]:
        """Return the metrics in MiB: peak, baseline, the model's share, and the peak of each phase."""
        peak = max(self.peaks_mib.values())
        return {
            f"{group}/ram_peak_mib": peak,
            f"{group}/ram_baseline_mib": self.baseline_mib,
            f"{group}/ram_model_mib": peak - self.baseline_mib,
            **{f"{group}/ram_peak_{name}_mib": value for name, value in self.peaks_mib.items()},
        }


def _keeps_mark(proc: Path) -> bool:
    status = proc / "status"
    return status.exists() and "VmHWM:" in status.read_text()


class _Kernel:
    """The kernel's high-water mark, VmHWM. Source: proc(5), /proc/pid/clear_refs."""

    def __init__(self, proc: Path) -> None:
        self._proc = proc
        self.source = "kernel"
        self.reset()

    def reset(self) -> None:
        for process in self._processes():
            try:
                (process / "clear_refs").write_text("5")
            except OSError:  # some sandboxes forbid it: then a phase's peak includes all earlier phases
                if process == self._proc:
                    self.source = "kernel, never reset"

    def peak_mib(self) -> float:
        return sum(_high_water_mib(process) for process in self._processes())

    def _processes(self) -> list[Path]:
        """Return this process and its running descendants, as folders of `/proc`."""
        processes, waiting = [], [self._proc]
        while waiting:
            process = waiting.pop()
            processes.append(process)
            for children in process.glob("task/*/children"):
                with contextlib.suppress(OSError):
                    waiting += [self._proc.parent / pid for pid in children.read_text().split()]
        return processes


def _high_water_mib(process: Path) -> float:
    """Return a process's VmHWM; 0 for a process that has ended, or a kernel thread."""
    try:
        status = (process / "status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0.0)


class _Sampler:
    """The maximum of many samples, and of the kernel's mark if it rose, for systems whose mark can't be reset."""

    def __init__(self) -> None:
        import psutil

        self._process = psutil.Process()
        self._highest = 0
        self._mark_before = 0
        sampled = f"sampled every {_SAMPLING_SECONDS * 1000:.0f} ms"
        self.source = f"kernel, and {sampled}" if _lifetime_peak(self._process) else sampled
        threading.Thread(target=self._sample, daemon=True).start()

    def _sample(self) -> None:
        pause = threading.Event()
        while True:
            self._highest = max(self._highest, self._process.memory_info().rss)
            pause.wait(_SAMPLING_SECONDS)

    def reset(self) -> None:
        self._mark_before = _lifetime_peak(self._process)
        self._highest = self._process.memory_info().rss

    def peak_mib(self) -> float:
        mark = _lifetime_peak(self._process)
        in_this_phase = mark if mark > self._mark_before else 0
        return max(self._highest, self._process.memory_info().rss, in_this_phase) / _MIB


def _lifetime_peak(process: psutil.Process) -> int:
    """Return the highest resident memory of this process's life, in bytes; 0 if the system does not report it."""
    if sys.platform == "win32":
        return int(process.memory_info().peak_wset)
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes there, in KiB on other systems
    return 0
