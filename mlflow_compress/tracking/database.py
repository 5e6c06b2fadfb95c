"""Reads runs straight out of a tracking store's database, read-only: MLflow's own client takes ten times as long.

Only schemas that were looked at are read (`private_mlflow.SCHEMAS`); of any other,
`open_database` returns None, and the client serves.
The tables are MLflow's, as `private_mlflow.tables` describes them.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlflow_compress.records import Run, Selection
from mlflow_compress.tracking import private_mlflow, run_tags, sqlite_file

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Engine, FromClause, Select

_FEW = 5000  # runs whose numbers are sought by their ids rather than by the same filter again
_IDS_PER_STATEMENT = 500
_ROWS_AT_ONCE = 10_000
PARAMS = ("team", "model", "method", "source")  # what stands in for tags that a run lacks, and where a model comes from


@dataclass(frozen=True)
class Variants:
    """How many variants an experiment has, when the newest began, in milliseconds, and the id of one of them."""

    count: int
    newest_ms: int
    run_id: str


def open_database(uri: str, *, by_ids: bool = False) -> Database | None:
    """Open the database behind a tracking URI; None where there is none that is known to be read rightly.

    Args:
        uri: a tracking URI. All but those of SQLite files and PostgreSQL give None.
        by_ids: whether only experiments are asked for whose ids are known; else one that holds several workspaces gives
            None, since only MLflow knows which of them is meant.

    Raises:
        StoreError: a SQLite file stays locked.
    """
    address = _address(uri)
    if address is None:
        return None
    sqlite_file.wait_for(uri)
    try:
        import sqlalchemy

        engine = sqlalchemy.create_engine(address)
        with engine.connect() as connection:
            is_readable = private_mlflow.is_readable(connection)
            is_readable = is_readable and (by_ids or private_mlflow.has_one_workspace(connection))
    except Exception:  # whatever it is, the client meets it too and says what
        return None
    return Database(engine, uri) if is_readable else None


class Database:
    """An open database of MLflow's."""

    def __init__(self, engine: Engine, uri: str) -> None:
        """Take an open engine; `open_database` makes one."""
        self._engine = engine
        self.uri = uri

    def experiments(self) -> dict[str, str]:
        """Return the ids of all experiments that are not deleted, by name."""
        from sqlalchemy import select

        experiments = private_mlflow.tables().experiments
        active = experiments.c.lifecycle_stage == "active"
        with self._engine.connect() as connection:
            rows = _rows(connection, select(experiments.c.name, experiments.c.experiment_id).where(active))
            return {name: str(number) for name, number in rows}

    def runs(self, ids: Mapping[str, str], selection: Selection) -> list[Run]:
        """Read the variants of experiments that a selection names, newest first.

        Args:
            ids: experiments' names by their ids.
            selection: its `where` is not understood here, and must be empty.
        """
        from sqlalchemy import or_, select

        tables = private_mlflow.tables()
        tags, params, metrics = tables.tags.c, tables.params.c, tables.latest_metrics.c
        chosen = _chosen(list(ids), selection)
        # Interned: a hundred thousand runs say the same few words.
        with self._engine.connect() as connection:
            newest_first = chosen.order_by(tables.runs.c.start_time.desc(), tables.runs.c.run_uuid)
            found = {
                run_id: Run(run_id, ids[str(at)], name or "", status or "", started or 0, {}, {}, {})
                for run_id, at, name, status, started in _rows(connection, newest_first)
            }
            of = _Chosen(connection, chosen, found)
            are_ours = or_(tags.key.not_like("mlflow.%"), tags.key.like(f"{run_tags.HIDDEN}%"))
            own_tags = select(tags.run_uuid, tags.key, tags.value).where(are_ours)
            for run_id, key, value in of.rows(own_tags, tags.run_uuid):
                run_tags.tell(_into(found[run_id].tags), sys.intern(key), sys.intern(value or ""))
            names = select(params.run_uuid, params.key, params.value).where(params.key.in_(PARAMS))
            for run_id, key, value in of.rows(names, params.run_uuid):
                _into(found[run_id].params)[sys.intern(key)] = sys.intern(value)
            numbers = select(metrics.run_uuid, metrics.key, metrics.value, metrics.is_nan)
            for run_id, key, value, is_nan in of.rows(numbers, metrics.run_uuid):
                _into(found[run_id].metrics)[sys.intern(key)] = math.nan if is_nan else value
        return list(found.values())

    def counts(self, ids: Collection[str]) -> dict[str, Variants]:
        """Return how many variants experiments of these ids have, by id, less those that have none."""
        from sqlalchemy import func, select

        runs = private_mlflow.tables().runs
        statement = (
            select(runs.c.experiment_id, func.count(), func.max(runs.c.start_time), func.min(runs.c.run_uuid))
            .select_from(_with_tags({"compress.role": ["variant"]}))
            .where(runs.c.lifecycle_stage == "active", runs.c.experiment_id.in_([int(number) for number in ids]))
            .group_by(runs.c.experiment_id)
        )
        with self._engine.connect() as connection:
            rows = _rows(connection, statement)
            return {str(at): Variants(count, newest or 0, run_id) for at, count, newest, run_id in rows}

    def close(self) -> None:
        """Let go of the connection."""
        self._engine.dispose()


