from __future__ import annotations

import io
import itertools
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner

from benchmarks.logical import LogicalNodes
from mlflow_compress.cli.bench import main
from mlflow_compress.errors import RecipeError
from mlflow_compress.measuring.measure_one import Run
from mlflow_compress.planning.order import Queue
from mlflow_compress.records import Budget, Outcome, Result, Step, Variant
from mlflow_compress.sweeping import file_bundle, ray_interview, ray_sweep
from mlflow_compress.sweeping.delivery import Delivery
from mlflow_compress.sweeping.progress import Board
from mlflow_compress.tracking import reading, writing
from mlflow_compress.tracking.connection import Store, open_store
from mlflow_compress.tracking.log import Log
from mlflow_compress.tracking.spool import Spool

ray = pytest.importorskip("ray", reason="Ray is not installed")
BRIEF = ["--iterations", "6", "--seconds", "0", "--max-seconds", "0.2", "--energy-seconds", "0", "--threads", "1"]
TINY = """
from pathlib import Path
import torch
def model(): return torch.nn.Linear(4, 2)
def load_weights(module):
    module.weight.data.fill_(float(Path(__file__).with_name("weight.txt").read_text()))
def batch(size): return torch.rand(size, 4)
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="several Ray nodes on one machine need Linux"),
]


@pytest.fixture(scope="module")
def nodes() -> Iterator[LogicalNodes]:
    with LogicalNodes(2) as running:
        yield running


Sweep = Callable[..., list[Result]]


@pytest.fixture
def sweep(nodes: LogicalNodes, store: Store, tmp_path: Path, request: pytest.FixtureRequest) -> Sweep:
    """Return a function that measures variants on the cluster, and logs them to the test's own experiment."""

    def run(variants: list[Variant], measure: Run, stream: io.StringIO | None = None, **more: Any) -> list[Result]:
        show = more.pop("show", lambda result: None)
        log = lambda: Log(open_store(store.uri), {}, request.node.name, ["m"], False)  # noqa: E731
        delivery = Delivery(Spool(tmp_path / "spool"), log, lambda text: None)
        task = ray_sweep.Task(tracking_uri=store.uri, with_model=False, run=measure, grace_seconds=0, **more)
        board = Board(stream or io.StringIO())
        results = ray_sweep.sweep(Queue(variants), nodes.address, task, delivery, board, show)
        assert list((tmp_path / "spool").glob("*")) == []
        return results

    return run


def variant(model: str = "m", method: str = "original", **fields: Any) -> Variant:
    return Variant(model, method, "t", "python", "none.py", chain=(Step(method),), folder="/nowhere", **fields)


def canned(seconds: float = 0.0, content: Mapping[str, bytes] | None = None) -> Run:
    """Return a fake measurement; it is sent to the nodes by value."""
    files = dict(content or {})

    def run(variant: Variant, folder: Path, listen: Any) -> Result:
        import os
        import time

        started = time.time()
        listen({"stage": "timing on cpu", "done": 1, "total": 2})
        time.sleep(seconds * (1 if variant.method != "original" else 4))
        for name, data in files.items():
            (folder / name).write_bytes(data)
        facts = {"at": os.environ["NODE"], "folder": variant.folder}
        ok = {"cpu": Outcome("ok")}
        return Result(
            variant, "ok", samples={"x": [1.0]}, outcomes=ok, facts=facts, started_s=started, ended_s=time.time()
        )

    return run


def rows(results: list[Result]) -> Counter[tuple[str, str]]:
    return Counter((result.variant.model, result.variant.method) for result in results)


def overlaps(results: list[Result]) -> list[tuple[float, float]]:
    """Return the end of each measurement and the earlier start of the next one on the same node."""
    pairs = []
    for node in {result.facts["at"] for result in results}:
        times = sorted((result.started_s, result.ended_s) for result in results if result.facts["at"] == node)
        pairs += [
            (previous[1], following[0])
            for previous, following in itertools.pairwise(times)
            if previous[1] > following[0]
        ]
    return pairs


