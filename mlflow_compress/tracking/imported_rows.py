"""Stores rows of hand-made tables beside the runs that were measured."""

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
    """Store rows of hand-made tables, each as a run that has ended. What is there already is left as it is.

    What a table says about one team, model and method is stored anew when it is not what the newest such runs say;
    these stay, and are older. Runs of 0.1 do not know their table: they are told it, so that the new ones take their
    place.

    Args:
        store: the tracking store.
        experiment_id: where to.
        rows: all rows of the files, the later after the earlier.
        progress: told how many of how many rows are stored, and about how many seconds the others take.

    Returns:
        How many were stored.

    Raises:
        StoreError: the server refused, or is gone.
    """
    stored = reading.runs(store, {experiment_id: ""}, "tags.`compress.source` = 'imported'")
    tables = {_place(row.tags)[:-1]: row.table for row in reversed(rows)}
    known: dict[tuple[str, ...], list[str]] = {}
    for run in reversed(stored):
        if run.tags.get(LOGGED) and (_TABLE in run.tags or _place(run.tags)[:-1] not in tables):
            known.setdefault(_place(run.tags), []).append(run.tags["compress.import_id"])
        elif run.tags.get(LOGGED):
            _tell_table(store, run, tables[_place(run.tags)[:-1]])
    asked: dict[tuple[str, ...], list[ByHand]] = {}
    for row in rows:
        asked.setdefault(_place(row.tags), []).append(row)
    new = [
        row
        for place, several in asked.items()
        if [row.digest for row in several] != known.get(place, [])[-len(several) :]
        for row in several
    ]
    now, started = int(time.time() * 1000), time.monotonic()
    for at, row in enumerate(sorted(new, key=lambda row: row.line)):
        _write_row(store, experiment_id, row, now + at)  # the later in the file is the newer
        progress(at + 1, len(new), (time.monotonic() - started) / (at + 1) * (len(new) - at - 1))
    return len(new)


def left_behind(store: Store, experiment_id: str, rows: Sequence[ByHand]) -> int:
    """Count the rows of earlier imports of the same files and teams that are not in these files now.

    A row that says something else now is still there, and so is one whose table other rows were added to. A table under
    another heading, or with other columns, is another one.

    Args:
        store: the tracking store.
        experiment_id: where they are.
        rows: all rows of the files, which were stored.

    Raises:
        StoreError: the server is gone.
    """
    stored = reading.runs(store, {experiment_id: ""}, "tags.`compress.source` = 'imported'")
    places = {_place(row.tags) for row in rows}
    origins = {(row.team, row.table.source) for row in rows}
    known = {_place(run.tags): (run.tags.get("team"), run.tags.get(_FILE)) for run in stored if run.tags.get(LOGGED)}
    return sum(origin in origins for place, origin in known.items() if place not in places)


def _write_row(store: Store, experiment_id: str, row: ByHand, start_ms: int) -> None:
    """Store a row in three calls, however many cells it has; that it is complete is said last."""
    from mlflow.entities import Metric, Param, RunTag

    tags = {"mlflow.source.name": "compress-report import", **row.tags}
    name = writing.run_name(row.team, row.model, row.method)
    run_id = writing.start(store, experiment_id, name, tags, start_ms)
    with refusals(store.uri):
        metrics = [Metric(name, value, start_ms, 0) for name, value in finite(row.metrics).items()]
        params = [Param(name, text[:TAG_LIMIT]) for name, text in row.params.items()]
        said = [RunTag(name, text) for name, text in writing.kept({LOGGED: "complete"}).items()]
        store.client.log_batch(run_id, metrics=metrics, params=params, tags=said)
        store.client.set_terminated(run_id, "FINISHED", end_time=start_ms)


def _tell_table(store: Store, run: Run, table: Origin) -> None:
    writing.tag(store, run.run_id, {_TABLE: table.digest, f"{_TABLE}.name": table.name})


def _place(tags: Mapping[str, str]) -> tuple[str, ...]:
    """Return what an imported run is about, and which file and table say so."""
    return tuple(tags.get(name, "") for name in ("team", "model", "method", _FILE, _TABLE))
