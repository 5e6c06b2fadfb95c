"""Reads runs straight out of a tracking store's database, read-only: MLflow's own client takes ten times as long.

Only schemas that were looked at are read (`private_mlflow.SCHEMAS`); of any other,
`open_database` returns None, and the client serves.
The tables are MLflow's: `experiments`, `runs`, `tags`, `params`, `latest_metrics`.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_compress.records import Run, Selection
from mlflow_compress.tracking import private_mlflow

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

_FEW = 5000  # runs whose numbers are sought by their ids rather than by the same filter again
_IDS_PER_STATEMENT = 500
_ROWS_AT_ONCE = 10_000
_PARAMS = ("team", "model", "method")  # what stands in for tags that a run lacks


def open_database(uri: str) -> Database | None:
    """Open the database behind a tracking URI; None where there is none that is known to be read rightly.

    Args:
        uri: a tracking URI. All but those of SQLite files and PostgreSQL give None.
    """
    address = _address(uri)
    if address is None:
        return None
    try:
        import sqlalchemy

        engine = sqlalchemy.create_engine(address)
        with engine.connect() as connection:
            is_readable = private_mlflow.is_readable(connection)
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
        statement = "SELECT name, experiment_id FROM experiments WHERE lifecycle_stage = 'active'"
        with self._engine.connect() as connection:
            return {name: str(number) for name, number in _rows(connection, statement, {})}

    def runs(self, ids: Mapping[str, str], selection: Selection) -> list[Run]:
        """Read the variants of experiments that a selection names, newest first.

        Args:
            ids: experiments' names by their ids.
            selection: its `where` is not understood here, and must be empty.
        """
        # Interned: a hundred thousand runs say the same few words.
        with self._engine.connect() as connection:
            chosen, values = _chosen(list(ids), selection)
            order = "ORDER BY r.start_time DESC, r.run_uuid"
            found = {
                run_id: Run(run_id, ids[str(at)], name or "", status or "", started or 0, {}, {}, {})
                for run_id, at, name, status, started in _rows(connection, f"{chosen} {order}", values)
            }
            for key, value, run_id in _of(connection, "tags", "key NOT LIKE 'mlflow.%'", found, chosen, values):
                _into(found[run_id].tags)[sys.intern(key)] = sys.intern(value or "")
            wanted = f"key IN ({', '.join(repr(name) for name in _PARAMS)})"
            for key, value, run_id in _of(connection, "params", wanted, found, chosen, values):
                _into(found[run_id].params)[sys.intern(key)] = sys.intern(value)
            for key, value, run_id, is_nan in _of(connection, "latest_metrics", "", found, chosen, values, ", is_nan"):
                _into(found[run_id].metrics)[sys.intern(key)] = math.nan if is_nan else value
        return list(found.values())

    def counts(self) -> dict[str, tuple[int, int]]:
        """Return how many variants each experiment has, and when the newest began, in milliseconds, by its id."""
        statement = (
            "SELECT r.experiment_id, COUNT(*), MAX(r.start_time) FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid "
            "AND t.key = 'compress.role' AND t.value = 'variant' WHERE r.lifecycle_stage = 'active' "
            "GROUP BY r.experiment_id"
        )
        with self._engine.connect() as connection:
            return {str(at): (count, newest or 0) for at, count, newest in _rows(connection, statement, {})}

    def close(self) -> None:
        """Let go of the connection."""
        self._engine.dispose()


def _address(uri: str) -> str | None:
    """Return SQLAlchemy's address of a store that can be read; a SQLite file is opened read-only."""
    if uri.startswith(("postgresql://", "postgresql+psycopg://", "postgresql+psycopg2://")):
        return uri.replace("postgresql://", "postgresql+psycopg://", 1)
    path = uri.removeprefix("sqlite:///")
    if path == uri or "?" in path or not Path(path).is_file():
        return None
    return f"sqlite:///file:{_quoted(path)}?mode=ro&uri=true"


def _quoted(path: str) -> str:
    from urllib.parse import quote

    return quote(str(Path(path).resolve()))


def _chosen(ids: Sequence[str], selection: Selection) -> tuple[str, dict[str, Any]]:
    """Write the statement that gives the runs of a selection, and its values."""
    values: dict[str, Any] = {}

    def among(kind: str, names: Iterable[object]) -> str:
        for at, name in enumerate(names):
            values[f"{kind}{at}"] = name
        return ", ".join(f":{name}" for name in values if name.startswith(kind) and name[len(kind) :].isdigit())

    tags = {"compress.role": ["variant"], "team": selection.teams, "model": selection.models}
    tags |= {"method": selection.methods}
    if selection.device:
        tags[f"compress.outcome.{selection.device}"] = ["ok", "failed", "skipped"]
    joins = []
    for at, (key, wanted) in enumerate(tags.items()):
        if wanted:
            values[f"key{at}"] = key
            of = f"t{at}"
            joins.append(f"JOIN tags {of} ON {of}.run_uuid = r.run_uuid AND {of}.key = :key{at} AND {of}.value IN")
            joins[-1] += f" ({among(f'tag{at}_', wanted)})"
    since = ""
    if selection.since_ms:
        values["since"] = selection.since_ms
        since = "AND r.start_time >= :since"
    numbers = among("experiment", [int(each) for each in ids])
    return (
        "SELECT r.run_uuid, r.experiment_id, r.name, r.status, r.start_time FROM runs r "  # noqa: S608
        f"{' '.join(joins)} WHERE r.experiment_id IN ({numbers}) AND r.lifecycle_stage = 'active' {since}",
        values,
    )


def _of(
    connection: Connection,
    table: str,
    wanted: str,
    found: Mapping[str, Run],
    chosen: str,
    values: Mapping[str, Any],
    more: str = "",
) -> Iterator[Any]:
    """Return key, value and run of what a table holds about the runs found."""
    also = f"AND {wanted}" if wanted else ""
    statement = f"SELECT key, value, run_uuid{more} FROM {table} WHERE run_uuid IN ({{}}) {also}"  # noqa: S608
    if len(found) > _FEW:
        ids = f"SELECT run_uuid FROM ({chosen}) AS chosen"  # noqa: S608
        # A run that was logged since then is not among those found.
        yield from (row for row in _rows(connection, statement.format(ids), values) if row[2] in found)
        return
    names = list(found)
    for start in range(0, len(names), _IDS_PER_STATEMENT):
        part = {f"id{at}": name for at, name in enumerate(names[start : start + _IDS_PER_STATEMENT])}
        yield from _rows(connection, statement.format(", ".join(f":{name}" for name in part)), part)


def _rows(connection: Connection, statement: str, values: Mapping[str, Any]) -> Iterator[Any]:
    import sqlalchemy

    with contextlib.closing(connection.execute(sqlalchemy.text(statement), values)) as result:
        for part in result.partitions(_ROWS_AT_ONCE):
            yield from part


def _into(mapping: Mapping[str, Any]) -> dict[str, Any]:
    assert isinstance(mapping, dict)  # filled while it is ours
    return mapping
