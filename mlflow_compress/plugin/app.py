"""`mlflow server --app-name compress`: MLflow's own server, with the comparison of its runs at `/compress` beside it.

All our routes only read, and are GET. MLflow takes one app only: its `basic-auth` comes with ours where
`COMPRESS_AUTH=basic-auth` or `MLFLOW_AUTH_CONFIG_PATH` is set. What a reader may see is asked of MLflow itself, with
the reader's own request, so that its rules hold here: authentication, permissions, workspaces, the check of the host.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flask import Response

_AUTH, _BASIC = "COMPRESS_AUTH", "basic-auth"
_CONFIG = "MLFLOW_AUTH_CONFIG_PATH"
_API = "/api/2.0/mlflow"
_PAGE = 1000
_LANGUAGES = ("en", "ru")


def create_app() -> Any:
    """Return MLflow's app with our routes: FastAPI's under uvicorn, else Flask's.

    Raises:
        RecipeError: `COMPRESS_AUTH` names no app that ours is composed with.
    """
    from mlflow_compress.tracking import private_mlflow

    has_auth = _has_auth()
    app = private_mlflow.flask_app()
    views = {_here(): _show, f"{_here()}/runs.json": _give, f"{_here()}/page.css": _style}
    for path, view in views.items():
        app.add_url_rule(path, f"compress{view.__name__}", _told(view), methods=["GET"])
    # Ours decide for each experiment, see `_readable`.
    return private_mlflow.finished_app(app, has_auth, vouched=views)


def _has_auth() -> bool:
    from mlflow_compress.errors import RecipeError

    asked = os.environ.get(_AUTH, "")
    if asked not in ("", _BASIC):
        raise RecipeError(
            f"{_AUTH}={asked!r} names no app of MLflow's that goes with this one: say {_BASIC}, or nothing."
        )
    return bool(asked or os.environ.get(_CONFIG))


def _here() -> str:
    from mlflow_compress.tracking import private_mlflow

    return private_mlflow.static_prefix() + "/compress"


def _told(view: Callable[[], Response]) -> Callable[[], Response]:
    """Answer an error of ours with its text, and have browsers keep and guess nothing."""

    @functools.wraps(view)
    def answer() -> Response:
        from flask import Response

        from mlflow_compress.errors import CompressError, StoreError

        try:
            response = view()
        except _Refused as refused:
            response = refused.response
        except CompressError as error:
            status = 404 if type(error) is not StoreError else 503
            response = Response(f"{error}\n", status, mimetype="text/plain")
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers.setdefault("X-Frame-Options", "SAMEORIGIN")
        response.headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'self'")
        return response

    return answer


def _show() -> Response:
    """Show the comparison of `?experiment=NAME`, which may be given again; without it, the experiments there are."""
    from flask import Response, request

    from mlflow_compress.plugin import pages
    from mlflow_compress.records import Selection
    from mlflow_compress.tracking import private_mlflow
    from mlflow_compress.tracking.query import opened

    language = request.args.get("lang", "en")
    language = language if language in _LANGUAGES else "en"
    with opened(private_mlflow.served_store()) as store:
        if chosen := _chosen():
            root = request.url_root.rstrip("/") + _here().removesuffix("compress")
            runs = store.runs(chosen, Selection())
            content = pages.page(runs, chosen, language, _here(), root)
        else:
            content = pages.index(_readable(), store.counts(), language, _here())
    return Response(content, mimetype="text/html", headers={"Content-Security-Policy": pages.policy(content)})


def _give() -> Response:
    """Return the variants of `?experiment=NAME` or `?experiment_id=ID` as JSON; `team`, `model` ... filter them."""
    from flask import Response, request

    from mlflow_compress.plugin import pages
    from mlflow_compress.records import Selection
    from mlflow_compress.tracking import private_mlflow
    from mlflow_compress.tracking.query import opened, without_collecting

    asked = request.args
    since = asked.get("since_ms", "0")
    selection = Selection(
        teams=tuple(asked.getlist("team")),
        models=tuple(asked.getlist("model")),
        methods=tuple(asked.getlist("method")),
        device=asked.get("device", ""),
        since_ms=int(since) if since.isascii() and since.isdigit() and len(since) < 16 else 0,
    )
    chosen = _chosen()
    with opened(private_mlflow.served_store()) as store, without_collecting():
        runs = store.runs(chosen, selection) if chosen else []
        return Response(pages.as_json(runs, chosen), mimetype="application/json")


def _style() -> Response:
    """Return the style of the list of experiments."""
    from flask import Response

    return Response(files("mlflow_compress.renderers").joinpath("page", "page.css").read_bytes(), mimetype="text/css")


def _chosen() -> dict[str, str]:
    """Return the experiments that the request names: names by ids.

    Raises:
        UnknownExperiment: there is none of such a name or id that the reader may see.
    """
    from flask import request

    from mlflow_compress.tracking.query import UnknownExperiment

    known = _readable()
    ids = {name: number for number, name in known.items()}
    asked = [(name, ids.get(name, "")) for name in request.args.getlist("experiment")]
    asked += [(number, number if number in known else "") for number in request.args.getlist("experiment_id")]
    for name, number in asked:
        if not number or not _shows_runs(number):
            raise UnknownExperiment(name, list(ids), request.host_url)
    return {number: known[number] for _, number in asked}


def _readable() -> dict[str, str]:
    """Return the experiments that the reader may see, as MLflow's own search says: names by ids."""
    found: dict[str, str] = {}
    token = ""
    while True:
        asked = {"max_results": _PAGE, **({"page_token": token} if token else {})}
        answer = _asked("POST", "experiments/search", asked)
        found |= {str(each["experiment_id"]): each["name"] for each in answer.get("experiments", [])}
        token = answer.get("next_page_token", "")
        if not token:
            return found


def _shows_runs(experiment_id: str) -> bool:
    """Return whether MLflow's own search gives the reader a run of an experiment: its runs may be kept from them."""
    if not _has_auth():
        return True
    where = {"filter": "tags.`compress.role` = 'variant'"}
    answer = _asked("POST", "runs/search", {"experiment_ids": [experiment_id], "max_results": 1, **where})
    return bool(answer.get("runs"))


class _Refused(Exception):  # noqa: N818  (no error: an answer)
    """MLflow refuses the reader."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


def _asked(method: str, path: str, content: Mapping[str, Any]) -> Any:
    """Ask MLflow's own route as the reader: with the headers of the request, less what describes its body and origin.

    Raises:
        _Refused: MLflow refuses it.
    """
    from flask import Response, current_app, request
    from werkzeug.test import EnvironBuilder, run_wsgi_app

    from mlflow_compress.tracking import private_mlflow

    left_out = ("content-", "transfer-", "origin", "referer", "if-", "range", "accept-encoding")
    headers = [(name, value) for name, value in request.headers if not name.lower().startswith(left_out)]
    url = f"{private_mlflow.static_prefix()}{_API}/{path}"
    builder = EnvironBuilder(url, request.host_url, method=method, headers=headers, json=dict(content))
    environ = {**builder.get_environ(), "REMOTE_ADDR": request.remote_addr or ""}
    body, status, answered = run_wsgi_app(current_app.wsgi_app, environ, buffered=True)
    text = b"".join(body)
    if not status.startswith("200"):
        kept = {name: answered[name] for name in ("WWW-Authenticate", "Location") if name in answered}
        raise _Refused(Response(text, status, headers=kept, mimetype=answered.get("Content-Type", "text/plain")))
    return json.loads(text)