def test_rows_arrive_once_and_are_not_measured_again(
    sweep: Sweep, store: Store, request: pytest.FixtureRequest
) -> None:
    variants = [variant(model, method) for model in "ab" for method in ("original", "bf16", "fp16")]
    log = io.StringIO()
    results = sweep(variants, canned(0.3, {"prepare.log": b"x" * 100}), log)
    assert rows(results) == Counter((planned.model, planned.method) for planned in variants)
    assert {result.facts["at"] for result in results} == {"0", "1"}
    assert not overlaps(results)
    assert all(not result.samples for result in results)  # they are on disk, and logged
    runs = list(reading.runs(store, {writing.experiment_id(store, request.node.name): ""}))
    assert len(runs) == 6
    assert "6 variants, 2 machines" in log.getvalue()

    def must_not(variant: Variant, folder: Path, listen: Any) -> Result:
        raise AssertionError

    second_results = sweep([replace(planned) for planned in variants], must_not)
    assert rows(second_results) == rows(results)
    assert [result.status for result in second_results] == ["ok"] * 6
    assert len(list(reading.runs(store, {writing.experiment_id(store, request.node.name): ""}))) == 6


def test_a_lost_machine_loses_no_row_and_doubles_none(
    sweep: Sweep, nodes: LogicalNodes, store: Store, request: pytest.FixtureRequest
) -> None:
    variants = [replace(variant("m", "bf16"), method=f"v{number}") for number in range(10)]
    shown_results: list[Result] = []
    log = io.StringIO()

    def show(result: Result) -> None:
        shown_results.append(result)
        if len(shown_results) == 2:
            nodes.kill(0)
            nodes.add()

    results = sweep(variants, canned(0.7), log, show=show)
    assert rows(results) == Counter(("m", planned.method) for planned in variants)
    assert {result.status for result in results} == {"ok"}
    assert not overlaps(results)
    assert len(list(reading.runs(store, {writing.experiment_id(store, request.node.name): ""}))) == 10
    assert "it is measured again" in log.getvalue()


def test_what_no_machine_serves_is_skipped_and_a_broken_one_fails(sweep: Sweep) -> None:
    def broken(variant: Variant, folder: Path, listen: Any) -> Result:
        raise OSError("the disk is full")

    unfit = variant("big", requires={"min_ram_gb": 10**6})
    skipped, failed = sweep([unfit, variant("m")], broken)
    assert (skipped.status, failed.status) == ("skipped", "failed")
    assert "min_ram_gb=1000000 is required" in skipped.reason
    assert "the disk is full" in failed.reason


def test_scored_variants_wait_for_their_original(sweep: Sweep) -> None:
    variants = [variant("m", "bf16"), variant("m", "original"), variant("m", "fp16")]
    results = sweep(variants[1:2] + variants[:1] + variants[2:], canned(0.2, {"predictions.json": b"{}"}))
    assert results[0].variant.method == "original"
    assert len(results) == 3


def test_a_recipe_goes_to_a_machine_that_has_it_not(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nodes: LogicalNodes
) -> None:
    folder = tmp_path / "näme with\nblanks"
    folder.mkdir()
    (folder / "tiny.py").write_text(TINY)
    (folder / "weight.txt").write_text("0.5")

    def forgetful(tracking_uri: str, parcels: Any, has_gpus: bool) -> dict[str, Any]:
        import ray

        from mlflow_compress.sweeping import ray_node

        return {**ray_node.describe(tracking_uri, [], has_gpus), "ray": ray.__version__}

    def read(variant: Variant, folder: Path, listen: Any) -> Result:
        content = (Path(variant.folder) / "weight.txt").read_text()
        return Result(variant, "ok", facts={"read": content, "folder": variant.folder}, outcomes={"cpu": Outcome("ok")})

    monkeypatch.setattr(ray_interview, "describe", forgetful)
    own = Variant("tiny", "original", "t", "python", "tiny.py", chain=(Step("original"),), folder=str(folder))
    (result,) = sweep([own], read)
    assert result.facts["read"] == "0.5"
    assert Path(result.facts["folder"]).is_relative_to(nodes.folder)
    assert result.variant.folder == str(folder)


