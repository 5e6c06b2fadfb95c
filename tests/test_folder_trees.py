"""Nested folders, too deep for Python's own functions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlflow_compress import folder_trees
from mlflow_compress.folder_trees import files_below


def make_deep(folder: Path, depth: int, name: str = "d") -> None:
    """Create nested folders, too deep for a path, with a file in every hundredth one."""
    folder.mkdir(exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    for number in range(depth):
        os.mkdir(name, dir_fd=descriptor)
        child = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = child
        if number % 100 == 0:
            os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)


@pytest.mark.posix
def test_files_come_in_order_and_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    for name in ("b/2", "b/1", "a", "c/d/e"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "b")
    (tmp_path / "same").symlink_to(tmp_path / "a")
    os.mkfifo(tmp_path / "pipe")
    names = [path.relative_to(tmp_path).as_posix() for path in files_below(tmp_path)]
    assert names == ["a", "same", "b/1", "b/2", "c/d/e"]


@pytest.mark.posix
@pytest.mark.parametrize(("name", "depth"), [("d", 1050), ("x" * 200, 60)], ids=["deep", "long"])
def test_folders_that_lie_too_deep_are_left_out_or_a_sentence_and_can_be_removed(
    tmp_path: Path, name: str, depth: int
) -> None:
    make_deep(tmp_path / "top", depth, name)
    with pytest.raises(OSError, match="there are more than 100 nested folders"):
        list(files_below(tmp_path / "top"))
    left_out: list[Path] = []
    assert {path.name for path in files_below(tmp_path / "top", left_out.append)} == {"file"}
    assert len(left_out) == 1
    folder_trees.remove(tmp_path / "top")
    assert list(tmp_path.iterdir()) == []


def test_what_a_link_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "file").write_text("x")
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "link").symlink_to(tmp_path / "theirs")
    (tmp_path / "own").symlink_to(tmp_path / "theirs")
    folder_trees.remove(tmp_path / "top")
    folder_trees.remove(tmp_path / "own")
    folder_trees.remove(tmp_path / "nothing")
    assert (tmp_path / "theirs" / "file").read_text() == "x"
    assert not (tmp_path / "top").exists()
