"""What the tests of tracking share: a spool, an address, and a reset tracking URI."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.servers import TrackingServer, make_database, postgres, postgres_folder
from mlflow_compress.tracking.connection import Store, lasting
from mlflow_compress.tracking.spool import Address, Spool

NAME = "Команда 'x\" `y`"  # an experiment's name that is hostile to filters


@pytest.fixture(autouse=True)
def _no_uri_is_left_behind() -> Iterator[None]:
    yield
    if (mlflow := sys.modules.get("mlflow")) is not None:
        mlflow.set_tracking_uri("")


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture
def address(store: Store, request: pytest.FixtureRequest) -> Address:
    return Address(lasting(store.uri), f"{NAME} {request.node.name}", {"limit": "auto"}, digest="d" * 64)


@pytest.fixture(scope="session")
def filled(tracking_uri: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a store with two experiments of some variants, some of them unusual."""
    from .filled_stores import fill

    fill(tracking_uri, tmp_path_factory.mktemp("artifacts"))
    return tracking_uri


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the same store in PostgreSQL."""
    if postgres_folder() is None:
        pytest.skip("PostgreSQL is not installed")
    from .filled_stores import fill

    with postgres() as server:
        uri = make_database(server, "query")
        fill(uri, tmp_path_factory.mktemp("artifacts"))
        yield uri


@pytest.fixture(scope="session")
def server_uri(filled: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the filled store, with our app."""
    server = TrackingServer(tmp_path_factory.mktemp("served"), filled, options=("--app-name", "compress"))
    server.start()
    yield server.uri
    server.kill()
