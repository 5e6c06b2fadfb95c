"""Opens tracking stores: checks within seconds whether a server answers, and keeps secrets out of messages."""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_compress import file_locks, terminal, user_home
from mlflow_compress.errors import StoreError, first_line
from mlflow_compress.tracking import new_store, private_mlflow, sqlite_file

if TYPE_CHECKING:
    from mlflow import MlflowClient

HTTP = ("http://", "https://")
_HTTP_TIMEOUT_SECONDS = 5
_RACE_SECONDS, _RACE_PAUSE_SECONDS = 30.0, 0.5
_SHORTEST_SECRET = 4  # hiding shorter ones would hide ordinary words too


@dataclass(frozen=True)
class Store:
    """An open tracking store, made by `open_store`.

    Attributes:
        client: MLflow's client.
        uri: the store's address; it may contain secrets.
    """

    client: MlflowClient
    uri: str


def probe(tracking_uri: str | None = None) -> None:
    """Check within seconds, before MLflow's slow import, whether a server answers.

    Args:
        tracking_uri: the store, as for `open_store`. An address that is not a server's is not checked.

    Raises:
        StoreError: the server does not answer.
    """
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    if uri.startswith(HTTP):
        _probe(uri)


def open_store(tracking_uri: str | None = None, *, create: bool = True) -> Store:
    """Connect to the tracking store, and fail now rather than after an hour of measuring.

    Args:
        tracking_uri: the store, as MLflow takes it; None: MLFLOW_TRACKING_URI, or MLflow's default (`mlflow.db` here).
        create: whether to create a SQLite store that does not exist. Readers never do.

    Raises:
        StoreError: the store can't be reached.
    """
    probe(tracking_uri)
    user_home.settle()
    with quiet():
        import mlflow
        from mlflow import MlflowClient

        if tracking_uri:
            mlflow.set_tracking_uri(tracking_uri)
        uri = mlflow.get_tracking_uri()
        sqlite_file.wait_for(uri, writing=create)
        if not create:
            _require_database(uri)
        try:
            client = _opened(uri, MlflowClient)
        except Exception as error:
            reason = _first_line(error, uri)
            if private_mlflow.is_of_another_version(reason):
                reason = (
                    f"another version of MLflow than {mlflow.__version__} made it. Either upgrade MLflow (pip install "
                    f"--upgrade mlflow), or copy the store and upgrade it (mlflow db upgrade {without_secrets(uri)})"
                )
            elif private_mlflow.is_race(reason):
                reason = (
                    f"its tables are incomplete ({reason}). Another process is creating them, or was stopped while it "
                    "did: try again, or use another store if this one is still empty"
                )
            raise StoreError(f"The tracking store {without_secrets(uri)} can't be opened: {reason}") from error
    return Store(client, uri)


def check(store: Store) -> None:
    """Check whether the server answers.

    Raises:
        StoreError: it does not answer.
    """
    probe(store.uri)
    sqlite_file.wait_for(store.uri, writing=True)
    with refusals(store.uri):
        store.client.search_experiments(max_results=1)


def chosen_uri() -> str:
    """Return the address of the store that MLflow uses in this process, from `mlflow.set_tracking_uri`."""
    import mlflow

    return str(mlflow.get_tracking_uri())


def without_secrets(uri: str) -> str:
    """Return a URI without user name, password and query, for messages."""
    scheme, separator, address = uri.partition("://")
    if not separator:
        return uri
    # Not urlsplit: it raises on a malformed URI, and a password may contain an unescaped slash.
    address = address.partition("?")[0].partition("#")[0]
    return f"{scheme}://{address if address.startswith('/') else address.rpartition('@')[2]}"


def lasting(uri: str) -> str:
    """Return a URI that can be stored: without secrets, and valid in any working folder."""
    for prefix in ("sqlite:///", ""):
        if uri.startswith(prefix):
            path = uri.removeprefix(prefix)
            is_path = "://" not in path and not path.startswith(("file:", ":", "databricks"))
            return f"{prefix}{Path(path).absolute()}" if is_path and path else without_secrets(uri)
    return without_secrets(uri)


