"""The requests to MLflow's routes for one page: their number, user and workspace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, request

from mlflow_compress.plugin import reader
from mlflow_compress.tracking import private_mlflow

pytestmark = pytest.mark.full

Asked = list[dict[str, Any]]


@pytest.fixture
def requests() -> Asked:
    return []


@pytest.fixture
def app(requests: Asked) -> Flask:
    """Return an app with MLflow's two searches: the reader gets the runs of all experiments but the third."""
    app = Flask("mlflow")

    @app.post("/api/2.0/mlflow/experiments/search")
    def experiments() -> dict[str, Any]:
        requests.append({"path": request.path, "headers": dict(request.headers)})
        start = int(request.get_json().get("page_token", 0))
        listed = [{"experiment_id": number, "name": f"hw{number}"} for number in range(start, start + 2)]
        return {"experiments": listed, **({"next_page_token": "2"} if start == 0 else {})}

    @app.post("/api/2.0/mlflow/runs/search")
    def runs() -> dict[str, Any]:
        content = request.get_json()
        requests.append({"path": request.path, **content})
        visible = [number for number in content["experiment_ids"] if number != "3"]
        return {"runs": [{"info": {"experiment_id": number}} for number in visible]}

    return app


def answered(app: Flask, call: Callable[[], Any], **request_settings: Any) -> Any:
    """Call a function during a request, and return its result."""
    outcome: list[Any] = []

    @app.get("/compress")
    def view() -> str:
        outcome.append(call())
        return ""

    assert app.test_client().get("/compress", **request_settings).status_code == 200
    return outcome[0]


def test_all_experiments_are_asked_for_page_by_page_as_the_reader(app: Flask, requests: Asked) -> None:
    headers = {"Authorization": "Basic YW5u", "Origin": "https://evil.example", "X-Custom": "1"}
    assert answered(app, reader.experiments, headers=headers) == {"0": "hw0", "1": "hw1", "2": "hw2", "3": "hw3"}
    assert len(requests) == 2
    for call in requests:
        assert call["headers"]["Authorization"] == "Basic YW5u"
        assert call["headers"]["X-Custom"] == "1"
        assert "Origin" not in call["headers"]


def test_the_runs_of_many_experiments_are_one_question(app: Flask, requests: Asked) -> None:
    samples = {str(number): f"{number:032x}" for number in range(300)}
    assert answered(app, lambda: reader.visible(samples)) == samples.keys() - {"3"}
    (question,) = requests
    assert question["max_results"] == 300
    assert question["filter"].count("'") == 600


def test_nothing_is_asked_about_no_runs(app: Flask, requests: Asked) -> None:
    assert answered(app, lambda: reader.visible({})) == set()
    assert requests == []


@pytest.mark.parametrize("is_divided", [True, False])
def test_a_workspace_is_passed_on_where_the_server_has_some(
    app: Flask, requests: Asked, monkeypatch: pytest.MonkeyPatch, is_divided: bool
) -> None:
    monkeypatch.setattr(private_mlflow, "has_workspaces", lambda: is_divided)
    answered(app, reader.experiments, query_string={"workspace": "team-b"})
    assert [call["headers"].get("X-Mlflow-Workspace") for call in requests] == ["team-b" if is_divided else None] * 2
