"""What code a TorchScript file would run beyond computing, told without loading it.

TorchScript is code, some of which runs when the file is loaded, and it can open files by name and write to them. What
is let through here computes: nothing in it runs at loading, and it names no operator that opens a file.
"""

from __future__ import annotations

import re
from pathlib import Path

_FRONT = b"PK\x03\x04"  # by this torch tells its archives from other formats, which hold code too
_KNOWN_RECORDS = re.compile(
    r"code/[\w./-]+\.py(\.debug_pkl)?|(data|constants|traced_inputs)(\.pkl|/\d+)|version|byteorder|\.data/\w+"
    r"|\.format_version|\.storage_alignment"
)
_OPENS_FILES = ("from_file", "save")  # of torch's own operators, all that take a file's name
# A state is set by code when it is loaded; hooks and forks hide what they call; torch's own classes have constructors
# that do anything; what is printed reaches a terminal as it is.
_HIDES = ("__setstate__", "__forward_hooks__", "__forward_pre_hooks__", "fork", "classes", "print")
_REFUSED = frozenset(_OPENS_FILES + _HIDES)
_WORD = re.compile(r"[A-Za-z_]\w*")
# Under another name, or by `getattr`, any operator could be called.
_OTHERS_OPERATORS = re.compile(r"(?<![\w.])(torch\b(?!\.\w)|ops\b(?!\.(aten|prim|quantized|torchvision)\.\w))")
_COMPUTED_DEFAULT = re.compile(r"\bdef\b(?!\s+\w+\([\w\s.:,\[\]]*\)\s*->)")  # it would be computed at loading


def code_in_script(path: Path) -> str:
    """Say what in a file of `torch.jit.save` does more than compute, or is not known to do no more.

    Returns:
        What it is, to follow `holds`; empty if there is nothing.
    """
    try:
        _check(path)
    except Exception as error:  # of torch's reader, for what is not as torch writes it
        return str(error).split("\n", maxsplit=1)[0][:300] or type(error).__name__
    return ""


def _check(path: Path) -> None:
    import torch

    with path.open("rb") as file:
        if file.read(len(_FRONT)) != _FRONT:
            raise ValueError("no archive as torch.jit.save writes it")
    reader = torch._C.PyTorchFileReader(str(path))  # as torch reads it
    for name in reader.get_all_records():
        if not _KNOWN_RECORDS.fullmatch(name):
            raise ValueError(f"{name!r:.100}, which is not part of a TorchScript model")
        if name.endswith(".py"):
            _check_source(reader.get_record(name).decode())


def _check_source(source: str) -> None:
    """Check the code of one record."""
    if refused := sorted(_REFUSED.intersection(_WORD.findall(source))):
        raise ValueError(f"TorchScript code with {', '.join(refused)}")
    if other := _OTHERS_OPERATORS.search(source):
        raise ValueError(f"TorchScript code with operators that are not torch's: {source[other.start() :][:60]!r}")
    if _COMPUTED_DEFAULT.search(source):
        raise ValueError("TorchScript code with arguments that are computed when it is loaded")
