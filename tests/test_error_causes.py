"""Errors of other code in one line: the first cause without colours, and the place in the user's own code."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from mlflow_compress.error_causes import cause_line, is_of_this_package, is_out_of_memory, own_place


def test_the_first_cause_is_one_line_without_colours() -> None:
    error = RuntimeError("Failed to export. This is step 1/3")
    error.__cause__ = ValueError("\n\x1b[96mthe shape\x1b[0m is\twrong\nmore of it")
    assert cause_line(error) == "the shape is wrong"
    assert cause_line(error, most=10) == "the shape…"
    assert cause_line(KeyError("x")) == "KeyError: 'x'"


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("", "KeyError"),
        ("Error:\n---\nat last", "KeyError: at last"),
        ("Exception from src/a.cpp:12:\nso", "KeyError: so"),
    ],
)
def test_lines_that_say_nothing_are_skipped(message: str, line: str) -> None:
    class KeyError(Exception):  # noqa: A001  (the real one quotes its message)
        pass

    assert cause_line(KeyError(message)) == line


def test_the_users_code_is_named_and_a_librarys_is_not(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import json\n\n\ndef load():\n    return json.loads('{')\n")
    spec = importlib.util.spec_from_file_location("mine", tmp_path / "mine.py")
    assert spec is not None
    assert spec.loader is not None
    users_module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(users_module)
    with pytest.raises(ValueError, match="property name") as caught:
        users_module.load()
    assert own_place(caught.value) == "mine.py, line 5, in load"
    assert own_place(ValueError("never raised")) == ""


def test_a_defect_of_this_package_is_known() -> None:
    with pytest.raises(TypeError) as own_error:
        cause_line(ValueError(), most="three")  # type: ignore[arg-type]
    assert is_of_this_package(own_error.value)
    with pytest.raises(ValueError, match="Expecting value") as library_error:
        json.loads("?")
    assert not is_of_this_package(library_error.value)
    assert not is_of_this_package(ValueError("never raised"))


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_memory_that_ran_out_is_known(error: Exception) -> None:
    assert is_out_of_memory(error)
    assert not is_out_of_memory(ValueError("no"))
