"""Pack the files of this machine that a variant needs on another one: code, weights and data that recipes name.

If the same files have the same path there, as in a folder that all machines share, they are used in place. Otherwise
they are unpacked once, into `COMPRESS_CACHE`, or `mlflow-compress/parcels` in the user's cache folder, under a digest
of their content.

Covers: the source, weights, data and metrics that a variant names by path; for a Python file, the modules next to it
that it may import; for a table or a Python file, files that it mentions by a relative path.
Does not cover: absolute paths within files.

Ray's own `runtime_env` (`working_dir`, `py_modules`) was tried on two logical nodes with Ray 2.60, and is not used. It
names a package by its content, like this module. But a task accepts only a URI (`Passing directories ... is only
supported at the job level`): one folder for all variants, or Ray's private packaging. Files listed in a `.gitignore`,
which often includes weights, were left out silently. 300 MiB took 9 s, and 600 MiB were rejected
(`exceeds the maximum size of 512.00MiB`). Files outside the folder can't be named, files on a shared disk are sent
anyway, and the unpacked files are in the session's folder, so that the next cluster receives them again.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import re
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from mlflow_compress import folder_trees
from mlflow_compress.cache_folders import cache_folder
from mlflow_compress.data import spec
from mlflow_compress.errors import RecipeError
from mlflow_compress.files import sha256_unless_large, whole_folder
from mlflow_compress.networks import code_files
from mlflow_compress.networks.code_needs import needs_of
from mlflow_compress.networks.mlflow_folders import DESCRIPTION
from mlflow_compress.networks.own_files import require_own_files
from mlflow_compress.records import Variant
from mlflow_compress.scoring.hf_evaluate import is_code

HERE = "here"  # instead of a folder: each file has its original path
MOST_BYTES, MOST_FILES = 2 * 2**30, 100_000
_MENTIONS_BYTES = 2**16
_MOST_NAMED_BYTES, _MOST_NAMED_FILES = 256 * 2**20, 20_000  # in a folder that code names
_MENTION = re.compile(r"""[^\s,;:"'()\[\]{}<>=]+""")
_SETTINGS = (".yaml", ".yml")
_UNUSED_SECONDS = 14 * 86400.0


@dataclass(frozen=True)
class File:
    """One file: its path and its identity.

    Attributes:
        path: Path on the machine that packs it.
        size: Size in bytes.
        changed_ns: Time of the last change, nanoseconds since the epoch.
        digest: SHA-256 of its content; empty for large files.
    """

    path: str
    size: int
    changed_ns: int
    digest: str

    @property
    def identity(self) -> tuple[int, str | int]:
        """Return a value that is equal for two copies of a file."""
        return self.size, self.digest or self.changed_ns


@dataclass(frozen=True)
class Parcel:
    """The files to pack.

    Attributes:
        roots: The variant's folder, then each path outside it that the variant names.
        files: Files by name in the archive: the number of the root, then the path below it.
    """

    roots: tuple[str, ...]
    files: Mapping[str, File] = field(default_factory=dict)

    @functools.cached_property
    def digest(self) -> str:
        """Return a digest of the content."""
        described = [[name, *file.identity] for name, file in sorted(self.files.items())]
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()

    @property
    def size(self) -> int:
        """Return the bytes of all files."""
        return sum(file.size for file in self.files.values())

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Parcel:
        """Rebuild what `records.to_json` wrote."""
        return cls(tuple(data["roots"]), {name: File(**file) for name, file in data["files"].items()})


def contents(variant: Variant) -> Parcel | None:
    """Return the files of this machine that a variant needs; None if it needs none.

    Raises:
        RecipeError: They can't be read.
    """
    folder = Path(variant.folder)
    paths: dict[Path, None] = {}
    for text in _texts(variant):
        if text and (path := _existing(folder, text)) is not None:
            paths |= dict.fromkeys([path, *_beside(path)])
    outside_paths = [path for path in paths if not path.is_relative_to(folder)]
    roots = [
        path for path in outside_paths if not any(path.is_relative_to(root) for root in outside_paths if root != path)
    ]
    files: dict[str, File] = {}
    try:
        for path in paths:
            for file in _files(path):
                files.setdefault(_name(file, folder, roots), _described(file))
                if len(files) > MOST_FILES:
                    raise OSError(f"{path} has more than {MOST_FILES:,} files")
    except OSError as error:
        raise RecipeError(f"The files of {variant.model} can't be sent to other machines: {error}") from error
    return Parcel((str(folder), *map(str, roots)), files) if files else None


