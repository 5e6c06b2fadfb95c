"""`Delivery`: deliver the results of one command, each to disk first, then to MLflow."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_compress.errors import StoreError, UnsentError
from mlflow_compress.interrupts import interrupts_wait
from mlflow_compress.records import Result, Variant
from mlflow_compress.sweeping import resume
from mlflow_compress.tracking import sending
from mlflow_compress.tracking.connection import set_up_client
from mlflow_compress.tracking.pairing import Originals
from mlflow_compress.tracking.sync import Sync
from mlflow_compress.untrusted import Malformed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_compress.tracking.log import Log
    from mlflow_compress.tracking.spool import Entry, Shipment, Spool, Tell


class Delivery:
    """Delivers the results of one command.

    MLflow, whose import takes seconds, is opened in the background.

    Args:
        spool: Spool that keeps results until MLflow has them.
        connect: Opens the log.
        tell: Receives messages about results of earlier commands that are sent.
    """

    def __init__(self, spool: Spool, connect: Callable[[], Log], tell: Tell) -> None:
        self._spool = spool
        self._sync = Sync(spool, tell)
        self._originals = Originals()
        self._unsent: list[str] = []
        self._opening = ThreadPoolExecutor(1).submit(self._open, connect)

    @property
    def log(self) -> Log:
        """Return the open log.

        Raises:
            StoreError: The server can't be reached.
        """
        return self._opening.result()

    def check(self) -> None:
        """Raise the error of the server, if there was one, as soon as it is known.

        Raises:
            StoreError: The server refused the connection.
        """
        if self._opening.done():
            self._opening.result()

    def earlier(self, variant: Variant, digest: str, tell: Tell) -> Result | None:
        """Return the existing result of a variant; None if it must be measured.

        Args:
            variant: The variant.
            digest: Digest of the variant, see `resume.digest`.
            tell: Receives a message that says where the result is.
        """
        try:
            match = resume.measured(self.log.store, self.log.experiment_id, digest, variant)
        except StoreError:  # the server is gone, which is reported when the next result is logged
            match = None
        match = match or resume.waiting(self._spool, self.log.experiment, digest, variant)
        if match is None:
            return None
        location, result, files = match
        self._remember(result, files, tell)
        tell(f"already measured ({location}); use --again to measure it again")
        return result

    @contextlib.contextmanager
    def entry(self, tell: Tell) -> Iterator[Entry]:
        """Yield an empty folder for a variant. It is removed at the end, unless its result is not in MLflow yet.

        Args:
            tell: Receives a warning if the folder is not in its usual place.
        """
        is_reported = bool(self._spool.caution)
        entry = self._spool.begin()
        if self._spool.caution and not is_reported:
            tell(f"WARNING: {self._spool.caution}")
        try:
            yield entry
        finally:
            if entry.is_kept:
                entry.release()
            else:
                entry.remove()

    def deliver(self, shipment: Shipment) -> Result:
        """Write a result to disk, pair it with its original's, send it, and delete it from disk when MLflow has it.

        The original may be of this command, or the newest in the experiment that was scored on the same samples.

        It is written before pairing, which may take minutes: stopping the command in that time loses nothing.

        Returns:
            The result, with the differences of its scores from the original's.

        Raises:
            StoreError: The server refused it, and it could not be written to disk.
        """
        entry, tell = shipment.entry, shipment.tell
        shipment = _kept(shipment)
        if self._originals.lack(shipment.result, entry.folder):
            self._find_original(shipment.result, entry.folder, tell)
        result = self._originals.pair(shipment.result, entry.folder)
        if result is not shipment.result:
            shipment = _kept(dataclasses.replace(shipment, result=result))
        try:
            is_ours = not shipment.address.run  # `mlflow run` ends its own
            run_id = sending.send(self.log.store, shipment, ending=is_ours)
        except StoreError as error:
            if not entry.is_kept:
                raise
            self._unsent.append(entry.id)
            tell(f"not logged: {error}. The result is kept on disk, and measuring continues")
        else:
            entry.remove()
            tell(f"{result.status}, {result.ended_s - result.started_s:.0f} s, run {run_id}")
        return result

    def close(self, results: Sequence[Result]) -> None:
        """Describe the sweep, and send the results that could not be sent before.

        Args:
            results: All results of the command.

        Raises:
            UnsentError: The server still refuses results.
            StoreError: The server is gone, and there are no unsent results.
        """
        unsent = len(self._unsent)
        try:
            self.log.close(results)
            if unsent:
                unsent = self._sync.waiting(self.log.store, self._unsent)
        except StoreError:
            if not unsent:
                raise
        if unsent:
            settings = f"COMPRESS_SPOOL={self._spool.folder} " if self._spool.caution else ""
            raise UnsentError(
                f"{unsent} of {len(results)} results were measured but not logged. They are kept in "
                f"{self._spool.folder}. When the tracking server is back, `{settings}compress-bench sync` sends them."
            )

    def _find_original(self, result: Result, folder: Path, tell: Tell) -> None:
        """Remember the original of a result if an earlier command logged it."""
        with contextlib.suppress(StoreError):  # it is reported when the result is sent
            originals = resume.scored_originals(self.log.store, self.log.experiment_id, result.variant)
            for original, files in originals:
                self._remember(original, files, tell)
                if not self._originals.lack(result, folder):
                    return

    def _remember(self, result: Result, files: Mapping[str, bytes], tell: Tell) -> None:
        """Keep the scores of an earlier result, if it is an original's, for pairing."""
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                Path(folder, name).write_bytes(content)
            try:
                self._originals.pair(result, Path(folder))
            except Malformed as error:
                tell(f"its scores can't be paired with others: {error}")

    def _open(self, connect: Callable[[], Log]) -> Log:
        """Open the log; send results that earlier commands kept, and end the runs of dead processes."""
        set_up_client()
        log = connect()
        self._spool.clear()
        try:
            self._sync.waiting(log.store)
            self._sync.dead(log.store, {log.experiment_id: log.experiment})
        except StoreError as error:  # old results must not stop the new measurements
            self._sync.tell(str(error))
        return log


def _kept(shipment: Shipment) -> Shipment:
    """Write a shipment to disk if possible, and return the written one. Ctrl-C waits until this is done."""
    try:
        with interrupts_wait():
            return shipment.keep()
    except OSError as error:
        shipment.tell(f"WARNING: the result can't be written to disk: {error}")
        return shipment
