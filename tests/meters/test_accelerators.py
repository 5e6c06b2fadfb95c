"""Accelerators of other machines, by fakes of the system and of torch."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_torch import FakeTorch

from mlflow_compress.meters import accelerators, environment, gpu, latency, processor
from mlflow_compress.meters.accelerators import Accelerator
from mlflow_compress.records import Budget
from mlflow_compress.sockets import Mark


def on(monkeypatch: pytest.MonkeyPatch, system: str, torch_version: str = "2.14.1", machine: str = "x86_64") -> None:
    """Simulate a system with a build of torch, and an NVIDIA GPU."""
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(accelerators, "installed", lambda name: torch_version)
    monkeypatch.setattr(gpu, "models", lambda: [("NVIDIA L4", 23_034)])
    monkeypatch.setattr(processor, "name", lambda: "Apple M3 Pro")


@pytest.mark.parametrize(
    ("system", "machine", "version", "visible"),
    [
        ("darwin", "arm64", "2.14.1", [Accelerator("mps", "Apple M3 Pro (MPS)")]),
        ("darwin", "x86_64", "2.2.2", []),
        ("linux", "x86_64", "2.14.1+cu130", [Accelerator("cuda", "NVIDIA L4", 23_034)]),
        ("win32", "AMD64", "2.14.1", [Accelerator("cuda", "NVIDIA L4", 23_034)]),
        ("win32", "AMD64", "2.14.1+xpu", [Accelerator("xpu", "Intel GPU (XPU)")]),
    ],
)
def test_the_accelerator_is_of_the_kind_that_torch_is_built_for(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str, version: str, visible: list[Accelerator]
) -> None:
    on(monkeypatch, system, version, machine)
    assert accelerators.visible() == visible


def test_intels_gpus_are_told_apart_by_their_ids(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    on(monkeypatch, "linux", "2.14.1+xpu")
    for card, vendor, product in (("card0", "0x10de", "0x27b8"), ("card1", "0x8086", "0xe20b"), ("card1-DP-1", "", "")):
        folder = tmp_path / "sys/class/drm" / card / "device"
        folder.mkdir(parents=True)
        (folder / "vendor").write_text(f"{vendor}\n")
        (folder / "device").write_text(f"{product}\n")
    assert accelerators.visible(tmp_path) == [Accelerator("xpu", "Intel GPU 0xe20b (XPU)")]
    assert accelerators.visible(tmp_path / "elsewhere") == []


@pytest.mark.parametrize(
    ("kind", "device", "version", "lack"),
    [
        ("", "cpu", "2.14.1", ""),
        ("mps", "mps", "2.14.1", ""),
        ("xpu", "xpu", "2.14.1+xpu", ""),
        ("cuda", "cuda", "2.14.1+cu130", ""),
        ("", "cuda", "2.14.1+cu130", "this machine has no CUDA device that torch can use"),
        ("cuda", "mps", "2.14.1+cu130", "this machine has no MPS device that torch can use: MPS needs a Mac with Apple "
                                        "silicon"),
        ("", "xpu", "2.14.1+xpu", "this machine has no XPU device that torch can use"),
        ("cuda", "xpu", "2.14.1+cu130", "this machine has no XPU device that torch can use: torch 2.14.1+cu130 is "
                                        "built without XPU"),
    ],
)  # fmt: skip
def test_why_a_device_is_lacking(
    monkeypatch: pytest.MonkeyPatch, kind: str, device: str, version: str, lack: str
) -> None:
    on(monkeypatch, "linux", version)
    FakeTorch(kind).install(monkeypatch)
    assert accelerators.lack(device) == lack
    assert accelerators.is_available(device) is not bool(lack)


def test_only_an_accelerator_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = FakeTorch("xpu").install(monkeypatch)
    accelerators.synchronise("cpu")
    assert torch.calls == []
    accelerators.synchronise("xpu")
    assert torch.calls == ["synchronise"]


@pytest.mark.parametrize(
    ("device", "of_driver"), [("mps", {"gpu/vram_process_mib": 5.0}), ("xpu", {"gpu/vram_device_mib": 10.0})]
)
def test_memory_is_what_torchs_allocator_and_the_driver_count(
    monkeypatch: pytest.MonkeyPatch, device: str, of_driver: dict[str, float]
) -> None:
    torch = FakeTorch(device).install(monkeypatch)
    gpu.reset(device)
    assert torch.calls == ["reset"]
    numbers = {"gpu/vram_peak_mib": 3.0, "gpu/vram_reserved_peak_mib": 4.0, **of_driver}
    assert gpu.accelerator_numbers(device) == (numbers, "allocator")
    del numbers["gpu/vram_peak_mib"]  # torch does not see the memory of another engine
    assert gpu.accelerator_numbers(device, is_torchs=False) == (numbers, "")


def test_a_torch_without_peaks_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeTorch("mps", keeps_peaks=False).install(monkeypatch)
    gpu.reset("mps")
    assert gpu.accelerator_numbers("mps") == ({"gpu/vram_process_mib": 5.0}, "")


def test_an_apple_gpu_is_named_for_its_chip(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, "darwin", machine="arm64")
    FakeTorch("mps").install(monkeypatch)
    monkeypatch.setattr(platform, "mac_ver", lambda: ("26.1", ("", "", ""), "arm64"))
    monkeypatch.delenv(environment.FALLBACK, raising=False)
    facts = {
        "gpu_device": "mps",
        "gpu_model": "Apple M3 Pro (MPS)",
        "gpu_memory_mib": "12288",
        "gpu_driver": "macOS 26.1",
    }
    assert environment.gpu("mps") == facts
    monkeypatch.setenv(environment.FALLBACK, "1")
    assert environment.gpu("mps") == {**facts, "gpu_fallback": "cpu"}


def test_an_intel_gpu_is_named_as_its_driver_does(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeTorch("xpu").install(monkeypatch)
    assert environment.gpu("xpu") == {
        "gpu_device": "xpu",
        "gpu_model": "Intel(R) Arc(TM) B580 Graphics (XPU)",
        "gpu_memory_mib": "12288",
        "gpu_driver": "1.6",
    }


@pytest.mark.parametrize("device", ["mps", "xpu"])
def test_a_call_is_timed_until_the_device_has_done_its_work(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    torch = FakeTorch(device).install(monkeypatch)
    clock = SimpleNamespace(
        perf_counter_ns=lambda: round(torch.now_ms * 1e6), monotonic=lambda: (torch.now_ms + torch.queued_ms) / 1000
    )
    monkeypatch.setattr(latency, "time", clock)

    def call(mark: Mark) -> None:
        torch.work(6)
        mark("encoder")
        torch.work(4)

    timing = latency.measure(call, device, Budget(min_iterations=6, min_seconds=0), lambda *_: None)
    assert timing.wall_ms == [10.0] * 6
    assert timing.stages_ms == {"encoder": [6.0] * 6}
    assert timing.events_ms == ([] if device == "mps" else [10.0] * 6)
    assert latency.time_once(lambda: torch.work(7), device) == 7.0
