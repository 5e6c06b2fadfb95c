"""The whole pipeline with real processes and real stores: from the command line to the table."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.entities import Run

from mlflow_compress.cli import bench
from mlflow_compress.errors import Cause, CompressError
from mlflow_compress.records import Result, Status, Variant
from mlflow_compress.tracking import run_tags

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]
PLUGIN = Path(__file__).parents[1] / "fake_distribution"
BRIEF = ("--iterations", "6", "--seconds", "0", "--max-seconds", "2", "--energy-seconds", "0")
CODE = """
import torch
from torch import nn

def model():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

def load_weights(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(0.5)
        module[2].bias.copy_(torch.tensor([0.0, 1.0]))

def batch(size):
    return torch.rand(size, 4)

def samples():
    return [(torch.ones(4), 1), (torch.zeros(4), 1), (torch.ones(4) * 2, 0), (torch.ones(4) * 3, 1)]
"""
RECIPE = """
family: python
source: small.py
data: own
metrics: [accuracy]
variants: [original, "crash:kind=sigkill", int8_dynamic, "crash:kind=skip"]
"""

Call = Callable[..., "subprocess.CompletedProcess[str]"]


class Home:
    """A folder with a recipe and a store, in which commands are run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = f"sqlite:///{folder / 'mlflow.db'}"
        (folder / "small.py").write_text(CODE)
        (folder / "small.yaml").write_text(RECIPE)
        unrelated = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "COMPRESS_"))}
        self.environment = {
            **unrelated,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # `mlflow run` starts `python`
            "PYTHONPATH": str(PLUGIN),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "COMPRESS_LOCK": str(folder / "lock"),  # other tests measure at the same time
            "MLFLOW_TRACKING_URI": self.store,
            "HF_HUB_OFFLINE": "1",
        }

    def command(self, *words: str, variables: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        environment = {**self.environment, **(variables or {})}
        return subprocess.run(
            words, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=400, check=False
        )

    def bench(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.command(sys.executable, "-m", "mlflow_compress", *words, variables=variables)

    def runs(self, experiment: str) -> list[Run]:
        client = MlflowClient(self.store)
        entity = client.get_experiment_by_name(experiment)
        return [] if entity is None else list(client.search_runs([entity.experiment_id], order_by=["start_time"]))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Home:
    folder = tmp_path_factory.mktemp("home")
    shutil.copy(empty_store, folder)
    return Home(folder)


@pytest.fixture(scope="module")
def measured(home: Home) -> tuple[subprocess.CompletedProcess[str], Run]:
    done = home.bench("run", "small.yaml", "--trust", "-e", "one", "--team", "alpha", "--batch_size", "2", *BRIEF)
    (run,) = home.runs("one")
    return done, run


@pytest.fixture(scope="module")
def swept(home: Home) -> tuple[subprocess.CompletedProcess[str], list[Run]]:
    """Sweep as `mlflow run -e sweep` does, with one variant that is killed and one that does not apply."""
    done = home.command(
        *("mlflow", "run", str(PROJECT), "--env-manager", "local", "-e", "sweep", "--experiment-name", "many"),
        *(
            "-P",
            f"model={home.folder / 'small.yaml'}",
            "-P",
            "team=beta",
            "-P",
            "trust=true",
            "-P",
            "iterations=6",
            "-P",
            "seconds=0",
        ),
        *("-P", "max_seconds=2", "-P", "energy_seconds=0"),
    )
    return done, home.runs("many")


def test_run_logs_numbers_tags_and_params(measured: tuple[subprocess.CompletedProcess[str], Run]) -> None:
    done, run = measured
    assert done.returncode == 0, done.stderr
    assert run.info.status == "FINISHED"
    assert run.data.metrics["size/params"] == 58
    assert run.data.metrics["size/weights_mib"] == 58 * 4 / 2**20
    assert run.data.metrics["quality/accuracy"] == 0.75
    assert run.data.metrics["quality/samples"] == 4
    assert run.data.metrics["cpu/latency_count"] >= 6
    assert run.data.metrics["cpu/ram_peak_mib"] > run.data.metrics["cpu/ram_baseline_mib"] > 100
    assert run.data.params["team"] == "alpha"
    assert run.data.params["batch_size"] == "2"
    assert run.info.run_name == "alpha: small original [batch 2]"
    assert run.data.params["device"] == "auto"
    tags = run_tags.unhidden(run.data.tags.items())
    expected = {"team": "alpha", "model": "small", "method": "original", "status": "ok", "compress.weights": "local"}
    assert {key: tags[key] for key in expected} == expected
    assert tags["compress.outcome.cpu"] == tags["compress.outcome.quality"] == "ok"
    assert tags["compress.batch_size"] == "2"
    assert int(tags["compress.env.threads"]) >= 1
    assert "0.75" in tags["mlflow.note.content"]


def test_run_prints_the_result_and_the_progress(measured: tuple[subprocess.CompletedProcess[str], Run]) -> None:
    done, _ = measured
    assert "accuracy" in done.stdout
    assert "timing on cpu" in done.stderr
    assert "timing on cpu" not in done.stdout


def test_artifacts_replay_and_predict(home: Home, measured: tuple[subprocess.CompletedProcess[str], Run]) -> None:
    import torch

    _, run = measured
    client = MlflowClient(home.store)
    names = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert {"variant.json", "result.json", "latency.png", "memory.png"} <= names
    uri = run.info.artifact_uri
    assert uri is not None
    variant_json = json.loads(mlflow.artifacts.load_text(f"{uri}/variant.json"))
    assert Variant.from_json(variant_json).batch_size == 2
    result = Result.from_json(json.loads(mlflow.artifacts.load_text(f"{uri}/result.json")))
    assert len(result.samples["cpu/latency_ms"]) == run.data.metrics["cpu/latency_count"]

    previous = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(home.store)
    try:
        model = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
    finally:
        mlflow.set_tracking_uri(previous)
    assert model.predict(torch.ones(3, 4).numpy()) == [1, 1, 1]


def test_sweep_goes_on_after_a_killed_worker(swept: tuple[subprocess.CompletedProcess[str], list[Run]]) -> None:
    done, runs = swept
    assert done.returncode == 1
    assert "1 of 4 variants failed" in done.stderr
    parent, *children = runs
    assert parent.data.tags["compress.role"] == "sweep"
    assert parent.info.run_name == "sweep of " + str(parent.data.params["model"])
    assert parent.info.status == "FAILED"
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    statuses = {run.data.tags["method"]: (run.info.status, run.data.tags["status"]) for run in children}
    assert statuses == {
        "original": ("FINISHED", "ok"),
        "crash:kind=sigkill": ("FAILED", "failed"),
        "int8_dynamic": ("FINISHED", "ok"),
        "crash:kind=skip": ("FINISHED", "skipped"),
    }
    killed = next(run for run in children if run.data.tags["method"] == "crash:kind=sigkill")
    assert "SIGKILL" in killed.data.tags["compress.reason"]
    assert "about to sigkill" in killed.data.tags["compress.reason"]


def test_report_shows_rows_and_reasons(
    home: Home, swept: tuple[subprocess.CompletedProcess[str], list[Run]], measured: object
) -> None:
    done = home.bench("report", "-e", "many", "-e", "one")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")][2:]
    assert [(row[0], row[2].split(" ")[0]) for row in rows] == [
        ("alpha", "original"),
        ("beta", "original"),
        ("beta", "int8_dynamic"),
    ]
    assert "0.75" in rows[0][-1]
    assert any("SIGKILL" in line and "failed" in line for line in lines)
    assert any("it does not apply to this model" in line and "skipped" in line for line in lines)


def test_mlflow_run_fills_its_own_run(home: Home) -> None:
    done = home.command(
        *("mlflow", "run", str(PROJECT), "--env-manager", "local", "--experiment-name", "project"),
        *(
            "-P",
            f"model={home.folder / 'small.yaml'}",
            "-P",
            "method=drop_last:count=1",
            "-P",
            "trust=true",
            "-P",
            "iterations=6",
        ),
        *(
            "-P",
            "seconds=0",
            "-P",
            "max_seconds=2",
            "-P",
            "energy_seconds=4",
            "-P",
            "log_model=false",
            "-P",
            "team=Команда | `x`",
        ),
    )
    assert done.returncode == 0, done.stderr
    (run,) = home.runs("project")
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "Команда | `x`: small drop_last:count=1"
    assert run.data.tags["team"] == "Команда | `x`"
    assert run.data.tags["compress.role"] == "variant"
    assert run.data.metrics["size/params"] == 40
    energy = {name for name in run.data.metrics if "energy" in name}
    assert energy in ({"cpu/energy_per_item_j"}, {"cpu/energy_per_item_estimated_j"})
    assert not {artifact.path for artifact in MlflowClient(home.store).list_artifacts(run.info.run_id)} & {"model"}


def test_mlflow_run_fails_when_the_weights_are_corrupt(home: Home) -> None:
    broken = home.folder / "broken.safetensors"
    broken.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00not json at all")
    done = home.command(
        *("mlflow", "run", str(PROJECT), "--env-manager", "local", "--experiment-name", "broken"),
        *("-P", f"model={home.folder / 'small.yaml'}", "-P", "trust=true", "-P", f"weights={broken}"),
    )
    assert done.returncode != 0
    assert str(broken) in done.stderr
    (run,) = home.runs("broken")
    assert run.info.status == "FAILED"
    assert run.data.tags["status"] == "failed"
    assert str(broken) in run.data.tags["compress.reason"]


def test_missing_weights_have_an_exit_code_of_their_own(home: Home) -> None:
    done = home.bench("run", "small.yaml", "--trust", "--weights", "gone.safetensors", "-e", "gone", "--json")
    assert done.returncode == 3
    assert "gone.safetensors" in done.stderr
    assert json.loads(done.stdout)[0]["status"] == "failed"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "digits_cn"), "digits_cnn"),
        (("run", "small.yaml", "--method", "int8_dynamc"), "int8_dynamic"),
        (("run", "small.yaml", "--method", "prune_magnitude:amont=0.5"), "'amount'"),
        (("run", "small.yaml", "--method", "prune_magnitude:amount=1.5"), "less than 1"),
        (("run", "small.yaml", "--methd", "fp16"), "--method"),
        (("run", "small.yaml", "--method", "fp16", "--method", "bf16"), "For several, sweep a recipe"),
        (("run", "small.yaml", "-O", "functon=model"), "'function'"),
        (("run", "small.yaml", "--threads", "0"), "--threads"),
        (("run", "small.yaml", "--batch-size", "-1"), "--batch-size"),
        (("run", "small.yaml", "--batch-size", "many"), "--batch-size"),
        (("run", "gone.yaml"), "gone.yaml"),
        (("run", "small.yaml"), "small.py is Python code. If you trust its source, say so: --trust"),
        (("swep", "small.yaml"), "sweep"),
        (("run", "small.yaml", "--requires", "gpus=A100"), "'gpu'"),
        (("sweep", "small.yaml", "--requires", "A100"), "KEY=VALUE"),
        (("sweep", "small.yaml", "--limit-time", "5"), "1h30m"),
        (("run", "hw1"), "compress-bench sweep hw1"),
        (("list", "metods"), "methods"),
    ],
)
@pytest.mark.usefixtures("plugin_path")
def test_what_makes_no_sense_is_refused_before_anything_runs(
    words: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small.yaml").write_text(RECIPE)
    (tmp_path / "small.py").write_text(CODE)
    store = tmp_path / "mlflow.db"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}")
    done = CliRunner().invoke(bench.main, words)
    assert done.exit_code == 2
    assert message in done.stderr
    assert isinstance(done.exception, SystemExit)
    assert done.stdout == ""
    assert not store.exists()


