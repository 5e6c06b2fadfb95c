"""On what machine, with which libraries, and under what load the numbers came about.

Covers: CPU, its instructions, memory, what a container may use of both, NUMA nodes, operating system, GPU, its driver
and power limit, versions, threads, governor, load average.
Does not cover: what other tenants of a virtual machine do.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
import sys
import time
from pathlib import Path

from mlflow_compress.meters import cgroup
from mlflow_compress.meters import gpu as driver
from mlflow_compress.version import __version__, installed

_LIBRARIES = ("torch", "transformers", "ultralytics", "mlflow", "numpy")
_NATIVE = {
    "bfloat16": {"avx512_bf16", "amx_bf16", "bf16"},
    "float16": {"avx512_fp16", "amx_fp16", "asimdhp"},
}
# What kernels for matrix products ask a CPU for, on x86 and on ARM: with other ones the same call is other work.
_MATRIX_FLAGS = (
    "avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16",
    "amx_fp16", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2", "sme",
)  # fmt: skip
_INT8_DOT_PRODUCTS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}
_LOOK_SECONDS = 0.5
_COMMAND_WORDS = 3  # `python -m module`


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
    memory, quota = cgroup.memory_limit(root), cgroup.core_limit(root)
    if memory is not None and memory < psutil.virtual_memory().total:
        found["ram_limit_mib"] = str(memory // 2**20)
    if quota is not None:
        found["cores_limit"] = f"{quota:g}"
    found["cores"] = f"{cores(root):g}"
    if flags := _flags(root):
        found["cpu_flags"] = " ".join(name for name in _MATRIX_FLAGS if name in flags) or "none"
    if hasattr(os, "sched_getaffinity"):
        found["affinity"] = ",".join(str(core) for core in sorted(os.sched_getaffinity(0)))
    if nodes := list((root / "sys/devices/system/node").glob("node[0-9]*")):
        found["numa_nodes"] = str(len(nodes))
    governor = root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    if governor.is_file():
        found["governor"] = governor.read_text().strip()
    for library in _LIBRARIES:
        if version := installed(library):
            found[library] = version
    return found


def cores(root: Path = Path("/")) -> float:
    """Return how many cores this process may use: those of its affinity, or the time of fewer that its group has.

    Args:
        root: where `proc` and `sys` are; another folder in tests.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(float(allowed), cgroup.core_limit(root) or float(allowed))


def most_threads(root: Path = Path("/")) -> int:
    """Return how many threads may run at once without being stopped for taking more time than is allowed.

    Args:
        root: where `proc` and `sys` are; another folder in tests.
    """
    return max(1, int(cores(root)))


def runtime(distribution: str) -> str:
    """Name an engine with its version: `onnxruntime 1.32.0`.

    Args:
        distribution: as `Model.runtime` names it. Where it was installed under another name (`onnxruntime-gpu`), the
            module that was imported says its version.
    """
    version = installed(distribution) or getattr(sys.modules.get(distribution), "__version__", "")
    return f"{distribution} {version}".strip()


def gpu() -> dict[str, str]:
    """Describe the current CUDA device, and what torch computes in TF32 there though its tensors are float32."""
    import torch

    backends = torch.backends
    in_tf32 = {"convolutions": backends.cudnn.allow_tf32, "matmul": backends.cuda.matmul.allow_tf32}
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    limit = driver.power_limit_w()
    return {
        "gpu_model": properties.name,
        "gpu_memory_mib": str(properties.total_memory // 2**20),
        "gpu_capability": f"{properties.major}.{properties.minor}",
        "gpu_driver": driver.driver_version(),
        **({} if limit is None else {"gpu_power_limit_w": f"{limit:.0f}"}),
        "gpu_tf32": ", ".join(name for name, allowed in in_tf32.items() if allowed) or "none",
        "cuda": str(torch.version.cuda),
    }


def load_average() -> str:
    """Return the load averages of the last 1, 5 and 15 minutes: runnable threads, all cores together."""
    import psutil

    return " ".join(f"{value:.2f}" for value in psutil.getloadavg())


def busy_share() -> float:
    """Look for half a second, while we ourselves are idle, which share of all cores others keep busy, 0 to 1.

    The load average can't tell: our own preparing is in it. The other process of a pair, which may be starting, does
    not count as others.
    """
    import psutil

    before, started = _seconds_of_partners(), time.monotonic()
    busy = float(psutil.cpu_percent(_LOOK_SECONDS)) / 100
    partners = math.fsum(seconds - before.get(pid, 0.0) for pid, seconds in _seconds_of_partners().items())
    elapsed = max(time.monotonic() - started, _LOOK_SECONDS)
    return max(0.0, busy - partners / (elapsed * (psutil.cpu_count() or 1)))


def _seconds_of_partners() -> dict[int, float]:
    """Return the CPU seconds, by process, of those that our parent started with the same command as this one."""
    import psutil

    seconds = {}
    with contextlib.suppress(psutil.Error):  # they may end at any time
        own = psutil.Process()
        parent, command = own.parent(), own.cmdline()[:_COMMAND_WORDS]
        for child in () if parent is None else parent.children():
            with contextlib.suppress(psutil.Error):
                if child.pid != own.pid and child.cmdline()[:_COMMAND_WORDS] == command:
                    times = child.cpu_times()
                    seconds[child.pid] = times.user + times.system
    return seconds


def emulated(root: Path = Path("/")) -> list[str]:
    """Name the precisions that the CPU has no instructions for; none where it does not tell.

    Args:
        root: where `proc` is; another folder in tests.
    """
    flags = _flags(root)
    return [name for name, native in _NATIVE.items() if flags and not native & flags]


def _flags(root: Path) -> set[str]:
    """Return the instructions that the CPU has, as the kernel names them; none where it does not tell."""
    info = root / "proc/cpuinfo"
    text = info.read_text() if info.is_file() else ""
    return set(text.partition("flags")[2].partition("\n")[0].split() or text.partition("Features")[2].split())


def has_int8_dot_products(root: Path = Path("/")) -> bool:
    """Tell whether the CPU sums products of 8 bits in 32 (VNNI, AMX); without it they are cut off at 16.

    Args:
        root: where `proc` is; another folder in tests.
    """
    return bool(_INT8_DOT_PRODUCTS & _flags(root))


def _cpu_model(root: Path) -> str:
    info = root / "proc/cpuinfo"
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
