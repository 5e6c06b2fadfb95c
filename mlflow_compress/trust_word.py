"""`trust_word`: the option that allows code to run, as the user must write it for the way this package was called."""

from __future__ import annotations

import os
import sys

WORD = "COMPRESS_TRUST_WORD"  # environment: passed from a command to its workers, which do not know about MLflow
_OF_A_PROJECT = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID")  # `mlflow run` sets both for the command of an entry point


def trust_word() -> str:
    """Return `-P trust=true` under `mlflow run`, `trust=True` in a notebook or at Python's prompt, else `--trust`."""
    if word := os.environ.get(WORD, ""):
        return word
    if is_called_by_mlflow():
        return "-P trust=true"
    return "trust=True" if _is_interactive() else "--trust"


def is_called_by_mlflow() -> bool:
    """Return whether `mlflow run` started this process."""
    return all(name in os.environ for name in _OF_A_PROJECT)


def _is_interactive() -> bool:
    """Return whether Python is used interactively. An imported IPython is not enough: MLflow imports it, too."""
    notebook = sys.modules.get("IPython")
    return hasattr(sys, "ps1") or (notebook is not None and notebook.get_ipython() is not None)
