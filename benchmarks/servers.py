"""Real servers for load and fault tests: `mlflow server`, and PostgreSQL if its programs are installed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

_START_SECONDS = 240


def free_port() -> int:
    """Return an unused port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return an environment for our commands without the user's stores, spool and lock."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "COMPRESS_"))}
    return {
        **inherited,
        "XDG_CACHE_HOME": str(folder / "cache"),
        "COMPRESS_SPOOL": str(folder / "spool"),
        "COMPRESS_LOCK": str(folder / "lock"),
        "HF_HUB_OFFLINE": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        **more,
    }


class TrackingServer:
    """A real `mlflow server`, which can be killed and restarted at the same address.

    Args:
        folder: folder for its artifacts and its log.
        database: its backend store.
        workers: number of server processes.
        options: additional options.
        variables: additional environment variables.
    """

    def __init__(
        self, folder: Path, database: str, workers: int = 1, options: Sequence[str] = (), **variables: str
    ) -> None:
        self._folder, self._workers = folder, workers
        self._options, self._variables = options, variables
        self.database = database
        self._port = free_port()
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "mlflow", "server", "--port", str(self._port)),
                    *("--workers", str(self._workers), "--backend-store-uri", self.database),
                    *("--artifacts-destination", str(self._folder / "artifacts")),
                    *self._options,
                ],
                cwd=self._folder,
                env=environment(self._folder, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false", **self._variables),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        for _ in range(_START_SECONDS * 10):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.uri}/health", timeout=1).close()  # noqa: S310  (our own address)
                return
            assert self._process.poll() is None, (self._folder / "log").read_text()
            time.sleep(0.1)
        raise TimeoutError((self._folder / "log").read_text())

    @property
    def group(self) -> int:
        """Return the process group of all its processes."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """Kill it, like a power cut."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


def postgres_folder() -> Path | None:
    """Return the folder with PostgreSQL's programs; None if it is not installed."""
    program = shutil.which("pg_ctl")
    folders = [Path(program).parent] if program else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").is_file()), None)


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """Start PostgreSQL in its own folder, and yield the URI of its server, without `/name`."""
    programs = postgres_folder()
    assert programs is not None, "PostgreSQL is not installed"
    with tempfile.TemporaryDirectory(prefix="postgres-") as name:
        folder, port = Path(name), free_port()
        prefix: list[str] = []
        if os.geteuid() == 0:  # it does not run as root
            shutil.chown(folder, "postgres")
            prefix = ["runuser", "-u", "postgres", "--"]
        data, log = str(folder / "data"), str(folder / "log")
        run_settings = {"stdout": subprocess.DEVNULL, "check": True, "cwd": "/"}
        subprocess.run(
            [*prefix, programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-N"],
            **run_settings,  # type: ignore[call-overload]
        )
        options = f"-p {port} -h 127.0.0.1 -k {folder} -c max_connections=200 -c fsync=off"
        subprocess.run(
            [*prefix, programs / "pg_ctl", "-D", data, "-l", log, "-o", options, "-w", "start"], **run_settings
        )  # type: ignore[call-overload]
        try:
            yield f"postgresql+psycopg://postgres@127.0.0.1:{port}"
        finally:
            subprocess.run([*prefix, programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"], **run_settings)  # type: ignore[call-overload]


def make_database(server: str, name: str) -> str:
    """Create a database on a PostgreSQL server, and return its URI."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(f"{server}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f'CREATE DATABASE "{name}"'))
    engine.dispose()
    return f"{server}/{name}"
