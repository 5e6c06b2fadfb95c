"""Folders from others must contain only files and folders."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from mlflow_compress.errors import WeightsError
from mlflow_compress.networks.own_files import require_own_files


def test_files_and_folders_are_its_own(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").touch()
    require_own_files(tmp_path)
    (tmp_path.parent / "link").unlink(missing_ok=True)
    (tmp_path.parent / "link").symlink_to(tmp_path)
    require_own_files(tmp_path.parent / "link")  # the user passed the link


@pytest.mark.posix
@pytest.mark.parametrize("target", ["/etc/passwd", "/etc", "nowhere", "file"])
def test_links_are_refused_wherever_they_lead(target: str, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "deep" / "link").symlink_to(target)
    with pytest.raises(WeightsError, match=r"deep/link in .* is a link to a file elsewhere: a model from others"):
        require_own_files(tmp_path)


@pytest.mark.posix
def test_pipes_and_sockets_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(WeightsError, match=r"pipe in .* is not a file"):
        require_own_files(tmp_path)
    (tmp_path / "pipe").unlink()
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
        with pytest.raises(WeightsError, match=r"socket in .* is not a file"):
            require_own_files(tmp_path)
