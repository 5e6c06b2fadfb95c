"""All that leans on private parts of MLflow, and so may break with its next release: look here first when it does.

* The tables of its database, which change with a revision of its schema: only revisions that were looked at are read.
* How it makes these tables, and what it says when another process does so too.
* What it says when a database is of another version than itself, and when its server does not accept a host name.
* The client that its REST store uses, which knows every kind of credentials.
* Its servers: how their apps are made, which routes its `basic-auth` lets through, and what that checks passwords with.
* Workspaces: how a request names one, and how the server keeps the one that it found.
* The variables of the environment through which its server hands over its own options.
* The backend that runs its projects here, and the keys that it puts into a backend's configuration.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mlflow_compress.tracking import sqlite_file

if TYPE_CHECKING:
    from flask import Flask
    from sqlalchemy import ColumnClause, Connection, TableClause

SCHEMAS = ("dc11669786a5",)  # alembic's version of MLflow 3.17's tables
_OTHER_VERSION = ("Can't locate revision", "out-of-date database schema")
_UNKNOWN_HOST = "Invalid Host header"
_VERSION_TABLE = "alembic_version"
_OWN_TABLES = (_VERSION_TABLE, "runs")
_RACE = ("already exists", "duplicate column name", "duplicate key value", "Online migration expected", "no such table",
         "UndefinedTable", "UNIQUE constraint failed", "deadlock detected", "database is locked")  # fmt: skip
_POSTGRES_LOCK = 0x6D6C666C6F77  # any number that all of ours agree on
WORKSPACE_HEADER = "X-MLFLOW-WORKSPACE"
CHECKED = "mlflow_compress.checked"  # in a request's environment: the passwords that were right, and those that weren't
_STATIC_PREFIX, _STORE, _SERVER = "_MLFLOW_STATIC_PREFIX", "_MLFLOW_SERVER_FILE_STORE", "_MLFLOW_SGI_NAME"
_BACKEND_KEYS = ("PROJECT_", "MLFLOW_")  # how the names of constants begin that hold such a key


_Given = TypeVar("_Given")


@dataclass(frozen=True)
class Tables:
    """Tables of a database of MLflow's, with the columns that are read."""

    experiments: TableClause
    runs: TableClause
    tags: TableClause
    params: TableClause
    latest_metrics: TableClause


@functools.cache
def tables() -> Tables:
    """Return the tables as the `SCHEMAS` have them."""
    from sqlalchemy import BigInteger, column, table

    def named(name: str, *columns: str) -> TableClause:
        return table(name, *(column(each) for each in columns))

    return Tables(
        experiments=named("experiments", "experiment_id", "name", "lifecycle_stage", "workspace"),
        runs=table(
            "runs",
            *map(column, ("run_uuid", "experiment_id", "name", "status", "lifecycle_stage")),
            column("start_time", BigInteger()),  # milliseconds
        ),
        tags=named("tags", "run_uuid", "key", "value"),
        params=named("params", "run_uuid", "key", "value"),
        latest_metrics=named("latest_metrics", "run_uuid", "key", "value", "is_nan"),
    )


def is_readable(connection: Connection) -> bool:
    """Return whether a database has tables that are known to be read rightly."""
    from sqlalchemy import column, select, table

    revision: ColumnClause[str] = column("version_num")
    versions = connection.execute(select(revision).select_from(table("alembic_version", revision))).scalars().all()
    return versions in [[schema] for schema in SCHEMAS]


def has_one_workspace(connection: Connection) -> bool:
    """Return whether all experiments of a database are in one workspace: else their names do not tell them apart."""
    from sqlalchemy import func, select

    workspaces = connection.execute(select(func.count(tables().experiments.c.workspace.distinct()))).scalar()
    return (workspaces or 0) <= 1


def is_database(path: Path) -> bool:
    """Return whether a file is a SQLite database of MLflow's. Its client would make tables in whatever it is given."""
    statement = "SELECT COUNT(*) FROM sqlite_master WHERE name IN (?, ?)"
    try:
        with contextlib.closing(sqlite3.connect(sqlite_file.address(path, "ro"), uri=True)) as database:
            return bool(database.execute(statement, _OWN_TABLES).fetchone() == (len(_OWN_TABLES),))
    except sqlite3.DatabaseError:
        return False


def make_tables(uri: str) -> None:
    """Make MLflow's tables in a database that has none, without opening a store: that would make an experiment too.

    Raises:
        Exception: whatever MLflow and SQLAlchemy raise.
    """
    from mlflow.store.db import utils

    engine = utils.create_sqlalchemy_engine_with_retry(uri)  # type: ignore[no-untyped-call]
    try:
        if not utils._all_tables_exist(engine):  # type: ignore[no-untyped-call]
            utils._initialize_tables(engine)  # type: ignore[no-untyped-call]
    finally:
        engine.dispose()


def make_tables_in_turn(uri: str) -> None:
    """Make MLflow's tables in a database of PostgreSQL that has none; wait for whoever does so already.

    Raises:
        Exception: whatever MLflow and SQLAlchemy raise.
    """
    if not uri.startswith("postgresql"):
        return
    from mlflow.store.db import utils
    from sqlalchemy import func, inspect, select

    engine = utils.create_sqlalchemy_engine_with_retry(uri)  # type: ignore[no-untyped-call]
    try:
        with engine.connect() as connection:
            if not inspect(connection).has_table(_VERSION_TABLE):
                connection.execute(select(func.pg_advisory_lock(_POSTGRES_LOCK)))  # until the connection is closed
                connection.commit()
                if not inspect(engine).has_table(_VERSION_TABLE):
                    make_tables(uri)
    finally:
        engine.dispose()


