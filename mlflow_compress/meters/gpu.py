"""How much memory of the GPU the model takes, and how the GPU is.

Covers: the peak of what torch's allocator handed out and of what it reserved, and what the driver (NVML) says that this
process holds, context and libraries included, and that all processes hold; how busy others keep the GPU; why its clock
is slowed down. What cuBLAS takes to work in comes from torch's allocator and is in its peak: 32 MiB on Hopper, however
small the model is.
Does not cover: other frameworks' allocators, except in the driver's figure; peaks of the driver's figure between reads;
a clock that was slowed down and is not any more.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

_MIB = 2**20
# Source: NVML API reference, nvmlClocksEventReasons; 2, idle and fixed by the user, are no throttling
_SLOWED = {0x4: "power cap", 0x8: "hardware", 0x20: "heat", 0x40: "heat", 0x80: "power brake"}


def reset() -> None:
    """Forget earlier peaks of the allocator."""
    import torch

    torch.cuda.reset_peak_memory_stats()


def numbers(group: str) -> dict[str, float]:
    """Return the metrics in MiB; the driver's figures are absent where NVML does not tell them."""
    import torch

    found = {
        f"{group}/vram_peak_mib": torch.cuda.max_memory_allocated() / _MIB,
        f"{group}/vram_reserved_peak_mib": torch.cuda.max_memory_reserved() / _MIB,
    }
    return found | {f"{group}/{name}": held / _MIB for name, held in _driver_view().items()}


def present() -> bool:
    """Return whether this machine has an NVIDIA GPU with a driver, without importing torch."""
    with _nvml() as nvml:
        return bool(nvml) and nvml.nvmlDeviceGetCount() > 0


def models() -> list[tuple[str, int]]:
    """Return the name and the memory in MiB of each GPU that CUDA may see, without importing torch.

    They are in the driver's order, or in that of `CUDA_VISIBLE_DEVICES`. Where GPUs differ, CUDA itself may put the
    fastest first. Memory is 0 where the driver does not tell it.
    """
    with _nvml() as nvml:
        if not nvml:
            return []
        found = []
        for handle in _visible(nvml):
            try:
                memory = int(nvml.nvmlDeviceGetMemoryInfo(handle).total) // _MIB
            except nvml.NVMLError:  # memory that the CPU and the GPU share
                memory = 0
            found.append((str(nvml.nvmlDeviceGetName(handle)), memory))
        return found


def busy_share() -> float:
    """Return the share of its time that the GPU was busy lately, 0 to 1; 0 where the driver does not tell."""
    with _nvml() as nvml:
        if not nvml:
            return 0.0
        try:
            return float(nvml.nvmlDeviceGetUtilizationRates(_handle(nvml)).gpu) / 100
        except nvml.NVMLError:
            return 0.0


def slowed() -> str:
    """Return why the driver slows the clock down right now; empty when it does not, or does not tell."""
    with _nvml() as nvml:
        if not nvml:
            return ""
        try:
            reasons = nvml.nvmlDeviceGetCurrentClocksEventReasons(_handle(nvml))
        except nvml.NVMLError:
            return ""
        return ", ".join(dict.fromkeys(name for bit, name in _SLOWED.items() if reasons & bit))


def driver_version() -> str:
    """Return the driver's version; empty where there is no driver."""
    with _nvml() as nvml:
        return str(nvml.nvmlSystemGetDriverVersion()) if nvml else ""


def power_limit_w() -> float | None:
    """Return the power that the GPU is held to, in watts; None where the driver does not tell."""
    with _nvml() as nvml:
        if not nvml:
            return None
        try:
            return float(nvml.nvmlDeviceGetEnforcedPowerLimit(_handle(nvml))) / 1000
        except nvml.NVMLError:
            return None


def _driver_view() -> dict[str, int]:
    """Return what the driver says: bytes held by this process, and bytes in use on the device by all processes."""
    with _nvml() as nvml:
        if not nvml:
            return {}
        try:
            handle = _handle(nvml)
            found = {"vram_device_mib": _in_use(nvml, handle)}
            processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        except nvml.NVMLError:
            return {}
        # in a container the process ids are those of the host, and ours is not among them
        ours = next((each.usedGpuMemory for each in processes if each.pid == os.getpid()), None)
        return found | ({"vram_process_mib": int(ours)} if ours is not None else {})


def _in_use(nvml: Any, handle: Any) -> int:
    """Return the bytes that processes hold on the device, as nvidia-smi tells them.

    The first version of this question counts what the driver keeps for itself, too: 615 MiB of an idle H200.
    """
    try:
        return int(nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2).used)
    except nvml.NVMLError:  # a driver before 510 knows only the first
        return int(nvml.nvmlDeviceGetMemoryInfo(handle).used)


def _visible(nvml: Any) -> Iterator[Any]:
    """Find the devices that CUDA may see; as CUDA does, stop at the first that there is none of."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    every = [str(index) for index in range(nvml.nvmlDeviceGetCount())]
    for name in every if named is None else named.split(","):
        try:
            if name.strip().isdecimal():
                yield nvml.nvmlDeviceGetHandleByIndex(int(name))
            else:
                yield nvml.nvmlDeviceGetHandleByUUID(name.strip())
        except nvml.NVMLError:
            return


def _handle(nvml: Any) -> Any:
    """Find torch's current device in NVML, which counts devices in its own order."""
    import torch

    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{properties.uuid}")


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
