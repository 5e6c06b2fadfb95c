from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from mlflow import MlflowClient

from mlflow_compress.quantities import COLUMNS, headers
from mlflow_compress.report import main
from mlflow_compress.store import Store, open_store


@pytest.fixture(scope="session")
def filled(tracking_uri: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give a store with an experiment of four variants, and an empty one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("artifacts"))
        fill(tracking_uri)
    return tracking_uri


def fill(tracking_uri: str) -> None:
    store = open_store(tracking_uri)
    experiment = store.experiment_id("report hw1")
    store.experiment_id("report empty")
    add(store, experiment, "alpha", "yolo", "original", 1, 100.0)
    add(store, experiment, "alpha", "yolo", "fp16", 2, 50.0)
    add(store, experiment, "бета", "vit", "original", 3, 30.0)
    store.start(
        experiment,
        "int8",
        {
            "team": "alpha",
            "model": "yolo",
            "method": "int8",
            "status": "failed",
            "compress.role": "variant",
            "compress.reason": "out of memory",
        },
        start_ms=4,
    )


def add(store: Store, experiment: str, team: str, model: str, method: str, at: int, size: float) -> None:
    tags = {
        "team": team,
        "model": model,
        "method": method,
        "status": "ok",
        "compress.role": "variant",
        "compress.batch_size": "1",
        "compress.outcome.cpu": "ok",
    }
    run_id = store.start(experiment, f"{model} {method}", tags, start_ms=at)
    client = MlflowClient(store.uri)
    client.log_metric(run_id, "size/weights_mib", size)
    client.log_metric(run_id, "cpu/latency_p50_ms", 492.7215)
    store.end(run_id, succeeded=True)


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)


def report(uri: str, *args: str) -> Result:
    return CliRunner().invoke(main, ["--tracking-uri", uri, *args], catch_exceptions=False)


def test_the_table_is_printed(filled: str) -> None:
    result = report(filled, "-e", "report hw1")
    assert result.exit_code == 0
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == list(headers(COLUMNS, "en"))
    assert "50.00 MB (0.50x)" in lines[3]
    assert "- failed: alpha, yolo, int8: out of memory" in lines


def test_in_russian(filled: str) -> None:
    lines = report(filled, "-e", "report hw1", "--lang", "ru").stdout.splitlines()
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == list(headers(COLUMNS, "ru"))
    assert "Оригинал" in lines[2]


def test_the_experiment_may_come_from_the_environment(filled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "report hw1")
    assert report(filled).exit_code == 0


def test_filters(filled: str) -> None:
    result = report(filled, "-e", "report hw1", "--team", "alpha", "--model", "yolo", "--method", "fp16", "--json")
    (row,) = json.loads(result.stdout)["rows"]
    assert row["method"] == "fp16"
    assert row["ratios"]["size/weights_mib"] == 0.5


def test_files_are_written_and_nothing_is_printed(filled: str, tmp_path: Path) -> None:
    outputs = ["table.md", "table.CSV", "table.json"]
    result = report(filled, "-e", "report hw1", *(part for name in outputs for part in ("-o", name)))
    assert result.exit_code == 0
    assert result.stdout == ""
    assert result.stderr.splitlines() == [f"Wrote {name}" for name in outputs]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(outputs)
    assert (tmp_path / "table.md").read_text(encoding="utf-8").startswith("| Team")
    assert len(json.loads((tmp_path / "table.json").read_text(encoding="utf-8"))["rows"]) == 3


def test_files_and_json(filled: str, tmp_path: Path) -> None:
    result = report(filled, "-e", "report hw1", "-o", "table.json", "--json")
    assert result.stdout == (tmp_path / "table.json").read_text(encoding="utf-8")


def test_a_link_stays_a_link(filled: str, tmp_path: Path) -> None:
    (tmp_path / "link.md").symlink_to(tmp_path / "real.md")
    assert report(filled, "-e", "report hw1", "-o", "link.md").exit_code == 0
    assert (tmp_path / "link.md").is_symlink()
    assert (tmp_path / "real.md").is_file()


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ([], "Give --experiment NAME"),
        (["-e", "x", "-o", "table.mdd"], "Did you mean '.md'"),
        (["-e", "x", "-o", "table"], "Unknown file suffix"),
        (["-e", "x", "-o", "no/such/table.md"], "there is no folder"),
        (["-e", "x", "-o", "folder.md"], "is a folder"),
        (["-e", "x", "--lang", "de"], "'de' is not one of 'en', 'ru'"),
        (["--experimnt", "x"], "--experiment"),
    ],
)
def test_a_wrong_option_is_told_before_the_server_is_asked(args: list[str], told: str, tmp_path: Path) -> None:
    (tmp_path / "folder.md").mkdir()
    result = report("http://127.0.0.1:1", *args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert told in result.stderr


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["-e", "report hw2"], "Did you mean 'report hw1'"),
        (["-e", "report empty"], "Nothing was measured in 'report empty' yet. Measure a model"),
        (["-e", "report hw1", "--team", "alhpa"], "Did you mean 'alpha'"),
    ],
)
def test_what_is_not_there(filled: str, args: list[str], told: str) -> None:
    result = report(filled, *args, "-o", "table.md")
    assert result.exit_code == 4
    assert told in result.stderr
    assert not Path("table.md").exists()


def test_no_store_is_made_by_asking(tmp_path: Path) -> None:
    result = report(f"sqlite:///{tmp_path / 'none.db'}", "-e", "x")
    assert result.exit_code == 4
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_leaves_nothing_behind(
    filled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    result = report(filled, "-e", "report hw1", "-o", "table.md")
    assert result.exit_code == 1
    assert "No space left on device" in result.stderr
    assert list(tmp_path.iterdir()) == []


def python(code: str, *args: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    root = str(Path(__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": root, **environment}
    return subprocess.run([sys.executable, *code.split("\n", 1), *args], env=env, capture_output=True, check=False)


def test_as_a_program(filled: str) -> None:
    """The real thing, in an ASCII terminal: Cyrillic still gets out."""
    args = ["-m\nmlflow_compress.report", "-e", "report hw1", "--lang", "ru"]
    done = python(*args, MLFLOW_TRACKING_URI=filled, PYTHONIOENCODING="ascii", LC_ALL="C")
    assert done.returncode == 0, done.stderr
    assert "Команда" in done.stdout.decode()
    assert done.stderr == b""


def test_a_report_never_imports_a_framework(filled: str) -> None:
    code = (
        "import sys; from mlflow_compress.report import main\n"
        "main(sys.argv[1:], standalone_mode=False)\n"
        "heavy = {'torch', 'transformers', 'matplotlib', 'ultralytics'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = python(f"-c\n{code}", "-e", "report hw1", MLFLOW_TRACKING_URI=filled)
    assert done.returncode == 0, done.stderr


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from mlflow_compress.report import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "heavy = {'mlflow', 'pydantic', 'numpy', 'torch'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = python(f"-c\n{code}")
    assert done.returncode == 0, done.stderr
    assert b"--experiment" in done.stdout
