"""Measure the GPU memory of the model, and read the state of an NVIDIA GPU.

Covers: the peaks of memory that torch's allocator assigned and reserved on any accelerator; on CUDA the memory of this
process according to the driver (NVML), including context and libraries, and that of all processes, the load by other
programs, and why the clock is slowed down while the model is called; on MPS the memory that Metal counts for this
process; on XPU the memory that all processes use. The workspace of cuBLAS comes from torch's allocator and is included
in its peak: 32 MiB on Hopper, even for a small model.
Does not cover: peaks of the driver's number between two readings, which are 0.2 s apart; the load and the clock of
other accelerators than NVIDIA's.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from mlflow_compress.meters.watcher import Watcher

_MIB = 2**20
_LOOK_EVERY_SECONDS = 0.2
# Source: NVML API reference, nvmlClocksEventReasons; idle and clocks set by the user are not throttling
_WITHOUT_PEAKS = (AttributeError, NotImplementedError, RuntimeError)  # of a torch that keeps no peaks for a device
_SLOWED = {0x4: "power cap", 0x8: "hardware", 0x20: "heat", 0x40: "heat", 0x80: "power brake"}


def reset(device: str = "cuda") -> None:
    """Reset the peaks of the allocator, if torch keeps any for this device.

    Args:
        device: `cuda`, `mps` or `xpu`.
    """
    import torch

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return
    with contextlib.suppress(*_WITHOUT_PEAKS):
        torch.accelerator.reset_peak_memory_stats()


class Watch(Watcher):
    """Polls the driver while the `with` block runs, and once more at its end.

    Attributes:
        peak_bytes: Largest observed memory of this process; None if the driver does not report it.
        slowed: Observed reasons for a slowed-down clock.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak_bytes: int | None = None
        self.slowed: list[str] = []

    def _watch(self) -> None:
        with _nvml():  # kept open, because opening is slow
            is_last = False
            while not is_last:
                is_last = self._over.wait(_LOOK_EVERY_SECONDS)
                used = _driver_view().process_bytes
                if used is not None:
                    self.peak_bytes = max(used, self.peak_bytes or 0)
                self.slowed += [reason for reason in _slowed_now() if reason not in self.slowed]


class _DriverView(NamedTuple):
    """Memory of the device according to the driver; None if it is not reported.

    Attributes:
        device_bytes: Memory of all processes.
        process_bytes: Memory of this process.
    """

    device_bytes: int | None = None
    process_bytes: int | None = None


def numbers(group: str, watch: Watch, is_torchs: bool = True) -> tuple[dict[str, float], str]:
    """Return the metrics in MiB, and the source of the peak; unknown numbers are absent.

    Args:
        group: First part of the metrics' names.
        watch: Readings of the driver while the model was called.
        is_torchs: Whether torch's allocator assigns the model's memory. Another engine has its own allocator, and only
            the driver knows its memory.

    Returns:
        The metrics, and `allocator` (torch's: memory of the model) or `driver` (memory of the whole process, including
        CUDA); empty if there is no peak.
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


def accelerator_numbers(device: str, is_torchs: bool = True) -> tuple[dict[str, float], str]:
    """Return the metrics in MiB of an accelerator other than CUDA, and the source of the peak, like `numbers`.

    Args:
        device: `mps` or `xpu`.
        is_torchs: See `numbers`. The memory of another engine is unknown.
    """
    import torch

    module = torch.get_device_module(device)
    readings: dict[str, Callable[[], int]] = {
        "vram_peak_mib": torch.accelerator.max_memory_allocated,
        "vram_reserved_peak_mib": torch.accelerator.max_memory_reserved,
    }
    if device == "mps":
        readings["vram_process_mib"] = module.driver_allocated_memory
    else:
        readings["vram_device_mib"] = _used_by_all
    if not is_torchs:
        del readings["vram_peak_mib"]
    sizes = {}
    for name, read in readings.items():
        with contextlib.suppress(*_WITHOUT_PEAKS):
            sizes[f"gpu/{name}"] = read() / _MIB
    return sizes, "allocator" if "gpu/vram_peak_mib" in sizes else ""


def _used_by_all() -> int:
    """Return the bytes of the accelerator that are in use."""
    import torch

    free_bytes, all_bytes = torch.accelerator.get_memory_info()
    return all_bytes - free_bytes


def present() -> bool:
    """Return whether this machine has an NVIDIA GPU with a driver, without importing torch."""
    with _nvml() as nvml:
        return bool(nvml) and nvml.nvmlDeviceGetCount() > 0


def models() -> list[tuple[str, int]]:
    """Return the name and the memory in MiB of each GPU visible to CUDA, without importing torch.

    They are in the driver's order, or in that of `CUDA_VISIBLE_DEVICES`. If GPUs differ, CUDA itself may put the
    fastest first. Memory is 0 if the driver does not report it.
    """
    with _nvml() as nvml:
        if not nvml:
            return []
        gpus = []
        for handle in _visible(nvml):
            try:
                memory = int(nvml.nvmlDeviceGetMemoryInfo(handle).total) // _MIB
            except nvml.NVMLError:  # the CPU and the GPU share their memory
                memory = 0
            gpus.append((str(nvml.nvmlDeviceGetName(handle)), memory))
        return gpus


def busy_share() -> float:
    """Return the recent share of time that the GPU was busy, 0 to 1; 0 if the driver does not report it."""
    with _nvml() as nvml:
        if not nvml:
            return 0.0
        try:
            return float(nvml.nvmlDeviceGetUtilizationRates(_handle(nvml)).gpu) / 100
        except nvml.NVMLError:
            return 0.0


def index() -> int | None:
    """Return the driver's index of torch's current device, for other libraries; None if it is unknown."""
    with _nvml() as nvml:
        if not nvml:
            return None
        try:
            return int(nvml.nvmlDeviceGetIndex(_handle(nvml)))
        except nvml.NVMLError:
            return None


def driver_version() -> str:
    """Return the driver's version; empty if there is no driver."""
    with _nvml() as nvml:
        return str(nvml.nvmlSystemGetDriverVersion()) if nvml else ""


