"""How much memory of the GPU the model takes.

Covers: the peak of what torch's allocator handed out and of what it reserved, and what the driver (NVML) says that this
process holds, context and libraries included.
Does not cover: other frameworks' allocators, except in the driver's figure; peaks of the driver's figure between reads.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

_MIB = 2**20


def reset() -> None:
    """Forget earlier peaks of the allocator."""
    import torch

    torch.cuda.reset_peak_memory_stats()


def numbers(group: str) -> dict[str, float]:
    """Give the metrics in MiB; the driver's figure is absent where NVML does not tell it."""
    import torch

    found = {
        f"{group}/vram_peak_mib": torch.cuda.max_memory_allocated() / _MIB,
        f"{group}/vram_reserved_peak_mib": torch.cuda.max_memory_reserved() / _MIB,
    }
    held = _driver_bytes(torch.cuda.current_device())
    if held is not None:
        found[f"{group}/vram_process_mib"] = held / _MIB
    return found


def present() -> bool:
    """Say whether this machine has an NVIDIA GPU with a driver, without importing torch."""
    with _nvml() as nvml:
        return bool(nvml) and nvml.nvmlDeviceGetCount() > 0


def driver_version() -> str:
    """Give the driver's version; empty where there is no driver."""
    with _nvml() as nvml:
        return str(nvml.nvmlSystemGetDriverVersion()) if nvml else ""


def _driver_bytes(index: int) -> int | None:
    """Give what the driver says this process holds on the device, in bytes."""
    with _nvml() as nvml:
        if not nvml:
            return None
        import torch

        try:
            handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(index).uuid}")
            processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        except nvml.NVMLError:
            return None
        # in a container the process ids are those of the host, and ours is not among them
        return next((each.usedGpuMemory for each in processes if each.pid == os.getpid()), None)


@contextlib.contextmanager
def _nvml() -> Iterator[Any]:
    """Open NVML; gives None where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()
