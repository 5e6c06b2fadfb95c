"""Some harmful models of `python -m tests.faults`: each gets one failed row with a reason, and the sweep continues."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from .bad_workers import GOOD, BadWorkers
from .scenes import table

NAMES = ("leaves a daemon that computes", "writes 300 MiB of words")


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes through /proc")
def test_what_harms_its_worker_costs_its_own_row_and_nothing_else(tmp_path: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, tmp_path)
    counts = BadWorkers(tmp_path).play(NAMES)
    assert [count.fault for count in counts] == [*NAMES, GOOD, "all of them"]
    assert all(count.is_well for count in counts), f"{table(counts)}\n{(tmp_path / 'out').read_text()}"
    assert {count.code for count in counts} == {1}
