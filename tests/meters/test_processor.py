"""What macOS and Windows report about the processor, by fakes of their interfaces."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from types import TracebackType

import psutil
import pytest

from mlflow_compress.meters import environment, processor


def test_the_name_and_instructions_of_apple_silicon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    values = {
        "machdep.cpu.brand_string": b"Apple M2 Max\0",
        "hw.optional.arm.FEAT_DotProd": b"\1\0\0\0",
        "hw.optional.arm.FEAT_BF16": b"\1\0\0\0",
        "hw.optional.arm.FEAT_I8MM": b"\1\0\0\0",
        "hw.optional.arm.FEAT_FP16": b"\1\0\0\0",
        "hw.optional.arm.FEAT_SME": b"\0\0\0\0",
    }
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(processor, "_sysctl", values.get)
    assert processor.name() == "Apple M2 Max"
    assert processor.instructions() == {"asimddp", "asimdhp", "bf16", "i8mm"}
    facts = environment.machine(tmp_path)
    assert (facts["cpu_model"], facts["cpu_flags"]) == ("Apple M2 Max", "asimddp asimdhp i8mm bf16")
    assert environment.emulated(tmp_path) == []
    del values["hw.optional.arm.FEAT_BF16"]  # an M1 does not know the key
    assert environment.emulated(tmp_path) == ["bfloat16"]


class Registry:
    """A fake `winreg` with one key."""

    HKEY_LOCAL_MACHINE = 0

    def __init__(self, values: dict[str, str]) -> None:
        self.values = values

    def OpenKey(self, root: int, path: str) -> Registry:  # noqa: N802  (the module's own name)
        assert path.endswith(r"CentralProcessor\0")
        return self

    def QueryValueEx(self, key: Registry, name: str) -> tuple[str, int]:  # noqa: N802
        if name not in self.values:
            raise FileNotFoundError(name)
        return self.values[name], 1

    def __enter__(self) -> Registry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def test_the_name_in_the_registry_of_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    registry = Registry({"ProcessorNameString": "AMD Ryzen 7 7840U w/ Radeon 780M Graphics      "})
    monkeypatch.setitem(sys.modules, "winreg", registry)
    assert processor.name() == "AMD Ryzen 7 7840U w/ Radeon 780M Graphics"
    assert processor.instructions() == set()
    registry.values.clear()
    assert processor.name() == (platform.processor() or platform.machine())


@pytest.mark.parametrize(
    ("affinity", "cores"),
    [
        (lambda self: [0, 2, 5], frozenset({0, 2, 5})),
        (lambda self: [], None),  # Windows with more than 64 cores
        (None, None),  # macOS
    ],
)
def test_cores_without_linux(monkeypatch: pytest.MonkeyPatch, affinity: object, cores: frozenset[int] | None) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    members = {} if affinity is None else {"cpu_affinity": affinity}
    monkeypatch.setattr(psutil, "Process", type("Process", (), members))
    assert processor.allowed_cores() == cores


def test_a_mac_has_no_affinity_and_all_its_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(processor, "allowed_cores", lambda: None)
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    facts = environment.machine(tmp_path)
    assert "affinity" not in facts
    assert (facts["cores"], environment.most_threads(tmp_path)) == ("12", 12)


@pytest.mark.skipif(sys.platform != "darwin", reason="only macOS has these keys")
def test_the_real_keys_of_macos() -> None:
    assert processor.name().startswith(("Apple", "Intel"))
    assert processor._sysctl("no.such.key") is None


@pytest.mark.skipif(sys.platform != "win32", reason="only Windows has a registry")
def test_the_real_registry() -> None:
    assert processor.name() not in ("", platform.machine())


def test_this_machine_has_a_named_processor_and_cores() -> None:
    assert processor.name()
    assert environment.most_threads() >= 1
