"""How large the model is: in memory, on disk, and on disk compressed.

Covers: parameters and their bytes as they are held, tied weights once, packed weights opened; all files of the saved
model; the same files compressed.
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

    Scales and zero points of quantised weights count as bytes, not as parameters. Of a module that holds no tensor, as
    that around a model of another library, there is nothing to say.
    """
    size = parameters = nonzero = 0
    tensors = list(held(module))
    if not tensors:
        return {}
    for each in tensors:
        size += each.tensor.numel() * each.tensor.element_size()
        parameters += each.parameters
        nonzero += each.nonzero()
    return {
        "size/weights_mib": size / _MIB,
        "size/params": float(parameters),
        "size/params_nonzero": float(nonzero),
    }


def on_disk(folder: Path, repeated: Collection[Path] = ()) -> dict[str, float]:
    """Return `size/disk_mib` and `size/disk_gzip_mib` of a saved model's folder.

    The second is what deflate (gzip's algorithm, level 6) makes of the files, in chunks of 8 MiB: clustered and sparse
    weights show only there. Of more than 1 GiB it is deflated in evenly spaced chunks, and what these come to stands
    for the rest: a model of 14 GB would else take half an hour.

    Args:
        folder: the folder.
        repeated: files in it that are not counted: what they hold is in others too.
    """
    files = [path for path in folder.rglob("*") if path.is_file() and path not in repeated]
    total = sum(path.stat().st_size for path in files)
    workers = os.cpu_count() or 1
    chunks, seen, packed = _chunks(files, -(-total // _MOST_DEFLATED_BYTES)), 0, 0
    with ThreadPoolExecutor(workers) as pool:  # zlib lets go of the interpreter's lock
        while few := list(islice(chunks, 2 * workers)):
            seen += sum(map(len, few))
            packed += sum(pool.map(lambda chunk: len(zlib.compress(chunk, 6)), few))
    return {"size/disk_mib": total / _MIB, "size/disk_gzip_mib": packed * total / seen / _MIB if seen else 0.0}


def _chunks(files: list[Path], every: int) -> Iterator[bytes]:
    """Read the files in chunks, one of every so many."""
    index = 0
    for path in files:
        with path.open("rb") as file:
            for start in range(0, path.stat().st_size, _CHUNK_BYTES):
                if index % every == 0:
                    file.seek(start)
                    yield file.read(_CHUNK_BYTES)
                index += 1
