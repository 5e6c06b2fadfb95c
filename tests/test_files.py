"""Files are written atomically, and identified by their content."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from mlflow_compress import files


def test_a_file_takes_its_place_when_all_of_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with files.whole_file(path) as partial_path:
        partial_path.write_text("ne")
        assert path.read_text() == "old"
        partial_path.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_what_was_there_stays_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def write() -> None:
        with files.whole_file(path) as partial_path:
            partial_path.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_written_through_a_link_that_lies_in_the_way(tmp_path: Path) -> None:
    target = tmp_path / "theirs"
    target.write_text("mine")
    (tmp_path / "file.partial").symlink_to(target)
    with files.whole_file(tmp_path / "file") as partial_path:
        partial_path.write_text("new")
    assert ((tmp_path / "file").read_text(), target.read_text()) == ("new", "mine")


def test_a_folder_gets_its_name_when_it_is_full(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "folder"
    with files.whole_folder(folder) as partial_folder:
        (partial_folder / "file").write_text("x")
        assert not folder.exists()
    assert (folder / "file").read_text() == "x"
    assert list(folder.parent.iterdir()) == [folder]


def test_what_a_dead_process_of_the_same_id_left_is_not_in_a_folder(tmp_path: Path) -> None:
    left = tmp_path / f"folder.{os.getpid()}"
    left.mkdir()
    (left / "rest").write_text("half")
    with files.whole_folder(tmp_path / "folder") as partial_folder:
        assert list(partial_folder.iterdir()) == []


def test_the_faster_of_two_processes_fills_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    with files.whole_folder(folder) as partial_folder:
        (partial_folder / "file").write_text("slow")
        folder.mkdir()
        (folder / "file").write_text("fast")
    assert (folder / "file").read_text() == "fast"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_that_cannot_be_filled_is_not_there(tmp_path: Path) -> None:
    def fill() -> None:
        with files.whole_folder(tmp_path / "folder"):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_a_hash_is_that_of_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    expected = hashlib.sha256(b"content").hexdigest()
    assert files.sha256(path) == files.sha256_unless_large(path) == expected
    path.write_bytes(b"longer content")
    assert files.sha256_unless_large(path) == hashlib.sha256(b"longer content").hexdigest()
    monkeypatch.setattr(files, "LARGE_BYTES", 3)
    assert files.sha256_unless_large(path) == ""
