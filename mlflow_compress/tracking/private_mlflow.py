"""Everything that depends on private parts of MLflow and may break with its next release: look here first then.

* The tables of its database, which change with its schema: only known schema revisions are read.
* How it creates these tables, and its errors when another process does so too.
* Its errors for a database of another version, and for a host name that its server does not accept.
* The client of its REST store, which supports every kind of credentials.
* Its servers: how their apps are created, which routes `basic-auth` allows, and how it checks passwords.
* Workspaces: how a request names one, and how the server stores the workspace of a request.
* The environment variables with which its server passes on its own options.
* The backend that runs its projects here, and the keys that it adds to a backend's configuration.
* How it compares a model's requirements with the installed versions.
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

SCHEMAS = ("dc11669786a5",)  # the alembic revision of MLflow 3.17's tables
_OTHER_VERSION = ("Can't locate revision", "out-of-date database schema")
_UNKNOWN_HOST = "Invalid Host header"
_VERSION_TABLE = "alembic_version"
_OWN_TABLES = (_VERSION_TABLE, "runs")
_RACE = ("already exists", "duplicate column name", "duplicate key value", "Online migration expected", "no such table",
         "UndefinedTable", "UNIQUE constraint failed", "deadlock detected", "database is locked")  # fmt: skip
_POSTGRES_LOCK = 0x6D6C666C6F77  # any number that all our processes share
WORKSPACE_HEADER = "X-MLFLOW-WORKSPACE"
CHECKED = "mlflow_compress.checked"  # in a request's environment: passwords already checked, and the results
_STATIC_PREFIX, _STORE, _SERVER = "_MLFLOW_STATIC_PREFIX", "_MLFLOW_SERVER_FILE_STORE", "_MLFLOW_SGI_NAME"
_BACKEND_KEYS = ("PROJECT_", "MLFLOW_")  # prefixes of the constants that contain such a key


_Given = TypeVar("_Given")


@dataclass(frozen=True)
class Tables:
    """The tables of an MLflow database, with the columns that are read."""

    experiments: TableClause
    runs: TableClause
    tags: TableClause
    params: TableClause
    latest_metrics: TableClause


@functools.cache
def tables() -> Tables:
    """Return the tables as in `SCHEMAS`."""
    from sqlalchemy import BigInteger, column, table

    def named(name: str, *columns: str) -> TableClause:
        return table(name, *(column(column_name) for column_name in columns))

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
    """Return whether the tables of a database have a known schema."""
    from sqlalchemy import column, select, table

    revision: ColumnClause[str] = column("version_num")
    versions = connection.execute(select(revision).select_from(table("alembic_version", revision))).scalars().all()
    return versions in [[schema] for schema in SCHEMAS]


def has_one_workspace(connection: Connection) -> bool:
    """Return whether all experiments of a database are in one workspace: only then are their names unique."""
    from sqlalchemy import func, select

    workspaces = connection.execute(select(func.count(tables().experiments.c.workspace.distinct()))).scalar()
    return (workspaces or 0) <= 1


def is_database(path: Path) -> bool:
    """Return whether a file is an MLflow SQLite database. MLflow's client would create tables in any file."""
    statement = "SELECT COUNT(*) FROM sqlite_master WHERE name IN (?, ?)"
    try:
        with contextlib.closing(sqlite3.connect(sqlite_file.address(path, "ro"), uri=True)) as database:
            return bool(database.execute(statement, _OWN_TABLES).fetchone() == (len(_OWN_TABLES),))
    except sqlite3.DatabaseError:
        return False


def make_tables(uri: str) -> None:
    """Create MLflow's tables in an empty database without opening a store, which would create an experiment too.

    Raises:
        Exception: any exception of MLflow or SQLAlchemy.
    """
    from mlflow.store.db import utils

    engine = utils.create_sqlalchemy_engine_with_retry(uri)  # type: ignore[no-untyped-call]
    try:
        if not utils._all_tables_exist(engine):  # type: ignore[no-untyped-call]
            utils._initialize_tables(engine)  # type: ignore[no-untyped-call]
    finally:
        engine.dispose()


def make_tables_in_turn(uri: str) -> None:
    """Create MLflow's tables in an empty PostgreSQL database; wait for a process that is already doing so.

    Raises:
        Exception: any exception of MLflow or SQLAlchemy.
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
    """Return whether MLflow failed because another process created tables or rows at the same time."""
    return any(words in error for words in _RACE)


def is_of_another_version(error: str) -> bool:
    """Return whether MLflow refused a database because another version made it."""
    return any(words in error for words in _OTHER_VERSION)


def is_unknown_host(error: str) -> bool:
    """Return whether a server answered 403 because its `--allowed-hosts` does not list the host name of the request."""
    return _UNKNOWN_HOST in error


def post(uri: str, path: str, content: Mapping[str, Any]) -> Any:
    """Send JSON to a tracking server as MLflow's client does, and return the JSON of its answer.

    Raises:
        Exception: any exception of MLflow's client for a refusal.
    """
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request, verify_rest_response

    credentials = get_default_host_creds(uri)  # type: ignore[no-untyped-call]
    answer = http_request(credentials, path, "POST", json=content)  # type: ignore[no-untyped-call]
    return verify_rest_response(answer, path).json()


def get(uri: str, path: str, params: Mapping[str, Any]) -> Any:
    """Request a page of a tracking server once, with the client's credentials; return None where it has no such page.

    Raises:
        Exception: the server is gone, or the answer is not JSON.
    """
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    credentials = get_default_host_creds(uri)  # type: ignore[no-untyped-call]
    answer = http_request(  # type: ignore[no-untyped-call]
        credentials, path, "GET", max_retries=0, raise_on_status=False, params=dict(params)
    )
    return answer.json() if answer.status_code == 200 else None


def static_prefix() -> str:
    """Return the path prefix of a server's pages; empty for none."""
    return os.environ.get(_STATIC_PREFIX, "").rstrip("/")


