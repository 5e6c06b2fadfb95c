"""Describe the machine, the libraries and the load of a measurement.

Covers: CPU, its instructions, memory, a container's limits of both, NUMA nodes, operating system, GPU, its driver and
power limit, versions, threads, governor, load average.
Does not cover: the load of other virtual machines on the same host.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
import sys
import time
from pathlib import Path

from mlflow_compress.meters import accelerators, cgroup, processor
from mlflow_compress.meters import gpu as driver
from mlflow_compress.version import __version__, installed

_LIBRARIES = ("torch", "transformers", "ultralytics", "mlflow", "numpy")
_NATIVE = {
    "bfloat16": {"avx512_bf16", "amx_bf16", "bf16"},
    "float16": {"avx512_fp16", "amx_fp16", "asimdhp"},
}
# CPU features that kernels for matrix products check, on x86 and ARM: with others, the same call does different work.
_MATRIX_FLAGS = (
    "avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16",
    "amx_fp16", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2", "sme",
)  # fmt: skip
_INT8_DOT_PRODUCTS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}
FALLBACK = "PYTORCH_ENABLE_MPS_FALLBACK"  # torch runs operators that MPS lacks on the CPU
_LOOK_SECONDS = 0.5
_COMMAND_WORDS = 3  # `python -m module`


def machine(root: Path = Path("/")) -> dict[str, str]:
    """Return a description of the machine and the libraries, as text by name.

    Args:
        root: Folder with `proc` and `sys`; another one in tests.
    """
    import psutil

    facts = {
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
        facts["ram_limit_mib"] = str(memory // 2**20)
    if quota is not None:
        facts["cores_limit"] = f"{quota:g}"
    facts["cores"] = f"{cores(root):g}"
    if flags := _flags(root):
        facts["cpu_flags"] = " ".join(name for name in _MATRIX_FLAGS if name in flags) or "none"
    if (allowed := processor.allowed_cores()) is not None:
        facts["affinity"] = ",".join(map(str, sorted(allowed)))
    if nodes := list((root / "sys/devices/system/node").glob("node[0-9]*")):
        facts["numa_nodes"] = str(len(nodes))
    governor = root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    if governor.is_file():
        facts["governor"] = governor.read_text().strip()
    for library in _LIBRARIES:
        if version := installed(library):
            facts[library] = version
    return facts


def cores(root: Path = Path("/")) -> float:
    """Return the number of cores this process may use: those of its affinity, or its group's CPU time limit.

    Args:
        root: Folder with `proc` and `sys`; another one in tests.
    """
    allowed = float(len(processor.allowed_cores() or ()) or os.cpu_count() or 1)
    return min(allowed, cgroup.core_limit(root) or allowed)


def most_threads(root: Path = Path("/")) -> int:
    """Return the number of threads that can run at once without exceeding the CPU time limit.

    Args:
        root: Folder with `proc` and `sys`; another one in tests.
    """
    return max(1, int(cores(root)))


def runtime(distribution: str) -> str:
    """Return the name of an engine with its version: `onnxruntime 1.32.0`.

    Args:
        distribution: Distribution in `Model.runtime`. If it was installed under another name (`onnxruntime-gpu`), the
            version of the imported module is used.
    """
    version = installed(distribution) or getattr(sys.modules.get(distribution), "__version__", "")
    return f"{distribution} {version}".strip()


def gpu(device: str = "cuda") -> dict[str, str]:
    """Return a description of the accelerator; on CUDA also the float32 operations that torch computes in TF32.

    Args:
        device: `cuda`, `mps` or `xpu`.
    """
    return {"gpu_device": device, **{"cuda": _cuda, "mps": _mps, "xpu": _xpu}[device]()}


def _mps() -> dict[str, str]:
    import torch

    return {
        "gpu_model": accelerators.named(processor.name(), "mps"),
        "gpu_memory_mib": str(torch.mps.recommended_max_memory() // 2**20),  # of the machine's, for the GPU
        "gpu_driver": f"macOS {platform.mac_ver()[0]}",
        **({"gpu_fallback": "cpu"} if os.environ.get(FALLBACK) == "1" else {}),
    }


def _xpu() -> dict[str, str]:
    import torch

    properties = torch.xpu.get_device_properties(torch.accelerator.current_device_index())
    return {
        "gpu_model": accelerators.named(properties.name, "xpu"),
        "gpu_memory_mib": str(properties.total_memory // 2**20),
        "gpu_driver": str(properties.driver_version),
    }


def _cuda() -> dict[str, str]:
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
    """Return the load averages of the last 1, 5 and 15 minutes: runnable threads on all cores."""
    import psutil

    return " ".join(f"{value:.2f}" for value in psutil.getloadavg())


def busy_share() -> float:
    """Return the share of all cores that other programs use, 0 to 1, measured for half a second while we are idle.

    The load average can't be used: it includes our own preparation. The other process of a pair, which may be starting,
    is not counted.
    """
    import psutil

    seconds_before, started = _seconds_of_partners(), time.monotonic()
    busy = float(psutil.cpu_percent(_LOOK_SECONDS)) / 100
    partners = math.fsum(seconds - seconds_before.get(pid, 0.0) for pid, seconds in _seconds_of_partners().items())
    elapsed = max(time.monotonic() - started, _LOOK_SECONDS)
    return max(0.0, busy - partners / (elapsed * (psutil.cpu_count() or 1)))


def _seconds_of_partners() -> dict[int, float]:
    """Return the CPU seconds by process, for processes that our parent started with the same command."""
    import psutil

    seconds = {}
    with contextlib.suppress(psutil.Error):  # they may end at any time
        process = psutil.Process()
        parent, command = process.parent(), process.cmdline()[:_COMMAND_WORDS]
        for child in () if parent is None else parent.children():
            with contextlib.suppress(psutil.Error):
                if child.pid != process.pid and child.cmdline()[:_COMMAND_WORDS] == command:
                    times = child.cpu_times()
                    seconds[child.pid] = times.user + times.system
    return seconds


def emulated(root: Path = Path("/")) -> list[str]:
    """Return the names of the precisions that the CPU emulates; empty if its instructions are unknown.

    Args:
        root: Folder with `proc`; another one in tests.
    """
    flags = _flags(root)
    return [name for name, native in _NATIVE.items() if flags and not native & flags]


def _flags(root: Path) -> set[str]:
    """Return the kernel's names of the CPU's instructions; empty if they are unknown."""
    info = root / "proc/cpuinfo"
    if not info.is_file():
        return processor.instructions()
    text = info.read_text()
    return set(text.partition("flags")[2].partition("\n")[0].split() or text.partition("Features")[2].split())


def has_int8_dot_products(root: Path = Path("/")) -> bool:
    """Return whether the CPU sums 8-bit products in 32 bits (VNNI, AMX); otherwise they saturate at 16 bits.

    Args:
        root: Folder with `proc`; another one in tests.
    """
    return bool(_INT8_DOT_PRODUCTS & _flags(root))


def _cpu_model(root: Path) -> str:
    info = root / "proc/cpuinfo"
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return processor.name()
