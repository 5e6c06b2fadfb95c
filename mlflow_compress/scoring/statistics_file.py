"""Store the statistics of each sample in a file, so that another run on the same samples can be paired with it."""

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

MOST_PACKED_BYTES = 2**29  # of the file
_MOST_BYTES = 2**31  # of statistics in memory: a thousand classes on 50,000 samples take half of it
_COLUMNS = ".columns"


@dataclass(frozen=True, eq=False)
class Statistics:
    """Statistics per sample of an additive metric, or the items of a pooled metric.

    Attributes:
        values: an array [samples, statistics], or [items, numbers].
        columns: names of the statistics, if they depend on the samples.
        summaries: summaries that pooled metrics have computed, by the seed of the bootstrap; they are not written.
    """

    values: Any
    columns: tuple[str, ...] = ()
    summaries: dict[int | None, Any] = field(default_factory=dict, repr=False)


def write(kept: Mapping[str, Statistics], path: Path) -> None:
    """Write the statistics of metrics, by name, in numpy's format, so that another run can be paired."""
    import numpy as np

    arrays: dict[str, Any] = {name: statistics.values for name, statistics in kept.items()}
    arrays |= {name + _COLUMNS: np.array(statistics.columns, dtype=np.str_) for name, statistics in kept.items()}
    with whole_file(path) as partial_path, partial_path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read(path: Path) -> dict[str, Statistics]:
    """Read an untrusted file in the format of `write`, by the metric's name.

    Raises:
        Malformed: it is not such a file, or needs too much memory.
        OSError: it can't be read.
    """
    arrays = _arrays(path)
    return {
        name: _checked(f"{path.name}, {name}", values, arrays.get(name + _COLUMNS))
        for name, values in arrays.items()
        if not name.endswith(_COLUMNS)
    }


def _arrays(path: Path) -> dict[str, Any]:
    """Return the arrays of a numpy archive by name; reject arrays of objects."""
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
    """Read an array if its header states the true size: numpy would allocate any size that the header states."""
    import numpy as np

    with archive.open(entry) as file:
        read_head = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        version = np.lib.format.read_magic(file)
        if version not in read_head:
            raise Malformed(f"{entry.filename} has version {version} of numpy's format, which is not supported.")
        shape, in_columns, kind = read_head[version](file)
        count = math.prod(shape)
        if kind.hasobject or min(shape, default=1) < 0 or count * kind.itemsize != entry.file_size - file.tell():
            raise Malformed(f"{entry.filename} does not hold the {count:,} numbers that it claims.")
        values = np.empty(count, kind)
        if count and file.readinto(values.view(np.uint8)) < count * kind.itemsize:  # type: ignore[attr-defined]
            raise EOFError(f"{entry.filename} is truncated")
    return values.reshape(shape, order="F" if in_columns else "C")


def _checked(name: str, values: Any, columns: Any) -> Statistics:
    import numpy as np

    is_table = values.dtype.kind in "fiu" and values.ndim == 2 and bool(np.isfinite(values).all())
    if not is_table or columns is None or columns.dtype.kind != "U" or columns.ndim != 1:
        raise Malformed(f"{name} are not statistics of samples.")
    if len(columns) not in (0, values.shape[1]):
        raise Malformed(f"{name} have {values.shape[1]} columns and {len(columns)} names.")
    return Statistics(values, tuple(map(str, columns)))
