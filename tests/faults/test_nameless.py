"""All commands work for a user without a name and without a writable home, as in a container."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import nameless
import pytest

from benchmarks.servers import environment

pytestmark = pytest.mark.full

CODE = """
import torch
from torch import nn

def model():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

def batch(size):
    return torch.rand(size, 4)

def load_weights(module):
    with open("loaded", "a") as file:
        file.write("once")
    nn.init.constant_(module[0].weight, 0.5)
"""
BRIEF = ("--iterations", "6", "--seconds", "0", "--max-seconds", "2", "--energy-seconds", "0", "--threads", "1")


class Container:
    """A folder with a custom model, in which such a user runs commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = nameless.folder_for_all(folder / "work")
        self.home = folder / "home"
        self.home.mkdir()
        self.home.chmod(0o555)
        (self.folder / "small.py").write_text(CODE.replace('"loaded"', repr(str(self.folder / "loaded"))))
        (self.folder / "small.yaml").write_text("family: python\nsource: small.py\nvariants: [original, bf16]\n")

    def run(self, *words: str, home: str | None) -> subprocess.CompletedProcess[str]:
        settings = environment(self.folder, MLFLOW_TRACKING_URI=f"sqlite:///{self.folder / 'mlflow.db'}")
        overrides = {"HOME": home, "XDG_CACHE_HOME": None, "COMPRESS_SPOOL": None, "TMPDIR": str(self.folder)}
        package = str(Path(__file__).parents[2])
        command = [sys.executable, "-m", "mlflow_compress", *words]
        return nameless.run(command, self.folder, {**settings, **overrides, "PYTHONPATH": package})

    def users(self) -> set[str]:
        """Return the users who logged the runs, as MLflow shows them."""
        with sqlite3.connect(self.folder / "mlflow.db") as database:
            return {str(user) for (user,) in database.execute("SELECT value FROM tags WHERE key = 'mlflow.user'")}


@pytest.mark.extra
def test_every_command_works(tmp_path: Path) -> None:
    container = Container(tmp_path)
    swept = container.run("sweep", "small.yaml", "--trust", "-e", "container", *BRIEF, home=str(container.home))
    assert swept.returncode == 0, swept.stderr
    assert container.users() == {f"uid-{nameless.UID}"}
    assert (container.folder / "loaded").read_text() == "once"  # and kept, for both variants
    for words in (
        ["sync"],
        ["report", "-e", "container"],
        ["list", "models"],
        ["check", "small.yaml", "--trust"],
        ["doctor"],
    ):
        done = container.run(*words, home=None)
        assert done.returncode == 0, (words, done.stderr)
        assert "Traceback" not in done.stderr
    assert "this user has no home folder" in done.stdout


@pytest.mark.parametrize("home", [None, "/nonexistent"])
def test_mlflow_itself_can_tag_a_run(tmp_path: Path, home: str | None) -> None:
    """MLflow reads the home at import, and the user's name when a run starts."""
    container = Container(tmp_path)
    code = "from mlflow_compress.tracking import writing\nwith writing.fluent_run('run') as (_, run_id): print(run_id)"
    settings = {"HOME": home, "TMPDIR": str(container.folder), "PYTHONPATH": str(Path(__file__).parents[2])}
    uri = {"MLFLOW_TRACKING_URI": f"sqlite:///{container.folder / 'mlflow.db'}"}
    done = nameless.run([sys.executable, "-c", code], container.folder, {**settings, **uri, "XDG_CACHE_HOME": None})
    assert done.returncode == 0, done.stderr
    assert container.users() == {f"uid-{nameless.UID}"}


def test_mlflow_run_has_a_name_for_the_user(tmp_path: Path) -> None:
    """MLflow's own commands read the name before our code runs; our plugin is imported with MLflow."""
    container = Container(tmp_path)
    code = "import mlflow.projects.utils as projects; print(projects._get_user())"
    done = nameless.run([sys.executable, "-c", code], container.folder, {"HOME": str(container.folder)})
    assert done.stdout == f"uid-{nameless.UID}\n", done.stderr
