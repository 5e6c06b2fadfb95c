"""The victim process: `compress-bench` with a fault at one step, and a fixed result instead of measuring.

It runs in a process forked from one that has imported MLflow already, which takes seconds.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

PRELOAD = ["mlflow", "mlflow.pyfunc", "mlflow_compress.cli.bench", "mlflow_compress.tracking.sync", "sqlalchemy.orm"]
NUMBERS = {f"cpu/number_{at}": float(at) for at in range(40)}

# The function that is wrapped for each step: its owner, its name, and whether the fault comes before or after it.
STEPS: Mapping[str, tuple[str, str, str]] = {
    "measured, before it is kept": ("mlflow_compress.tracking.spool:Shipment", "keep", "before"),
    "half written to the spool": ("mlflow_compress.tracking.spool", "_write", "after"),
    "kept": ("mlflow_compress.tracking.spool:Shipment", "keep", "after"),
    "run started": ("mlflow_compress.tracking.writing", "start", "after"),
    "params, metrics and tags logged": ("mlflow.tracking.client:MlflowClient", "log_text", "before"),
    "records logged": ("mlflow_compress.tracking.writing", "write_result", "after"),
    "files logged": ("mlflow_compress.tracking.writing", "write_files", "after"),
    "model made, not uploaded": ("mlflow.tracking.client:MlflowClient", "log_model_artifacts", "before"),
    "model uploaded, not finished": ("mlflow.tracking.client:MlflowClient", "log_model_artifacts", "after"),
    "model logged": ("mlflow_compress.tracking.models", "write_model", "after"),
    "marked as complete": ("mlflow_compress.tracking.writing", "end", "before"),
    "run ended": ("mlflow_compress.tracking.writing", "end", "after"),
    "half removed from the spool": ("shutil", "rmtree", "before"),
}
UNKEPT = ("measured, before it is kept", "half written to the spool")  # lost with the process, and measured again
LOCAL = ("measured, before it is kept", "half written to the spool", "half removed from the spool")  # without a server


def suffer(words: list[str], folder: Path, environment: dict[str, str], step: str, fault: str, server: int) -> None:
    """Run a command line, with a fault the first time that it reaches a step.

    Args:
        words: Arguments of `compress-bench`.
        folder: Working folder; all output goes to the file `out` in it.
        environment: The complete environment.
        step: Name in STEPS; empty: no fault.
        fault: SIGKILL, SIGTERM or SIGINT to this process, or `server`: SIGKILL to the tracking server.
        server: Process group of the server.
    """
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    with (folder / "out").open("ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from mlflow_compress.cli import bench
    from mlflow_compress.measuring import isolate

    setattr(isolate, "run", _measured)  # noqa: B010  (its type is wider)
    if step:
        _break(step, lambda: _strike(fault, server))
    bench.main(words, prog_name="compress-bench")


def _strike(fault: str, server: int) -> None:
    if fault == "server":
        os.killpg(server, signal.SIGKILL)
        time.sleep(0.2)
    else:
        os.kill(os.getpid(), signal.Signals[fault])
        time.sleep(60)  # until the signal comes


def _break(step: str, strike: Callable[[], None]) -> None:
    """Wrap the function of a step so that the fault strikes there once."""
    import importlib

    location, name, moment = STEPS[step]
    module, _, kind = location.partition(":")
    owner = importlib.import_module(module)
    owner = getattr(owner, kind) if kind else owner
    original = getattr(owner, name)
    struck: list[bool] = []

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if moment == "after":
            answer = original(*args, **kwargs)
        if not struck and _is_meant(step, args):
            struck.append(True)
            strike()
        return answer if moment == "after" else original(*args, **kwargs)

    setattr(owner, name, wrapped)


def _is_meant(step: str, args: tuple[Any, ...]) -> bool:
    if step == "files logged":
        return bool(args[2])
    if step == "half removed from the spool":
        return (Path(args[0]) / "result.json").is_file() and not (Path(args[0]) / "address.json").is_file()
    return True


def _measured(variant: Any, folder: Path, listener: Any, ready: Callable[[], object], originals: object) -> Any:
    ready()
    return measured(variant, folder)


def measured(variant: Any, folder: Path) -> Any:
    """Return a result as measuring would, and write a folder with a model."""
    from mlflow_compress.records import Outcome, Result, write_json

    write_json(folder / "variant.json", variant)
    (folder / "model").mkdir()
    (folder / "model" / "model.safetensors").write_bytes(os.urandom(100_000))
    (folder / "predictions.json").write_text("[]")
    now_s = time.time()
    return Result(
        dataclasses.replace(variant, interleave=False),
        "ok",
        measurements=NUMBERS,
        samples={"cpu/others_ms": [1.0, 2.0, 3.0]},  # no latencies: drawing pictures is slow
        outcomes={"cpu": Outcome("ok")},
        facts={"weights": "random", "data_digest": "0" * 8, "data_source": "own", "data_name": "own"},
        started_s=now_s - 5,
        ended_s=now_s,
    )


def code_of(exit_code: int | None) -> int:
    """Return a process's exit code as a shell does."""
    assert exit_code is not None
    return exit_code if exit_code >= 0 else 128 - exit_code


if __name__ == "__main__":
    sys.exit("run `python -m tests.faults`")
