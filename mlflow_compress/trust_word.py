"""`trust_word`: how to say that code may run, in the words of the way in which this package was called."""

from __future__ import annotations

import os
import sys

WORD = "COMPRESS_TRUST_WORD"  # environment: what a command tells its workers, which know nothing of MLflow
_OF_A_PROJECT = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID")  # `mlflow run` sets both for the command of an entry point


def trust_word() -> str:
    """Return `-P trust=true` under `mlflow run`, `trust=True` in a notebook or at Python's prompt, else `--trust`."""
    if said := os.environ.get(WORD, ""):
        return said
    if is_called_by_mlflow():
        return "-P trust=true"
    return "trust=True" if _is_typed() else "--trust"


def is_called_by_mlflow() -> bool:
    """Return whether `mlflow run` started this process."""
    return all(name in os.environ for name in _OF_A_PROJECT)


def _is_typed() -> bool:
    """Return whether somebody types Python here. MLflow imports IPython in programs, too: then nobody does."""
    notebook = sys.modules.get("IPython")
    return hasattr(sys, "ps1") or (notebook is not None and notebook.get_ipython() is not None)
