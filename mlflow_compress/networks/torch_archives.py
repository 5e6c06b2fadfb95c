"""What an archive of torch holds, by the names in it: TorchScript, a graph of torch.export, or only weights."""

from __future__ import annotations

import zipfile
from pathlib import Path

from mlflow_compress.errors import WeightsError, one_line
from mlflow_compress.networks.torchscript_scan import is_script

SCRIPT, PROGRAM = "TorchScript", "a graph of torch.export"
_WEIGHTS = "only weights or a pickled module (torch.save)"
_OF_PROGRAMS = ("archive_format", "serialized_exported_program.json")  # of this format, and of an older one
_ADVICE = {
    SCRIPT: "Rename it to .ts.",
    PROGRAM: "Rename it to .pt2.",
    _WEIGHTS: "Weights alone can't run: give the Python file of their model as MODEL and this file as --weights, or "
    "export the model with torch.export.save.",
}


def require(path: Path, expected: str) -> None:
    """Check that a file is an archive of torch with the expected content: `SCRIPT` or `PROGRAM`.

    Raises:
        WeightsError: It is no archive, or holds something else, which the message names.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
    except Exception as error:  # zipfile raises several types
        raise WeightsError(f"{path} is damaged, or torch did not write it: {one_line(error)}") from error
    if is_script(path):
        content = SCRIPT
    elif not names.isdisjoint(_OF_PROGRAMS):
        content = PROGRAM
    elif "data.pkl" in names:
        content = _WEIGHTS
    else:
        raise WeightsError(f"{path} is an archive, but not one that torch wrote.")
    if content != expected:
        raise WeightsError(f"{path} is not {expected}: it holds {content}. {_ADVICE[content]}")
