"""A store that can't be opened is reported at once, without secrets."""

from __future__ import annotations

import contextlib
import http.server
import re
import shutil
import socket
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow.server.security_utils import INVALID_HOST_MSG

from mlflow_compress.errors import StoreError
from mlflow_compress.tracking.connection import Store, lasting, open_store, without_secrets


def test_a_store_of_another_mlflow_says_what_to_do(store: Store, tmp_path: Path) -> None:
    newer = tmp_path / "newer.db"
    shutil.copy(store.uri.removeprefix("sqlite:///"), newer)
    with contextlib.closing(sqlite3.connect(newer)) as database:
        database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
        database.commit()
    with pytest.raises(StoreError, match="another version of MLflow than"):
        open_store(f"sqlite:///{newer}", create=False)
    mlflow.set_tracking_uri("")


def test_a_reader_makes_no_database(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="There is no tracking store"):
        open_store(f"sqlite:///{tmp_path / 'none.db'}", create=False)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_a_server_that_is_gone_is_reported_at_once(closed_port: int) -> None:
    with pytest.raises(StoreError, match=r"can't be reached: .*refused"):
        open_store(f"http://127.0.0.1:{closed_port}")


@pytest.fixture
def strict_server() -> Iterator[str]:
    """Serve like MLflow when `--allowed-hosts` lacks the name: healthy, but 403 for everything else."""

    class Strict(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer()

        def do_POST(self) -> None:
            self.answer()

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            is_healthy = self.path == "/health"
            body = b"OK" if is_healthy else INVALID_HOST_MSG.encode()
            self.send_response(200 if is_healthy else 403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Strict) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"localhost:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_server_that_does_not_accept_the_host_name_says_what_to_do(strict_server: str) -> None:
    with pytest.raises(StoreError) as refused:
        open_store(f"http://ann:s3cret@{strict_server}")
    message = str(refused.value)
    assert f"does not accept the host name {strict_server} (403)" in message
    assert f"--allowed-hosts '{strict_server},localhost:*'" in message
    assert "s3cret" not in message
    mlflow.set_tracking_uri("")


def test_an_address_that_is_none() -> None:
    with pytest.raises(StoreError, match="can't be reached"):
        open_store("http://[")


@pytest.mark.parametrize(
    "uri",
    [
        "http://someone:s3cret@127.0.0.1:{port}",
        "http://someone:s3/cret@127.0.0.1:{port}",
        "nothing://someone:s3cret@host/path?token=s3cret",
        "databricks://someone:s3cret@host",
    ],
)
def test_no_error_repeats_a_secret(uri: str, closed_port: int) -> None:
    with pytest.raises(StoreError) as raised:
        open_store(uri.format(port=closed_port))
    assert not re.search("s3/?cret", str(raised.value))


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("http://user:pass@host:5000/path?token=x#y", "http://host:5000/path"),
        ("postgresql://user@host/db", "postgresql://host/db"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("mlruns", "mlruns"),
        ("http://[", "http://["),
    ],
)
def test_without_secrets(uri: str, expected: str) -> None:
    assert without_secrets(uri) == expected


def test_no_secret_is_written() -> None:
    assert lasting("http://user:s3cret@host:5000/x?token=s3cret") == "http://host:5000/x"
    assert lasting("postgresql://user:s3cret@host/db") == "postgresql://host/db"


def test_a_relative_store_means_the_same_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert lasting("sqlite:///mlflow.db") == f"sqlite:///{tmp_path}/mlflow.db"
    assert lasting("mlruns") == f"{tmp_path}/mlruns"
    assert lasting("databricks") == "databricks"