GRID = """
models: [small]
methods: [int8_dynamic, original, bf16]
threads: [1, 2]
exclude: [{method: bf16, threads: 2}, {method: original, threads: 2}]
"""


def test_a_sweep_recipe_within_a_limit_of_time(home: Home) -> None:
    (home.folder / "grid.yaml").write_text(GRID)
    variants = [
        "small, original [threads=1]",
        "small, int8_dynamic [threads=1]",
        "small, bf16 [threads=1]",
        "small, int8_dynamic [threads=2]",
    ]
    checked = home.bench("check", "grid.yaml")
    assert checked.returncode == 2
    assert checked.stdout.splitlines() == variants
    assert "small.py is Python code" in checked.stderr
    checked = home.bench("check", "grid.yaml", "--trust")
    assert checked.returncode == 0, checked.stderr
    *planned, tried = checked.stdout.splitlines()
    assert planned == variants
    assert tried.startswith(
        "small: ok: 58 parameters, takes float32 [1, 4], gives float32 [1, 2], 4 samples, accuracy "
    )
    words = ("sweep", "grid.yaml", "--trust", "-e", "grid", *BRIEF)
    done = home.bench(*words, "--limit-time", "1s")
    assert done.returncode == 0, done.stderr
    assert "Not started because --limit-time is too short (3 of 4): small, int8_dynamic [threads=1];" in done.stderr
    (run,) = home.runs("grid")
    assert run.info.run_name == "small original [threads=1]"
    tags = run_tags.unhidden(run.data.tags.items())
    assert tags["compress.setting"] == "threads=1"
    took = float(tags["compress.seconds"])
    assert took > 0

    dry_run = home.bench(*words, "--dry-run", "--json")
    assert dry_run.returncode == 0, dry_run.stderr
    plan = json.loads(dry_run.stdout)
    assert (len(plan["variants"]), plan["measured"]) == (4, 1)
    assert {variant["source"] for variant in plan["variants"][1:]} == {"this model"}
    assert plan["seconds"] == pytest.approx(3 * took)
    repeated_plan = json.loads(home.bench(*words, "--dry-run", "--json", "--again").stdout)
    assert (repeated_plan["measured"], len(home.runs("grid"))) == (0, 1)


