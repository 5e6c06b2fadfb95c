"""What is on disk, and when: before sending, on a full disk, in a folder that is not writable."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlflow_compress.records import Result, Step, Variant
from mlflow_compress.tracking import spool as module
from mlflow_compress.tracking.spool import Address, Entry, Shipment, Spool, default_folder

VARIANT = Variant("yolo", "int8", "alpha", "yolo", "yolo11n.pt", chain=(Step("int8_dynamic"),))
RESULT = Result(
    VARIANT, "ok", measurements={"size/params": 7.0}, samples={"cpu/latency_ms": [1.0]}, started_s=1, ended_s=2
)
ADDRESS = Address("sqlite:///a.db", "hw1", {"model": "yolo"}, digest="abc")
# RESULT and ADDRESS as the first release wrote them
RESULT_OF_0_1 = """{"variant": {"model": "yolo", "method": "int8", "team": "alpha", "family": "yolo", "source":
"yolo11n.pt", "weights": "auto", "data": null, "chain": [{"method": "int8_dynamic", "options":
{}}], "options": {}, "metrics": [], "devices": ["cpu"], "batch_size": 1, "setting": "",
"threads": null, "interleave": false, "seed": 0, "limit": null, "budget": {"min_iterations":
50, "min_seconds": 3.0, "max_seconds": 60.0, "fewest_iterations": 6, "warmup_max_seconds":
20.0, "energy_seconds": 5.0, "score_seconds": 1800.0, "timeout_seconds": 3600.0}, "folder":
".", "requires": {}}, "status": "ok", "reason": "", "measurements": {"size/params": 7.0},
"samples": {"cpu/latency_ms": [1.0]}, "cautions": [], "environment": {}, "outcomes": {},
"facts": {}, "started_s": 1, "ended_s": 2, "schema": 1}"""
ADDRESS_OF_0_1 = """{"uri": "sqlite:///a.db", "experiment": "hw1", "asked": {"model": "yolo"}, "run": "", "parent":
"", "with_model": true, "digest": "abc", "lost": "", "register": ""}"""


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "deep" / "spool")


def kept(spool: Spool) -> Entry:
    entry = spool.begin()
    (entry.folder / "model").mkdir()
    (entry.folder / "model" / "weights").write_bytes(b"w" * 1000)
    Shipment(entry, RESULT, ADDRESS, print).keep()
    return entry


def test_what_is_kept_is_read_back(spool: Spool) -> None:
    entry = kept(spool)
    entry.release()
    (entry_read,) = spool.entries()
    assert entry_read.id == entry.id
    assert entry_read.read(print) == Shipment(entry_read, RESULT, ADDRESS, print)
    assert (entry_read.folder / "model" / "weights").stat().st_size == 1000


def test_what_the_first_release_kept_is_read(spool: Spool) -> None:
    entry = spool.begin()
    for name, content in (("result.json", RESULT_OF_0_1), ("address.json", ADDRESS_OF_0_1)):
        (entry.folder / name).write_text(content)
    assert entry.read(print) == Shipment(entry, RESULT, ADDRESS, print)


def test_nobody_else_sees_what_is_worked_on(spool: Spool) -> None:
    entry = kept(spool)
    assert list(spool.entries()) == []
    entry.release()
    assert len(list(spool.entries())) == 1


def test_what_is_removed_leaves_nothing(spool: Spool) -> None:
    kept(spool).remove()
    assert list(spool.folder.iterdir()) == []


def test_a_measurement_without_a_result_is_no_entry(spool: Spool) -> None:
    entry = spool.begin()
    (entry.folder / "result.json").write_text("{}")  # the address, written last, is missing
    entry.release()
    assert list(spool.entries()) == []
    spool.clear()
    assert not entry.folder.exists()


def test_clearing_leaves_results_and_running_measurements_alone(spool: Spool) -> None:
    running, finished = spool.begin(), kept(spool)
    finished.release()
    spool.clear()
    assert running.folder.is_dir()
    assert (finished.folder / "result.json").is_file()


def test_the_death_of_its_owner_frees_an_entry(spool: Spool) -> None:
    code = f"""
