"""The result of a variant, whatever happens to its processes. Each process takes seconds: results are shared."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from lab import Lab

from mlflow_compress.measuring import isolate, one_process
from mlflow_compress.meters import size
from mlflow_compress.networks.model_folder import restore
from mlflow_compress.records import Outcome, Part, Result, Variant, to_json


def test_a_variant_is_measured(lab: Lab) -> None:
    result = lab.measure("original")
    assert (result.status, result.reason) == ("ok", "")
    assert result.outcomes == {"cpu": Outcome("ok"), "quality": Outcome("ok")}
    numbers = result.measurements
    parameters = 8 * 16 + 16 + 16 * 4 + 4
    assert numbers["size/params"] == parameters
    assert numbers["size/weights_mib"] == 4 * parameters / 2**20
    assert numbers["size/disk_mib"] > numbers["size/weights_mib"]
    assert numbers["quality/accuracy"] == 1
    assert numbers["quality/samples"] == 40
    assert numbers["cpu/latency_count"] == len(result.samples["cpu/latency_ms"]) == 6
    assert numbers["cpu/latency_min_ms"] <= numbers["cpu/latency_p50_ms"] <= numbers["cpu/latency_max_ms"]
    assert numbers["cpu/ram_peak_mib"] > numbers["cpu/ram_baseline_mib"] > 50
    assert numbers["cpu/load_ms"] > 0
    assert result.facts["weights"] == "local"
    assert result.facts["timed"]
    assert result.facts["work"].endswith(": [1, 8] float")
    assert result.environment["threads"] == "1"
    assert result.environment["runtime"] == f"torch {result.environment['torch']}"
    assert result.ended_s > result.started_s
    assert Result.from_json(json.loads(json.dumps(to_json(result)))) == result


def test_a_clock_that_is_set_back_changes_no_duration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    times = iter((1e9, 5e8, 0.0, -1.0))
    monkeypatch.setattr("mlflow_compress.measuring.isolate.time.time", lambda: next(times))
    monkeypatch.setattr(isolate, "work", lambda *args, **kwargs: Part(Outcome("failed", "no")))
    result = isolate.run(Variant("tiny", "original", "alpha", "python", "model.py"), tmp_path, lambda event: None)
    assert result.started_s == 1e9
    assert 0 <= result.ended_s - result.started_s < 60


def test_a_full_disk_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(one_process, "write_json", full)
    result = isolate.run(Variant("tiny", "original", "alpha", "python", "model.py"), tmp_path, lambda event: None)
    assert result.status == "failed"
    assert "No space left" in result.reason


@pytest.mark.parametrize("method", ["drop_last", "traced", "prune_magnitude:amount=0.5+int8_dynamic"])
def test_what_is_measured_is_what_was_saved(lab: Lab, method: str) -> None:
    """With another architecture, in another runtime, packed: the folder alone gives the same predictions."""
    result = lab.measure(method)
    assert result.status == "ok"
    restored = restore(lab.work(method) / "model")
    samples = restored.family.samples(restored.model, "own", Path(), None, 0)
    predictions = restored.family.predict(restored.model, [sample.inputs for sample in samples])
    correct = sum(p == sample.reference for p, sample in zip(predictions, samples, strict=True))
    assert result.measurements["quality/accuracy"] == correct / 40
    if method != "prune_magnitude:amount=0.5+int8_dynamic":  # without the softmax, or traced: the choices are the same
        assert correct == 40
    for name, number in size.in_memory(restored.model.module).items():
        assert result.measurements[name] == number


def test_the_plugins_did_what_they_say(lab: Lab) -> None:
    folder = lab.work("traced") / "model"
    assert (folder / "traced.pt").is_file()
    assert not (folder / "model.safetensors").exists()
    assert len(restore(lab.work("drop_last") / "model").model.module) == 3
    pruned = lab.measure("prune_magnitude:amount=0.5+int8_dynamic").measurements
    assert pruned["size/params_nonzero"] == pytest.approx(pruned["size/params"] / 2, rel=0.1)
    assert pruned["size/weights_mib"] < lab.measure("original").measurements["size/weights_mib"] / 2


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (
            "sigkill",
            r"prepare was killed by SIGKILL \(out of memory\? Then the kernel kills .*\)\. Its last line: about",
        ),
        ("segfault", "prepare was killed by SIGABRT"),
        ("raise", r"compress_test_plugin.py, line \d+, in _crash: RuntimeError: the plugin gave up on two lines"),
        ("memory", r"compress_test_plugin.py, line \d+, in _crash: out of memory: can't allocate 4 TiB"),
        ("exit", "prepare ended with exit code 3 and wrote no result. Its last line: about to exit"),
    ],
)
def test_a_crash_is_one_failed_result_with_its_reason(lab: Lab, kind: str, reason: str) -> None:
    result = lab.measure(f"crash:kind={kind}")
    assert result.status == "failed"
    assert re.match(reason, result.reason)
    assert "\n" not in result.reason
    assert result.outcomes == {}
    assert not [name for name in result.measurements if name.startswith(("cpu/", "gpu/", "quality/"))]
    assert f"about to {kind}" in isolate.logs(lab.work(f"crash:kind={kind}"))["prepare.log"].decode()


def test_a_crash_while_measuring_leaves_what_was_found_before(lab: Lab) -> None:
    result = lab.measure("crash:kind=sigkill,at=rebuild")
    assert result.status == "failed"
    assert result.outcomes["cpu"].status == "failed"
    assert result.reason.startswith("cpu: measure was killed by SIGKILL")
    assert result.measurements["size/disk_mib"] > 0
    assert set(isolate.logs(lab.work("crash:kind=sigkill,at=rebuild"))) == {"measure-cpu.log"}


def test_a_gpu_that_is_not_there_is_skipped_and_the_cpu_measured(lab: Lab) -> None:
    result = lab.measure("fp16", devices=("cpu", "cuda"))
    assert result.status == "ok"
    assert result.outcomes["cpu"] == Outcome("ok")
    assert result.outcomes["gpu"].status == "skipped"
    assert result.reason.startswith("gpu: this machine has no CUDA device")
    assert result.measurements["cpu/latency_p50_ms"] > 0
    assert not [name for name in result.measurements if name.startswith("gpu/")]


def test_tables_are_files_of_a_size_that_can_be_logged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(isolate, "MOST_TABLE_BYTES", 3 * 2**20)
    (tmp_path / "statistics.npz").write_bytes(b"statistics")
    (tmp_path / "predictions.json").write_bytes(b"x" * 3 * 2**20)
    assert set(isolate.tables(tmp_path)) == {"predictions.json", "statistics.npz"}
    assert isolate.too_large(tmp_path) == ""
    (tmp_path / "predictions.json").write_bytes(b"x" * 4 * 2**20)
    assert isolate.tables(tmp_path) == {"statistics.npz": b"statistics"}
    assert isolate.too_large(tmp_path) == "predictions.json has 4 MiB: at most 3 MiB are logged"


@pytest.mark.posix
def test_what_a_model_left_in_the_place_of_tables_and_logs_is_none(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("not for a tracking server")
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "prepare.log").symlink_to(theirs)
    (folder / "predictions.json").symlink_to(theirs)
    (folder / "statistics.npz").mkdir()
    os.mkfifo(folder / "measure-cpu.log")
    assert (isolate.tables(folder), isolate.logs(folder)) == ({}, {})