def test_what_all_variants_would_fail_for_ends_the_sweep_at_once(home: Home) -> None:
    (home.folder / "wrong.py").write_text(CODE.replace("torch.rand(size, 4)", "torch.rand(size, 5)"))
    (home.folder / "wrong.yaml").write_text(RECIPE.replace("small.py", "wrong.py"))
    reason = "the module can't be called on what batch(1) returns, float32 [1, 5]: mat1 and mat2 shapes"
    done = home.bench("sweep", "wrong.yaml", "--trust", "-e", "wrong", *BRIEF)
    assert done.returncode == 2
    assert f"Error: wrong can't be measured: {reason}" in done.stderr
    assert (
        "Not started because they would fail for the same reason (3 of 4): wrong, crash:kind=sigkill; "
        "wrong, int8_dynamic;" in done.stderr
    )
    (run,) = home.runs("wrong")
    assert reason in run.data.tags["compress.reason"]
    checked = home.bench("check", "wrong.py")  # the user's own program needs no --trust
    assert checked.returncode == 2
    assert reason in checked.stderr


def test_a_new_model_is_written_and_checked_as_it_is(home: Home) -> None:
    first = home.bench("init", "my_model")
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines()[1:3] == [
        "  compress-bench check my_model.yaml --trust",
        "  compress-bench sweep my_model.yaml --trust --experiment hw1",
    ]
    checked = home.bench(*first.stdout.splitlines()[1].split()[1:])
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.splitlines()[:3] == ["my_model, original", "my_model, bf16", "my_model, int8_dynamic"]
    assert "60 samples, accuracy 1 on 2 samples; saved and restored" in checked.stdout
    second = home.bench("init", "my_model.py", "--kind", "image")
    assert second.returncode == 2
    assert "my_model.py and my_model.yaml would be overwritten. Choose another name, or add --force." in second.stderr


