"""The option that allows code to run is written for the way this package was called."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from mlflow_compress.measuring.worker_process import environment
from mlflow_compress.records import Variant
from mlflow_compress.trust_word import WORD, trust_word

PROJECT = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID")


@pytest.fixture(autouse=True)
def _outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (WORD, *PROJECT):
        monkeypatch.delenv(name, raising=False)


def test_a_command_gets_its_option_and_a_project_its_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trust_word() == "--trust"
    monkeypatch.setenv("MLFLOW_RUN_ID", "a" * 32)  # set by a user to fill an existing run
    assert trust_word() == "--trust"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "1")
    assert trust_word() == "-P trust=true"


def test_interactive_python_gets_the_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    assert trust_word() == "--trust"
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=object))
    assert trust_word() == "trust=True"


def test_a_worker_speaks_as_the_command_that_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROJECT:
        monkeypatch.setenv(name, "1")
    variables = environment(Variant("m", "original", "t", "python", "x.py"), "prepare")
    assert not any(name in variables for name in PROJECT)
    code = "from mlflow_compress.trust_word import trust_word; print(trust_word())"
    process = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **variables}, capture_output=True, text=True
    )
    assert process.stdout == "-P trust=true\n"
