"""How much memory of the GPU the model takes, and how the GPU is.

Covers: the peak of what torch's allocator handed out and of what it reserved; what the driver (NVML) says that this
process holds, context and libraries included, and that all processes hold; how busy others keep the GPU; why its clock
is slowed down while the model is called. What cuBLAS takes to work in comes from torch's allocator and is in its peak:
32 MiB on Hopper, however small the model is.
Does not cover: peaks of the driver's figure between two looks, a fifth of a second apart.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from mlflow_compress.meters.watcher import Watcher

_MIB = 2**20
_LOOK_EVERY_SECONDS = 0.2
# Source: NVML API reference, nvmlClocksEventReasons; 2, idle and fixed by the user, are no throttling
_SLOWED = {0x4: "power cap", 0x8: "hardware", 0x20: "heat", 0x40: "heat", 0x80: "power brake"}


def reset() -> None:
    """Forget earlier peaks of the allocator."""
    import torch

    torch.cuda.reset_peak_memory_stats()


class Watch(Watcher):
    """Looks at what the driver says while the `with` block runs, and once more at its end.

    Attributes:
        peak_bytes: the most that this process was seen to hold; None where the driver does not tell.
        slowed: why the clock was slowed down at any look, in words.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak_bytes: int | None = None
        self.slowed: list[str] = []

    def _watch(self) -> None:
        with _nvml():  # kept open: opening takes long
            is_last = False
            while not is_last:
                is_last = self._over.wait(_LOOK_EVERY_SECONDS)
                held = _driver_view().process_bytes
                if held is not None:
                    self.peak_bytes = max(held, self.peak_bytes or 0)
                self.slowed += [reason for reason in _slowed_now() if reason not in self.slowed]


class _DriverView(NamedTuple):
    """What the driver says of the device's memory; None where it does not tell.

    Attributes:
        device_bytes: in use by all processes.
        process_bytes: held by this process.
    """

    device_bytes: int | None = None
    process_bytes: int | None = None


def numbers(group: str, watch: Watch, is_torchs: bool = True) -> tuple[dict[str, float], str]:
    """Return the metrics in MiB, and whose figure the peak is; what nobody tells is absent.

    Args:
        group: what the metrics' names begin with.
        watch: what the driver said while the model was called.
        is_torchs: whether torch's allocator hands out the model's memory. Another engine has one of its own, and only
            the driver knows what that took.

    Returns:
        The metrics, and `allocator` (torch's: what the model takes) or `driver` (what the whole process holds, CUDA
        itself included); empty where there is no peak.
    """
    import torch

    driver = _driver_view()
    peak_bytes = torch.cuda.max_memory_allocated() if is_torchs else watch.peak_bytes
    sizes = {
        "vram_device_mib": driver.device_bytes,
        "vram_process_mib": driver.process_bytes,
        "vram_reserved_peak_mib": torch.cuda.max_memory_reserved(),
        "vram_peak_mib": peak_bytes,
    }
    source = "" if peak_bytes is None else "allocator" if is_torchs else "driver"
    return {f"{group}/{name}": size / _MIB for name, size in sizes.items() if size is not None}, source


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


def index() -> int | None:
    """Return the driver's number of torch's current device, as other libraries count; None where it does not tell."""
    with _nvml() as nvml:
        if not nvml:
            return None
        try:
            return int(nvml.nvmlDeviceGetIndex(_handle(nvml)))
        except nvml.NVMLError:
            return None


def driver_version() -> str:
    """Return the driver's version; empty where there is no driver."""
    with _nvml() as nvml:
        return str(nvml.nvmlSystemGetDriverVersion()) if nvml else ""


def power_limit_w() -> float | None:
    """Return the power that torch's GPU is held to, in watts; None where the driver does not tell."""
    with _nvml() as nvml:
        return _limit_w(nvml, _handle(nvml)) if nvml else None


def first_power_limit_w() -> float | None:
    """Return the power that the first GPU of `models` is held to, in watts, without importing torch; None as above."""
    with _nvml() as nvml:
        handle = next(_visible(nvml), None) if nvml else None
        return None if handle is None else _limit_w(nvml, handle)


def _limit_w(nvml: Any, handle: Any) -> float | None:
    try:
        return float(nvml.nvmlDeviceGetEnforcedPowerLimit(handle)) / 1000
    except nvml.NVMLError:
        return None


def _slowed_now() -> list[str]:
    """Return why the driver slows the clock down right now; empty when it does not, or does not tell."""
    with _nvml() as nvml:
        if not nvml:
            return []
        try:
            reasons = nvml.nvmlDeviceGetCurrentClocksEventReasons(_handle(nvml))
        except nvml.NVMLError:
            return []
        return list(dict.fromkeys(name for bit, name in _SLOWED.items() if reasons & bit))


def _driver_view() -> _DriverView:
    """Ask the driver what this process and all processes hold."""
    with _nvml() as nvml:
        if not nvml:
            return _DriverView()
        try:
            handle = _handle(nvml)
            device_bytes = _in_use(nvml, handle)
            processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        except nvml.NVMLError:
            return _DriverView()
        ours = [process.usedGpuMemory for process in processes if process.pid == os.getpid()]
        if not ours and len(processes) == 1:  # in a container process ids are the host's; one that is alone is this one
            ours = [processes[0].usedGpuMemory]
        return _DriverView(device_bytes, int(ours[0]) if ours and ours[0] is not None else None)


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