def test_a_machine_that_does_not_serve_skips_and_loads_nothing(home: Home) -> None:
    done = home.bench(
        *("sweep", "small.yaml", "--trust", "-e", "elsewhere", *BRIEF),
        *("--requires", "min_ram_gb=1000000,os=linux", "--requires", "min_cores=0"),
    )
    assert done.returncode == 0, done.stderr
    runs = home.runs("elsewhere")
    assert len(runs) == 4
    for run in runs:
        assert (run.info.status, run.data.tags["status"]) == ("FINISHED", "skipped")
        assert run.data.tags["compress.reason"].startswith("min_ram_gb=1000000 is required, but the machine has ")
        assert run.data.params["requires"] == "min_ram_gb=1000000,os=linux min_cores=0"
        assert run.data.metrics == {}
    assert "loading" not in done.stderr


def test_a_named_method_without_its_library_fails(home: Home) -> None:
    done = home.bench("run", "small.yaml", "--trust", "-e", "lacking", "--method", "absent", *BRIEF)
    assert done.returncode == 1
    assert 'Error: absent needs a-distribution-that-nobody-has: pip install "mlflow-compress[imag' in done.stderr
    (run,) = home.runs("lacking")
    assert run.data.tags["status"] == "skipped"


@pytest.mark.parametrize(
    ("status", "cause", "is_named", "code"),
    [
        ("ok", "", True, 0),
        ("skipped", "", True, 0),
        ("skipped", "machine", True, 1),
        ("skipped", "machine", False, 0),
        ("failed", "weights", True, 3),
        ("failed", "recipe", True, 2),
        ("failed", "measuring", False, 1),
    ],
)
def test_what_a_result_exits_with(status: Status, cause: Cause, is_named: bool, code: int) -> None:
    result = Result(Variant("m", "x", "t", "python", "none.py"), status, "why", cause=cause)
    exit_code = 0
    try:
        bench._exit([result], is_named=is_named)
    except CompressError as error:
        exit_code = error.exit_code
    assert exit_code == code


