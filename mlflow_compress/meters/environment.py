"""On what machine, with which libraries, and under what load the numbers came about.

Covers: CPU, memory, operating system, GPU and driver, versions, threads, governor, load average.
Does not cover: what other tenants of a virtual machine do.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Collection
from importlib import metadata
from pathlib import Path

from mlflow_compress import __version__
from mlflow_compress.records import Caution

_LIBRARIES = ("torch", "transformers", "ultralytics", "mlflow", "numpy")
_NATIVE = {
    "bfloat16": {"avx512_bf16", "amx_bf16", "bf16"},
    "float16": {"avx512_fp16", "amx_fp16", "asimdhp"},
}
_LOOK_SECONDS = 0.5
_BUSY_SHARE = 0.15


def machine(root: Path = Path("/")) -> dict[str, str]:
    """Describe the machine and the libraries, as text by name.

    Args:
        root: where `proc` and `sys` are; another folder in tests.
    """
    import psutil

    found = {
        "version": __version__,
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "cpu_model": _cpu_model(root),
        "cores_physical": str(psutil.cpu_count(logical=False) or "unknown"),
        "cores_logical": str(psutil.cpu_count() or "unknown"),
        "ram_total_mib": str(psutil.virtual_memory().total // 2**20),
    }
    if hasattr(os, "sched_getaffinity"):
        found["affinity"] = ",".join(str(core) for core in sorted(os.sched_getaffinity(0)))
    governor = root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    if governor.is_file():
        found["governor"] = governor.read_text().strip()
    for library in _LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return found


def gpu(driver: str) -> dict[str, str]:
    """Describe the current CUDA device."""
    import torch

    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return {
        "gpu_model": properties.name,
        "gpu_memory_mib": str(properties.total_memory // 2**20),
        "gpu_capability": f"{properties.major}.{properties.minor}",
        "gpu_driver": driver,
        "cuda": str(torch.version.cuda),
    }


def load_average() -> str:
    """Give the load averages of the last 1, 5 and 15 minutes: runnable threads, all cores together."""
    import psutil

    return " ".join(f"{value:.2f}" for value in psutil.getloadavg())


def busy() -> list[Caution]:
    """Look for half a second, while we ourselves are idle, whether others keep the cores busy.

    The load average can't tell: our own preparing is in it.
    """
    import psutil

    share = psutil.cpu_percent(_LOOK_SECONDS) / 100
    if share <= _BUSY_SHARE:
        return []
    return [
        Caution(
            "busy_machine",
            f"other programs kept {share:.0%} of the cores busy before measuring began",
            "Close other programs and measure again.",
        )
    ]


def emulated(dtypes: Collection[str], root: Path = Path("/")) -> list[Caution]:
    """Warn of weights in a precision that the CPU has no instructions for: it is emulated, and slower than float32.

    Args:
        dtypes: torch's names of the weights' types.
        root: where `proc` is; another folder in tests.
    """
    info = root / "proc/cpuinfo"
    text = info.read_text() if info.is_file() else ""
    flags = set(text.partition("flags")[2].partition("\n")[0].split() or text.partition("Features")[2].split())
    return [
        Caution(
            "emulated_precision",
            f"this CPU has no {name} instructions: it emulates them, slower than float32",
            "Time this method on a GPU, or on a CPU that has them.",
        )
        for name, native in _NATIVE.items()
        if flags and f"torch.{name}" in dtypes and not native & flags
    ]


def _cpu_model(root: Path) -> str:
    info = root / "proc/cpuinfo"
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
