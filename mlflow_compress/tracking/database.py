"""Reads runs directly from a tracking store's database, read-only: MLflow's own client takes ten times as long.

Only known schemas are read (`private_mlflow.SCHEMAS`); for any other, `open_database` returns None and MLflow's client
is used. The tables are MLflow's, as `private_mlflow.tables` describes them.
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

_FEW = 5000  # up to this number of runs, their numbers are selected by run id instead of by the same filter
_IDS_PER_STATEMENT = 500
_ROWS_AT_ONCE = 10_000
PARAMS = ("team", "model", "method", "source")  # replace tags that a run lacks, and name the model's source


@dataclass(frozen=True)
class Variants:
    """The number of variants in an experiment, the start of the newest in milliseconds, and the id of one of them."""

    count: int
    newest_ms: int
    run_id: str


def open_database(uri: str, *, by_ids: bool = False) -> Database | None:
    """Open the database behind a tracking URI; return None where it is not known how to read it.

    Args:
        uri: a tracking URI. All but SQLite files and PostgreSQL return None.
        by_ids: whether experiments are selected only by id; otherwise a database with several workspaces returns None,
            because only MLflow knows which workspace is meant.

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
    except Exception:  # MLflow's client meets the same error, and reports it
        return None
    return Database(engine, uri) if is_readable else None


class Database:
    """An open MLflow database."""

    def __init__(self, engine: Engine, uri: str) -> None:
        """Take an open engine; use `open_database` instead."""
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
        """Return the variants of experiments that match a selection, newest first.

        Args:
            ids: names of experiments by their ids.
            selection: what to read; its `where` is not supported here and must be empty.
        """
        from sqlalchemy import or_, select

        tables = private_mlflow.tables()
        tags, params, metrics = tables.tags.c, tables.params.c, tables.latest_metrics.c
        chosen_runs = _chosen(list(ids), selection)
        # Interned: a hundred thousand runs repeat the same few words.
        with self._engine.connect() as connection:
            newest_first = chosen_runs.order_by(tables.runs.c.start_time.desc(), tables.runs.c.run_uuid)
            runs = {
                run_id: Run(run_id, ids[str(experiment)], name or "", status or "", started or 0, {}, {}, {})
                for run_id, experiment, name, status, started in _rows(connection, newest_first)
            }
            tables_of_chosen = _Chosen(connection, chosen_runs, runs)
            are_ours = or_(tags.key.not_like("mlflow.%"), tags.key.like(f"{run_tags.HIDDEN}%"))
            own_tags = select(tags.run_uuid, tags.key, tags.value).where(are_ours)
            for run_id, key, value in tables_of_chosen.rows(own_tags, tags.run_uuid):
                run_tags.add_unhidden(_into(runs[run_id].tags), sys.intern(key), sys.intern(value or ""))
            names = select(params.run_uuid, params.key, params.value).where(params.key.in_(PARAMS))
            for run_id, key, value in tables_of_chosen.rows(names, params.run_uuid):
                _into(runs[run_id].params)[sys.intern(key)] = sys.intern(value)
            numbers = select(metrics.run_uuid, metrics.key, metrics.value, metrics.is_nan)
            for run_id, key, value, is_nan in tables_of_chosen.rows(numbers, metrics.run_uuid):
                _into(runs[run_id].metrics)[sys.intern(key)] = math.nan if is_nan else value
        return list(runs.values())

    def counts(self, ids: Collection[str]) -> dict[str, Variants]:
        """Return the number of variants by experiment id, without experiments that have none."""
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
            return {str(experiment): Variants(count, newest or 0, run_id) for experiment, count, newest, run_id in rows}

    def close(self) -> None:
        """Close the connection."""
        self._engine.dispose()


def _address(uri: str) -> str | None:
    """Return SQLAlchemy's address of a readable store; a SQLite file is opened read-only."""
    if uri.startswith(("postgresql://", "postgresql+psycopg://", "postgresql+psycopg2://")):
        return uri.replace("postgresql://", "postgresql+psycopg://", 1)
    path = sqlite_file.path_of(uri)
    if path is None or not path.is_file():
        return None
    return f"sqlite:///{sqlite_file.address(path, 'ro')}&uri=true&timeout={sqlite_file.PATIENCE_SECONDS:.0f}"


def _chosen(ids: Sequence[str], selection: Selection) -> Select[Any]:
    """Return the statement that selects runs: id, experiment, name, status, start."""
    from sqlalchemy import select

    tag_filters = {"compress.role": ["variant"], "team": selection.teams, "model": selection.models}
    tag_filters |= {"method": selection.methods}
    if selection.device:
        tag_filters[f"compress.outcome.{selection.device}"] = ["ok", "failed", "skipped"]
    runs = private_mlflow.tables().runs
    columns = runs.c.run_uuid, runs.c.experiment_id, runs.c.name, runs.c.status, runs.c.start_time
    query = select(*columns).select_from(_with_tags({key: values for key, values in tag_filters.items() if values}))
    query = query.where(runs.c.experiment_id.in_([int(number) for number in ids]))
    query = query.where(runs.c.lifecycle_stage == "active")
    return query.where(runs.c.start_time >= selection.since_ms) if selection.since_ms else query


def _with_tags(tag_filters: Mapping[str, Sequence[str]]) -> FromClause:
    """Join runs with tags, so that only runs with one of the values of each tag are left."""
    from sqlalchemy import and_

    runs, tags = private_mlflow.tables().runs, private_mlflow.tables().tags
    joined: FromClause = runs
    for key, values in tag_filters.items():
        tag = tags.alias()
        joined = joined.join(tag, and_(tag.c.run_uuid == runs.c.run_uuid, tag.c.key == key, tag.c.value.in_(values)))
    return joined


@dataclass(frozen=True)
class _Chosen:
    """The runs that a statement selected, for further queries.

    Attributes:
        connection: the connection to the database.
        statement: the statement, from `_chosen`.
        runs: the selected runs by id.
    """

    connection: Connection
    statement: Select[Any]
    runs: Mapping[str, Run]

    def rows(self, statement: Select[Any], run_uuid: ColumnElement[Any]) -> Iterator[Any]:
        """Yield the rows of a statement, whose first column is `run_uuid`, for these runs."""
        if len(self.runs) > _FEW:
            ids = self.statement.with_only_columns(private_mlflow.tables().runs.c.run_uuid)
            # A run that was logged in the meantime is not among them.
            yield from (
                row for row in _rows(self.connection, statement.where(run_uuid.in_(ids))) if row[0] in self.runs
            )
            return
        names = list(self.runs)
        for start in range(0, len(names), _IDS_PER_STATEMENT):
            part = names[start : start + _IDS_PER_STATEMENT]
            yield from _rows(self.connection, statement.where(run_uuid.in_(part)))


def _rows(connection: Connection, statement: Select[Any]) -> Iterator[Any]:
    with contextlib.closing(connection.execute(statement)) as result:
        for part in result.partitions(_ROWS_AT_ONCE):
            yield from part


def _into(mapping: Mapping[str, Any]) -> dict[str, Any]:
    assert isinstance(mapping, dict)  # mutable while it is being filled here
    return mapping
