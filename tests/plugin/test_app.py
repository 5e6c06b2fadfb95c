"""The comparison next to MLflow's UI: real servers, with and without authentication."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import sqlite3
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric

from benchmarks.servers import TrackingServer
from mlflow_compress.errors import RecipeError
from mlflow_compress.plugin.app import create_app
from mlflow_compress.records import Selection
from mlflow_compress.tracking import reading, writing
from mlflow_compress.tracking.connection import open_store
from mlflow_compress.tracking.query import find

HOSTILE = 'a/b "<script>alert(1)</script>" ?x=1&y #.. Ё'
SECRET, OPEN = "for nobody", "for all"
OTHER = "team-b"  # a workspace
PASSWORD = "correct horse battery"
AUTH = """[mlflow]
default_permission = NO_PERMISSIONS
database_uri = sqlite:///{folder}/auth.db
admin_username = admin
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    text: str


def ask(uri: str, path: str, user: str = "", method: str = "GET", **headers: str) -> Answer:
    if user:
        headers["Authorization"] = credentials(user)
    request = urllib.request.Request(uri + path, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return Answer(
                response.status,
                {name.lower(): value for name, value in response.headers.items()},
                response.read().decode(),
            )
    except urllib.error.HTTPError as error:
        return Answer(error.code, {name.lower(): value for name, value in error.headers.items()}, error.read().decode())


def send(uri: str, path: str, content: Mapping[str, str], user: str = "") -> None:
    """Post JSON, and check that the server accepts it."""
    request = urllib.request.Request(uri + path, json.dumps(content).encode(), {"Content-Type": "application/json"})
    if user:
        request.add_header("Authorization", credentials(user))
    urllib.request.urlopen(request, timeout=60).close()


def credentials(user: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{PASSWORD}".encode()).decode()


def page(*names: str, route: str = "/compress") -> str:
    return f"{route}?{urllib.parse.urlencode([('experiment', name) for name in names])}"


@pytest.fixture(scope="module")
def database(tracking_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return a store with some experiments: two with our runs, one with foreign runs only."""
    folder = tmp_path_factory.mktemp("app")
    shutil.copy(tracking_uri.removeprefix("sqlite:///"), folder / "mlflow.db")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        store = open_store(uri)
        for name in (SECRET, OPEN, HOSTILE):
            for method in ("original", "fp16"):
                tags = {"team": "alpha", "model": "yolo", "method": method, "status": "ok"}
                tags |= {"compress.role": "variant", "compress.outcome.cpu": "ok", "compress.env.cpu_model": "Xeon"}
                run_id = writing.start(store, writing.experiment_id(store, name), f"yolo {method}", tags)
                MlflowClient(uri).log_batch(run_id, [Metric("cpu/latency_p50_ms", 1.5, 1, 0)])
                writing.end(store, run_id, succeeded=True)
        writing.start(store, writing.experiment_id(store, "not ours"), "foreign", {})
    yield uri
    mlflow.set_tracking_uri("")


@pytest.fixture(scope="module")
def guarded(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve it with passwords; `ann` may read one experiment, `dan` too, but no runs."""
    server = guarding(tmp_path_factory.mktemp("guarded"), database)
    from mlflow.server.auth.client import AuthServiceClient

    server.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        patch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
        users = AuthServiceClient(server.uri)
        users.create_user("ann", PASSWORD)
        users.create_user("dan", PASSWORD)
        ids = reading.experiments(open_store(database))
        for name in ("ann", "dan"):
            users.grant_user_permission(name, "experiment", ids[OPEN], "READ")
        users.grant_user_permission("dan", "experiment", ids["not ours"], "READ")
        no_runs = users.create_role("default", "no runs").id
        users.add_role_permission(no_runs, "run", "*", "DENY")
        users.assign_role("dan", no_runs)
    yield server.uri
    server.kill()


@pytest.fixture(scope="module")
def flask(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve a copy of it by gunicorn, with MLflow's own workspace and another one."""
    pytest.importorskip("gunicorn")
    folder = tmp_path_factory.mktemp("flask")
    server = TrackingServer(
        folder,
        copied(database, folder),
        options=("--app-name", "compress", "--gunicorn-opts", "--timeout 120", "--enable-workspaces"),
    )
    server.start()
    send(server.uri, "/api/3.0/mlflow/workspaces", {"name": OTHER})
    yield server.uri
    server.kill()


@pytest.fixture(scope="module")
def divided(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve a copy with passwords and two workspaces: `SECRET` is in the other one, also under the name `OPEN`.

    `ann` may read `OPEN` of the default workspace, `bob` all experiments of the other.
    """
    folder = tmp_path_factory.mktemp("divided")
    uri = copied(database, folder)
    server = guarding(folder, uri, "--enable-workspaces")
    server.start()
    send(server.uri, "/api/3.0/mlflow/workspaces", {"name": OTHER}, user="admin")
    with contextlib.closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as tables:
        tables.execute("UPDATE experiments SET workspace = ?, name = ? WHERE name = ?", (OTHER, OPEN, SECRET))
        tables.commit()
        query = "SELECT experiment_id FROM experiments WHERE name = ? AND workspace = 'default'"
        ((number,),) = tables.execute(query, (OPEN,)).fetchall()
    from mlflow.server.auth.client import AuthServiceClient

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        patch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
        users = AuthServiceClient(server.uri)
        for name, workspace, pattern in (("ann", "default", str(number)), ("bob", OTHER, "*")):
            users.create_user(name, PASSWORD)
            role = users.create_role(workspace, f"role of {name}").id
            users.add_role_permission(role, "experiment", pattern, "READ")
            users.assign_role(name, role)
    yield server.uri
    server.kill()


def guarding(folder: Path, uri: str, *options: str) -> TrackingServer:
    """Serve it with passwords; nobody but `admin` may read anything yet."""
    (folder / "auth.ini").write_text(AUTH.format(folder=folder))
    return TrackingServer(
        folder,
        uri,
        options=("--app-name", "compress", *options),
        MLFLOW_AUTH_CONFIG_PATH=str(folder / "auth.ini"),
        MLFLOW_AUTH_ADMIN_PASSWORD=PASSWORD,
        MLFLOW_FLASK_SERVER_SECRET_KEY="a key",
    )


def copied(uri: str, folder: Path) -> str:
    shutil.copy(uri.removeprefix("sqlite:///"), folder / "mlflow.db")
    return f"sqlite:///{folder / 'mlflow.db'}"


def test_nobody_sees_anything_without_a_password(guarded: str) -> None:
    for path in ("/compress", page(OPEN), page(OPEN, route="/compress/runs.json"), "/compress/page.css"):
        answer = ask(guarded, path)
        assert answer.status == 401, path
        assert answer.headers["www-authenticate"].startswith("Basic")
        assert OPEN not in answer.text
    assert ask(guarded, "/compress", user="mallory").status == 401


def test_a_reader_sees_what_mlflow_lets_them_see(guarded: str) -> None:
    answer = ask(guarded, "/compress", user="ann")
    assert answer.status == 200
    assert OPEN in answer.text
    assert SECRET not in answer.text
    assert ask(guarded, page(OPEN), user="ann").status == 200
    assert len(json.loads(ask(guarded, page(OPEN, route="/compress/runs.json"), user="ann").text)["runs"]) == 2


@pytest.mark.parametrize("route", ["/compress", "/compress/runs.json"])
def test_what_may_not_be_read_looks_like_what_is_not_there(guarded: str, database: str, route: str) -> None:
    (refused, missing) = (ask(guarded, page(name, route=route), user="ann") for name in (SECRET, "f?r nobody"))
    number = reading.experiments(open_store(database))[SECRET]
    by_id = ask(guarded, f"{route}?experiment_id={number}", user="ann")
    both_answers = ask(guarded, page(OPEN, SECRET, route=route), user="ann")
    pattern = ask(guarded, page("*", route=route), user="ann")
    assert {answer.status for answer in (refused, missing, by_id, both_answers, pattern)} == {404}
    assert refused.text.replace(SECRET, "") == missing.text.replace("f?r nobody", "")
    for answer in (missing, by_id, pattern):
        assert SECRET not in answer.text


def test_who_may_read_an_experiment_but_no_runs_sees_neither_how_many_nor_when(guarded: str) -> None:
    answer = ask(guarded, "/compress", user="dan")
    assert answer.status == 200
    assert OPEN not in answer.text
    assert 'class="number"' not in answer.text
    assert json.loads(ask(guarded, page(OPEN, route="/compress/runs.json"), user="dan").text)["runs"] == []
    assert '"rows":[]' in ask(guarded, page(OPEN), user="dan").text.replace(" ", "")


def test_no_name_is_suggested_for_itself_or_for_what_may_not_be_read(guarded: str) -> None:
    text = ask(guarded, page("for nobudy"), user="ann").text
    assert SECRET not in text
    for user in ("ann", "dan"):
        answer = ask(guarded, page("for a11"), user=user).text
        assert f"Did you mean {OPEN!r}" in answer
    for name in (OPEN, SECRET):
        assert f"mean {name!r}" not in ask(guarded, page(name), user="dan").text


def test_a_workspace_is_the_one_that_the_request_names(divided: str) -> None:
    runs = page(OPEN, route="/compress/runs.json")
    own_ids = {run["run_id"] for run in json.loads(ask(divided, runs, user="admin").text)["runs"]}
    by_header = ask(divided, runs, user="admin", **{"X-MLFLOW-WORKSPACE": OTHER})
    by_address = ask(divided, f"{runs}&workspace={OTHER}", user="admin")
    both_answers = ask(divided, f"{runs}&workspace=default", user="admin", **{"X-MLFLOW-WORKSPACE": OTHER})
    assert by_header.text == by_address.text == both_answers.text
    other_ids = {run["run_id"] for run in json.loads(by_header.text)["runs"]}
    assert len(own_ids) == len(other_ids) == 2
    assert not own_ids & other_ids
    assert ask(divided, "/compress?workspace=nobodys", user="admin").status == 404
    assert ask(divided, "/compress?workspace=../x", user="admin").status == 400


def test_the_list_and_the_pages_of_a_workspace_lead_to_each_other(divided: str) -> None:
    text = ask(divided, f"/compress?workspace={OTHER}", user="admin").text
    assert f"/compress?experiment=for+all&amp;lang=en&amp;workspace={OTHER}" in text
    assert "/compress?lang=en&amp;workspace=default" in text
    assert HOSTILE.split()[0] not in text
    comparison = ask(divided, f"{page(OPEN)}&workspace={OTHER}", user="admin")
    assert comparison.status == 200
    assert f"?workspace={OTHER}" in comparison.text


def test_a_question_to_one_workspace_leaves_the_next_in_its_own(flask: str) -> None:
    for _ in range(2):
        assert page(OPEN) in ask(flask, "/compress").text
        empty = ask(flask, f"/compress?workspace={OTHER}")
        assert empty.status == 200
        assert OPEN not in empty.text


def test_nobody_sees_a_workspace_that_they_may_not_enter(divided: str) -> None:
    own = ask(divided, "/compress", user="ann").text
    assert page(OPEN) in own
    assert OTHER not in own
    for path in (f"{page(OPEN)}&workspace={OTHER}", f"{page(OPEN, route='/compress/runs.json')}&workspace={OTHER}"):
        assert ask(divided, path, user="ann").status == 404
        assert ask(divided, path, user="bob").status == 200
    assert ask(divided, page(OPEN), user="bob").status == 404
    assert page(OPEN) not in ask(divided, f"/compress?workspace={OTHER}", user="ann").text
    assert page(OPEN) in ask(divided, f"/compress?workspace={OTHER}", user="bob").text


def test_the_report_reads_the_workspace_of_mlflows_own_variable(divided: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "bob")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    monkeypatch.setenv("MLFLOW_WORKSPACE", OTHER)
    monkeypatch.setattr(reading, "runs", lambda *args: pytest.fail("MLflow's search was asked"))
    assert [run.experiment for run in find(["*"], Selection(), [divided]).runs] == [OPEN, OPEN]


def test_an_administrator_sees_all_of_ours(guarded: str) -> None:
    text = ask(guarded, "/compress", user="admin").text
    assert SECRET in text
    assert "not ours" not in text


def test_the_report_reads_with_the_readers_own_rights(
    guarded: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    monkeypatch.setattr(reading, "runs", lambda *args: pytest.fail("MLflow's search was asked"))
    assert {run.experiment for run in find(["*"], Selection(), [guarded]).runs} == {OPEN}


def test_the_ui_and_the_api_are_there_too(guarded: str) -> None:
    assert ask(guarded, "/health").status == 200
    assert "<html" in ask(guarded, "/", user="ann").text
    assert ask(guarded, "/api/2.0/mlflow/experiments/search?max_results=5").status == 401


@pytest.fixture(params=["uvicorn", "gunicorn"])
def server(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Return the address of each server, with its users."""
    kinds = {"uvicorn": ("guarded", "admin"), "gunicorn": ("flask", "")}
    fixture, user = kinds[request.param]
    return request.getfixturevalue(fixture), user


def test_a_hostile_name_is_text_and_leads_to_its_page(server: tuple[str, str]) -> None:
    uri, user = server
    text = ask(uri, "/compress", user=user).text
    assert "<script" not in text
    assert page(HOSTILE).replace("&", "&amp;") in text
    answer = ask(uri, page(HOSTILE), user=user)
    assert answer.status == 200
    assert "<script>alert" not in answer.text
    assert f"{uri}/#/experiments/" in answer.text


def test_a_page_says_what_browsers_may_do(server: tuple[str, str]) -> None:
    uri, user = server
    for path in (
        "/compress",
        page(OPEN),
        page(OPEN, route="/compress/runs.json"),
        page("nothing"),
        "/compress/page.css",
    ):
        names = ask(uri, path, user=user).headers
        assert names["x-content-type-options"] == "nosniff"
        assert names["x-frame-options"] == "SAMEORIGIN"
        assert names["cache-control"] == "no-store"
        assert names["content-security-policy"].startswith("default-src 'none'")
        assert names["content-security-policy"].endswith("frame-ancestors 'self'")


def test_another_host_is_refused_and_another_origin_gets_no_permission(server: tuple[str, str]) -> None:
    uri, user = server
    for path in ("/compress", page(OPEN), page(OPEN, route="/compress/runs.json")):
        assert ask(uri, path, user=user, Host="evil.example").status == 403
        answer = ask(uri, path, user=user, Origin="https://evil.example")
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_no_route_of_ours_takes_anything(server: tuple[str, str], method: str) -> None:
    uri, user = server
    for path in ("/compress", "/compress/runs.json", "/compress/page.css"):
        assert ask(uri, path, user=user, method=method).status == 405


@pytest.mark.parametrize(
    "query", ["since_ms=x", "since_ms=-1", "since_ms=" + "9" * 40, "device=%27;--", "team=%00", "lang=../x"]
)
def test_a_strange_question_breaks_nothing(server: tuple[str, str], query: str) -> None:
    uri, user = server
    answer = ask(uri, f"{page(OPEN, route='/compress/runs.json')}&{query}", user=user)
    assert answer.status == 200
    runs: list[Any] = json.loads(answer.text)["runs"]
    assert len(runs) == (0 if query.startswith(("device", "team")) else 2)
    assert ask(uri, f"{page(OPEN)}&{query}", user=user).status == 200


def test_another_kind_of_authentication_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESS_AUTH", "none")
    with pytest.raises(RecipeError, match="basic-auth"):
        create_app()
