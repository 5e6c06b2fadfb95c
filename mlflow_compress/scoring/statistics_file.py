"""What scoring leaves of each sample, in a file: another run on the same samples can be paired with it."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow_compress.errors import named_line
from mlflow_compress.files import whole_file
from mlflow_compress.untrusted import Malformed, check_size

MOST_PACKED_BYTES = 2**29  # of their file
_MOST_BYTES = 2**31  # of statistics in memory: those of a thousand classes on 50,000 samples take half of it
_COLUMNS = ".columns"


@dataclass(frozen=True, eq=False)
class Statistics:
    """What an additive metric sums up, sample by sample, or the things that a pooled one is made of.

    Attributes:
        values: an array [samples, statistics], or [items, numbers].
        columns: names of the statistics, where the samples decided which there are.
        summaries: what pooled metrics have made of the things already, by the seed of the drawing; it is not written.
    """

    values: Any
    columns: tuple[str, ...] = ()
    summaries: dict[int | None, Any] = field(default_factory=dict, repr=False)


def write(kept: Mapping[str, Statistics], path: Path) -> None:
    """Keep the statistics of metrics, by name, in numpy's format, so that another run can be paired."""
    import numpy as np

    arrays: dict[str, Any] = {name: each.values for name, each in kept.items()}
    arrays |= {name + _COLUMNS: np.array(each.columns, dtype=np.str_) for name, each in kept.items()}
    with whole_file(path) as aside, aside.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read(path: Path) -> dict[str, Statistics]:
    """Read what `write` wrote, by the metric's name, whoever wrote it.

    Raises:
        Malformed: it is none of that, or takes more memory than it may.
        OSError: it can't be read.
    """
    arrays = _arrays(path)
    return {
        name: _checked(f"{path.name}, {name}", values, arrays.get(name + _COLUMNS))
        for name, values in arrays.items()
        if not name.endswith(_COLUMNS)
    }


def _arrays(path: Path) -> dict[str, Any]:
    """Return the arrays of an archive of numpy's by name, none of which is of objects."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            check_size(f"{path.name}, unpacked,", sum(entry.file_size for entry in entries), _MOST_BYTES)
            return {entry.filename.removesuffix(".npy"): _array(archive, entry) for entry in entries}
    except Malformed:
        raise
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        raise Malformed(f"{path.name} can't be read: {named_line(error)}.") from error


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Any:
    """Read an array, if it is as large as its head says: numpy itself takes the memory that the head asks for."""
    import numpy as np

    with archive.open(entry) as file:
        read_head = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        version = np.lib.format.read_magic(file)
        if version not in read_head:
            raise Malformed(f"{entry.filename} is of version {version} of numpy's format.")
        shape, in_columns, kind = read_head[version](file)
        count = math.prod(shape)
        if kind.hasobject or min(shape, default=1) < 0 or count * kind.itemsize != entry.file_size - file.tell():
            raise Malformed(f"{entry.filename} does not hold the {count:,} numbers that it claims.")
        values = np.empty(count, kind)
        if count and file.readinto(values.view(np.uint8)) < count * kind.itemsize:  # type: ignore[attr-defined]
            raise EOFError(f"{entry.filename} ends too early")
    return values.reshape(shape, order="F" if in_columns else "C")


def _checked(name: str, values: Any, columns: Any) -> Statistics:
    import numpy as np

    is_table = values.dtype.kind in "fiu" and values.ndim == 2 and bool(np.isfinite(values).all())
    if not is_table or columns is None or columns.dtype.kind != "U" or columns.ndim != 1:
        raise Malformed(f"{name} are no statistics of samples.")
    if len(columns) not in (0, values.shape[1]):
        raise Malformed(f"{name} have {values.shape[1]} columns and {len(columns)} names.")
    return Statistics(values, tuple(map(str, columns)))
