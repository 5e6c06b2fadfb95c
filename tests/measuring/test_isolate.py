"""What becomes of a variant, whatever happens to its processes. Each process costs seconds: results are shared."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mlflow_compress.measuring import isolate, worker_process
from mlflow_compress.meters import size
from mlflow_compress.networks.model_folder import restore
from mlflow_compress.planning import recipe
from mlflow_compress.records import Budget, Outcome, Part, Result, Variant, to_json

BUDGET = Budget(
    min_iterations=6, min_seconds=0.0, max_seconds=2, warmup_max_seconds=1, energy_seconds=0, timeout_seconds=120
)

MODEL = """
import json, os
from pathlib import Path
import torch
from torch import nn

def model():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4), nn.Softmax(-1))

def batch(size):
    if Path("variant.json").exists():
        Path(f"environment-{os.getpid()}.json").write_text(json.dumps(dict(os.environ)))
    return torch.rand(size, 8)

def load_weights(module):
    torch.manual_seed(3)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)

def samples():
    torch.manual_seed(5)
    inputs = torch.rand(40, 8)
    torch.manual_seed(3)
    own = model()
    load_weights(own)
    with torch.no_grad():
        return list(zip(inputs, own(inputs).argmax(-1).tolist()))
"""

BROKEN_PREDICT = """
def predict(module, inputs):
    raise RuntimeError("no idea")
"""


class Lab:
    """Measures variants of one small model, and remembers their results."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "model.py").write_text(MODEL)
        (folder / "broken.py").write_text(MODEL + BROKEN_PREDICT)
        (folder / "bad.pt").write_bytes(b"PK\x03\x04 cut short")
        self._known: dict[str, Result] = {}
        self.events: dict[str, list[Mapping[str, Any]]] = {}

    def folder_of(self, method: str) -> Path:
        return self._folder / "".join(char if char.isalnum() else "_" for char in method)

    def measure(self, method: str, source: str = "model.py", **changes: Any) -> Result:
        key = f"{method} {source} {sorted(changes)}"
        if key not in self._known:
            folder = self.folder_of(key)
            folder.mkdir()
            fields: dict[str, Any] = {"data": "own", "budget": BUDGET, **changes}
            variant = Variant(
                "tiny",
                method,
                "alpha",
                "python",
                source,
                chain=recipe.parse_chain(method),
                metrics=("accuracy",),
                threads=1,
                folder=str(self._folder),
                **fields,
            )
            events = self.events[key] = []
            self._known[key] = isolate.run(variant, folder, events.append)
        return self._known[key]

    def work(self, method: str, source: str = "model.py", *changes: str) -> Path:
        return self.folder_of(f"{method} {source} {sorted(changes)}")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, plugin_path: Path) -> Iterator[Lab]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("lab")
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@server")
        patch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
        patch.setenv("DATABRICKS_TOKEN", "secret")
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        yield Lab(folder)


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
    assert result.environment["threads"] == "1"
    assert result.ended_s > result.started_s
    assert Result.from_json(json.loads(json.dumps(to_json(result)))) == result


def test_a_clock_that_is_set_back_changes_no_duration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    times = iter((1e9, 5e8, 0.0, -1.0))
    monkeypatch.setattr("mlflow_compress.measuring.isolate.time.time", lambda: next(times))
    monkeypatch.setattr(isolate, "_work", lambda *given, **named: Part(Outcome("failed", "no")))
    result = isolate.run(Variant("tiny", "original", "alpha", "python", "model.py"), tmp_path, lambda event: None)
    assert result.started_s == 1e9
    assert 0 <= result.ended_s - result.started_s < 60


def test_a_full_disk_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(isolate, "write_json", full)
    result = isolate.run(Variant("tiny", "original", "alpha", "python", "model.py"), tmp_path, lambda event: None)
    assert result.status == "failed"
    assert "No space left" in result.reason


def test_progress_is_told_stage_by_stage(lab: Lab) -> None:
    lab.measure("original")
    events = lab.events["original model.py []"]
    stages = list(dict.fromkeys(event["stage"] for event in events))
    assert stages[:2] == ["loading", "checking the data"]
    assert {"saving", "sizing", "restoring", "timing on cpu", "scoring"} <= set(stages)