def is_race(error: str) -> bool:
    """Return whether MLflow stumbled over tables or rows that another process made at the same time."""
    return any(words in error for words in _RACE)


def is_of_another_version(error: str) -> bool:
    """Return whether MLflow refused a database because another version made it."""
    return any(words in error for words in _OTHER_VERSION)


def is_unknown_host(error: str) -> bool:
    """Return whether a server answered 403 because its `--allowed-hosts` does not list the host name of the request."""
    return _UNKNOWN_HOST in error


def post(uri: str, path: str, content: Mapping[str, Any]) -> Any:
    """Ask a tracking server with JSON, as MLflow's client does, and return its answer's JSON.

    Raises:
        Exception: whatever MLflow's client raises for a refusal.
    """
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request, verify_rest_response

    credentials = get_default_host_creds(uri)  # type: ignore[no-untyped-call]
    answer = http_request(credentials, path, "POST", json=content)  # type: ignore[no-untyped-call]
    return verify_rest_response(answer, path).json()


def get(uri: str, path: str, params: Mapping[str, Any]) -> Any:
    """Ask a tracking server for a page, once, as the one whom MLflow's client knows; None where it has no such page.

    Raises:
        Exception: the server is gone, or what it has is not JSON.
    """
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    credentials = get_default_host_creds(uri)  # type: ignore[no-untyped-call]
    answer = http_request(  # type: ignore[no-untyped-call]
        credentials, path, "GET", max_retries=0, raise_on_status=False, params=dict(params)
    )
    return answer.json() if answer.status_code == 200 else None


def static_prefix() -> str:
    """Return the path that a server's pages lie below; empty for none."""
    return os.environ.get(_STATIC_PREFIX, "").rstrip("/")


def served_store() -> str:
    """Return the address of the store that the server in this process serves."""
    return os.environ.get(_STORE, "")


def flask_app() -> Flask:
    """Return the Flask app of MLflow's server."""
    from mlflow.server import app

    return app


def finished_app(app: Flask, with_auth: bool, vouched: Iterable[str]) -> Any:
    """Return the app that a server runs: with `basic-auth` or without, FastAPI's under uvicorn, else Flask's.

    Args:
        app: as `flask_app` gives it, with all routes.
        with_auth: whether to ask who asks.
        vouched: paths whose GET is let through: they decide by themselves. MLflow refuses what nobody vouches for.
    """
    if with_auth:
        from mlflow.server import auth

        paths = set(vouched)
        auth.BEFORE_REQUEST_VALIDATORS.update({(path, "GET"): lambda: True for path in paths})
        app.before_request(functools.partial(_begin_to_remember, paths))  # before MLflow's own, which checks first
        auth.store.authenticate_user = _remembering(auth.store.authenticate_user)  # type: ignore[method-assign]
        return auth.create_app(app)
    if os.environ.get(_SERVER) == "uvicorn":
        from mlflow.server.fastapi_app import create_fastapi_app

        return create_fastapi_app(app)
    return app


def _begin_to_remember(paths: Collection[str]) -> None:
    """Have a request to one of these paths, and those that it asks of MLflow's routes, remember what was checked."""
    from flask import request

    if request.path in paths:
        request.environ[CHECKED] = {}


def _remembering(check: Callable[..., bool]) -> Callable[..., bool]:
    """Have a password that was right be right until the end of the request that began to remember.

    MLflow checks it four to six times in each of its requests, and each takes a fifth of a second. Nothing outlives the
    request: what it remembers is in its own environment, which no client can write to.
    """

    @functools.wraps(check)
    def checked(username: str, password: str, **more: Any) -> bool:
        from flask import has_request_context, request

        known = request.environ.get(CHECKED) if has_request_context() else None
        if known is None:
            return check(username, password, **more)
        if (username, password) not in known:
            known[username, password] = check(username, password, **more)
        return bool(known[username, password])

    return checked


def has_workspaces() -> bool:
    """Return whether the server in this process keeps experiments apart by workspaces."""
    from mlflow.environment_variables import MLFLOW_ENABLE_WORKSPACES

    return bool(MLFLOW_ENABLE_WORKSPACES.get())  # type: ignore[no-untyped-call]


def request_workspace() -> str:
    """Return the workspace that MLflow found for the request that is being answered; empty for none."""
    from mlflow.utils.workspace_context import get_request_workspace

    return get_request_workspace() or ""


def without_workspace(call: Callable[[], _Given]) -> _Given:
    """Call something that answers another request: it finds its own workspace, and this one's stays what it is."""
    from mlflow.utils.workspace_context import clear_server_request_workspace

    def cleared() -> _Given:
        clear_server_request_workspace()
        return call()

    return contextvars.copy_context().run(cleared)


@contextlib.contextmanager
def in_workspace(name: str) -> Iterator[None]:
    """Have MLflow's stores in this process read a workspace that the server let the reader have; empty for none."""
    from mlflow.utils.workspace_context import ServerWorkspaceContext

    if not name:
        yield
        return
    with ServerWorkspaceContext(name):
        yield


def local_backend() -> Any:
    """Return MLflow's backend that runs a project on this machine."""
    from mlflow.projects.backend.local import LocalBackend

    return LocalBackend()


def backend_keys() -> set[str]:
    """Return the keys that MLflow itself puts into the configuration of a project's backend."""
    from mlflow.projects import utils

    constants = vars(utils).items()
    return {value for name, value in constants if name.startswith(_BACKEND_KEYS) and isinstance(value, str)}
