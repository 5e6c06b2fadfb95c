from __future__ import annotations

import os
import time
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch

from mlflow_compress.meters import gpu

MIB = 2**20


class Driver:
    """A fake NVML."""

    def __init__(
        self,
        count: int = 1,
        processes: dict[int, int | None] | None = None,
        works: bool = True,
        is_recent: bool = True,
    ) -> None:
        self.count, self.processes, self.works, self.is_recent = count, processes or {}, works, is_recent
        self.open = 0
        self.asked: list[str] = []
        self.looks = 0

    def install(self, patch: pytest.MonkeyPatch) -> Driver:
        for name in ("nvmlInit", "nvmlShutdown", "nvmlDeviceGetCount", "nvmlSystemGetDriverVersion"):
            patch.setattr(pynvml, name, getattr(self, name))
        patch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", self.handle)
        patch.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses", self.running)
        patch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", self.memory)
        patch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", lambda handle: SimpleNamespace(gpu=37), raising=False)
        patch.setattr(torch.cuda, "current_device", lambda: 0)
        patch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid="aaaa-bbbb"))
        patch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * MIB)
        patch.setattr(torch.cuda, "max_memory_reserved", lambda: 4 * MIB)
        return self

    def nvmlInit(self) -> None:  # noqa: N802  (NVML's own name)
        if not self.works:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return self.count

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "570.1"

    def handle(self, uuid: str) -> str:
        self.asked.append(uuid)
        return uuid

    def memory(self, handle: str, version: int | None = None) -> SimpleNamespace:
        if version is None:  # it includes memory reserved by the driver
            return SimpleNamespace(used=1500 * MIB)
        if not self.is_recent:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
        return SimpleNamespace(used=900 * MIB)

    def running(self, handle: str) -> list[Any]:
        self.looks += 1
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in self.processes.items()]


@pytest.mark.parametrize(("works", "count", "present"), [(True, 1, True), (True, 0, False), (False, 1, False)])
def test_a_gpu_is_present_when_its_driver_says_so(
    monkeypatch: pytest.MonkeyPatch, works: bool, count: int, present: bool
) -> None:
    driver = Driver(count, works=works).install(monkeypatch)
    assert gpu.present() is present
    assert gpu.driver_version() == ("570.1" if works else "")
    assert driver.open == 0


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, ["GPU 0", "GPU 1", "GPU 2"]),
        ("", []),
        ("2,0", ["GPU 2", "GPU 0"]),
        ("1,-1,0", ["GPU 1"]),  # as CUDA reads it
        ("GPU-abc", ["GPU GPU-abc"]),
        ("7", []),
    ],
)
def test_the_gpus_that_cuda_may_see_are_named(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, names: list[str]
) -> None:
    driver = Driver(3).install(monkeypatch)

    def handle(name: int | str) -> str:
        if name in (7, "", "-1"):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return str(name)

    def memory(handle: str) -> SimpleNamespace:
        if handle == "0":
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return SimpleNamespace(total=16 * 1024 * MIB)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", handle)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", handle)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetName", lambda handle: f"GPU {handle}")
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", memory)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu.models() == [(name, 0 if name == "GPU 0" else 16384) for name in names]
    assert driver.open == 0


def test_without_a_driver_nothing_is_present() -> None:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        assert gpu.present() is False
        assert gpu.driver_version() == ""
        assert gpu.busy_share() == 0
        assert gpu.models() == []
    else:
        pytest.skip("there is a driver")


