from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from mlflow_compress.meters import environment, gpu
from mlflow_compress.version import __version__, installed


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(
        "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) CPU @ 2.20GHz\n\nprocessor\t: 1\nmodel name\t: another\n"
    )
    return tmp_path


def test_a_machine_is_described_in_text(root: Path) -> None:
    facts = environment.machine(root)
    assert facts["cpu_model"] == "Intel(R) Xeon(R) CPU @ 2.20GHz"
    assert facts["version"] == __version__
    assert facts["python"] == platform.python_version()
    assert int(facts["cores_logical"]) >= 1
    assert int(facts["ram_total_mib"]) > 100
    assert {"torch", "mlflow", "numpy", "transformers"} <= set(facts)
    assert all(isinstance(value, str) and value for value in facts.values())
    if hasattr(os, "sched_getaffinity"):
        assert len(facts["affinity"].split(",")) == len(os.sched_getaffinity(0))


def test_a_machine_without_frequency_scaling_has_no_governor(root: Path) -> None:
    assert "governor" not in environment.machine(root)


def test_the_limits_of_a_container_are_included(root: Path) -> None:
    assert not {"ram_limit_mib", "cores_limit"} & environment.machine(root).keys()
    group = root / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text(f"{64 * 2**20}\n")
    (group / "cpu.max").write_text("150000 100000\n")
    facts = environment.machine(root)
    assert (facts["ram_limit_mib"], facts["cores_limit"]) == ("64", "1.5")
    (group / "memory.max").write_text(f"{2**59}\n")  # more than there is
    assert "ram_limit_mib" not in environment.machine(root)


@pytest.mark.parametrize(
    ("affinity", "quota", "cores", "threads"),
    [
        ({0, 1, 2, 3}, "max 100000", "4", 4),
        ({0, 1, 2, 3}, "150000 100000", "1.5", 1),
        ({0, 1, 2, 3}, "50000 100000", "0.5", 1),
        ({0}, "200000 100000", "1", 1),
    ],
)
def test_cores_are_what_affinity_and_a_container_leave(
    root: Path, monkeypatch: pytest.MonkeyPatch, affinity: set[int], quota: str, cores: str, threads: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: affinity, raising=False)
    group = root / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "cpu.max").write_text(f"{quota}\n")
    assert environment.machine(root)["cores"] == cores
    assert environment.most_threads(root) == threads


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        ("flags\t\t: fpu amx_int8 avx2 avx512_vnni", "avx2 avx512_vnni amx_int8"),
        ("Features\t: fp asimd i8mm asimddp", "asimddp i8mm"),
        ("flags\t\t: fpu sse2", "none"),
        ("", None),
    ],
)
def test_instructions_that_matter_to_kernels_are_included(root: Path, flags: str, names: str | None) -> None:
    (root / "proc/cpuinfo").write_text(f"processor\t: 0\n{flags}\n")
    assert environment.machine(root).get("cpu_flags") == names


def test_nodes_of_memory_are_counted(root: Path) -> None:
    assert "numa_nodes" not in environment.machine(root)
    for name in ("node0", "node1", "power"):
        (root / "sys/devices/system/node" / name).mkdir(parents=True)
    assert environment.machine(root)["numa_nodes"] == "2"


def test_an_engine_is_named_with_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment.runtime("torch") == f"torch {installed('torch')}"
    monkeypatch.setitem(sys.modules, "installed_as_another", SimpleNamespace(__version__="1.2"))
    assert environment.runtime("installed_as_another") == "installed_as_another 1.2"
    assert environment.runtime("nobodys") == "nobodys"


def test_the_governor_is_included(root: Path) -> None:
    folder = root / "sys/devices/system/cpu/cpu0/cpufreq"
    folder.mkdir(parents=True)
    (folder / "scaling_governor").write_text("powersave\n")
    assert environment.machine(root)["governor"] == "powersave"


