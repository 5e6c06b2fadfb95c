"""Response time of our server pages compared with MLflow's own pages for the same rows, with and without basic auth.

Both sides are requested in turns, by a user who may read everything, from one server with one process. MLflow's page
counts only the requests of its UI for the rows (it also requests the user, data sets, logged models, ...):

* for the list: `experiments/search`;
* for a comparison: `experiments/get` and `runs/search` for one experiment; one `runs/search` for several.

Ours counts everything that a browser fetches: the page, and the list's style sheet, which is a separate file. The ratio
is the median over the rounds of our time divided by theirs.
"""

from __future__ import annotations

import base64
import json
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from benchmarks.children import PROGRAMS, run
from benchmarks.finding import Cell, Finding
from benchmarks.servers import TrackingServer

_MOST = 2.0
_RUNS, _EXPERIMENTS, _ROUNDS = 500, 20, 9
_API = "/ajax-api/2.0/mlflow"
_READER, _PASSWORD = "ann", "correct horse battery"
_AUTH = """[mlflow]
default_permission = READ
database_uri = sqlite:///{folder}/auth.db
admin_username = admin
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""


@dataclass(frozen=True)
class _Question:
    """One request: a path, and the content to post, if any."""

    path: str
    content: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class _Server:
    """A running server, and the user of the requests; empty: no user."""

    uri: str
    user: str

    def ask(self, question: _Question, user: str = "") -> bytes:
        """Return the answer; raise an error if the request fails."""
        content = None if question.content is None else json.dumps(question.content).encode()
        headers = {"Content-Type": "application/json"}
        if asker := user or self.user:
            credentials = base64.b64encode(f"{asker}:{_PASSWORD}".encode()).decode()
            headers["Authorization"] = f"Basic {credentials}"
        request = urllib.request.Request(self.uri + question.path, content, headers)  # noqa: S310  (our own address)
        with urllib.request.urlopen(request, timeout=300) as answer:  # noqa: S310
            return bytes(answer.read())

    def seconds(self, questions: Sequence[_Question]) -> float:
        """Return the time of the requests, one after the other."""
        started = time.perf_counter()
        for question in questions:
            self.ask(question)
        return time.perf_counter() - started


def find(quick: bool) -> Finding:
    """Fill a store, serve it with and without passwords, and request its pages."""
    runs, experiments, rounds = (40, 4, 1) if quick else (_RUNS, _EXPERIMENTS, _ROUNDS)
    rows: list[dict[str, Cell]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run([sys.executable, PROGRAMS / "filled_store.py", folder / "mlflow.db", runs, experiments], folder)
        with _served(folder, _READER) as server:
            rows += _compared(server, "basic auth", rounds)
            guarded = len(rows)
        with _served(folder, "") as server:
            rows += _compared(server, "no passwords", rounds)
    return Finding(
        name="server_pages",
        goal=f"with basic auth, each page takes at most {_MOST:g} times what MLflow's own takes for the same rows.",
        met=all(float(row["ratio"] or 0) <= _MOST for row in rows[:guarded]),
        rows=rows,
        notes=[
            f"{runs} runs in {experiments} experiments; medians of {rounds} rounds, each with both sides",
            "theirs: only the requests for the rows, one after the other; ours: everything that a browser fetches",
        ],
    )


def _compared(server: _Server, kind: str, rounds: int) -> list[dict[str, Cell]]:
    """Request each of our pages and MLflow's, in turns."""
    listed = _Question(f"{_API}/experiments/search?max_results=1000")
    experiments = json.loads(server.ask(listed))["experiments"]
    names = {item["name"]: item["experiment_id"] for item in experiments if item["name"].startswith("scale")}
    first, number = next(iter(names.items()))
    pages = {
        "the list": ([_Question("/compress"), _Question("/compress/page.css")], [listed]),
        "one experiment": (
            [_comparison([first])],
            [_Question(f"{_API}/experiments/get?experiment_id={number}"), _search([number])],
        ),
        f"all {len(names)} experiments": ([_comparison(list(names))], [_search(list(names.values()))]),
    }
    rows: list[dict[str, Cell]] = []
    for page, (ours, theirs) in pages.items():
        pairs = [_asked(server, ours, theirs, turn % 2 == 0) for turn in range(rounds + 1)]
        rows.append(_row(f"{page}, {kind}", pairs[1:]))  # the first round loads modules
    return rows


def _asked(
    server: _Server, ours: Sequence[_Question], theirs: Sequence[_Question], ours_first: bool
) -> tuple[float, float]:
    """Return the seconds of our side and of theirs, requested one after the other."""
    if ours_first:
        own_seconds = server.seconds(ours)
        return own_seconds, server.seconds(theirs)
    their_seconds = server.seconds(theirs)
    return server.seconds(ours), their_seconds


def _row(page: str, pairs: Sequence[tuple[float, float]]) -> dict[str, Cell]:
    return {
        "what": page,
        "ours s": statistics.median(ours for ours, _ in pairs),
        "MLflow's s": statistics.median(theirs for _, theirs in pairs),
        "ratio": statistics.median(ours / theirs for ours, theirs in pairs),
    }


def _comparison(names: Sequence[str]) -> _Question:
    return _Question(f"/compress?{urlencode([('experiment', name) for name in names])}")


def _search(ids: Sequence[str]) -> _Question:
    query = {"experiment_ids": list(ids), "max_results": 1000, "order_by": ["attributes.start_time DESC"]}
    return _Question(f"{_API}/runs/search", {**query, "run_view_type": "ACTIVE_ONLY"})


@contextmanager
def _served(folder: Path, user: str) -> Iterator[_Server]:
    """Serve the store, with basic auth if there is a user, who may read everything."""
    config = folder / "auth.ini"
    config.write_text(_AUTH.format(folder=folder))
    variables = {"MLFLOW_AUTH_CONFIG_PATH": str(config), "MLFLOW_AUTH_ADMIN_PASSWORD": _PASSWORD}
    variables["MLFLOW_FLASK_SERVER_SECRET_KEY"] = "a key"  # noqa: S105  (for a server that runs for minutes)
    database = f"sqlite:///{folder / 'mlflow.db'}"
    tracking = TrackingServer(folder, database, 1, ("--app-name", "compress"), **(variables if user else {}))
    tracking.start()
    try:
        server = _Server(tracking.uri, user)
        if user:
            server.ask(_Question("/api/2.0/mlflow/users/create", {"username": user, "password": _PASSWORD}), "admin")
        yield server
    finally:
        tracking.kill()
