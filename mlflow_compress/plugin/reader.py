"""What a reader may see: MLflow's own routes answer this, for the headers of the reader's request.

So MLflow's rules apply: authentication, permissions, workspaces, and the check of the host. Each request asks again,
and no answer is stored.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlflow_compress.tracking import private_mlflow

if TYPE_CHECKING:
    from flask import Response

_SEARCH_EXPERIMENTS, _SEARCH_RUNS = "/api/2.0/mlflow/experiments/search", "/api/2.0/mlflow/runs/search"
_WORKSPACES = "/api/3.0/mlflow/workspaces"
_MOST = 1000  # experiments in one request
_LEFT_OUT = ("content-", "transfer-", "origin", "referer", "if-", "range", "accept-encoding")


class Refused(Exception):  # noqa: N818  (not an error: a response)
    """MLflow refuses the reader.

    Attributes:
        response: MLflow's response.
    """

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


def workspace() -> str:
    """Return the workspace of the request, by MLflow's header or `?workspace=`; else the one MLflow chose."""
    from flask import request

    if not private_mlflow.has_workspaces():
        return ""
    workspace_name = request.headers.get(private_mlflow.WORKSPACE_HEADER, "") or request.args.get("workspace", "")
    return workspace_name.strip() or private_mlflow.request_workspace()


def workspaces() -> list[str]:
    """Return the names of the workspaces that the reader may enter; empty where the server has no workspaces.

    Raises:
        Refused: MLflow refuses the reader.
    """
    if not private_mlflow.has_workspaces():
        return []
    return [workspace["name"] for workspace in _ask("GET", _WORKSPACES).get("workspaces", [])]


def experiments() -> dict[str, str]:
    """Return the experiments of the workspace that the reader may see: names by ids.

    Raises:
        Refused: MLflow refuses the reader.
    """
    names: dict[str, str] = {}
    token = ""
    while True:
        query = {"max_results": _MOST, **({"page_token": token} if token else {})}
        answer = _ask("POST", _SEARCH_EXPERIMENTS, query)
        names |= {str(experiment["experiment_id"]): experiment["name"] for experiment in answer.get("experiments", [])}
        token = answer.get("next_page_token", "")
        if not token:
            return names


def visible(samples: Mapping[str, str]) -> set[str]:
    """Return the ids of the experiments whose runs the reader may see: that an experiment is visible is not enough.

    MLflow grants access to all runs of an experiment or to none: one run of each experiment represents the others.

    Args:
        samples: the id of one run of each experiment, by the experiment's id.

    Raises:
        Refused: MLflow refuses the reader.
    """
    visible_ids: set[str] = set()
    remaining = iter(samples.items())
    while part := dict(itertools.islice(remaining, _MOST)):
        names = ", ".join(f"'{run_id}'" for run_id in part.values())
        query = {"experiment_ids": list(part), "filter": f"attributes.run_id IN ({names})", "max_results": len(part)}
        visible_ids |= {str(run["info"]["experiment_id"]) for run in _ask("POST", _SEARCH_RUNS, query).get("runs", [])}
    return visible_ids


def _ask(method: str, path: str, content: Mapping[str, Any] | None = None) -> Any:
    """Ask MLflow's own route as the reader: with the request's headers, except those about its body and origin.

    Raises:
        Refused: MLflow refuses it.
    """
    from flask import Response, current_app, request
    from werkzeug.test import EnvironBuilder, run_wsgi_app

    headers = [(name, value) for name, value in request.headers if not name.lower().startswith(_LEFT_OUT)]
    if (name := workspace()) and private_mlflow.WORKSPACE_HEADER not in request.headers:
        headers.append((private_mlflow.WORKSPACE_HEADER, name))
    url = f"{private_mlflow.static_prefix()}{path}"
    builder = EnvironBuilder(url, request.host_url, method=method, headers=headers, json=content)
    environ = {**builder.get_environ(), "REMOTE_ADDR": request.remote_addr or ""}
    if private_mlflow.CHECKED in request.environ:
        environ[private_mlflow.CHECKED] = request.environ[private_mlflow.CHECKED]
    app = current_app.wsgi_app
    body, status, answered = private_mlflow.without_workspace(lambda: run_wsgi_app(app, environ, buffered=True))
    text = b"".join(body)
    if not status.startswith("200"):
        kept_headers = {name: answered[name] for name in ("WWW-Authenticate", "Location") if name in answered}
        raise Refused(Response(text, status, headers=kept_headers, mimetype=answered.get("Content-Type", "text/plain")))
    return json.loads(text)
