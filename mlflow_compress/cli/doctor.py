"""`doctor`: check the machine before anything is measured, and say how to fix its problems."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlflow_compress import user_home
from mlflow_compress.cache_folders import cache_folder
from mlflow_compress.errors import StoreError
from mlflow_compress.measuring import checks
from mlflow_compress.meters import accelerators, cgroup, environment, gpu, processor
from mlflow_compress.networks import hub
from mlflow_compress.planning import tested_versions
from mlflow_compress.tracking import connection

_GIB = 2**30
_LEAST_FREE_DISK = 10 * _GIB  # a model takes up to three times its size: saved, copied for logging, logged
_LEAST_FREE_RAM = 2 * _GIB
_MUCH_SWAP = 2**28
_ENERGY_ADVICE = {
    "darwin": "powermetrics needs sudo without a password, and its values are estimates, too.",
    "win32": "Windows 11 has energy meters (EMI) on some machines, not in virtual ones.",
}


@dataclass(frozen=True)
class Finding:
    """The result of one check of the machine.

    Attributes:
        subject: What was checked.
        is_well: Whether it is as it should be.
        message: What was found.
        advice: What to do about it; empty if all is well.
    """

    subject: str
    is_well: bool
    message: str
    advice: str = ""


def examine(root: Path = Path("/")) -> Iterator[Finding]:
    """Yield the findings of all checks, one after the other.

    Args:
        root: Folder with `proc` and `sys`; another one in tests.
    """
    yield from _cores(root)
    yield from _memory(root)
    yield from _energy(root)
    yield from _gpu()
    yield from _disk()
    yield _home()
    yield from _versions()
    yield from _network()


def _cores(root: Path) -> Iterator[Finding]:
    import psutil

    facts = environment.machine(root)
    allowed = len(processor.allowed_cores() or ()) or os.cpu_count() or 1
    cpu = f"{facts['cpu_model']}, {facts['cores_physical']} cores, {allowed} threads usable"
    cores, threads = environment.cores(root), environment.most_threads(root)
    if cores < allowed:
        advice = f"Keep --threads at {threads} (the default here): the system would repeatedly pause more threads."
        yield Finding("cores", False, f"{cpu}, but their time is limited to that of {cores:g} cores", advice)
    else:
        yield Finding("cores", True, cpu)
    busy = checks.busy(share := environment.busy_share())
    yield Finding("load", not busy, f"other programs use {share:.0%} of the cores", busy[0].advice if busy else "")
    governor = facts.get("governor")
    if governor is not None and governor != "performance":
        advice = "sudo cpupower frequency-set -g performance: otherwise the clock speed changes while you measure."
        yield Finding("clock", False, f"the frequency governor is {governor}", advice)
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    if battery is not None and not battery.power_plugged:
        advice = "Plug it in: most machines are slower on battery."
        yield Finding("power", False, "the machine runs on its battery", advice)
    if emulated := environment.emulated(root):
        names = ", ".join(emulated)
        advice = f"Latencies in {names} here say nothing about machines with such instructions."
        yield Finding("precisions", False, f"the CPU has no instructions for {names} and emulates them slowly", advice)


def _memory(root: Path) -> Iterator[Finding]:
    import psutil

    free, swapped = psutil.virtual_memory().available, psutil.swap_memory().used
    limit, left = cgroup.memory_limit(root), cgroup.memory_left(root)
    limited = ""
    if limit is not None and left is not None and left < free:
        free, limited = left, f" of the {limit / _GIB:.1f} GB that a container or a batch system allows"
    advice = "Close other programs: a model that is swapped out runs many times slower."
    is_well = free >= _LEAST_FREE_RAM and swapped < _MUCH_SWAP
    message = f"{free / _GIB:.1f} GB free{limited}, {swapped / _GIB:.1f} GB swapped out"
    if limited and free < _LEAST_FREE_RAM:
        advice = "Give the container or the job more memory: a process that exceeds the limit is killed."
    yield Finding("memory", is_well, message, "" if is_well else advice)
    mark = root / "proc/self/clear_refs"
    if os.access(mark, os.W_OK):
        yield Finding("memory peaks", True, "the kernel's high-water mark is read and reset for each phase")
    elif mark.exists():
        advice = "The peak of a phase will include all phases before it."
        yield Finding("memory peaks", False, "the kernel's high-water mark can't be reset", advice)
    elif sys.platform in ("darwin", "win32"):
        message = "the highest peak is the kernel's mark; the peaks of single phases are sampled every 2 ms"
        yield Finding("memory peaks", True, message)
    else:
        advice = "Memory is sampled every 2 ms; short peaks can be missed."
        yield Finding("memory peaks", False, "the kernel has no high-water mark", advice)


def _energy(root: Path) -> Iterator[Finding]:
    counters = [
        path for path in (root / "sys/class/powercap").glob("intel-rapl:*/energy_uj") if os.access(path, os.R_OK)
    ]
    if counters:
        yield Finding("energy", True, "the CPU's counters (RAPL) can be read")
    else:
        other = "On Linux with RAPL: sudo chmod -R a+r /sys/class/powercap/intel-rapl*"
        advice = f"Energy will be estimated. {_ENERGY_ADVICE.get(sys.platform, other)}"
        yield Finding("energy", False, "no readable counters (RAPL)", advice)


def _gpu() -> Iterator[Finding]:
    visible = accelerators.visible()
    if gpu.present() and sys.platform != "darwin" and (kind := accelerators.installed_kind()) in ("cpu", "xpu"):
        message = f"NVIDIA, driver {gpu.driver_version()}, but torch is built without CUDA ({kind})"
        yield Finding("GPU", False, message, "Install a torch built for CUDA: the GPU is not measured with this one.")
    elif gpu.present():
        yield Finding("GPU", True, f"NVIDIA, driver {gpu.driver_version()}")
    elif visible:
        yield Finding("GPU", True, f"{visible[0].name}: --device {visible[0].device}")
    else:
        yield Finding("GPU", True, "no GPU of NVIDIA, Apple or Intel that this torch can use: only the CPU is measured")


def _disk() -> Iterator[Finding]:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    is_well = free >= _LEAST_FREE_DISK
    advice = "" if is_well else "Free some space, or set TMPDIR to a larger disk: models are saved there."
    yield Finding("disk", is_well, f"{free / _GIB:.0f} GB free in {folder}", advice)


def _home() -> Finding:
    problem = user_home.settle()
    if not problem:
        return Finding("home", True, f"caches and unsent results are kept in {cache_folder('spool').parent}")
    advice = "Set HOME to a permanent, writable folder: temporary folders are deleted, and unsent results with them."
    return Finding("home", False, problem, advice)


def _versions() -> Iterator[Finding]:
    untested = list(tested_versions.untested())
    if not untested:
        yield Finding("versions", True, "all installed libraries have tested versions")
    else:
        advice = 'Install tested versions: pip install -c constraints/newest.txt ".[methods]"'
        yield Finding("versions", False, f"not tested with {', '.join(map(str, untested))}", advice)


def _network() -> Iterator[Finding]:
    obstacle = hub.unreachable()
    advice = "" if obstacle is None else "Weights must be in the cache or local; otherwise random ones are used."
    yield Finding("weights", obstacle is None, obstacle or "the Hugging Face hub answers", advice)
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    try:
        connection.probe()
        yield Finding(
            "tracking", True, connection.without_secrets(uri) if uri else "no server is set: mlflow.db in this folder"
        )
    except StoreError as error:
        yield Finding("tracking", False, str(error), "Start the server, or set MLFLOW_TRACKING_URI.")
