"""`Delivery`: brings the results of one command home, each to disk first, then to MLflow."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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
    """Where the results of one command go.

    MLflow, whose import takes seconds, is opened beside what else is done.

    Args:
        spool: where results are kept until MLflow has them.
        connect: opens the log.
        tell: told in a sentence of what is sent that an earlier command kept.
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
            StoreError: the server can't be reached.
        """
        return self._opening.result()

    def check(self) -> None:
        """Raise for a server that refused, as soon as that is known.

        Raises:
            StoreError: it did.
        """
        if self._opening.done():
            self._opening.result()

    def earlier(self, variant: Variant, digest: str, tell: Tell) -> Result | None:
        """Return the result that a variant has already; None when it is to be measured.

        Args:
            variant: it.
            digest: the variant's, as `resume.digest` gives it.
            tell: told in a sentence where that result is.
        """
        try:
            found = resume.measured(self.log.store, self.log.experiment_id, digest, variant)
        except StoreError:  # the server is gone, which is told when the next result is logged
            found = None
        found = found or resume.waiting(self._spool, self.log.experiment, digest, variant)
        if found is None:
            return None
        where, result, files = found
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                Path(folder, name).write_bytes(content)
            try:
                self._originals.pair(result, Path(folder))  # remembers it
            except Malformed as error:
                tell(f"no score can be paired with it: {error}")
        tell(f"measured already ({where}); --again measures it anew")
        return result

    @contextmanager
    def entry(self, tell: Tell) -> Iterator[Entry]:
        """Yield an empty folder to measure a variant in. It goes, unless it then holds a result that MLflow has not.

        Args:
            tell: told in a sentence where the folder is not where it should be.
        """
        was_told = bool(self._spool.caution)
        entry = self._spool.begin()
        if self._spool.caution and not was_told:
            tell(f"WARNING: {self._spool.caution}")
        try:
            yield entry
        finally:
            if entry.is_kept:
                entry.release()
            else:
                entry.remove()

    def deliver(self, shipment: Shipment) -> Result:
        """Keep a result on disk, pair it with its original's, send it, and take it off the disk when MLflow has it.

        It is kept before it is paired, which may take minutes: who stops the command then loses nothing.

        Returns:
            The result, with how far its scores are from its original's.

        Raises:
            StoreError: the server refused it, and it could not be kept either.
        """
        entry, tell = shipment.entry, shipment.tell
        shipment = _kept(shipment)
        result = self._originals.pair(shipment.result, entry.folder)
        if result is not shipment.result:
            shipment = _kept(dataclasses.replace(shipment, result=result))
        try:
            sending.send(self.log.store, shipment, ending=not shipment.address.run)  # `mlflow run` ends its own
        except StoreError as error:
            if not entry.is_kept:
                raise
            self._unsent.append(entry.id)
            tell(f"not logged: {error}. The result is kept, and measuring goes on")
        else:
            entry.remove()
            tell(f"{result.status}, {result.ended_s - result.started_s:.0f} s")
        return result

    def close(self, results: Sequence[Result]) -> None:
        """Describe the sweep, and send what was kept meanwhile.

        Args:
            results: all of the command's.

        Raises:
            UnsentError: the server still does not take it.
            StoreError: the server is gone, and nothing waits for it.
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
            where = f"COMPRESS_SPOOL={self._spool.folder} " if self._spool.caution else ""
            raise UnsentError(
                f"{unsent} of {len(results)} results were measured but not logged. They are kept in "
                f"{self._spool.folder}. When the tracking server is back, `{where}compress-bench sync` sends them."
            )

    def _open(self, connect: Callable[[], Log]) -> Log:
        """Open the log; send what an earlier command had to keep, and end the runs of dead ones."""
        set_up_client()
        log = connect()
        self._spool.clear()
        try:
            self._sync.waiting(log.store)
            self._sync.dead(log.store, {log.experiment_id: log.experiment})
        except StoreError as error:  # what is measured now is not to suffer from what was before
            self._sync.tell(str(error))
        return log


def _kept(shipment: Shipment) -> Shipment:
    """Keep a shipment on disk as far as that goes; return it, as it is kept. Ctrl-C waits until it is."""
    try:
        with interrupts_wait():
            return shipment.keep()
    except OSError as error:
        shipment.tell(f"WARNING: the result can't be kept on disk: {error}")
        return shipment