def test_the_drivers_figure_is_this_processs(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(processes={1: 99 * MIB, os.getpid(): 700 * MIB}).install(monkeypatch)
    numbers = {
        "gpu/vram_peak_mib": 3,
        "gpu/vram_reserved_peak_mib": 4,
        "gpu/vram_device_mib": 900,
        "gpu/vram_process_mib": 700,
    }
    assert gpu.numbers("gpu", gpu.Watch()) == (numbers, "allocator")
    assert gpu.busy_share() == 0.37
    assert set(driver.asked) == {"GPU-aaaa-bbbb"}
    assert driver.open == 0


def test_an_old_driver_counts_what_it_keeps_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    Driver(is_recent=False).install(monkeypatch)
    assert gpu.numbers("gpu", gpu.Watch())[0]["gpu/vram_device_mib"] == 1500


def test_in_a_container_the_only_process_is_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    Driver(processes={1: 99 * MIB}).install(monkeypatch)
    assert gpu.numbers("gpu", gpu.Watch())[0]["gpu/vram_process_mib"] == 99


def test_memory_of_another_engine_is_the_most_that_the_driver_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(processes={os.getpid(): 700 * MIB, 1: 99 * MIB}).install(monkeypatch)
    monkeypatch.setattr(gpu, "_LOOK_EVERY_SECONDS", 0.001)
    with gpu.Watch() as watch:
        for used_mib in (900, 650):
            driver.processes[os.getpid()] = used_mib * MIB
            looks = driver.looks
            while driver.looks < looks + 2:
                time.sleep(0.001)
    numbers, source = gpu.numbers("gpu", watch, is_torchs=False)
    assert (numbers["gpu/vram_peak_mib"], source) == (900, "driver")
    assert driver.open == 0


@pytest.mark.parametrize("works", [True, False])
def test_unknown_memory_of_another_engine_is_absent(monkeypatch: pytest.MonkeyPatch, works: bool) -> None:
    Driver(processes={1: 99 * MIB, 2: 99 * MIB}, works=works).install(monkeypatch)
    with gpu.Watch() as watch:
        pass
    numbers, source = gpu.numbers("gpu", watch, is_torchs=False)
    assert ("gpu/vram_peak_mib" in numbers, source) == (False, "")


@pytest.mark.parametrize("processes", [{}, {1: 99 * MIB, 2: 99 * MIB}, {os.getpid(): None}])
def test_the_drivers_figure_is_absent_where_the_driver_does_not_know_this_process(
    monkeypatch: pytest.MonkeyPatch, processes: dict[int, int | None]
) -> None:
    Driver(processes=processes).install(monkeypatch)
    assert "gpu/vram_process_mib" not in gpu.numbers("gpu", gpu.Watch())[0]


def test_the_drivers_figure_is_absent_where_the_driver_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver().install(monkeypatch)

    def refuse(handle: str) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses", refuse)
    assert set(gpu.numbers("gpu", gpu.Watch())[0]) == {"gpu/vram_peak_mib", "gpu/vram_reserved_peak_mib"}
    assert driver.open == 0


@pytest.mark.parametrize(
    ("reasons", "causes"),
    [
        (0x0, []),
        (0x1, []),
        (0x2, []),
        (0x4, ["power cap"]),
        (0x60, ["heat"]),
        (0x44, ["power cap", "heat"]),
        (0x8, ["hardware"]),
    ],
)
def test_why_the_clock_is_slow(monkeypatch: pytest.MonkeyPatch, reasons: int, causes: list[str]) -> None:
    Driver().install(monkeypatch)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCurrentClocksEventReasons", lambda handle: reasons)
    with gpu.Watch() as watch:
        pass
    assert watch.slowed == causes


def test_a_clock_that_was_slow_for_a_while_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    Driver().install(monkeypatch)
    monkeypatch.setattr(gpu, "_LOOK_EVERY_SECONDS", 0.001)
    reasons = [0x0, 0x4, 0x0, 0x40, 0x4]
    monkeypatch.setattr(
        pynvml, "nvmlDeviceGetCurrentClocksEventReasons", lambda handle: reasons.pop(0) if reasons else 0x0
    )
    with gpu.Watch() as watch:
        while reasons:
            time.sleep(0.001)
    assert watch.slowed == ["power cap", "heat"]


def test_the_clock_is_not_known_where_the_driver_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    Driver().install(monkeypatch)

    def refuse(handle: str) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetCurrentClocksEventReasons", refuse)
    with gpu.Watch() as watch:
        pass
    assert watch.slowed == []


def test_the_drivers_number_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver().install(monkeypatch)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetIndex", lambda handle: 3)
    assert gpu.index() == 3
    assert driver.asked == ["GPU-aaaa-bbbb"]
    Driver(works=False).install(monkeypatch)
    assert gpu.index() is None


def test_the_power_limit_is_in_watts(monkeypatch: pytest.MonkeyPatch) -> None:
    Driver().install(monkeypatch)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetEnforcedPowerLimit", lambda handle: 350_000)
    assert gpu.power_limit_w() == 350

    def refuse(handle: str) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetEnforcedPowerLimit", refuse)
    assert gpu.power_limit_w() is None
    Driver(works=False).install(monkeypatch)
    assert gpu.power_limit_w() is gpu.first_power_limit_w() is None


def test_the_first_gpus_power_limit_is_known_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    Driver(count=2).install(monkeypatch)
    monkeypatch.setattr(torch.cuda, "get_device_properties", None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: f"handle {index}")
    limits = {"handle 0": 250_000, "handle 1": 400_000}
    monkeypatch.setattr(pynvml, "nvmlDeviceGetEnforcedPowerLimit", limits.__getitem__)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    assert gpu.first_power_limit_w() == 400
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert gpu.first_power_limit_w() == 250
    Driver(count=0).install(monkeypatch)
    assert gpu.first_power_limit_w() is None


@pytest.mark.gpu
def test_a_real_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    assert gpu.present()
    assert gpu.driver_version()
    gpu.reset()
    with gpu.Watch() as watch:
        tensor = torch.ones(64 * MIB // 4, device="cuda")
    numbers, _ = gpu.numbers("gpu", watch)
    assert numbers["gpu/vram_peak_mib"] >= 64
    process = numbers.get("gpu/vram_process_mib")  # absent in a container
    assert process is None or 64 <= process <= numbers["gpu/vram_device_mib"]
    assert watch.peak_bytes is None or watch.peak_bytes >= 64 * MIB
    assert gpu.index() is not None
    assert (gpu.power_limit_w() or 1) > 0
    del tensor