@pytest.mark.parametrize("content", [None, "", "processor\t: 0\nBogoMIPS\t: 50.00\n"])
def test_a_processor_without_a_name_is_called_by_its_kind(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/cpuinfo").write_text(content)
    assert environment.machine(tmp_path)["cpu_model"] in (platform.processor(), platform.machine())


def test_a_library_that_is_not_there_is_left_out(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_LIBRARIES", ("no-such-library", "numpy"))
    facts = environment.machine(root)
    assert "no-such-library" not in facts
    assert "numpy" in facts


def test_the_number_of_cores_may_be_unknown(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: None)
    assert environment.machine(root)["cores_physical"] == "unknown"


def test_the_busy_share_is_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: 15.0)
    monkeypatch.setattr(environment, "_seconds_of_partners", dict)
    assert environment.busy_share() == 0.15


_PARTNER = """
import sys
from mlflow_compress.meters import environment
if sys.argv[1] == "look":
    print(*environment._seconds_of_partners(), flush=True)
else:
    print("ready", flush=True)
sys.stdin.readline()
"""


def test_the_other_process_of_a_pair_does_not_count_as_others() -> None:
    def start(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    started = [start(_PARTNER, "partner"), start("print(0, flush=True); input()", "another command")]
    try:
        for process in started:
            assert process.stdout is not None
            process.stdout.readline()
        started.append(start(_PARTNER, "look"))
        assert started[-1].stdout is not None
        assert started[-1].stdout.readline().split() == [str(started[0].pid)]
    finally:
        for process in started:
            process.communicate("\n")


def test_what_the_other_process_of_a_pair_takes_is_not_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check by hand: 2 cores are 60 % busy for half a second, which is 0.6 s; the partner uses 0.5 s of that."""
    seconds = iter([{7: 1.0, 8: 3.0}, {7: 1.4, 9: 0.1}])
    monkeypatch.setattr(environment, "_seconds_of_partners", lambda: next(seconds))
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: 60.0)
    monkeypatch.setattr(psutil, "cpu_count", lambda: 2)
    assert environment.busy_share() == pytest.approx(0.1)


def test_the_load_average_is_three_numbers() -> None:
    assert len([float(value) for value in environment.load_average().split()]) == 3


@pytest.mark.parametrize(
    ("flags", "emulated"),
    [
        ("flags\t\t: fpu avx2 avx512f", ["bfloat16", "float16"]),
        ("flags\t\t: fpu avx512_bf16 amx_bf16", ["float16"]),
        ("flags\t\t: fpu avx512_fp16", ["bfloat16"]),
        ("flags\t\t: fpu avx512_fp16 amx_bf16", []),
        ("Features\t: fp asimd", ["bfloat16", "float16"]),
        ("", []),  # unknown
    ],
)
def test_precisions_without_instructions_are_named(root: Path, flags: str, emulated: list[str]) -> None:
    (root / "proc/cpuinfo").write_text(f"processor\t: 0\n{flags}\n\nprocessor\t: 1\n{flags}\n")
    assert environment.emulated(root) == emulated


@pytest.mark.parametrize(("flags", "has"), [("fpu avx2 avx512f", False), ("avx512_vnni", True), ("avx_vnni", True)])
def test_whether_products_of_8_bits_are_summed_in_32(root: Path, flags: str, has: bool) -> None:
    (root / "proc/cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    assert environment.has_int8_dot_products(root) is has


def test_nothing_is_emulated_where_the_cpu_is_not_known(tmp_path: Path) -> None:
    assert environment.emulated(tmp_path) == []


@pytest.mark.parametrize(
    ("convolutions", "matmul", "operations"),
    [(True, False, "convolutions"), (True, True, "convolutions, matmul"), (False, False, "none")],
)
def test_what_a_gpu_computes_more_coarsely_than_it_seems(
    monkeypatch: pytest.MonkeyPatch, convolutions: bool, matmul: bool, operations: str
) -> None:
    device = SimpleNamespace(name="NVIDIA H200", total_memory=143155 * 2**20, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: device)
    monkeypatch.setattr(torch.backends, "cudnn", SimpleNamespace(allow_tf32=convolutions))
    monkeypatch.setattr(torch.backends.cuda, "matmul", SimpleNamespace(allow_tf32=matmul))
    monkeypatch.setattr(gpu, "driver_version", lambda: "580.159.04")
    monkeypatch.setattr(gpu, "power_limit_w", lambda: 699.7)
    facts = environment.gpu()
    assert facts["gpu_tf32"] == operations
    assert (facts["gpu_driver"], facts["gpu_power_limit_w"]) == ("580.159.04", "700")
    assert (facts["gpu_model"], facts["gpu_memory_mib"]) == ("NVIDIA H200", "143155")