def test_a_worker_knows_no_secret_of_the_server(lab: Lab) -> None:
    lab.measure("original")
    seen = [json.loads(path.read_text()) for path in lab.work("original").glob("environment-*.json")]
    assert len(seen) == 2  # prepare and measure
    assert not [name for each in seen for name in each if name.startswith(("MLFLOW_", "DATABRICKS_"))]
    assert "secret" not in json.dumps(seen)
    assert [each.get("HF_HUB_OFFLINE") for each in seen].count("1") == 1
    assert all(each["OMP_NUM_THREADS"] == "1" for each in seen)


@pytest.mark.parametrize("method", ["drop_last", "traced", "prune_magnitude:amount=0.5+int8_dynamic"])
def test_what_is_measured_is_what_was_saved(lab: Lab, method: str) -> None:
    """Of another architecture, in another runtime, packed: the folder alone gives the same predictions."""
    result = lab.measure(method)
    assert result.status == "ok"
    again = restore(lab.work(method) / "model")
    samples = again.family.samples(again.model, "own", Path(), None, 0)
    predictions = again.family.predict(again.model, [sample.inputs for sample in samples])
    right = sum(p == sample.reference for p, sample in zip(predictions, samples, strict=True))
    assert result.measurements["quality/accuracy"] == right / 40
    if method != "prune_magnitude:amount=0.5+int8_dynamic":  # the softmax left out, or traced: nothing else is chosen
        assert right == 40
    for name, number in size.in_memory(again.model.module).items():
        assert result.measurements[name] == number


def test_the_plugins_did_what_they_say(lab: Lab) -> None:
    folder = lab.work("traced") / "model"
    assert (folder / "traced.pt").is_file()
    assert not (folder / "weights.safetensors").exists()
    assert len(restore(lab.work("drop_last") / "model").model.module) == 3
    pruned = lab.measure("prune_magnitude:amount=0.5+int8_dynamic").measurements
    assert pruned["size/params_nonzero"] == pytest.approx(pruned["size/params"] / 2, rel=0.1)
    assert pruned["size/weights_mib"] < lab.measure("original").measurements["size/weights_mib"] / 2


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (
            "sigkill",
            "prepare was killed by SIGKILL (out of memory? The kernel kills so). Its last line: about to",
        ),
        ("segfault", "prepare was killed by SIGABRT"),
        ("raise", "RuntimeError: the plugin gave up on two lines"),
        ("memory", "out of memory: can't allocate 4 TiB"),
        ("exit", "prepare ended with exit code 3 and left no result. Its last line: about to exit"),
    ],
)
def test_a_crash_is_one_failed_result_with_its_reason(lab: Lab, kind: str, reason: str) -> None:
    result = lab.measure(f"crash:kind={kind}")
    assert result.status == "failed"
    assert result.reason.startswith(reason)
    assert "\n" not in result.reason
    assert result.outcomes == {}
    assert not [name for name in result.measurements if name.startswith(("cpu/", "gpu/", "quality/"))]
    assert f"about to {kind}" in isolate.logs(lab.work(f"crash:kind={kind}"))["prepare.log"].decode()


def test_a_traceback_is_kept_in_the_log(lab: Lab) -> None:
    lab.measure("crash:kind=raise")
    assert b"RuntimeError: the plugin gave up" in isolate.logs(lab.work("crash:kind=raise"))["prepare.log"]


def test_turns_are_taken_with_the_original(lab: Lab) -> None:
    result = lab.measure("drop_last:count=1", interleave=True)
    assert result.status == "ok", result.reason
    numbers, samples = result.measurements, result.samples
    assert numbers["cpu/rounds"] == len(samples["cpu/round_sizes"]) >= 10
    assert sum(samples["cpu/round_sizes"]) == len(samples["cpu/latency_ms"]) == numbers["cpu/latency_count"]
    assert len(samples["cpu/original_latency_ms"]) >= 10
    assert samples["cpu/ram_timeline_mib"]
    assert numbers["cpu/latency_ratio_low"] <= numbers["cpu/latency_ratio"] <= numbers["cpu/latency_ratio_high"]
    assert 0.2 < numbers["cpu/latency_ratio"] < 5  # one small layer less


def test_the_original_takes_no_turns_with_itself(lab: Lab) -> None:
    result = lab.measure("original", interleave=True)
    assert result.status == "ok", result.reason
    assert "cpu/latency_ratio" not in result.measurements


def test_a_variant_that_dies_in_its_turn_has_failed(lab: Lab) -> None:
    result = lab.measure("crash:kind=sigkill,at=rebuild", interleave=True)
    assert result.status == "failed"
    assert "SIGKILL" in result.reason


