"""A watch records the files that code reads."""

from __future__ import annotations

import sys
import threading
import types
from pathlib import Path

import pytest

from mlflow_compress.networks import opened_files

pytestmark = pytest.mark.full


def test_reads_of_all_threads_are_recorded(tmp_path: Path) -> None:
    """Each thread inspects its file while the others open theirs."""
    paths = [tmp_path / str(index) for index in range(200)]
    for path in paths:
        path.write_text("x")
    start = threading.Barrier(8)

    def read(files: list[Path]) -> None:
        start.wait()
        for path in files:
            path.read_text()

    with opened_files.watched() as watch:
        threads = [threading.Thread(target=read, args=(paths[offset::8],)) for offset in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {Path(path) for path in watch.read} == set(paths)


def test_listing_a_folder_is_not_reading(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    with opened_files.watched() as watch:
        list(tmp_path.iterdir())
    assert list(watch.read) == [str(tmp_path)]


@pytest.mark.parametrize(("system", "folder"), [("darwin", "/System/"), ("win32", "D:\\Windows"), ("linux", "/proc/")])
def test_files_of_the_system_are_not_the_models(monkeypatch: pytest.MonkeyPatch, system: str, folder: str) -> None:
    monkeypatch.setenv("SYSTEMROOT", "D:\\Windows")
    monkeypatch.setattr(sys, "platform", system)
    places = opened_files._elsewhere.__wrapped__()
    assert any(place.startswith(folder) for place in places)


def test_a_function_that_opens_files_outside_python_is_heard_wherever_it_was_imported(tmp_path: Path) -> None:
    import torch

    original, early, late = torch.save, types.ModuleType("early"), types.ModuleType("late")
    vars(early)["save"] = original
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "early", early)
        with opened_files.watched() as watch:
            patch.setitem(sys.modules, "late", late)
            vars(late)["save"] = torch.save  # as `from torch import save` does
            for module in (torch, early, late):
                vars(module)["save"]({}, tmp_path / f"{module.__name__}.pt")
        assert {Path(path).name for path in watch.written} == {"torch.pt", "early.pt", "late.pt"}
        assert all(vars(module)["save"] is original for module in (torch, early, late))
