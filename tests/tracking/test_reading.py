"""Runs are read through MLflow's client, and from a server's own page of runs."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from mlflow import MlflowClient

from mlflow_compress.records import Run
from mlflow_compress.tracking import reading, writing
from mlflow_compress.tracking.connection import Store
from mlflow_compress.tracking.query import find

from .filled_stores import EVERYTHING


def query(store: Store, names: list[str], where: str = "") -> list[Run]:
    ids = reading.experiments(store)
    return reading.runs(store, {ids[name]: name for name in names}, where)


def test_newest_first_and_filtered(store: Store) -> None:
    experiment = writing.experiment_id(store, "order")
    ids = [
        writing.start(store, experiment, str(start_ms), {"compress.role": role}, start_ms=start_ms)
        for start_ms, role in [(2, "variant"), (3, "sweep"), (1, "variant")]
    ]
    assert [run.run_id for run in query(store, ["order"])] == [ids[1], ids[0], ids[2]]
    variants = query(store, ["order"], "tags.`compress.role` = 'variant'")
    assert [run.run_id for run in variants] == [ids[0], ids[2]]


def test_several_experiments(store: Store) -> None:
    for name in ("one", "two"):
        writing.start(store, writing.experiment_id(store, name), "run", {})
    assert {run.experiment for run in query(store, ["one", "two"])} == {"one", "two"}


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (404, b"{}"),
        (200, b"<!doctype html>"),
        (200, b'{"runs": []}'),
        (200, b'{"compress_runs": 1, "runs": []}'),  # an earlier version, without the tags that are hidden today
        (200, b'{"compress_runs": 2}'),
        (401, b""),
        (200, b"[]"),
    ],
)
def test_a_server_without_our_page(status: int, content: bytes) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}"
        assert reading.served(Store(MlflowClient(uri), uri), {"1": "hw1"}, {}) is None
        server.shutdown()


def test_pages_make_one_answer(filled: str, server_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlflow_compress.tracking.reading._PAGE", 2)
    monkeypatch.setattr("mlflow_compress.tracking.reading._EXPERIMENTS_PER_PAGE", 1)
    for uri in (filled, server_uri):
        assert [run.started_ms for run in find(["query *"], EVERYTHING, [uri], directly=False).runs] == [
            6000, 5000, 4000, 3000, 2000, 1000,
        ]  # fmt: skip
