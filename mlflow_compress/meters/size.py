"""Measure the size of the model: in memory, on disk, and compressed on disk.

Covers: parameters and their bytes as stored in memory, tied weights once, packed weights unpacked; all files of the
saved model; the same files compressed.
Does not cover: buffers in memory, activations, the libraries that run it.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from mlflow_compress.networks.stored_weights import held

_MIB = 2**20
_CHUNK_BYTES = 8 * _MIB
_MOST_DEFLATED_BYTES = 2**30


def in_memory(module: Any) -> dict[str, float]:
    """Return `size/weights_mib`, `size/params` and `size/params_nonzero` of a module.

    Scales and zero points of quantised weights count as bytes, not as parameters. A module without tensors, such as a
    wrapper around a model of another library, has no metrics.
    """
    size = parameters = nonzero = 0
    tensors = list(held(module))
    if not tensors:
        return {}
    for weight in tensors:
        size += weight.tensor.numel() * weight.tensor.element_size()
        parameters += weight.parameters
        nonzero += weight.nonzero()
    return {
        "size/weights_mib": size / _MIB,
        "size/params": float(parameters),
        "size/params_nonzero": float(nonzero),
    }


def on_disk(folder: Path, repeated: Collection[Path] = ()) -> dict[str, float]:
    """Return `size/disk_mib` and `size/disk_gzip_mib` of a saved model's folder.

    The second is the size after deflate (gzip's algorithm, level 6), in chunks of 8 MiB: it shows the effect of
    clustered and sparse weights. If the folder is larger than 1 GiB, only evenly spaced chunks are compressed and the
    result is extrapolated: a model of 14 GB would otherwise take half an hour.

    Args:
        folder: The folder.
        repeated: Files that are not counted because other files have the same content.
    """
    files = [path for path in folder.rglob("*") if path.is_file() and path not in repeated]
    total = sum(path.stat().st_size for path in files)
    workers = os.cpu_count() or 1
    chunks, read_bytes, packed = _chunks(files, -(-total // _MOST_DEFLATED_BYTES)), 0, 0
    with ThreadPoolExecutor(workers) as pool:  # zlib releases the GIL
        while few := list(islice(chunks, 2 * workers)):
            read_bytes += sum(map(len, few))
            packed += sum(pool.map(lambda chunk: len(zlib.compress(chunk, 6)), few))
    return {
        "size/disk_mib": total / _MIB,
        "size/disk_gzip_mib": packed * total / read_bytes / _MIB if read_bytes else 0.0,
    }


def _chunks(files: list[Path], step: int) -> Iterator[bytes]:
    """Yield every `step`-th chunk of the files."""
    index = 0
    for path in files:
        with path.open("rb") as file:
            for start in range(0, path.stat().st_size, _CHUNK_BYTES):
                if index % step == 0:
                    file.seek(start)
                    yield file.read(_CHUNK_BYTES)
                index += 1
