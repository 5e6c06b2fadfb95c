"""The resources of calls: real counters, and a fake one for heat."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import pytest

from mlflow_compress.meters import usage


@pytest.mark.posix
def test_work_is_seen() -> None:
    before = usage.now()
    with mmap.mmap(-1, 64 * 2**20) as fresh:  # directly from the kernel: an allocator may reuse memory
        fresh.write(b"x" * len(fresh))
        total = len(fresh) + sum(range(2_000_000))
    used = usage.now() - before
    assert total
    assert used.wall_s > 0
    assert 0 < used.cpu_s <= used.wall_s * 1.5
    assert used.minor_faults is not None
    assert used.switches is not None
    assert used.minor_faults >= 64 * 2**20 / 4096 / 600  # huge pages at most
    assert used.switches >= 0


def test_heat_is_added_up_over_cores(tmp_path: Path) -> None:
    for core, count in enumerate((3, 4)):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{core}/thermal_throttle"
        folder.mkdir(parents=True)
        (folder / "core_throttle_count").write_text(f"{count}\n")
    assert usage.now(tmp_path).throttled == 7
    assert usage.now(tmp_path / "elsewhere").throttled == 0


def test_stops_for_a_containers_limit_are_counted_between_two_moments(tmp_path: Path) -> None:
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "cpu.max").write_text("150000 100000\n")
    readings = []
    for periods in (5, 12):
        (group / "cpu.stat").write_text(f"usage_usec 9\nnr_periods 900\nnr_throttled {periods}\nthrottled_usec 7\n")
        readings.append(usage.now(tmp_path))
    assert (readings[1] - readings[0]).stopped == 7
    assert usage.now(tmp_path / "elsewhere").stopped == 0


def test_numbers_are_per_call() -> None:
    used = usage.Usage(wall_s=10, cpu_s=15, switches=40, minor_faults=200, major_faults=0, throttled=0)
    assert usage.numbers(used, 20, 2, "cpu") == {
        "cpu/context_switches_per_call": 2,
        "cpu/page_faults_per_call": 10,
        "cpu/cpu_time_share": 0.75,
    }


def test_the_clock_is_that_of_the_fastest_core(tmp_path: Path) -> None:
    assert usage.clock_share(tmp_path) is None
    for core, khz in enumerate((1_200_000, 1_800_000)):
        policy = tmp_path / f"sys/devices/system/cpu/cpufreq/policy{core}"
        policy.mkdir(parents=True)
        (policy / "scaling_cur_freq").write_text(f"{khz}\n")
        assert usage.clock_share(tmp_path) is None or core == 1
        (policy / "base_frequency").write_text("2000000\n")
    assert usage.clock_share(tmp_path) == 0.9


def test_without_the_counters_of_posix_only_processor_time_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    before = usage.now()
    total = sum(range(2_000_000))
    used = usage.now() - before
    assert total
    assert used.cpu_s > 0
    assert (used.switches, used.minor_faults, used.major_faults) == (None, None, None)
    assert usage.numbers(usage.Usage(10, 15, None, None, None, 0), 20, 2, "cpu") == {"cpu/cpu_time_share": 0.75}
