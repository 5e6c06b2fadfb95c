"""The output of the measured process. Each process takes seconds: results are shared, see `Lab`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lab import MODEL, Lab

from mlflow_compress.errors import RecipeError
from mlflow_compress.measuring import isolate, worker
from mlflow_compress.meters import environment
from mlflow_compress.records import Variant


def test_progress_is_reported_stage_by_stage(lab: Lab) -> None:
    lab.measure("original")
    events = lab.events["original model.py []"]
    stages = list(dict.fromkeys(event["stage"] for event in events))
    assert stages[:2] == ["loading", "checking the data"]
    assert {"saving", "sizing", "restoring", "timing on cpu", "scoring"} <= set(stages)


def test_a_traceback_is_kept_in_the_log(lab: Lab) -> None:
    lab.measure("crash:kind=raise")
    assert b"RuntimeError: the plugin gave up" in isolate.logs(lab.work("crash:kind=raise"))["prepare.log"]


def test_outputs_that_are_not_numbers_are_a_failure(lab: Lab) -> None:
    result = lab.measure("crash:kind=nan")
    assert result.status == "failed"
    assert "NaN" in result.reason
    assert "cpu/latency_p50_ms" not in result.measurements


def test_a_method_that_does_not_apply_is_skipped(lab: Lab) -> None:
    result = lab.measure("crash:kind=skip")
    assert (result.status, result.reason, result.cause) == ("skipped", "it does not apply to this model", "")
    assert result.outcomes == {}


@pytest.mark.parametrize(("requested", "allowed", "threads"), [(None, 2, 2), (None, 64, 3), (5, 2, 5)])
def test_threads_are_the_requested_number_or_at_most_the_allowed(
    monkeypatch: pytest.MonkeyPatch, requested: int | None, allowed: int, threads: int
) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr(environment, "most_threads", lambda: allowed)
    worker._set_threads(Variant("tiny", "original", "alpha", "python", "model.py", threads=requested))
    assert chosen == [threads]


def test_a_missing_named_gpu_is_reported_before_loading(lab: Lab) -> None:
    result = lab.measure("original", devices=("cuda",), weights="bad.pt")
    assert (result.status, result.cause) == ("failed", "measuring")
    assert result.reason == "device=cuda was requested, but this machine has no CUDA device that torch can use"


def test_a_missing_gpu_is_named_before_a_missing_package(lab: Lab) -> None:
    result = lab.measure("tensorrt")
    assert (result.status, result.cause) == ("skipped", "machine")
    assert result.reason.startswith("models of tensorrt run on an NVIDIA GPU only, but this machine has no CUDA")


@pytest.mark.parametrize(
    ("method", "reason", "cause"),
    [
        ("absent", 'absent needs a-distribution-that-nobody-has: pip install "mlflow-compress[imaginary]"', "machine"),
        ("choosy", "choosy does not support python: it must know the layers' names", ""),
    ],
)
def test_a_method_that_cannot_serve_is_skipped_with_what_to_do(lab: Lab, method: str, reason: str, cause: str) -> None:
    result = lab.measure(method)
    assert (result.status, result.reason, result.cause) == ("skipped", reason, cause)


def test_weights_that_cannot_be_read_are_named(lab: Lab) -> None:
    result = lab.measure("original", weights="bad.pt")
    assert result.status == "failed"
    assert result.cause == "weights"
    assert result.outcomes == {}
    assert "bad.pt can't be read" in result.reason


def test_what_was_timed_stays_when_scoring_is_killed(lab: Lab) -> None:
    killed = "def predict(module, inputs):\n    return [0, 0] if len(inputs) == 2 else os.kill(os.getpid(), 9)\n"
    (lab.folder / "killed.py").write_text(f"{MODEL}\n\n{killed}")
    result = lab.measure("original", "killed.py")
    assert result.status == "failed"
    assert result.outcomes["cpu"].status == "ok"
    assert result.outcomes["quality"].reason.startswith("scoring was killed by SIGKILL")
    assert result.measurements["cpu/latency_p50_ms"] > 0
    assert result.samples["cpu/latency_ms"]
    assert "quality/accuracy" not in result.measurements


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError("4 TiB"), "out of memory: 4 TiB"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory: DefaultCPUAllocator: "),
        (OSError(12, "Cannot allocate memory"), "out of memory: [Errno 12] Cannot allocate memory"),
        (RuntimeError("std::bad_alloc"), "out of memory: std::bad_alloc"),
        (RuntimeError("shapes do not fit"), "RuntimeError: shapes do not fit"),
    ],
)
def test_a_lack_of_memory_is_recognised_in_any_error(error: Exception, reason: str) -> None:
    assert worker._reason(error).startswith(reason)


def test_errors_in_a_users_file_are_reported_with_their_place(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def predict(module, inputs):\n    return inputs + 1\n")
    code = compile(path.read_text(), str(path), "exec")
    space: dict[str, Any] = {}
    exec(code, space)
    with pytest.raises(TypeError) as raised:
        space["predict"](None, [])
    assert worker._reason(raised.value).startswith("mine.py, line 2, in predict: TypeError: can only concatenate list")
    error = RecipeError("samples() gave nothing.")
    error.__cause__ = raised.value
    assert worker._reason(error) == "samples() gave nothing (mine.py, line 2, in predict)."


@pytest.mark.parametrize(
    ("files", "file", "place"),
    [
        (["model.py"], "model.py", "mine.py, line 1"),  # the copy of the user's own file
        (["code/mine.py", "code/model.py"], "code/model.py", "model.py, line 1"),  # a helper of that name
        (["code/my_model.py"], "code/my_model.py", "my_model.py, line 1"),
    ],
)
def test_a_restored_file_has_its_own_name_again_and_no_other_has(
    files: list[str], file: str, place: str, tmp_path: Path
) -> None:
    saved = tmp_path / "model"
    (saved / "code").mkdir(parents=True)
    for name in files:
        (saved / name).write_text("1 / 0")
    variant = Variant("m", "original", "t", "python", "mine.py")
    with pytest.raises(ZeroDivisionError) as raised:
        exec(compile("1 / 0", str(saved / file), "exec"), {})
    assert worker._reason_of(variant, tmp_path, raised.value).startswith(f"{place}: ZeroDivisionError")


def test_a_missing_accelerator_is_skipped_with_the_reason(lab: Lab) -> None:
    if torch.accelerator.is_available() and str(torch.accelerator.current_accelerator()) == "mps":
        pytest.skip("this machine has an MPS device")
    result = lab.measure("original", devices=("mps",), weights="bad.pt", seed=1)
    assert (result.status, result.cause) == ("skipped", "machine")
    assert result.reason == "this machine has no MPS device that torch can use: MPS needs a Mac with Apple silicon"


def test_beside_a_missing_accelerator_the_cpu_is_measured(lab: Lab) -> None:
    if torch.xpu.is_available():
        pytest.skip("this machine has an XPU device")
    result = lab.measure("original", devices=("cpu", "xpu"))
    assert result.status == "ok", result.reason
    assert result.outcomes["gpu"].status == "skipped"
    assert result.outcomes["gpu"].reason.startswith("this machine has no XPU device that torch can use")
    assert result.measurements["cpu/latency_p50_ms"] > 0