def served_store() -> str:
    """Return the address of the store of the server in this process."""
    return os.environ.get(_STORE, "")


def flask_app() -> Flask:
    """Return the Flask app of MLflow's server."""
    from mlflow.server import app

    return app


def finished_app(app: Flask, with_auth: bool, vouched: Iterable[str]) -> Any:
    """Return the app that a server runs: with or without `basic-auth`; FastAPI's under uvicorn, else Flask's.

    Args:
        app: the app from `flask_app`, with all routes.
        with_auth: whether users must authenticate.
        vouched: paths whose GET requests are allowed: they check access themselves. MLflow refuses all others.
    """
    if with_auth:
        from mlflow.server import auth

        paths = set(vouched)
        auth.BEFORE_REQUEST_VALIDATORS.update({(path, "GET"): lambda: True for path in paths})
        app.before_request(functools.partial(_begin_to_remember, paths))  # before MLflow's own check
        auth.store.authenticate_user = _remembering(auth.store.authenticate_user)  # type: ignore[method-assign]
        return auth.create_app(app)
    if os.environ.get(_SERVER) == "uvicorn":
        from mlflow.server.fastapi_app import create_fastapi_app

        return create_fastapi_app(app)
    return app


def _begin_to_remember(paths: Collection[str]) -> None:
    """Begin to cache password checks for a request to one of these paths, including its requests to MLflow's routes."""
    from flask import request

    if request.path in paths:
        request.environ[CHECKED] = {}


def _remembering(check: Callable[..., bool]) -> Callable[..., bool]:
    """Cache the result of a password check until the end of the request that began to cache.

    MLflow checks a password four to six times per request, and each check takes a fifth of a second. The cache is in
    the environment of the request, where no client can write, and ends with the request.
    """

    @functools.wraps(check)
    def checked(username: str, password: str, **more: Any) -> bool:
        from flask import has_request_context, request

        results = request.environ.get(CHECKED) if has_request_context() else None
        if results is None:
            return check(username, password, **more)
        if (username, password) not in results:
            results[username, password] = check(username, password, **more)
        return bool(results[username, password])

    return checked


def has_workspaces() -> bool:
    """Return whether the server in this process has workspaces."""
    from mlflow.environment_variables import MLFLOW_ENABLE_WORKSPACES

    return bool(MLFLOW_ENABLE_WORKSPACES.get())  # type: ignore[no-untyped-call]


def request_workspace() -> str:
    """Return MLflow's workspace of the current request; empty for none."""
    from mlflow.utils.workspace_context import get_request_workspace

    return get_request_workspace() or ""


def without_workspace(call: Callable[[], _Given]) -> _Given:
    """Call a function that answers another request: it gets its own workspace, and the current one is kept."""
    from mlflow.utils.workspace_context import clear_server_request_workspace

    def cleared() -> _Given:
        clear_server_request_workspace()
        return call()

    return contextvars.copy_context().run(cleared)


@contextlib.contextmanager
def in_workspace(name: str) -> Iterator[None]:
    """Make MLflow's stores in this process read a workspace that the reader may access; empty for none."""
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
    """Return the keys that MLflow itself adds to the configuration of a project's backend."""
    from mlflow.projects import utils

    constants = vars(utils).items()
    return {value for name, value in constants if name.startswith(_BACKEND_KEYS) and isinstance(value, str)}


@contextlib.contextmanager
def by_names_alone() -> Iterator[None]:
    """Let MLflow compare a model's requirements with the installed versions by their names alone.

    It would first list the modules of all installed distributions, to find the version of a requirement that was not
    installed by pip. That takes seconds.
    """
    from mlflow.utils import requirements_utils

    private: Any = requirements_utils
    list_modules = getattr(private, "_init_packages_to_modules_map", None)
    if list_modules is None:  # MLflow has changed: it is slower, not wrong
        yield
        return

    def list_nothing() -> None:
        private._PACKAGES_TO_MODULES = {}

    modules_before = getattr(private, "_PACKAGES_TO_MODULES", None)
    private._init_packages_to_modules_map = list_nothing
    try:
        yield
    finally:
        private._init_packages_to_modules_map = list_modules
        private._PACKAGES_TO_MODULES = modules_before  # MLflow lists them for other callers
