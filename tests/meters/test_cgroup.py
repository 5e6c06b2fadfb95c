"""Limits of containers and batch systems, read from the kernel's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_compress.meters import cgroup

MIB = 2**20
_UNLIMITED_V1 = "9223372036854771712\n"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def v2(group: str, **files: str) -> dict[str, str]:
    return {f"sys/fs/cgroup{group}/{name.replace('__', '.')}": text for name, text in files.items()}


def test_a_container_sees_its_own_group_at_the_top(tmp_path: Path) -> None:
    files = v2(
        "",
        cgroup__controllers="cpu memory\n",
        memory__max=f"{512 * MIB}\n",
        memory__current=f"{200 * MIB}\n",
        memory__stat=f"anon 5\ninactive_file {50 * MIB}\nactive_file 7\n",
        cpu__max="250000 100000\n",
    )
    root = write(tmp_path, {**files, "proc/self/cgroup": "0::/\n"})
    assert cgroup.memory_limit(root) == 512 * MIB
    assert cgroup.memory_left(root) == 362 * MIB
    assert cgroup.core_limit(root) == 2.5


def test_the_smallest_limit_of_all_groups_around_holds(tmp_path: Path) -> None:
    """Use groups as in Slurm or systemd, where the limit is often not on the innermost group."""
    files = {
        **v2("", cgroup__controllers="cpu memory\n"),
        **v2("/slurm", memory__max=f"{64 * MIB}\n", memory__current=f"{60 * MIB}\n", cpu__max="max 100000\n"),
        **v2("/slurm/job", memory__max=f"{128 * MIB}\n", memory__current=f"{30 * MIB}\n", cpu__max="100000 50000\n"),
        **v2("/slurm/job/step", memory__max="max\n", memory__high=f"{96 * MIB}\n", cpu__max="300000 100000\n"),
        **v2("/other", memory__max=f"{MIB}\n", cpu__max="1000 100000\n"),
        "proc/self/cgroup": "0::/slurm/job/step\n",
    }
    root = write(tmp_path, files)
    assert cgroup.memory_limit(root) == 64 * MIB
    assert cgroup.memory_left(root) == 4 * MIB
    assert cgroup.core_limit(root) == 2.0


@pytest.mark.parametrize("cpu", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize("seen_from", ["outside", "inside"])
def test_version_1(tmp_path: Path, cpu: str, seen_from: str) -> None:
    """Inside a container, its group is at the top, but the kernel reports the path of the host."""
    group = "/docker/12ab" if seen_from == "outside" else ""
    memory = f"sys/fs/cgroup/memory{group}"
    files = {
        "proc/self/cgroup": f"4:{cpu}:/docker/12ab\n3:memory:/docker/12ab\n0::/\n",
        f"{memory}/memory.limit_in_bytes": f"{256 * MIB}\n",
        f"{memory}/memory.usage_in_bytes": f"{256 * MIB}\n",
        f"{memory}/memory.stat": f"inactive_file 1\ntotal_inactive_file {6 * MIB}\n",
        f"sys/fs/cgroup/{cpu}{group}/cpu.cfs_quota_us": "50000\n",
        f"sys/fs/cgroup/{cpu}{group}/cpu.cfs_period_us": "100000\n",
    }
    root = write(tmp_path, files)
    if seen_from == "outside":
        write(tmp_path, {"sys/fs/cgroup/memory/memory.limit_in_bytes": _UNLIMITED_V1})
    assert cgroup.memory_limit(root) == 256 * MIB
    assert cgroup.memory_left(root) == 6 * MIB
    assert cgroup.core_limit(root) == 0.5


def test_both_versions_at_once(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "1:memory:/\n0::/unit\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{32 * MIB}\n",
        "sys/fs/cgroup/unified/cgroup.controllers": "cpu\n",
        "sys/fs/cgroup/unified/unit/cpu.max": "20000 10000\n",
    }
    root = write(tmp_path, files)
    assert (cgroup.memory_limit(root), cgroup.core_limit(root)) == (32 * MIB, 2.0)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/self/cgroup": "0::/\n", **v2("", cgroup__controllers="", memory__max="max\n", cpu__max="max 100000\n")},
        {
            "proc/self/cgroup": "3:memory:/\n1:cpu:/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": _UNLIMITED_V1,
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
        {"proc/self/cgroup": "nonsense\n0::/../..\n", **v2("", memory__max="many\n", cpu__max="\n")},
        {"proc/self/cgroup": "0::/gone\n", **v2("", cgroup__controllers="", cpu__max="0 0\n")},
    ],
    ids=["no files", "version 2", "version 1", "nonsense", "zero"],
)
def test_without_a_limit(tmp_path: Path, files: dict[str, str]) -> None:
    root = write(tmp_path, files)
    assert (cgroup.memory_limit(root), cgroup.memory_left(root), cgroup.core_limit(root)) == (None, None, None)
