"""`mlflow server --app-name compress`: MLflow's own server, plus the comparison of its runs at `/compress`.

All our routes are GET and read-only. MLflow accepts only one app, so ours includes its `basic-auth` where
`COMPRESS_AUTH=basic-auth` or `MLFLOW_AUTH_CONFIG_PATH` is set. `reader` asks MLflow itself what a reader may see.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flask import Response

    from mlflow_compress.plugin.pages import Site
    from mlflow_compress.records import Run, Selection
    from mlflow_compress.tracking.database import Variants
    from mlflow_compress.tracking.query import Opened

_AUTH, _BASIC = "COMPRESS_AUTH", "basic-auth"
_CONFIG = "MLFLOW_AUTH_CONFIG_PATH"
_LANGUAGES = ("en", "ru")


def create_app() -> Any:
    """Return MLflow's app with our routes: FastAPI's under uvicorn, else Flask's.

    Raises:
        RecipeError: `COMPRESS_AUTH` names an app that ours can't include.
    """
    from mlflow_compress.tracking import private_mlflow

    has_auth = _has_auth()
    app = private_mlflow.flask_app()
    views = {_path(): _show, f"{_path()}/runs.json": _send_runs, f"{_path()}/page.css": _send_style}
    for path, view in views.items():
        app.add_url_rule(path, f"compress{view.__name__}", _with_error_texts(view), methods=["GET"])
    # Our routes check each experiment themselves, see `reader`.
    return private_mlflow.finished_app(app, has_auth, vouched=views)


def _has_auth() -> bool:
    from mlflow_compress.errors import RecipeError

    auth_app = os.environ.get(_AUTH, "")
    if auth_app not in ("", _BASIC):
        raise RecipeError(
            f"{_AUTH}={auth_app!r} is not an MLflow app that can run together with this one. Set {_BASIC}, or unset it."
        )
    return bool(auth_app or os.environ.get(_CONFIG))


def _path() -> str:
    from mlflow_compress.tracking import private_mlflow

    return private_mlflow.static_prefix() + "/compress"


def _with_error_texts(view: Callable[[], Response]) -> Callable[[], Response]:
    """Wrap a view: answer our errors with their text, and forbid browsers to cache or guess content types."""

    @functools.wraps(view)
    def answer() -> Response:
        from flask import Response

        from mlflow_compress.errors import CompressError, StoreError
        from mlflow_compress.plugin.reader import Refused

        try:
            response = view()
        except Refused as refused:
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
    """Show the comparison of `?experiment=NAME`, which may be repeated; without it, the list of experiments."""
    from flask import Response

    from mlflow_compress.plugin import pages, reader
    from mlflow_compress.records import Selection
    from mlflow_compress.tracking.query import with_its_end

    names = reader.experiments()
    experiments = _chosen(names)
    site = _site()
    with _store() as store:
        if experiments:
            content = pages.page(map(with_its_end, _runs(store, experiments, Selection())), experiments, site)
        else:
            content = pages.index(names, _visible(store, names), site, reader.workspaces())
    return Response(content, mimetype="text/html", headers={"Content-Security-Policy": pages.policy(content)})


def _send_runs() -> Response:
    """Return the variants of `?experiment=NAME` or `?experiment_id=ID` as JSON, filtered by `team`, `model`, ..."""
    from flask import Response, request

    from mlflow_compress.plugin import pages, reader
    from mlflow_compress.records import Selection
    from mlflow_compress.tracking.query import without_collecting

    params = request.args
    since = params.get("since_ms", "0")
    selection = Selection(
        teams=tuple(params.getlist("team")),
        models=tuple(params.getlist("model")),
        methods=tuple(params.getlist("method")),
        device=params.get("device", ""),
        since_ms=int(since) if since.isascii() and since.isdigit() and len(since) < 16 else 0,
    )
    experiments = _chosen(reader.experiments())
    with _store() as store, without_collecting():
        return Response(pages.as_json(_runs(store, experiments, selection), experiments), mimetype="application/json")


def _send_style() -> Response:
    """Return the stylesheet of the list of experiments."""
    from flask import Response

    return Response(files("mlflow_compress.renderers").joinpath("page", "page.css").read_bytes(), mimetype="text/css")


def _site() -> Site:
    """Return the site of the request: its address, language and workspace."""
    from flask import request

    from mlflow_compress.plugin import reader
    from mlflow_compress.plugin.pages import Site

    language = request.args.get("lang", "en")
    language = language if language in _LANGUAGES else "en"
    root = request.url_root.rstrip("/") + _path().removesuffix("compress")
    return Site(language, _path(), root, reader.workspace())


@contextlib.contextmanager
def _store() -> Iterator[Opened]:
    """Open the served store in the reader's workspace, after MLflow has granted access to it."""
    from mlflow_compress.plugin import reader
    from mlflow_compress.tracking import private_mlflow
    from mlflow_compress.tracking.query import opened

    with (
        private_mlflow.in_workspace(reader.workspace()),
        opened(private_mlflow.served_store(), by_ids=True) as store,
    ):
        yield store


def _chosen(names: Mapping[str, str]) -> dict[str, str]:
    """Return the experiments in the request: names by ids.

    Args:
        names: names by ids of the experiments that the reader may see.

    Raises:
        UnknownExperiment: no such experiment has that name or id.
    """
    from flask import request

    from mlflow_compress.tracking.query import UnknownExperiment

    ids = {name: number for number, name in names.items()}
    requested = [(name, ids.get(name, "")) for name in request.args.getlist("experiment")]
    requested += [(number, number if number in names else "") for number in request.args.getlist("experiment_id")]
    for name, number in requested:
        if not number:
            raise UnknownExperiment(name, list(ids), request.host_url)
    return {number: names[number] for _, number in requested}


def _runs(store: Opened, experiments: Mapping[str, str], selection: Selection) -> list[Run]:
    """Return the variants of experiments that the reader may see; other experiments look empty."""
    visible = _visible(store, experiments) if _has_auth() else experiments
    ids = {number: name for number, name in experiments.items() if number in visible}
    return store.runs(ids, selection) if ids else []


def _visible(store: Opened, ids: Collection[str]) -> dict[str, Variants]:
    """Return the number of variants by experiment id, without experiments whose runs the reader may not see."""
    from mlflow_compress.plugin import reader

    counts = store.counts(ids)
    if not _has_auth():
        return counts
    visible_ids = reader.visible({number: variants.run_id for number, variants in counts.items()})
    return {number: variants for number, variants in counts.items() if number in visible_ids}
