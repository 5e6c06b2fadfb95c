from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from mlflow_compress.records import Outcome, Result, Step, Variant
from mlflow_compress.sweeping import ray_node
from mlflow_compress.version import __version__

VARIANT = Variant("m", "original", "t", "python", "x.py", chain=(Step("original"),))


@pytest.fixture(autouse=True)
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COMPRESS_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setenv("COMPRESS_LOCK", str(tmp_path / "lock"))
    return tmp_path / "spool"


def came(items: Any) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for kind, item in items:
        if kind == "file":
            files[item[0]] = files.get(item[0], b"") + item[1]
    return files


def canned(variant: Variant, folder: Path, listen: Any) -> Result:
    listen({"stage": "saving"})
    for name in ("model/a/weights.bin", "model/empty", "prepare.log", "predictions.json", "outputs.safetensors"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"" if name.endswith("empty") else b"12345")
    (folder / "original" / "model").mkdir(parents=True)
    return Result(variant, "ok", outcomes={"cpu": Outcome("ok")})


@pytest.mark.parametrize("with_model", [True, False])
def test_files_come_in_pieces_and_the_result_last(
    spool: Path, monkeypatch: pytest.MonkeyPatch, with_model: bool
) -> None:
    monkeypatch.setattr(ray_node, "CHUNK_BYTES", 2)
    items = list(ray_node.measure(VARIANT, None, "", [], with_model, run=canned))
    files = came(items)
    model = {"model/a/weights.bin", "model/empty"} if with_model else set()
    assert set(files) == {"prepare.log", "predictions.json", "result.json", *model}
    assert list(files)[-1] == "result.json"
    assert files["prepare.log"] == b"12345"
    assert max(len(item[1]) for kind, item in items if kind == "file") == 2
    assert ("progress", {"stage": "saving"}) in items
    assert list(spool.glob("*")) == []


def test_warnings_all_come_and_progress_now_and_then() -> None:
    def talkative(variant: Variant, folder: Path, listen: Any) -> Result:
        for number in range(300):
            listen({"stage": "timing", "done": number})
        listen({"stage": "timing", "warning": "hot"})
        listen({"stage": "timing", "warning": "hotter"})
        return Result(variant, "ok")

    events = [
        item for kind, item in ray_node.measure(VARIANT, None, "", [], False, run=talkative) if kind == "progress"
    ]
    assert [event["warning"] for event in events if "warning" in event] == ["hot", "hotter"]
    assert len(events) < 50


def test_an_error_of_the_measuring_itself_is_raised(spool: Path) -> None:
    def broken(variant: Variant, folder: Path, listen: Any) -> Result:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        list(ray_node.measure(VARIANT, None, "", [], False, run=broken))
    assert list(spool.glob("*")) == []


def test_closing_it_ends_what_it_started(spool: Path) -> None:
    started: list[int] = []

    def endless(variant: Variant, folder: Path, listen: Any) -> Result:
        code = "import time; time.sleep(600)"
        with subprocess.Popen(
            [sys.executable, "-c", code, "mlflow_compress.measuring.worker"], start_new_session=True
        ) as process:
            started.append(process.pid)
            listen({"stage": "timing"})
            process.wait()
        listen({"stage": "scoring"})
        return Result(variant, "ok")

    measuring = ray_node.measure(VARIANT, None, "", [], False, run=endless)
    assert next(measuring) == ("progress", {"stage": "timing"})
    began = time.monotonic()
    measuring.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 120
    assert not psutil.pid_exists(started[0])
    assert list(spool.glob("*")) == []


def test_it_clears_what_a_killed_one_left(spool: Path) -> None:
    code = "from mlflow_compress.tracking.spool import Spool; import os; Spool().begin(); os._exit(9)"
    subprocess.run([sys.executable, "-c", code], check=False)
    assert len([path for path in spool.iterdir() if path.is_dir()]) == 1
    list(ray_node.measure(VARIANT, None, "", [], False, run=canned))
    assert list(spool.glob("*")) == []


@pytest.mark.full
def test_a_machine_describes_itself() -> None:
    description = ray_node.describe("http://127.0.0.1:1", [], has_gpus=False)
    assert description["machine"]["version"] == __version__
    assert description["machine"]["cpu_model"]
    assert "gpu_model" not in description["machine"]
    assert "can't be reached" in description["unreachable"]
    assert description["parcels"] == {}
    assert not ray_node.describe("sqlite:///x.db", [], has_gpus=True)["unreachable"]


def test_gpus_are_hidden_where_they_are_not_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    visible_devices: list[str | None] = []

    def look(variant: Variant, folder: Path, listen: Any) -> Result:
        visible_devices.append(os.environ.get("CUDA_VISIBLE_DEVICES"))
        return Result(variant, "ok")

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    for has_gpus in (True, False):
        list(ray_node.measure(VARIANT, None, "", [], False, has_gpus, look))
    assert visible_devices == ["0,1", ""]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"