def power_limit_w() -> float | None:
    """Return the power limit of torch's GPU, in watts; None if the driver does not report it."""
    with _nvml() as nvml:
        return _limit_w(nvml, _handle(nvml)) if nvml else None


def first_power_limit_w() -> float | None:
    """Return the power limit of the first GPU of `models`, in watts, without importing torch; None if unknown."""
    with _nvml() as nvml:
        handle = next(_visible(nvml), None) if nvml else None
        return None if handle is None else _limit_w(nvml, handle)


def _limit_w(nvml: Any, handle: Any) -> float | None:
    try:
        return float(nvml.nvmlDeviceGetEnforcedPowerLimit(handle)) / 1000
    except nvml.NVMLError:
        return None


def _slowed_now() -> list[str]:
    """Return why the driver currently slows the clock down; empty if it does not, or does not report it."""
    with _nvml() as nvml:
        if not nvml:
            return []
        try:
            reasons = nvml.nvmlDeviceGetCurrentClocksEventReasons(_handle(nvml))
        except nvml.NVMLError:
            return []
        return list(dict.fromkeys(name for bit, name in _SLOWED.items() if reasons & bit))


def _driver_view() -> _DriverView:
    """Return the memory of this process and of all processes according to the driver."""
    with _nvml() as nvml:
        if not nvml:
            return _DriverView()
        try:
            handle = _handle(nvml)
            device_bytes = _in_use(nvml, handle)
            processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        except nvml.NVMLError:
            return _DriverView()
        used_bytes = [process.usedGpuMemory for process in processes if process.pid == os.getpid()]
        if (
            not used_bytes and len(processes) == 1
        ):  # in a container, NVML reports host process ids; a single one is ours
            used_bytes = [processes[0].usedGpuMemory]
        return _DriverView(device_bytes, int(used_bytes[0]) if used_bytes and used_bytes[0] is not None else None)


def _in_use(nvml: Any, handle: Any) -> int:
    """Return the bytes that processes use on the device, as in nvidia-smi.

    Version 1 of this query also counts memory reserved by the driver: 615 MiB on an idle H200.
    """
    try:
        return int(nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2).used)
    except nvml.NVMLError:  # drivers before 510 have only version 1
        return int(nvml.nvmlDeviceGetMemoryInfo(handle).used)


def _visible(nvml: Any) -> Iterator[Any]:
    """Yield the devices visible to CUDA; like CUDA, stop at the first invalid name."""
    variable = os.environ.get("CUDA_VISIBLE_DEVICES")
    indices = [str(index) for index in range(nvml.nvmlDeviceGetCount())]
    for name in indices if variable is None else variable.split(","):
        try:
            if name.strip().isdecimal():
                yield nvml.nvmlDeviceGetHandleByIndex(int(name))
            else:
                yield nvml.nvmlDeviceGetHandleByUUID(name.strip())
        except nvml.NVMLError:
            return


def _handle(nvml: Any) -> Any:
    """Return torch's current device in NVML, which has its own order of devices."""
    import torch

    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{properties.uuid}")


@contextlib.contextmanager
def _nvml() -> Iterator[Any]:
    """Open NVML; yield None if there is no driver."""
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
