"""Hostile files of results, predictions and statistics, as another team's run may hold them."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

DEEP = 200_000


def _written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _archive(path: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(f"{name}.npy", content)
    return path


def _array(values: Any, shape: tuple[int, ...] | None = None) -> bytes:
    """Write an array in numpy's format with a wrong shape in its header."""
    file = io.BytesIO()
    header = {"descr": np.lib.format.dtype_to_descr(values.dtype), "fortran_order": False}
    np.lib.format.write_array_header_1_0(file, {**header, "shape": shape or values.shape})
    return file.getvalue() + bytes(values.tobytes())


def result_of_a_list(folder: Path, command: str) -> Path:
    """Write a result that is an empty list."""
    return _written(folder / "result.json", "[]")


def result_of_half_a_bracket(folder: Path, command: str) -> Path:
    """Write a result that ends after its first bracket."""
    return _written(folder / "result.json", "{")


def result_of_nothing(folder: Path, command: str) -> Path:
    """Write a result without fields."""
    return _written(folder / "result.json", "{}")


def result_too_deep(folder: Path, command: str) -> Path:
    """Write a result of 200,000 nested brackets."""
    return _written(folder / "result.json", '{"variant":' * DEEP + "1" + "}" * DEEP)


def result_too_large(folder: Path, command: str) -> Path:
    """Write a result of 100 MB that takes no space on the disk."""
    path = folder / "result.json"
    path.touch()
    os.truncate(path, 100 * 2**20)
    return path


def result_of_other_types(folder: Path, command: str) -> Path:
    """Write a result whose fields have invalid values."""
    return _written(folder / "result.json", json.dumps({"variant": 200, "status": [], "measurements": "x"}))


def result_without_numbers(folder: Path, command: str) -> Path:
    """Write a result with NaN, infinity and a number too large for a float."""
    return _written(folder / "result.json", '{"started_s": NaN, "ended_s": -Infinity, "measurements": {"a": 1e999}}')


def result_of_no_text(folder: Path, command: str) -> Path:
    """Write a result that is not in UTF-8."""
    return _written(folder / "result.json", b'{"status": "\xff\xfe"}')


def result_of_a_pipe(folder: Path, command: str) -> Path:
    """Make a pipe without a writer in the place of the result."""
    os.mkfifo(folder / "result.json")
    return folder / "result.json"


def predictions_of_no_text(folder: Path, command: str) -> Path:
    """Write predictions that are not in UTF-8."""
    return _written(folder / "predictions.json", b'{"columns": [], "data": [["\xff", "\xfe"]]}')


def predictions_too_deep(folder: Path, command: str) -> Path:
    """Write predictions of 200,000 nested brackets."""
    return _written(folder / "predictions.json", '{"data": ' + "[" * DEEP + "]" * DEEP + "}")


def predictions_of_other_types(folder: Path, command: str) -> Path:
    """Write predictions that are not a table."""
    return _written(folder / "predictions.json", '{"data": {"a": 1}}')


def predictions_of_a_text(folder: Path, command: str) -> Path:
    """Write predictions whose rows are texts, which have a first and a second character."""
    return _written(folder / "predictions.json", '{"data": ["ab", "cd"]}')


def statistics_that_claim_much(folder: Path, command: str) -> Path:
    """Write statistics whose head claims 100,000,000,000 numbers."""
    entries = {"wer": _array(np.zeros((1, 2)), (10**11, 1)), "wer.columns": _array(np.array([], np.str_))}
    return _archive(folder / "statistics.npz", entries)


def statistics_that_unpack_to_much(folder: Path, command: str) -> Path:
    """Write statistics whose 1 GB of zeros is packed into 1 MB."""
    path = folder / "statistics.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("wer.npy", "w") as file:
        file.write(_array(np.zeros(0), (2**27, 1)))
        for _ in range(64):
            file.write(bytes(2**24))
    return path


def statistics_that_are_pickled(folder: Path, command: str) -> Path:
    """Write statistics of pickled objects."""

    class Call:
        def __reduce__(self) -> Any:
            return os.system, (command,)

    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    return _archive(folder / "statistics.npz", {"wer": head.getvalue() + pickle.dumps(Call())})


def statistics_of_other_types(folder: Path, command: str) -> Path:
    """Write statistics of one dimension, of texts, and without their columns."""
    entries = {"wer": _array(np.array(["a", "b"])), "cer": _array(np.zeros(3)), "cer.columns": _array(np.zeros(2))}
    return _archive(folder / "statistics.npz", entries)


def statistics_of_nothing(folder: Path, command: str) -> Path:
    """Write statistics that are not an archive."""
    return _written(folder / "statistics.npz", "PK\x03\x04 no archive")
