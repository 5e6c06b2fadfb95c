"""`Sync`: sends the results in the spool, each exactly once, and ends runs whose process died."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlflow_compress.errors import CompressError, StoreError
from mlflow_compress.records import Run
from mlflow_compress.tracking import process_identity, reading, writing
from mlflow_compress.tracking.connection import Store, check, lasting, open_store
from mlflow_compress.tracking.run_tags import LOGGED, RESULT_ID, ROLE
from mlflow_compress.tracking.sending import send
from mlflow_compress.tracking.spool import Entry, Shipment, Spool, Tell
from mlflow_compress.untrusted import Malformed

_DEFAULT = "sqlite:///mlflow.db"  # MLflow's own
_DIED = "the process that logged this run died"


@dataclass(frozen=True)
class Sync:
    """Sends the results in a spool to tracking servers.

    Attributes:
        spool: the spool with the results.
        tell: called with a message for each action.
        dry_run: whether to report the actions without doing them.
    """

    spool: Spool
    tell: Tell
    dry_run: bool = False

    def everything(self, tracking_uri: str | None) -> int:
        """Send every result to its server, and end the runs of dead processes there.

        Args:
            tracking_uri: a further server whose runs to end, with the credentials for its results; None:
                MLFLOW_TRACKING_URI, or MLflow's default where that exists.

        Returns:
            The number of results that still wait.
        """
        if not self.dry_run:
            self.spool.clear()
        default = _DEFAULT if Path(_DEFAULT.removeprefix("sqlite:///")).is_file() else ""
        own = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or default
        waiting = self._servers()
        count = waiting.pop("", 0)  # unreadable results
        for uri in dict.fromkeys([*waiting, *([lasting(own)] if own else [])]):
            try:
                store = open_store(own if lasting(own) == uri else uri, create=False)
            except StoreError as error:
                self.tell(f"results waiting: {waiting.get(uri, 0)}. {error}")
                count += waiting.get(uri, 0)
                continue
            count += self.waiting(store)
            self.dead(store, {number: name for name, number in reading.experiments(store).items()})
        return count

    def waiting(self, store: Store, only: Collection[str] = ()) -> int:
        """Send the results for one server.

        Args:
            store: the open server.
            only: ids of results; empty: all results.

        Returns:
            The number of results that still wait.
        """
        count = 0
        for entry in self.spool.entries():
            shipment = self._read(entry)
            if shipment is not None and shipment.address.uri == lasting(store.uri) and (not only or entry.id in only):
                count += not self._send(store, shipment)
        return count

    def dead(self, store: Store, experiments: Mapping[str, str]) -> None:
        """End runs that are RUNNING although their process on this machine died.

        Runs whose result is in the spool are left to `waiting`.

        Args:
            store: the tracking store.
            experiments: names by ids.
        """
        if not experiments:
            return
        for run in reading.runs(store, experiments, "attributes.status = 'RUNNING'"):
            if not self._is_left(run):
                continue
            try:
                self._end(store, run)
            except StoreError as error:
                check(store)
                self.tell(f"not ended: run {run.name} ({run.run_id}) of {run.experiment}: {error}")

    def _is_left(self, run: Run) -> bool:
        """Return whether a run is RUNNING although its process died, and its result is not in the spool."""
        if run.lifecycle != "RUNNING" or not process_identity.is_dead(run.tags.get(process_identity.TAG, "")):
            return False
        return not self.spool.holds(run.tags.get(RESULT_ID, ""))

    def _end(self, store: Store, run: Run) -> None:
        """End an abandoned run, unless another process has ended it, and perhaps sent its result.

        A sender ends the run before it removes the result from the spool. So the run's state, read after its result was
        found missing from the spool, shows whether it was sent.
        """
        run = reading.run(store, run.run_id)
        if not self._is_left(run):
            return
        verb = "would end" if self.dry_run else "ended"
        self.tell(f"{verb} run {run.name} ({run.run_id}) of {run.experiment}: {_DIED}")
        if self.dry_run:
            return
        if run.tags.get(LOGGED) == "complete":
            writing.end(store, run.run_id, succeeded=run.tags.get("status") != "failed")
            return
        needs_status = "status" not in run.tags and run.tags.get(ROLE) != writing.SWEEP
        status = {"status": "failed"} if needs_status else {}
        writing.tag(store, run.run_id, {**status, "compress.reason": _DIED})
        writing.close(store, run.run_id, "KILLED")

    def _send(self, store: Store, shipment: Shipment) -> bool:
        """Send one result and remove it from the spool; return whether that succeeded."""
        result = shipment.result
        name = f"{result.variant.model}, {result.variant.method} ({result.status}) to {shipment.address.experiment}"
        if self.dry_run:
            shipment.tell(f"would send {name}")
            return False
        try:
            send(store, shipment)
        except (CompressError, OSError) as error:
            shipment.tell(f"not sent: {name}: {error}")
            return False
        shipment.entry.remove()
        shipment.tell(f"sent {name}")
        return True

    def _servers(self) -> dict[str, int]:
        """Return the number of waiting results by server; unreadable ones are under an empty name."""
        counts: dict[str, int] = {}
        for entry in self.spool.entries():
            shipment = self._read(entry)
            uri = shipment.address.uri if shipment else ""
            counts[uri] = counts.get(uri, 0) + 1
        return counts

    def _read(self, entry: Entry) -> Shipment | None:
        try:
            return entry.read(self.tell)
        except (OSError, Malformed) as error:
            self.tell(f"{entry.folder} can't be read and is left unchanged: {error}")
            return None
