"""`sync`: sends what waits in the spool, each result exactly once, and ends runs whose process died."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from mlflow_compress.errors import CompressError, StoreError
from mlflow_compress.records import Result
from mlflow_compress.tracking import process_identity
from mlflow_compress.tracking.log import deliver
from mlflow_compress.tracking.spool import Address, Entry, Spool
from mlflow_compress.tracking.store import LOGGED, Store, lasting, open_store

Tell = Callable[[str], None]

_DEFAULT = "sqlite:///mlflow.db"  # MLflow's own
_DIED = "the process that logged this run died"


def sync(spool: Spool, tracking_uri: str | None, tell: Tell, dry_run: bool = False) -> int:
    """Send everything that waits to where it was meant to go, and end the runs of dead processes there.

    Args:
        spool: where results wait.
        tracking_uri: a further server whose runs to end, and the credentials for results that are meant for it; None
            takes MLFLOW_TRACKING_URI, or MLflow's default where that exists.
        tell: told in a sentence what is done.
        dry_run: say what would be done, and do nothing.

    Returns:
        How many results still wait.
    """
    if not dry_run:
        spool.clear()
    default = _DEFAULT if Path(_DEFAULT.removeprefix("sqlite:///")).is_file() else ""
    own = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or default
    waiting = _servers(spool, tell)
    count = waiting.pop("", 0)  # those that can't be read
    for uri in dict.fromkeys([*waiting, *([lasting(own)] if own else [])]):
        try:
            store = open_store(own if lasting(own) == uri else uri, create=False)
        except StoreError as error:
            tell(f"{waiting.get(uri, 0)} results wait. {error}")
            count += waiting.get(uri, 0)
            continue
        count += send(store, spool, tell, dry_run=dry_run)
        close_dead(store, {number: name for name, number in store.experiments().items()}, spool, tell, dry_run)
    return count


def send(store: Store, spool: Spool, tell: Tell, only: Collection[str] = (), dry_run: bool = False) -> int:
    """Send the results that wait for a server.

    Args:
        store: the open server.
        spool: where they wait.
        tell: told of each in a sentence.
        only: ids of results; none: all.
        dry_run: only tell.

    Returns:
        How many still wait.
    """
    count = 0
    for entry in spool.entries():
        found = _read(entry, tell)
        if found is None or found[1].uri != lasting(store.uri) or (only and entry.id not in only):
            continue
        result, address = found
        name = f"{result.variant.model}, {result.variant.method} ({result.status}) to {address.experiment}"
        if dry_run:
            tell(f"would send {name}")
            count += 1
            continue
        try:
            deliver(store, entry.id, result, entry.folder, address)
        except (CompressError, OSError) as error:
            tell(f"not sent: {name}: {error}")
            count += 1
        else:
            entry.remove()
            tell(f"sent {name}")
    return count


def close_dead(store: Store, experiments: Mapping[str, str], spool: Spool, tell: Tell, dry_run: bool = False) -> None:
    """End the runs that are still RUNNING though their process on this machine died.

    Those whose result waits in the spool are left to `send`.

    Args:
        store: where they are.
        experiments: names by ids.
        spool: where results wait.
        tell: told of each in a sentence.
        dry_run: only tell.
    """
    if not experiments:
        return
    for run in store.query(experiments, "attributes.status = 'RUNNING'"):
        if not process_identity.is_dead(run.tags.get("compress.process", "")):
            continue
        if spool.holds(run.tags.get("compress.result_id", "")):
            continue
        tell(f"{'would end' if dry_run else 'ended'} the run {run.name} ({run.run_id}) of {run.experiment}: {_DIED}")
        if dry_run:
            continue
        if run.tags.get(LOGGED) == "complete":
            store.end(run.run_id, succeeded=run.tags.get("status") != "failed")
            continue
        status = {} if "status" in run.tags or run.tags.get("compress.role") == "sweep" else {"status": "failed"}
        store.tag(run.run_id, {**status, "compress.reason": _DIED})
        store.close(run.run_id, "KILLED")


def _servers(spool: Spool, tell: Tell) -> dict[str, int]:
    """Count the results that wait for each server; under no name those that can't be read."""
    counts: dict[str, int] = {}
    for entry in spool.entries():
        found = _read(entry, tell)
        uri = found[1].uri if found else ""
        counts[uri] = counts.get(uri, 0) + 1
    return counts


def _read(entry: Entry, tell: Tell) -> tuple[Result, Address] | None:
    try:
        return entry.read()
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        tell(f"{entry.folder} can't be read, and is left as it is: {error}")
        return None
