"""What MLflow calls whenever it is imported: no error in it may reach the user."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlflow_compress.plugin.context import CompressContext, _gpus, _machine
from mlflow_compress.plugin.experiment import CompressExperiment

PROVIDERS = ("context", "experiment")
RUN = """
import json, sys
{before}
import warnings
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    import mlflow
assert "torch" not in sys.modules, "torch was imported with MLflow"
{after}
mlflow.set_tracking_uri({uri!r})
with mlflow.start_run() as run:
    pass
found = mlflow.get_run(run.info.run_id)
tags = {{key: text for key, text in found.data.tags.items() if key.startswith(("team", "mlflow.compress."))}}
about = [str(each.message) for each in told if "compress" in str(each.message)]
name = mlflow.get_experiment(found.info.experiment_id).name
print("FOUND" + json.dumps({{"tags": tags, "told": about, "experiment": name}}))
"""
BROKEN_MACHINE = """
import psutil
del psutil.cpu_count
"""


def started(uri: str, folder: Path, before: str = "", after: str = "", **variables: str) -> dict[str, object]:
    """Start a run in a fresh process, and return its tags, its experiment, and MLflow's warnings."""
    inherited = {key: text for key, text in os.environ.items() if not key.startswith(("MLFLOW_", "COMPRESS_"))}
    code = RUN.format(uri=uri, before=before, after=after)
    process = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=300,
        env={**inherited, **variables},
    )
    assert process.returncode == 0, process.stderr
    answer: dict[str, object] = json.loads(process.stdout.rpartition("FOUND")[2])
    return answer


def test_a_run_has_team_and_machine_and_goes_to_the_experiment(tracking_uri: str, tmp_path: Path) -> None:
    started_run = started(tracking_uri, tmp_path, COMPRESS_TEAM=" alpha\x1b[31m ", COMPRESS_EXPERIMENT="it's `ours` Ё")
    tags = started_run["tags"]
    assert isinstance(tags, dict)
    assert tags["team"] == "alpha[31m"
    assert {f"mlflow.compress.{name}" for name in ("version", "env.cpu_model", "env.cores_physical")} <= tags.keys()
    assert started_run["experiment"] == "it's `ours` Ё"
    assert started_run["told"] == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("sys.modules['psutil'] = None", "from importlib import metadata; metadata.version = lambda name: 1 / 0"),
        ("sys.modules['mlflow_compress.meters.environment'] = None", BROKEN_MACHINE),
    ],
    ids=["no psutil, broken metadata", "half an installation, broken psutil"],
)
def test_what_is_broken_costs_its_own_tags_only(before: str, after: str, tracking_uri: str, tmp_path: Path) -> None:
    variables = {"COMPRESS_TEAM": os.fsdecode(b"al\xffpha"), "COMPRESS_EXPERIMENT": os.fsdecode(b"hw\xff")}
    started_run = started(tracking_uri, tmp_path, before, after, **variables)
    tags = started_run["tags"]
    assert isinstance(tags, dict)
    assert tags["team"] == "al?pha"
    assert "mlflow.compress.version" in tags
    assert started_run["experiment"] == "hw?"


def test_an_experiment_that_is_refused_leaves_mlflows_own(tracking_uri: str, tmp_path: Path) -> None:
    assert started(tracking_uri, tmp_path, COMPRESS_EXPERIMENT="x" * 5000)["experiment"] == "Default"


def test_without_a_team_nothing_is_tagged(monkeypatch: pytest.MonkeyPatch) -> None:
    for empty in ("", "  ", "\x00\x1b"):
        monkeypatch.setenv("COMPRESS_TEAM", empty) if "\x00" not in empty else monkeypatch.delenv("COMPRESS_TEAM")
        assert not CompressContext().in_context()
    monkeypatch.delenv("COMPRESS_EXPERIMENT", raising=False)
    assert not CompressExperiment().in_context()


def test_the_machine_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESS_TEAM", "alpha")
    _machine.cache_clear()
    monkeypatch.setattr("mlflow_compress.meters.environment.machine", iter([{"cpu_model": "Xeon"}]).__next__)
    assert CompressContext().tags() == CompressContext().tags()
    assert CompressContext().tags()["mlflow.compress.env.cpu_model"] == "Xeon"
    _machine.cache_clear()


def test_a_gpu_is_read_from_the_drivers_files(tmp_path: Path) -> None:
    for name, model in (("0000:01:00.0", "NVIDIA H200"), ("0000:02:00.0", "NVIDIA T4")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "information").write_text(f"Model: \t {model}\nIRQ: 5\n")
    assert _gpus(tmp_path) == ["NVIDIA H200", "NVIDIA T4"]
    assert _gpus(tmp_path / "nothing") == []


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_provider_imports_the_standard_library_only(name: str) -> None:
    code = f"""
import sys
import mlflow_compress.plugin.{name}
print([name for name in sys.modules if name.partition(".")[0] not in sys.stdlib_module_names | {{"mlflow_compress"}}])
"""
    # -S: installed packages may load modules at every start
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert process.stdout.strip() == "['__main__']" or process.stdout.strip() == "[]"