def pack(parcel: Parcel, file: IO[bytes]) -> None:
    """Write a parcel as a tar archive, without owners and links.

    Raises:
        OSError: A file can't be read, or was changed in the meantime.
    """
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, source in sorted(parcel.files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.mode = source.size, source.changed_ns // 10**9, 0o644
            entry.pax_headers = {"mtime": f"{source.changed_ns / 10**9:.9f}"}
            with Path(source.path).open("rb") as content:
                archive.addfile(entry, content)


def find(parcel: Parcel) -> str:
    """Return the place of a parcel's files on this machine: `HERE`, the folder they were unpacked to, or empty."""
    try:
        if all(_described(Path(file.path)).identity == file.identity for file in parcel.files.values()):
            return HERE
    except (OSError, ValueError):
        pass
    folder = _cache() / parcel.digest
    return str(folder) if folder.is_dir() else ""


def unpack(parcel: Parcel, chunks: Iterable[bytes]) -> str:
    """Unpack a parcel that is not on this machine yet, and return its folder.

    Args:
        parcel: The parcel.
        chunks: Bytes of the archive.

    Raises:
        OSError: It can't be written, or the archive does not match the parcel.
    """
    from filelock import FileLock

    cache = _cache()
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = cache / parcel.digest
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            _forget_unused(cache)
            with tempfile.TemporaryFile(dir=cache) as file, whole_folder(folder) as partial_folder:
                for chunk in chunks:
                    file.write(chunk)
                file.seek(0)
                _extract(parcel, file, partial_folder)
    os.utime(folder)
    return str(folder)


def moved(variant: Variant, parcel: Parcel, where: str) -> Variant:
    """Return a variant with the paths of this machine.

    Args:
        variant: Variant with the paths of the machine that packed the parcel.
        parcel: Its files.
        where: Place of the parcel here, from `find` or `unpack`.
    """
    if where == HERE:
        return variant
    folder = Path(variant.folder)

    def new(text: str) -> str:
        path = _place(folder, text)
        for number, root in enumerate(parcel.roots[1:], 1):
            if path.is_relative_to(root):
                return str(Path(where, str(number), Path(root).name, path.relative_to(root)))
        return text

    def metric(text: str) -> str:
        return text.replace(_code(text), new(_code(text))) if is_code(text) else text

    data = variant.data
    if data:
        described = spec.parse(data)
        placed = dataclasses.replace(described, source=new(described.source), calibration=new(described.calibration))
        data = data if placed == described else str(placed)
    return dataclasses.replace(
        variant,
        folder=str(Path(where, "0")),
        source=new(variant.source),
        weights=new(variant.weights),
        data=data,
        metrics=tuple(map(metric, variant.metrics)),
    )


def _texts(variant: Variant) -> list[str]:
    """Return the values of a variant that may be paths."""
    texts = [variant.source, variant.weights, *(_code(metric) for metric in variant.metrics if is_code(metric))]
    if variant.data:
        data = spec.parse(variant.data)
        texts += [data.source, data.calibration]
    return texts


def _code(metric: str) -> str:
    """Return the path or hub id of a custom metric."""
    path = metric.strip().removeprefix("evaluate:").removeprefix("lm_eval:")
    return re.sub(r":\w+=.*", "", path, flags=re.DOTALL)


def _place(folder: Path, text: str) -> Path:
    try:
        return folder / Path(text).expanduser()
    except RuntimeError:  # no such user
        return folder / text


def _existing(folder: Path, text: str) -> Path | None:
    """Return the path that a text names, if it exists."""
    try:
        path = _place(folder, text)
        return path if path != folder and path.exists() else None
    except (OSError, ValueError):  # too long for a path, or with a null byte
        return None


def _beside(path: Path) -> Iterator[Path]:
    """Yield the files next to a file that it needs: modules to import, and files that it mentions."""
    if not path.is_file():
        return
    if path.suffix == ".py":
        yield from sorted(path.parent.glob("*.py"))
        for package in sorted(path.parent.glob("*/__init__.py")):
            yield from sorted(package.parent.rglob("*.py"))
        yield from _needed(path)
    with path.open("rb") as file:
        text = file.read(_MENTIONS_BYTES).decode(errors="replace")
    if path.suffix in _SETTINGS and "!function" in text:  # a task of lm-eval with functions of Python files beside it
        yield from sorted(path.parent.glob("*.py"))
    for mention in dict.fromkeys(_MENTION.findall(text)):
        parts = PurePosixPath(mention).parts
        if not parts or ".." in parts or parts[0] == "/" or (existing := _existing(path.parent, mention)) is None:
            continue
        if existing.is_file():
            yield existing if path.suffix == ".py" else path.parent / parts[0]  # with the other images of its folder
        elif path.suffix in _SETTINGS:
            yield existing


def _needed(path: Path) -> Iterator[Path]:
    """Yield the files below its folder that Python code needs.

    Large folders and large sets of possible files are left out: a word in the code may match a folder by chance.
    """
    needs = needs_of(path)
    yield from (file for file in (*needs.modules, *needs.files) if code_files.is_own(file, path.parent))
    if _is_small(needs.composed):
        yield from needs.composed
    for folder in needs.folders:
        if code_files.is_own(folder, path.parent) and _is_small(folder_trees.files_below(folder)):
            yield folder


def _is_small(files: Iterable[Path]) -> bool:
    size = 0
    for count, file in enumerate(files, 1):
        size += file.stat().st_size
        if count > _MOST_NAMED_FILES or size > _MOST_NAMED_BYTES:
            return False
    return True


def _files(path: Path) -> Iterator[Path]:
    """Yield the files at a path; links to folders are not followed.

    Raises:
        OSError: Folders are nested too deeply, see `folder_trees`.
    """
    if path.is_file():
        yield path
        return
    if (path / DESCRIPTION).exists():  # a link would be unpacked as a file of the model
        require_own_files(path)
    yield from folder_trees.files_below(path)


def _name(path: Path, folder: Path, roots: list[Path]) -> str:
    """Return the name of a file in the archive."""
    if path.is_relative_to(folder):
        return f"0/{path.relative_to(folder).as_posix()}"
    number, root = next((number, root) for number, root in enumerate(roots, 1) if path.is_relative_to(root))
    return PurePosixPath(str(number), root.name, path.relative_to(root).as_posix()).as_posix()


def _described(path: Path) -> File:
    status = path.stat()
    return File(str(path), status.st_size, status.st_mtime_ns, sha256_unless_large(path))


def _extract(parcel: Parcel, file: IO[bytes], folder: Path) -> None:
    """Extract an archive into a new folder, and check that it has exactly the parcel's files."""
    try:
        with tarfile.open(fileobj=file) as archive:
            archive.extractall(folder, filter="data")  # this filter blocks writing outside the folder
    except tarfile.TarError as error:
        raise OSError(f"the archive can't be unpacked: {error}") from error
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    if sizes != {name: source.size for name, source in parcel.files.items()}:
        raise OSError("the archive does not have the expected files")
    (folder / "0").mkdir(exist_ok=True)


def _forget_unused(cache: Path) -> None:
    """Remove parcels that were not used for two weeks."""
    for path in cache.iterdir():
        if path.is_dir() and time.time() - path.stat().st_mtime > _UNUSED_SECONDS:
            folder_trees.remove(path)


def _cache() -> Path:
    if folder := os.environ.get("COMPRESS_CACHE"):
        return Path(folder).absolute() / "parcels"
    return cache_folder("parcels")
