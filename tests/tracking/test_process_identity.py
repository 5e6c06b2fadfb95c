"""Whether a process that logged a run is known to be dead."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mlflow_compress.tracking import process_identity

CODE = "from mlflow_compress.tracking import process_identity; print(process_identity.mine(), flush=True); input()"


def test_a_process_lives_until_it_dies() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        assert not process_identity.is_dead(name)
        process.kill()
        process.wait()
        assert process_identity.is_dead(name)


def test_this_process_lives() -> None:
    assert not process_identity.is_dead(process_identity.mine())


def test_another_process_under_the_same_id_is_another() -> None:
    machine, boot, namespace, pid, started = process_identity.mine().split(":")
    assert process_identity.is_dead(":".join((machine, boot, namespace, pid, f"{started}1")))


def test_all_processes_of_an_earlier_boot_are_dead() -> None:
    machine, _, namespace, pid, started = process_identity.mine().split(":")
    assert process_identity.is_dead(":".join((machine, "another-boot", namespace, pid, started)))


@pytest.mark.parametrize("field", [0, 2], ids=["machine", "container"])
def test_nothing_is_known_of_another(field: int) -> None:
    fields = process_identity.mine().split(":")
    fields[field], fields[3] = "other", "999999999"
    assert not process_identity.is_dead(":".join(fields))


@pytest.mark.parametrize("text", ["", "nonsense", "a:b:c:d:e", "::::", "a" * 10_000])
def test_what_is_no_name_is_not_dead(text: str) -> None:
    assert not process_identity.is_dead(text)


def test_without_linux_a_process_is_known_by_its_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(process_identity, "_BOOT", tmp_path / "none")
    monkeypatch.setattr(process_identity, "_namespace", lambda: "")
    process_identity._boot.cache_clear()
    try:
        monkeypatch.setattr(process_identity, "_started", lambda pid: "1795656662")
        mine = process_identity.mine()
        assert mine.split(":")[1] == ""
        assert not process_identity.is_dead(mine)
        monkeypatch.setattr(process_identity, "_started", lambda pid: "1795656663")  # rounded the other way
        assert not process_identity.is_dead(mine)
        for now in ("1795656700", None):  # another process, or none
            monkeypatch.setattr(process_identity, "_started", lambda pid, now=now: now)
            assert process_identity.is_dead(mine)
    finally:
        process_identity._boot.cache_clear()