def test_a_dead_server_is_found_out_before_measuring(home: Home) -> None:
    done = home.bench("run", "small.yaml", "--trust", MLFLOW_TRACKING_URI="http://user:secret@127.0.0.1:9")
    assert done.returncode == 4
    assert "127.0.0.1:9" in done.stderr
    assert "secret" not in done.stderr
    assert "loading" not in done.stderr


def test_an_interrupted_run_leaves_nothing_behind(home: Home) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "mlflow_compress",
            "run",
            "small.yaml",
            "--trust",
            "--method",
            "crash:kind=hang",
            "-e",
            "stopped",
        ],
        cwd=home.folder,
        env=home.environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    progress = ""
    while "compressing" not in progress:
        line = process.stderr.readline()
        assert line, progress
        progress += line
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)
    process.stderr.close()
    assert process.returncode != 0
    assert home.runs("stopped") == []
    workers = subprocess.run(
        ["pgrep", "-f", "mlflow_compress.measuring.worker"], capture_output=True, text=True, check=False
    )
    ours = [pid for pid in workers.stdout.split() if _is_child_of_nobody_in(pid, home.folder)]
    assert ours == []


def _is_child_of_nobody_in(process: str, folder: Path) -> bool:
    """Return whether a process has the folder of our recipe in its environment."""
    try:
        return str(folder).encode() in Path(f"/proc/{process}/environ").read_bytes()
    except OSError:
        return False


@pytest.fixture(scope="module")
def server(home: Home, empty_store: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = home.folder / "server"
    folder.mkdir()
    shutil.copy(empty_store, folder)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"),
                *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
                *("--artifacts-destination", str(folder / "artifacts")),
            ],
            cwd=folder,
            env={**home.environment, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(480):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.5)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_team_shares_a_server(home: Home, server: str) -> None:
    done = home.bench(
        *("run", "small.yaml", "--trust", "--method", "traced", "-e", "shared", *BRIEF),
        MLFLOW_TRACKING_URI=server,
        COMPRESS_TEAM="gamma",
    )
    assert done.returncode == 0, done.stderr
    report = home.bench("report", "-e", "shared", "--tracking-uri", server, "--json")
    assert report.returncode == 0, report.stderr
    (row,) = json.loads(report.stdout)["rows"]
    assert (row["team"], row["model"], row["method"]) == ("gamma", "small", "traced")
    assert row["values"]["quality/accuracy"] == 0.75