import os, signal
from pathlib import Path
from mlflow_compress.tracking.spool import Spool
print(Spool(Path({str(spool.folder)!r})).begin().folder, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    folder = Path(process.stdout.strip())
    assert folder.is_dir()
    spool.clear()
    assert not folder.exists()


def test_a_model_that_is_not_to_be_logged_is_not_kept(spool: Spool) -> None:
    entry = spool.begin()
    (entry.folder / "model").mkdir()
    Shipment(entry, RESULT, dataclasses.replace(ADDRESS, with_model=False), print).keep()
    assert not (entry.folder / "model").exists()


def test_on_a_full_disk_the_model_makes_room(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = spool.begin()
    (entry.folder / "model").mkdir()
    original = module._write

    def write(path: Path, data: object) -> None:
        if (entry.folder / "model").exists():
            raise OSError(28, "No space left on device")
        original(path, data)

    monkeypatch.setattr(module, "_write", write)
    shipment = Shipment(entry, RESULT, ADDRESS, print).keep()
    assert not shipment.address.with_model
    assert "disk was full" in shipment.address.lost
    assert entry.read(print) == shipment


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_disk_that_stays_full_is_reported(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = spool.begin()
    write = Path.write_text
    monkeypatch.setattr(Path, "write_text", lambda path, text, **kwargs: write(Path("/dev/full"), text, **kwargs))
    with pytest.raises(OSError, match="No space left"):
        Shipment(entry, RESULT, ADDRESS, print).keep()
    assert list(entry.folder.iterdir()) == []
    entry.release()
    assert list(spool.entries()) == []


def test_a_folder_that_cannot_be_written_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    spool = Spool(tmp_path / "file" / "spool")
    entry = kept(spool)
    assert entry.folder.is_relative_to(spool.folder)
    assert str(tmp_path / "file") in spool.caution
    assert str(spool.folder) in spool.caution
    entry.remove()
    spool.folder.rmdir()


def test_names_are_no_paths(spool: Spool) -> None:
    result = dataclasses.replace(RESULT, variant=dataclasses.replace(VARIANT, model="../../x", team="a/b"))
    entry = spool.begin()
    Shipment(entry, result, dataclasses.replace(ADDRESS, experiment="../../../etc"), print).keep()
    assert {path.name for path in spool.folder.iterdir()} == {entry.id, f"{entry.id}.lock"}


def test_what_is_half_written_is_never_read(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = kept(spool)

    def fail(*args: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(module, "_sync", fail)
    with pytest.raises(OSError, match="Input/output"):
        module._write(entry.folder / "result.json", {"half": 1})
    assert json.loads((entry.folder / "result.json").read_text())["status"] == "ok"


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COMPRESS_SPOOL", str(tmp_path))
    assert default_folder() == tmp_path
    monkeypatch.delenv("COMPRESS_SPOOL")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "mlflow-compress" / "spool"
    assert os.environ["XDG_CACHE_HOME"] == str(tmp_path)


@pytest.mark.posix
def test_what_a_model_left_in_its_folder_keeps_no_result_from_being_kept(spool: Spool) -> None:
    """The model's own code may leave folders without a valid name, a pipe or a broken link, or delete the folder."""
    for number in range(2):
        entry = spool.begin()
        if number == 0:
            (entry.folder / Path(*["d" * 20] * 150)).mkdir(parents=True)
            os.mkfifo(entry.folder / "pipe")
            (entry.folder / "nowhere").symlink_to("nothing")
            (entry.folder / "result.json.partial").symlink_to("/dev/full")
        else:
            entry.folder.rmdir()
        result = Result(Variant("m", "original", "t", "python", "m.py"), "failed", "why", ended_s=1.0)
        Shipment(entry, result, Address("uri", "hw1"), lambda text: None).keep()
        assert entry.read(lambda text: None).result == result
        entry.remove()
    assert [path for path in spool.folder.iterdir() if path.is_dir()] == []
