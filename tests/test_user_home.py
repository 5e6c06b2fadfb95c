"""For a user without a name, a home or a writable home, libraries still get a name and writable folders."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import nameless
import pytest

from mlflow_compress import user_home

pytestmark = pytest.mark.full

_TELL = """
import getpass, json, os, sys
from pathlib import Path
from mlflow_compress import user_home
from mlflow_compress.cache_folders import cache_folder
told = user_home.settle()
folder = cache_folder("spool")
folder.mkdir(parents=True, exist_ok=True)
print(json.dumps({"told": told, "name": getpass.getuser(), "home": str(Path.home()), "spool": str(folder),
                  "hub": os.environ.get("HF_HUB_CACHE"), "same": user_home.user_name() == getpass.getuser()}))
"""


def tell(folder: Path, **environment: str | None) -> dict[str, Any]:
    variables = {"TMPDIR": str(folder), "XDG_CACHE_HOME": None, "HF_HOME": None, "HF_HUB_CACHE": None, **environment}
    process = nameless.run(
        [sys.executable, "-c", _TELL], folder, {"PYTHONPATH": str(Path(__file__).parents[1]), **variables}
    )
    assert process.returncode == 0, process.stderr
    state: dict[str, Any] = json.loads(process.stdout)
    return state


@pytest.mark.parametrize("home", [None, "", "/nonexistent"])
def test_a_user_without_name_and_home_gets_both(tmp_path: Path, home: str | None) -> None:
    folder = nameless.folder_for_all(tmp_path / "all")
    state = [tell(folder, HOME=home) for _ in range(2)]
    stand_in = folder / f"mlflow-compress-{nameless.UID}"
    assert state[0]["name"] == f"uid-{nameless.UID}"
    assert state[0]["same"]
    assert state[0]["home"] == str(stand_in)
    assert state[0]["spool"].startswith(f"{stand_in}/")
    assert "has no home folder" in state[0]["told"]
    assert str(stand_in) in state[0]["told"]
    assert state[0] == state[1]  # what one command keeps, the next one finds
    assert stand_in.stat().st_mode & 0o777 == 0o700


def test_a_home_that_cannot_be_written_to_is_read_still(tmp_path: Path) -> None:
    folder = nameless.folder_for_all(tmp_path / "all")
    home = tmp_path / "home"
    (home / ".cache" / "huggingface" / "hub").mkdir(parents=True)
    for path in (home / ".cache", home):
        path.chmod(0o555)
    state = tell(folder, HOME=str(home), USER="ann")
    home.chmod(0o755)
    (home / ".cache").chmod(0o755)
    assert (state["name"], state["home"]) == ("ann", str(home))
    assert state["hub"] == str(home / ".cache" / "huggingface" / "hub")
    assert state["spool"].startswith(str(folder))
    assert state["told"].startswith(f"the cache folder {home / '.cache'} can't be written to")


def test_a_folder_that_another_user_left_there_is_not_used(tmp_path: Path) -> None:
    folder = nameless.folder_for_all(tmp_path / "all")
    (folder / f"mlflow-compress-{nameless.UID}").symlink_to(tmp_path)
    state = tell(folder, HOME=None)
    assert Path(state["home"]).parent == folder
    assert not Path(state["home"]).is_symlink()
    assert Path(state["home"]).name != f"mlflow-compress-{nameless.UID}"


def test_a_user_with_name_and_home_is_left_alone(tmp_path: Path) -> None:
    folder = nameless.folder_for_all(tmp_path / "all")
    state = tell(folder, HOME=str(folder), USER="ann")
    assert (state["told"], state["name"], state["home"], state["hub"]) == ("", "ann", str(folder), None)
    assert state["spool"] == str(folder / ".cache" / "mlflow-compress" / "spool")
    assert not list(folder.glob("mlflow-compress-*"))


def test_this_process_has_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    old_environment = dict(os.environ)
    assert user_home.settle() == ""
    assert dict(os.environ) == old_environment
    assert user_home.user_name()
