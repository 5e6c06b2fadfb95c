"""Finds code in a TorchScript file that does more than compute, without loading the file.

TorchScript is code. Some of it runs when the file is loaded, and it can open and write files by name. Files that pass
here only compute: nothing in them runs at loading, and they name no operator that opens a file.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from mlflow_compress.errors import first_line

_FRONT = b"PK\x03\x04"  # torch recognises its archives by this; other formats hold code too
_KNOWN_RECORDS = re.compile(
    r"code/[\w./-]+\.py(\.debug_pkl)?|(data|constants|traced_inputs)(\.pkl|/\d+)|version|byteorder|\.data/\w+"
    r"|\.format_version|\.storage_alignment"
)
_OPENS_FILES = ("from_file", "save")  # all operators of torch that take a file name
# `__setstate__` runs at loading; hooks and forks hide their calls; constructors of torch's own classes may do anything;
# printed text reaches the terminal unchanged.
_HIDES = ("__setstate__", "__forward_hooks__", "__forward_pre_hooks__", "fork", "classes", "print")
_REFUSED = frozenset(_OPENS_FILES + _HIDES)
_WORD = re.compile(r"[A-Za-z_]\w*")
# With an alias, or with `getattr`, any operator could be called.
_OTHERS_OPERATORS = re.compile(r"(?<![\w.])(torch\b(?!\.\w)|ops\b(?!\.(aten|prim|quantized|torchvision)\.\w))")
_COMPUTED_DEFAULT = re.compile(r"\bdef\b(?!\s+\w+\([\w\s.:,\[\]]*\)\s*->)")  # it would run at loading


def code_in_script(path: Path) -> str:
    """Name the part of a `torch.jit.save` file that may do more than compute.

    Returns:
        A phrase to follow `holds`; empty if the file only holds parts that are known to be safe.
    """
    try:
        _check(path)
    except Exception as error:  # torch's reader raises many types for malformed files
        return first_line(error) if isinstance(error, ValueError) else f"parts that can't be read: {first_line(error)}"
    return ""


def is_script(path: Path) -> bool:
    """Return whether a file is an archive as `torch.jit.save` writes it, by the names in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.rpartition("/")[2] == "constants.pkl" for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def _check(path: Path) -> None:
    import torch

    with path.open("rb") as file:
        if file.read(len(_FRONT)) != _FRONT:
            raise ValueError("no archive as torch.jit.save writes it")
    reader = torch._C.PyTorchFileReader(str(path))  # torch's own reader
    for name in reader.get_all_records():
        if not _KNOWN_RECORDS.fullmatch(name):
            raise ValueError(f"{name!r:.100}, which is not part of a TorchScript model")
        if name.endswith(".py"):
            _check_source(reader.get_record(name).decode())


def _check_source(source: str) -> None:
    """Check the code of one record."""
    if refused := sorted(_REFUSED.intersection(_WORD.findall(source))):
        raise ValueError(f"TorchScript code with {', '.join(refused)}")
    if foreign := _OTHERS_OPERATORS.search(source):
        raise ValueError(f"TorchScript code with operators that are not torch's: {source[foreign.start() :][:60]!r}")
    if _COMPUTED_DEFAULT.search(source):
        raise ValueError("TorchScript code with arguments that are computed when it is loaded")
