"""The spool: each result is on disk before it is sent to MLflow, and leaves when MLflow has all of it.

Layout: `<spool>/<result id>/` is the folder in which a variant is measured (`variant.json`, `model/`, logs, tables). It
is a result as soon as it holds `result.json` and, written last, `address.json`. `<spool>/<result id>.lock` is held by
the process that works on it, and is free when that process is dead.

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

Tell = Callable[[str], None]  # is told in a sentence what happens

_ADDING = "adding.lock"
_RESULT, _ADDRESS = "result.json", "address.json"
_LEFT_OUT = "the disk was full: its model was left out so that its numbers could be kept"


@dataclass(frozen=True)
class Address:
    """Where a result is to be written, and what else goes with it. This is kept on disk, so a field has a default.

    Attributes:
        uri: the tracking server's, without secrets.
        experiment: the experiment's name.
        asked: parameters as the user gave them.
        run: the run of `mlflow run` that takes it; empty for a run of its own.
        parent: the run that its own run lies below; empty for none.
        with_model: whether the model goes with it.
        digest: of the variant, as `resume.digest` gives it.
        lost: why the model can't go with it.
        register: the name that the model is registered under; empty for none.
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
    """A result on its way to MLflow, with all that travels with it.

    Attributes:
        entry: its folder in the spool, with the model and the logs.
        result: what came of a variant.
        address: where it goes.
        tell: told in a sentence how it goes.
    """

    entry: Entry
    result: Result
    address: Address
    tell: Tell

    def keep(self) -> Shipment:
        """Put the result on disk, so that it outlives a power cut.

        On a full disk the model makes room: numbers are worth more.

        Returns:
            The shipment, whose address says if the model was left out.

        Raises:
            OSError: it can't be put there.
        """
        if not self.address.with_model:
            self.entry.drop_model()
        try:
            self._write()
        except OSError:
            self.entry.drop_model()
            lost = _LEFT_OUT if self.address.with_model else ""
            smaller = dataclasses.replace(self, address=dataclasses.replace(self.address, with_model=False, lost=lost))
            smaller._write()
            return smaller
        return self

    def _write(self) -> None:
        folder = self.entry.folder
        folder.mkdir(exist_ok=True)  # the model's own code may have taken it away
        for path in folder_trees.files_below(folder, too_deep=lambda below: None):  # none of ours lies deep
            if not path.is_symlink():
                _sync(path)
        _write(folder / _RESULT, to_json(self.result))
        _write(folder / _ADDRESS, dataclasses.asdict(self.address))


class Entry:
    """A folder in which a variant is measured, and its result once there is one. Its maker holds its lock.

    Attributes:
        id: the result's id.
        folder: the folder.
    """

    def __init__(self, folder: Path, lock: BaseFileLock) -> None:
        """Take over a folder and its lock; `Spool` makes entries."""
        self.id, self.folder = folder.name, folder
        self._lock = lock

    @property
    def is_kept(self) -> bool:
        """Return whether it holds a result that is to be sent."""
        return (self.folder / _ADDRESS).is_file()

    def read(self, tell: Tell) -> Shipment:
        """Return what was kept, with the teller of who will send it.

        Raises:
            OSError: it can't be read.
            Malformed: it is none of this version's.
        """
        result = Result.from_json(read_json(self.folder / _RESULT, worker_part.RESULT_BYTES))
        return Shipment(self, result, record(Address, read_json(self.folder / _ADDRESS), _ADDRESS), tell)

    def drop_model(self) -> None:
        """Delete the saved model, which is most of what is there."""
        folder_trees.remove(self.folder / MODEL_FOLDER)

    def release(self) -> None:
        """Leave it to others, for later."""
        self._lock.release()

    def remove(self) -> None:
        """Take it off the disk: MLflow has all of it, or it is no result."""
        (self.folder / _ADDRESS).unlink(missing_ok=True)  # first: without it the rest is rubbish, which others clear
        folder_trees.remove(self.folder)
        Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()


class Spool:
    """The folder of entries.

    Args:
        folder: None takes COMPRESS_SPOOL, or the user's cache folder.

    Attributes:
        folder: the folder.
        caution: why it is another folder than it should be; empty when it is not.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or default_folder()
        self.caution = ""

    def begin(self) -> Entry:
        """Make an empty folder to measure a variant in.

        Where the spool can't be written to, it becomes a temporary folder, and says so.
        """
        try:
            return self._begin()
        except (OSError, NotImplementedError) as error:
            wanted, self.folder = self.folder, Path(tempfile.mkdtemp(prefix="mlflow-compress-spool-"))
            self.caution = (
                f"{wanted} can't be written to ({error}). Until they are logged, results are kept in {self.folder}; "
                "COMPRESS_SPOOL names a better folder"
            )
            return self._begin()

    def entries(self) -> Iterator[Entry]:
        """Return the results that nobody works on, oldest first; each is ours until it is released or removed."""
        for name in self._names():
            if (self.folder / name / _ADDRESS).is_file() and (lock := self._lock(name)) is not None:
                if (self.folder / name / _ADDRESS).is_file():
                    yield Entry(self.folder / name, lock)
                lock.release()

    def clear(self) -> None:
        """Take away the folders of measurements whose process died before there was a result."""
        for name in self._names():
            if not (self.folder / name / _ADDRESS).is_file() and (lock := self._lock(name)) is not None:
                if not (self.folder / name / _ADDRESS).is_file():
                    Entry(self.folder / name, lock).remove()
                lock.release()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Let one process at a time add to what a server has: what it read before is what it adds to.

        Covers: all processes with this spool. Where no lock can be had, there is none.
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
        """Return whether a result is here, or on its way here."""
        return bool(name) and (self.folder / name).is_dir()

    def _begin(self) -> Entry:
        name = uuid.uuid4().hex
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # predictions may be nobody else's business
        lock = self._lock(name)
        assert lock is not None  # nobody else knows the name
        (self.folder / name).mkdir()
        return Entry(self.folder / name, lock)

    def _names(self) -> list[str]:
        try:
            folders = [path for path in self.folder.iterdir() if path.is_dir()]
            return [path.name for path in sorted(folders, key=lambda path: (path.stat().st_mtime, path.name))]
        except OSError:
            return []

    def _lock(self, name: str) -> BaseFileLock | None:
        """Lock an entry; None when another process has it."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.folder / f"{name}.lock", thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        return lock


def default_folder() -> Path:
    """Return where the spool is."""
    if given := os.environ.get("COMPRESS_SPOOL"):
        return Path(given).absolute()
    return cache_folder("spool")


def _write(path: Path, data: Any) -> None:
    """Write JSON so that even after a power cut all of it is there or nothing: it is forced to the disk as well."""
    with whole_file(path) as aside:
        aside.write_text(json.dumps(data, ensure_ascii=False, allow_nan=False), encoding="utf-8")
        _sync(aside)
    _sync(path.parent)


def _sync(path: Path) -> None:
    """Force a file, or a folder's list of names, to the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