def test_an_original_that_cannot_be_measured_is_the_reason(lab: Lab) -> None:
    result = lab.measure("traced", interleave=True, devices=("cuda",))
    assert result.status == "skipped"
    assert "CUDA" in result.reason


def test_a_crash_while_measuring_leaves_what_was_found_before(lab: Lab) -> None:
    result = lab.measure("crash:kind=sigkill,at=rebuild")
    assert result.status == "failed"
    assert result.outcomes["cpu"].status == "failed"
    assert result.reason.startswith("cpu: measure was killed by SIGKILL")
    assert result.measurements["size/disk_mib"] > 0
    assert set(isolate.logs(lab.work("crash:kind=sigkill,at=rebuild"))) == {"measure-cpu.log"}


def test_outputs_that_are_no_numbers_are_a_failure(lab: Lab) -> None:
    result = lab.measure("crash:kind=nan")
    assert result.status == "failed"
    assert "NaN" in result.reason
    assert "cpu/latency_p50_ms" not in result.measurements


def test_what_hangs_is_stopped_with_all_that_it_started(lab: Lab) -> None:
    result = lab.measure("crash:kind=hang", budget=Budget(timeout_seconds=15))
    assert result.status == "failed"
    assert result.reason == "prepare took longer than 15 s and was stopped (--timeout allows more)"
    child = int((lab.work("crash:kind=hang", "model.py", "budget") / "child.pid").read_text())
    for _ in range(100):
        if not is_running(child):
            return
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the child was left running")


def is_running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_a_method_that_does_not_apply_is_skipped(lab: Lab) -> None:
    result = lab.measure("crash:kind=skip")
    assert (result.status, result.reason) == ("skipped", "it does not apply to this model")
    assert result.outcomes == {}


def test_how_far_the_outputs_moved_is_logged(lab: Lab) -> None:
    assert "quality/output_error_rel_l2" not in lab.measure("original").measurements
    small, large = (lab.measure(method).measurements["quality/output_error_rel_l2"] for method in ("fp16", "drop_last"))
    assert 0 < small < 0.02 < large


def test_what_restores_to_something_else_has_failed(lab: Lab) -> None:
    result = lab.measure("crash:kind=drift,at=rebuild")
    assert result.status == "failed"
    assert result.reason == "cpu: the restored model's outputs differ by 50.0% from those of the model that was saved"


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("absent", 'absent needs a-distribution-that-nobody-has: pip install "mlflow-compress[imaginary]"'),
        ("choosy", "choosy does not serve python: it must know the layers' names"),
    ],
)
def test_a_method_that_cannot_serve_is_skipped_with_what_to_do(lab: Lab, method: str, reason: str) -> None:
    result = lab.measure(method)
    assert (result.status, result.reason) == ("skipped", reason)


def test_quality_is_scored_where_the_model_runs(lab: Lab) -> None:
    result = lab.measure("int8_dynamic", devices=("cpu", "cuda"))
    assert result.outcomes["gpu"].status == "skipped"
    assert result.outcomes["quality"] == Outcome("ok")
    assert result.measurements["quality/samples"] == 40


def test_a_gpu_that_is_not_there_is_skipped_and_the_cpu_measured(lab: Lab) -> None:
    result = lab.measure("fp16", devices=("cpu", "cuda"))
    assert result.status == "ok"
    assert result.outcomes["cpu"] == Outcome("ok")
    assert result.outcomes["gpu"].status == "skipped"
    assert result.reason.startswith("gpu: this machine has no CUDA device")
    assert result.measurements["cpu/latency_p50_ms"] > 0
    assert not [name for name in result.measurements if name.startswith("gpu/")]


def test_weights_that_cannot_be_read_are_named(lab: Lab) -> None:
    result = lab.measure("original", weights="bad.pt")
    assert result.status == "failed"
    assert result.cause == "weights"
    assert result.outcomes == {}
    assert "bad.pt can't be read" in result.reason


def test_a_failed_score_leaves_what_was_timed(lab: Lab) -> None:
    result = lab.measure("original", source="broken.py")
    assert result.status == "failed"
    assert result.outcomes == {"cpu": Outcome("ok"), "quality": Outcome("failed", "RuntimeError: no idea")}
    assert result.measurements["cpu/latency_p50_ms"] > 0
    assert "quality/accuracy" not in result.measurements


@pytest.mark.parametrize("line", [b"", b"{", b"[1]", b"3", b"noise\n", b"\xff\xfe", b'{"stage": "half'])
def test_a_line_that_is_no_event_says_nothing(line: bytes) -> None:
    assert worker_process._event(line) == {}