def set_up_client() -> None:
    """Make MLflow's client give up on a dead server after seconds, not minutes: results are kept in the spool."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")


@contextlib.contextmanager
def refusals(uri: str) -> Iterator[None]:
    """Turn any exception of MLflow into a StoreError that names the server."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        raise StoreError(f"The tracking store {without_secrets(uri)} refused: {_first_line(error, uri)}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep MLflow's log messages about tables and signatures off the user's terminal."""
    import mlflow  # noqa: F401  (sets its own levels when it is imported)

    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _probe(uri: str) -> None:
    """Check that a server responds; MLflow's own client would retry for minutes."""
    address = without_secrets(uri).rstrip("/") + "/health"  # urllib treats user:password@ as part of the host name
    try:
        urllib.request.urlopen(address, timeout=_HTTP_TIMEOUT_SECONDS).close()  # noqa: S310  (the callers asked for http)
    except urllib.error.HTTPError:
        return  # it answers; the client will find out whether it lets us in
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise StoreError(
            f"The tracking server {without_secrets(uri)} can't be reached: {reason}. Start it (mlflow server), or set "
            "MLFLOW_TRACKING_URI to one that runs. Nothing was measured."
        ) from error


def _opened(uri: str, client_of: Callable[[str], MlflowClient]) -> MlflowClient:
    """Open a store with MLflow's client; try again while another process creates it or its first experiment."""
    first_ended = 0.0
    while True:
        try:
            new_store.make(uri)
            client = client_of(uri)
            client.search_experiments(max_results=1)
        except Exception as error:
            message = str(error)
            is_early = private_mlflow.is_race(message) or (
                private_mlflow.is_of_another_version(message) and new_store.is_being_made(uri)
            )
            if not first_ended:
                first_ended = time.monotonic()
                if is_early:
                    terminal.warn(
                        f"waiting for another process that is creating the tracking store {without_secrets(uri)}"
                    )
            if not is_early or time.monotonic() - first_ended > _RACE_SECONDS:
                raise
            time.sleep(_RACE_PAUSE_SECONDS)
        else:
            return client


def _require_database(uri: str) -> None:
    """Raise unless a SQLite store exists and belongs to MLflow: its client would create tables in any file."""
    path = sqlite_file.path_of(uri)
    if path is None:
        return
    if not path.exists():
        raise StoreError(
            f"There is no tracking store {uri}. Measure something first (compress-bench run digits_cnn), or name "
            "another store with --tracking-uri."
        )
    if not private_mlflow.is_database(path):
        raise StoreError(f"{path} is not an MLflow tracking store. Name another one with --tracking-uri.")


def _first_line(error: Exception, uri: str) -> str:
    line = first_line(error, most=None).replace(uri, without_secrets(uri))
    for secret in _secrets(uri):
        line = line.replace(secret, "***")
    path = sqlite_file.path_of(uri)
    if path is not None and sqlite_file.LOCKED in str(error):
        return f"{path} is locked by {file_locks.holder(path)}"
    if private_mlflow.is_unknown_host(str(error)):
        host = without_secrets(uri).partition("://")[2].partition("/")[0]
        return (
            f"the server does not accept the host name {host} (403). Restart it with mlflow server --allowed-hosts "
            f"'{host},localhost:*' and its other options, or use an address that it accepts (by default localhost and "
            "private IP addresses)"
        )
    return line[:300]


def _secrets(uri: str) -> list[str]:
    """Return the parts of a URI that must not be repeated: the longest first, because one may contain another."""
    address, _, query = uri.partition("://")[2].partition("?")
    credentials = "" if address.startswith("/") else address.rpartition("@")[0]
    secrets = {
        credentials,
        credentials.partition(":")[2],
        query,
        *(value for _, value in urllib.parse.parse_qsl(query)),
    }
    return sorted((secret for secret in secrets if len(secret) >= _SHORTEST_SECRET), key=len, reverse=True)
