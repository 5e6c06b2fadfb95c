"""What `doctor` reports on machines that differ from this one."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from click.testing import CliRunner

from mlflow_compress import user_home
from mlflow_compress.cli import bench, doctor
from mlflow_compress.cli.doctor import Finding
from mlflow_compress.meters import accelerators, environment, gpu
from mlflow_compress.networks import hub
from mlflow_compress.planning import tested_versions
from mlflow_compress.planning.tested_versions import Untested


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate an idle machine without a GPU, on mains power, online, with nothing set."""
    monkeypatch.setattr(environment, "busy_share", lambda: 0.01)
    monkeypatch.setattr(gpu, "present", lambda: False)
    monkeypatch.setattr(hub, "unreachable", lambda: None)
    monkeypatch.setattr(tested_versions, "untested", list)
    monkeypatch.setattr(psutil, "sensors_battery", lambda: None, raising=False)
    monkeypatch.setattr(psutil, "swap_memory", lambda: SimpleNamespace(used=0))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**34, total=2**35))
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=2**40))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return the root folder of a machine without problems."""
    write(tmp_path / "proc/cpuinfo", "model name\t: Best\nflags\t: avx512_bf16 avx512_fp16\n")
    write(tmp_path / "proc/self/clear_refs", "")
    write(tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj", "1")
    write(tmp_path / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n")
    write(tmp_path / "sys/fs/cgroup/cpu.max", "max 100000\n")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def troubles(root: Path) -> dict[str, Finding]:
    return {finding.subject: finding for finding in doctor.examine(root) if not finding.is_well}


def test_a_good_machine_is_well(root: Path) -> None:
    assert troubles(root) == {}


@pytest.mark.parametrize(
    ("file", "text", "subject", "message"),
    [
        ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave", "clock", "powersave"),
        ("proc/cpuinfo", "model name\t: Old\nflags\t: avx2\n", "precisions", "bfloat16, float16"),
        ("sys/fs/cgroup/cpu.max", "50000 100000\n", "cores", "0.5 cores"),
    ],
)
def test_what_files_tell(root: Path, file: str, text: str, subject: str, message: str) -> None:
    write(root / file, text)
    findings = troubles(root)
    assert list(findings) == [subject]
    assert message in findings[subject].message
    assert findings[subject].advice


def test_an_older_kernels_limit(root: Path) -> None:
    (root / "sys/fs/cgroup/cpu.max").unlink()
    write(root / "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "25000")
    write(root / "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000")
    assert "0.25 cores" in troubles(root)["cores"].message
    write(root / "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1")
    assert troubles(root) == {}


def test_a_containers_memory(root: Path) -> None:
    write(root / "sys/fs/cgroup/memory.max", str(4 * 2**30))
    write(root / "sys/fs/cgroup/memory.current", str(2**30))
    assert troubles(root) == {}
    write(root / "sys/fs/cgroup/memory.current", str(3 * 2**30))
    findings = troubles(root)
    assert list(findings) == ["memory"]
    assert findings["memory"].message.startswith("1.0 GB free of the 4.0 GB that a container")
    assert "more memory" in findings["memory"].advice


def test_what_is_missing(root: Path) -> None:
    (root / "proc/self/clear_refs").unlink()
    (root / "sys/class/powercap/intel-rapl:0/energy_uj").unlink()
    assert set(troubles(root)) == {"memory peaks", "energy"}


@pytest.mark.parametrize(
    ("target", "value", "subject"),
    [
        ((environment, "busy_share"), lambda: 0.5, "load"),
        ((psutil, "sensors_battery"), lambda: SimpleNamespace(power_plugged=False), "power"),
        ((psutil, "swap_memory"), lambda: SimpleNamespace(used=2**30), "memory"),
        ((hub, "unreachable"), lambda: "the hub is gone", "weights"),
        ((tested_versions, "untested"), lambda: [Untested("torch", "9.0", "2.6.0", "2.14.1")], "versions"),
    ],
)
def test_what_the_machine_tells(
    root: Path, monkeypatch: pytest.MonkeyPatch, target: tuple[Any, str], value: Any, subject: str
) -> None:
    monkeypatch.setattr(*target, value, raising=False)
    findings = troubles(root)
    assert list(findings) == [subject]
    assert findings[subject].advice


@pytest.mark.full
def test_a_dead_server_is_reported_without_its_password(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:planted@127.0.0.1:9")
    findings = troubles(root)
    assert "127.0.0.1:9" in findings["tracking"].message
    assert "planted" not in findings["tracking"].message


def test_the_command(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root / "sys/fs/cgroup/cpu.max", "50000 100000\n")
    examine = doctor.examine
    monkeypatch.setattr(doctor, "examine", lambda: examine(root))
    result = CliRunner().invoke(bench.main, ["doctor"])
    assert result.exit_code == 0
    assert "LOOK  cores" in result.stdout
    assert "--threads at 1 (the default here)" in result.stdout
    data = json.loads(CliRunner().invoke(bench.main, ["doctor", "--json"]).stdout)
    assert {"subject": "disk", "is_well": True, "advice": ""}.items() <= next(
        finding for finding in data if finding["subject"] == "disk"
    ).items()


def test_a_home_that_cannot_be_written_to(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_home, "settle", lambda: "the cache folder /a can't be written to; /b is used instead")
    findings = troubles(root)
    assert list(findings) == ["home"]
    assert "/b is used" in findings["home"].message
    assert "Set HOME" in findings["home"].advice


def findings(root: Path, subject: str) -> list[Finding]:
    return [finding for finding in doctor.examine(root) if finding.subject == subject]


def test_an_accelerator_is_named_with_the_option_that_measures_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerators, "visible", lambda: [accelerators.Accelerator("mps", "Apple M3 (MPS)")])
    assert findings(root, "GPU") == [Finding("GPU", True, "Apple M3 (MPS): --device mps")]
    monkeypatch.setattr(accelerators, "visible", list)
    assert findings(root, "GPU")[0].message.endswith("only the CPU is measured")


@pytest.mark.parametrize(("kind", "is_well"), [("cu130", True), ("", True), ("cpu", False), ("xpu", False)])
def test_a_torch_that_can_not_use_the_gpu_is_reported(
    root: Path, monkeypatch: pytest.MonkeyPatch, kind: str, is_well: bool
) -> None:
    monkeypatch.setattr(gpu, "present", lambda: True)
    monkeypatch.setattr(gpu, "driver_version", lambda: "580.1")
    monkeypatch.setattr(accelerators, "visible", list)
    monkeypatch.setattr(accelerators, "installed_kind", lambda: kind)
    (finding,) = findings(root, "GPU")
    assert finding.is_well is is_well
    assert finding.message.startswith("NVIDIA, driver 580.1")
    assert ("torch built for CUDA" in finding.advice) is not is_well


@pytest.mark.parametrize(("system", "advice"), [("darwin", "powermetrics"), ("win32", "EMI")])
def test_other_systems_keep_a_mark_and_have_other_meters(
    root: Path, monkeypatch: pytest.MonkeyPatch, system: str, advice: str
) -> None:
    (root / "proc/self/clear_refs").unlink()
    (root / "sys/class/powercap/intel-rapl:0/energy_uj").unlink()
    monkeypatch.setattr(accelerators, "visible", list)
    monkeypatch.setattr(doctor, "sys", SimpleNamespace(platform=system))
    assert [finding.is_well for finding in findings(root, "memory peaks")] == [True]
    assert advice in findings(root, "energy")[0].advice
