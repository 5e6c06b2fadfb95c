"""Stores rows of hand-made tables next to the measured runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from mlflow_compress.records import finite
from mlflow_compress.tracking import reading, writing
from mlflow_compress.tracking.connection import Store, refusals
from mlflow_compress.tracking.run_tags import LOGGED, TAG_LIMIT

if TYPE_CHECKING:
    from mlflow_compress.records import Run
    from mlflow_compress.reporting.hand_made_rows import ByHand, Origin

_TABLE, _FILE = "compress.table", "compress.imported.from"


def write_rows(
    store: Store,
    experiment_id: str,
    rows: Sequence[ByHand],
    progress: Callable[[int, int, float], object] = lambda done, total, seconds_left: None,
) -> int:
    """Store rows of hand-made tables, each as a finished run. Rows that are already stored stay as they are.

    The rows of a table for one team, model and method are stored again when they differ from the newest such runs; the
    older runs stay. Runs of version 0.1 do not record their table: it is added, so that the new runs replace them.

    Args:
        store: the tracking store.
        experiment_id: the experiment.
        rows: all rows of the files, in order.
        progress: called with the number of stored rows, the number of all rows, and the estimated seconds left.

    Returns:
        The number of rows stored.

    Raises:
        StoreError: the server refused, or is gone.
    """
    stored = reading.runs(store, {experiment_id: ""}, "tags.`compress.source` = 'imported'")
    tables = {_place(row.tags)[:-1]: row.table for row in reversed(rows)}
    digests: dict[tuple[str, ...], list[str]] = {}
    for run in reversed(stored):
        if run.tags.get(LOGGED) and (_TABLE in run.tags or _place(run.tags)[:-1] not in tables):
            digests.setdefault(_place(run.tags), []).append(run.tags["compress.import_id"])
        elif run.tags.get(LOGGED):
            _add_table(store, run, tables[_place(run.tags)[:-1]])
    by_place: dict[tuple[str, ...], list[ByHand]] = {}
    for row in rows:
        by_place.setdefault(_place(row.tags), []).append(row)
    new = [
        row
        for origin_key, rows_of_origin in by_place.items()
        if [row.digest for row in rows_of_origin] != digests.get(origin_key, [])[-len(rows_of_origin) :]
        for row in rows_of_origin
    ]
    now, started = int(time.time() * 1000), time.monotonic()
    for number, row in enumerate(sorted(new, key=lambda row: row.line)):
        _write_row(store, experiment_id, row, now + number)  # a later row in the file counts as newer
        progress(number + 1, len(new), (time.monotonic() - started) / (number + 1) * (len(new) - number - 1))
    return len(new)


def left_behind(store: Store, experiment_id: str, rows: Sequence[ByHand]) -> int:
    """Count the rows of earlier imports of the same files and teams that are no longer in these files.

    A row whose content changed is still there, and so is one whose table got more rows. A table with another heading or
    other columns is another table.

    Args:
        store: the tracking store.
        experiment_id: the experiment of the earlier imports.
        rows: all rows of the files, after they were stored.

    Raises:
        StoreError: the server is gone.
    """
    stored = reading.runs(store, {experiment_id: ""}, "tags.`compress.source` = 'imported'")
    places = {_place(row.tags) for row in rows}
    origins = {(row.team, row.table.source) for row in rows}
    origins_of = {
        _place(run.tags): (run.tags.get("team"), run.tags.get(_FILE)) for run in stored if run.tags.get(LOGGED)
    }
    return sum(origin in origins for origin_key, origin in origins_of.items() if origin_key not in places)


def _write_row(store: Store, experiment_id: str, row: ByHand, start_ms: int) -> None:
    """Store a row in three calls, however many cells it has; the tag that it is complete comes last."""
    from mlflow.entities import Metric, Param, RunTag

    tags = {"mlflow.source.name": "compress-report import", **row.tags}
    name = writing.run_name(row.team, row.model, row.method)
    run_id = writing.start(store, experiment_id, name, tags, start_ms)
    with refusals(store.uri):
        metrics = [Metric(name, value, start_ms, 0) for name, value in finite(row.metrics).items()]
        params = [Param(name, text[:TAG_LIMIT]) for name, text in row.params.items()]
        last_tags = [RunTag(name, text) for name, text in writing.kept({LOGGED: "complete"}).items()]
        store.client.log_batch(run_id, metrics=metrics, params=params, tags=last_tags)
        store.client.set_terminated(run_id, "FINISHED", end_time=start_ms)


def _add_table(store: Store, run: Run, table: Origin) -> None:
    writing.tag(store, run.run_id, {_TABLE: table.digest, f"{_TABLE}.name": table.name})


def _place(tags: Mapping[str, str]) -> tuple[str, ...]:
    """Return what identifies an imported row: team, model, method, file and table."""
    return tuple(tags.get(name, "") for name in ("team", "model", "method", _FILE, _TABLE))