def test_hostile_names_do_not_steer_the_terminal(sweep: Sweep) -> None:
    log = io.StringIO()
    name = "../../\x1b[2J‮|`<b>'\" OR 1=1"
    (result,) = sweep([variant(name)], canned(), log)
    assert result.variant.model == name
    assert "\x1b" not in log.getvalue()


def test_versions_that_differ_are_said_before_anything_runs(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_interview, "__version__", "9.9")
    with pytest.raises(RecipeError, match=r"mlflow-compress .*, but this machine has 9\.9"):
        sweep([variant()], canned())


def test_too_much_to_send_is_refused_before_anything_runs(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w.bin").write_bytes(b"x" * 100)

    def forgetful(*args: Any) -> dict[str, Any]:
        import ray

        from mlflow_compress.sweeping import ray_node

        return {**ray_node.describe(args[0], [], args[2]), "ray": ray.__version__}

    monkeypatch.setattr(ray_interview, "describe", forgetful)
    monkeypatch.setattr(file_bundle, "MOST_BYTES", 99)
    with pytest.raises(RecipeError, match=r"w\.bin, would have to be sent to .* a folder that all machines have"):
        sweep([replace(variant(), weights=str(tmp_path / "w.bin"))], canned())


def test_the_command_says_so_and_measures_nothing(store: Store) -> None:
    words = [
        "sweep",
        "digits_cnn",
        "--on",
        "ray",
        "--address",
        "127.0.0.1:1",
        "--tracking-uri",
        store.uri,
        "-e",
        "none",
    ]
    process = CliRunner().invoke(main, words)
    assert process.exit_code == 2
    assert "There is no Ray cluster at 127.0.0.1:1" in process.output
    assert not list(reading.runs(store, {writing.experiment_id(store, "none"): ""}))


@pytest.mark.parametrize("blow", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_running_when_the_command_dies(
    nodes: LogicalNodes, store: Store, tmp_path: Path, blow: signal.Signals
) -> None:
    (tmp_path / "tiny.py").write_text(TINY)
    (tmp_path / "weight.txt").write_text("0.5")
    (tmp_path / "tiny.yaml").write_text("family: python\nsource: tiny.py\nvariants: [original]\n")
    words = [sys.executable, "-m", "mlflow_compress", "sweep", "tiny.yaml", "--trust", "true", "-e", f"blow{blow}"]
    options = ["--on", "ray", "--address", nodes.address, "--tracking-uri", store.uri, "--no-log-model"]
    environment = {**os.environ, "COMPRESS_SPOOL": str(tmp_path / "spool")}
    endless = ["--max-seconds", "600", "--seconds", "600", "--energy-seconds", "0", "--threads", "1"]
    command = subprocess.Popen([*words, *options, *endless], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    try:
        until(lambda: bool(measuring(nodes)), 120)
        time.sleep(0.5)
        command.send_signal(blow)
        until(lambda: not measuring(nodes), 60)
        assert command.wait(60) != 0
    finally:
        command.kill()
    if blow == signal.SIGKILL:  # the same command can be run again
        process = subprocess.run(
            [*words, *options, *BRIEF], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert process.returncode == 0, process.stderr
        assert "tiny, original: ok" in process.stdout


def measuring(nodes: LogicalNodes) -> list[psutil.Process]:
    """Return the measured processes on the logical machines."""
    processes = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "mlflow_compress.measuring.worker" in words and any(str(nodes.folder) in word for word in words):
            processes.append(process)
    return processes


def until(true: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_budgets_and_settings_survive_the_way(sweep: Sweep) -> None:
    sent = variant(budget=Budget(min_iterations=7), threads=3, batch_size=4, limit=9)
    (result,) = sweep([sent], canned())
    assert result.variant == sent