def _address(uri: str) -> str | None:
    """Return SQLAlchemy's address of a store that can be read; a SQLite file is opened read-only."""
    if uri.startswith(("postgresql://", "postgresql+psycopg://", "postgresql+psycopg2://")):
        return uri.replace("postgresql://", "postgresql+psycopg://", 1)
    path = sqlite_file.path_of(uri)
    if path is None or not path.is_file():
        return None
    return f"sqlite:///{sqlite_file.address(path, 'ro')}&uri=true&timeout={sqlite_file.PATIENCE_SECONDS:.0f}"


def _chosen(ids: Sequence[str], selection: Selection) -> Select[Any]:
    """Return the statement that gives the runs of a selection: id, experiment, name, status, start."""
    from sqlalchemy import select

    wanted = {"compress.role": ["variant"], "team": selection.teams, "model": selection.models}
    wanted |= {"method": selection.methods}
    if selection.device:
        wanted[f"compress.outcome.{selection.device}"] = ["ok", "failed", "skipped"]
    runs = private_mlflow.tables().runs
    columns = runs.c.run_uuid, runs.c.experiment_id, runs.c.name, runs.c.status, runs.c.start_time
    chosen = select(*columns).select_from(_with_tags({key: values for key, values in wanted.items() if values}))
    chosen = chosen.where(runs.c.experiment_id.in_([int(number) for number in ids]))
    chosen = chosen.where(runs.c.lifecycle_stage == "active")
    return chosen.where(runs.c.start_time >= selection.since_ms) if selection.since_ms else chosen


def _with_tags(wanted: Mapping[str, Sequence[str]]) -> FromClause:
    """Join runs with tags, so that only those with one of the values of each are left."""
    from sqlalchemy import and_

    runs, tags = private_mlflow.tables().runs, private_mlflow.tables().tags
    joined: FromClause = runs
    for key, values in wanted.items():
        tag = tags.alias()
        joined = joined.join(tag, and_(tag.c.run_uuid == runs.c.run_uuid, tag.c.key == key, tag.c.value.in_(values)))
    return joined


@dataclass(frozen=True)
class _Chosen:
    """The runs that a statement gave, to ask more about.

    Attributes:
        connection: to the database.
        statement: as `_chosen` makes it.
        found: what it gave, by id.
    """

    connection: Connection
    statement: Select[Any]
    found: Mapping[str, Run]

    def rows(self, statement: Select[Any], run_uuid: ColumnElement[Any]) -> Iterator[Any]:
        """Yield what a statement, whose first column is `run_uuid`, gives about these runs."""
        if len(self.found) > _FEW:
            ids = self.statement.with_only_columns(private_mlflow.tables().runs.c.run_uuid)
            # A run that was logged since then is not among those found.
            yield from (
                row for row in _rows(self.connection, statement.where(run_uuid.in_(ids))) if row[0] in self.found
            )
            return
        names = list(self.found)
        for start in range(0, len(names), _IDS_PER_STATEMENT):
            part = names[start : start + _IDS_PER_STATEMENT]
            yield from _rows(self.connection, statement.where(run_uuid.in_(part)))


def _rows(connection: Connection, statement: Select[Any]) -> Iterator[Any]:
    with contextlib.closing(connection.execute(statement)) as result:
        for part in result.partitions(_ROWS_AT_ONCE):
            yield from part


def _into(mapping: Mapping[str, Any]) -> dict[str, Any]:
    assert isinstance(mapping, dict)  # filled while it is ours
    return mapping
