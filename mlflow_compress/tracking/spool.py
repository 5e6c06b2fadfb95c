"""The spool: each result is on disk before it is sent to MLflow, and is removed when MLflow has all of it.

Layout: `<spool>/<result id>/` is the folder in which a variant is measured (`variant.json`, `model/`, logs, tables). It
is a result as soon as it contains `result.json` and, written last, `address.json`. The process that works on it holds
`<spool>/<result id>.lock`; the lock is free when that process is dead.

The folder is `COMPRESS_SPOOL`, or `mlflow-compress/spool` in the user's cache folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_compress import folder_trees
from mlflow_compress.cache_folders import cache_folder
from mlflow_compress.files import whole_file
from mlflow_compress.measuring import worker_part
from mlflow_compress.measuring.worker import MODEL_FOLDER
from mlflow_compress.records import Result, to_json
from mlflow_compress.untrusted import read_json, record

if TYPE_CHECKING:
    from filelock import BaseFileLock

Tell = Callable[[str], None]  # called with a message for the user

_ADDING = "adding.lock"
_RESULT, _ADDRESS = "result.json", "address.json"
_LEFT_OUT = "the disk was full: the model was left out to keep the numbers"


@dataclass(frozen=True)
class Address:
    """The destination of a result. It is stored on disk, so every new field needs a default.

    Attributes:
        uri: the tracking server's address, without secrets.
        experiment: the experiment's name.
        asked: parameters as the user gave them.
        run: the run of `mlflow run` that takes the result; empty for its own run.
        parent: the run above its own run; empty for none.
        with_model: whether the model is sent too.
        digest: the variant's digest, from `resume.digest`.
        lost: why the model can't be sent.
        register: the name of the registered model; empty for none.
    """

    uri: str
    experiment: str
    asked: Mapping[str, str] = field(default_factory=dict)
    run: str = ""
    parent: str = ""
    with_model: bool = True
    digest: str = ""
    lost: str = ""
    register: str = ""


@dataclass(frozen=True)
class Shipment:
    """A result on its way to MLflow, with all its files.

    Attributes:
        entry: its folder in the spool, with the model and the logs.
        result: the result of a variant.
        address: its destination.
        tell: called with a message for the user.
    """

    entry: Entry
    result: Result
    address: Address
    tell: Tell

    def keep(self) -> Shipment:
        """Write the result to disk, so that it survives a power cut.

        On a full disk the model is deleted: the numbers are more important.

        Returns:
            The shipment; its address states whether the model was left out.

        Raises:
            OSError: it can't be written.
        """
        if not self.address.with_model:
            self.entry.drop_model()
        try:
            self._write()
        except OSError:
            self.entry.drop_model()
            missing_model = _LEFT_OUT if self.address.with_model else ""
            smaller = dataclasses.replace(
                self, address=dataclasses.replace(self.address, with_model=False, lost=missing_model)
            )
            smaller._write()
            return smaller
        return self

    def _write(self) -> None:
        folder = self.entry.folder
        folder.mkdir(exist_ok=True)  # the model's own code may have deleted it
        for path in folder_trees.files_below(folder, too_deep=lambda below: None):  # our files are not nested deeply
            if not path.is_symlink():
                _sync(path)
        _write(folder / _RESULT, to_json(self.result))
        _write(folder / _ADDRESS, dataclasses.asdict(self.address))


class Entry:
    """A folder in which a variant is measured, later with its result. Whoever created it holds its lock.

    Attributes:
        id: the result's id.
        folder: the folder.
    """

    def __init__(self, folder: Path, lock: BaseFileLock) -> None:
        """Take over a folder and its lock; use `Spool` instead."""
        self.id, self.folder = folder.name, folder
        self._lock = lock

    @property
    def is_kept(self) -> bool:
        """Return whether it has a result to send."""
        return (self.folder / _ADDRESS).is_file()

    def read(self, tell: Tell) -> Shipment:
        """Return the stored shipment, with a function for messages.

        Raises:
            OSError: it can't be read.
            Malformed: it is not in this version's format.
        """
        result = Result.from_json(read_json(self.folder / _RESULT, worker_part.RESULT_BYTES))
        return Shipment(self, result, record(Address, read_json(self.folder / _ADDRESS), _ADDRESS), tell)

    def drop_model(self) -> None:
        """Delete the saved model, which takes most of the space."""
        folder_trees.remove(self.folder / MODEL_FOLDER)

    def release(self) -> None:
        """Release the lock, so that another process can work on it."""
        self._lock.release()

    def remove(self) -> None:
        """Delete it: MLflow has all of it, or there is no result."""
        (self.folder / _ADDRESS).unlink(missing_ok=True)  # first: without it other processes clear the rest
        folder_trees.remove(self.folder)
        Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()


class Spool:
    """The folder of entries.

    Args:
        folder: the folder; None: COMPRESS_SPOOL, or the user's cache folder.

    Attributes:
        folder: the folder.
        caution: why another folder than intended is used; may be empty.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or default_folder()
        self.caution = ""

    def begin(self) -> Entry:
        """Create an empty folder to measure a variant in.

        If the spool is not writable, use a temporary folder instead and set `caution`.
        """
        try:
            return self._begin()
        except (OSError, NotImplementedError) as error:
            usual_folder, self.folder = self.folder, Path(tempfile.mkdtemp(prefix="mlflow-compress-spool-"))
            self.caution = (
                f"{usual_folder} is not writable ({error}). Results are kept in {self.folder} until they are logged; "
                "set COMPRESS_SPOOL to a writable folder"
            )
            return self._begin()

    def entries(self) -> Iterator[Entry]:
        """Yield the results that no process works on, oldest first; each is locked until it is released or removed."""
        for name in self._names():
            if (self.folder / name / _ADDRESS).is_file() and (lock := self._lock(name)) is not None:
                if (self.folder / name / _ADDRESS).is_file():
                    yield Entry(self.folder / name, lock)
                lock.release()

    def clear(self) -> None:
        """Delete the folders of measurements whose process died before there was a result."""
        for name in self._names():
            if not (self.folder / name / _ADDRESS).is_file() and (lock := self._lock(name)) is not None:
                if not (self.folder / name / _ADDRESS).is_file():
                    Entry(self.folder / name, lock).remove()
                lock.release()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Allow only one process at a time to read and extend what a server has.

        Covers: all processes with this spool. Where no lock is available, there is no protection.
        """
        from filelock import FileLock

        lock = FileLock(self.folder / _ADDING, thread_local=False)
        with contextlib.suppress(OSError, NotImplementedError):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def holds(self, name: str) -> bool:
        """Return whether a result is in the spool, or is being measured there."""
        return bool(name) and (self.folder / name).is_dir()

    def _begin(self) -> Entry:
        name = uuid.uuid4().hex
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # predictions may be private
        lock = self._lock(name)
        assert lock is not None  # the name is new
        (self.folder / name).mkdir()
        return Entry(self.folder / name, lock)

    def _names(self) -> list[str]:
        try:
            folders = [path for path in self.folder.iterdir() if path.is_dir()]
            return [path.name for path in sorted(folders, key=lambda path: (path.stat().st_mtime, path.name))]
        except OSError:
            return []

    def _lock(self, name: str) -> BaseFileLock | None:
        """Lock an entry; return None when another process holds it."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.folder / f"{name}.lock", thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        return lock


def default_folder() -> Path:
    """Return the spool's folder."""
    if folder := os.environ.get("COMPRESS_SPOOL"):
        return Path(folder).absolute()
    return cache_folder("spool")


def _write(path: Path, data: Any) -> None:
    """Write JSON so that after a power cut it is complete or absent: it is forced to the disk too."""
    with whole_file(path) as partial_path:
        partial_path.write_text(json.dumps(data, ensure_ascii=False, allow_nan=False), encoding="utf-8")
        _sync(partial_path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    """Force a file, or a folder's list of names, to the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows can't open folders
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
