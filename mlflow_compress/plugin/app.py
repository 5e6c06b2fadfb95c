"""`mlflow server --app-name compress`: MLflow's own server, with the comparison of its runs at `/compress` beside it.

All our routes only read, and are GET. MLflow takes one app only: its `basic-auth` comes with ours where
`COMPRESS_AUTH=basic-auth` or `MLFLOW_AUTH_CONFIG_PATH` is set. What a reader may see, `reader` asks of MLflow itself.
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
        RecipeError: `COMPRESS_AUTH` names no app that ours is composed with.
    """
    from mlflow_compress.tracking import private_mlflow

    has_auth = _has_auth()
    app = private_mlflow.flask_app()
    views = {_here(): _show, f"{_here()}/runs.json": _give, f"{_here()}/page.css": _style}
    for path, view in views.items():
        app.add_url_rule(path, f"compress{view.__name__}", _told(view), methods=["GET"])
    # Ours decide for each experiment, see `reader`.
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
    """Show the comparison of `?experiment=NAME`, which may be given again; without it, the experiments there are."""
    from flask import Response

    from mlflow_compress.plugin import pages, reader
    from mlflow_compress.records import Selection
    from mlflow_compress.tracking.query import with_its_end

    known = reader.experiments()
    chosen = _chosen(known)
    site = _site()
    with _store() as store:
        if chosen:
            content = pages.page(map(with_its_end, _runs(store, chosen, Selection())), chosen, site)
        else:
            content = pages.index(known, _visible(store, known), site, reader.workspaces())
    return Response(content, mimetype="text/html", headers={"Content-Security-Policy": pages.policy(content)})


def _give() -> Response:
    """Return the variants of `?experiment=NAME` or `?experiment_id=ID` as JSON; `team`, `model` ... filter them."""
    from flask import Response, request

    from mlflow_compress.plugin import pages, reader
    from mlflow_compress.records import Selection
    from mlflow_compress.tracking.query import without_collecting

    asked = request.args
    since = asked.get("since_ms", "0")
    selection = Selection(
        teams=tuple(asked.getlist("team")),
        models=tuple(asked.getlist("model")),
        methods=tuple(asked.getlist("method")),
        device=asked.get("device", ""),
        since_ms=int(since) if since.isascii() and since.isdigit() and len(since) < 16 else 0,
    )
    chosen = _chosen(reader.experiments())
    with _store() as store, without_collecting():
        return Response(pages.as_json(_runs(store, chosen, selection), chosen), mimetype="application/json")


def _style() -> Response:
    """Return the style of the list of experiments."""
    from flask import Response

    return Response(files("mlflow_compress.renderers").joinpath("page", "page.css").read_bytes(), mimetype="text/css")


def _site() -> Site:
    """Return where the page that is asked for stands, and in which language and workspace."""
    from flask import request

    from mlflow_compress.plugin import reader
    from mlflow_compress.plugin.pages import Site

    language = request.args.get("lang", "en")
    language = language if language in _LANGUAGES else "en"
    root = request.url_root.rstrip("/") + _here().removesuffix("compress")
    return Site(language, _here(), root, reader.workspace())


@contextlib.contextmanager
def _store() -> Iterator[Opened]:
    """Open the store that is served, in the reader's workspace, after MLflow has let them have that."""
    from mlflow_compress.plugin import reader
    from mlflow_compress.tracking import private_mlflow
    from mlflow_compress.tracking.query import opened

    with (
        private_mlflow.in_workspace(reader.workspace()),
        opened(private_mlflow.served_store(), by_ids=True) as store,
    ):
        yield store


def _chosen(known: Mapping[str, str]) -> dict[str, str]:
    """Return the experiments that the request names: names by ids.

    Args:
        known: names by ids of those that the reader may see.

    Raises:
        UnknownExperiment: there is none of such a name or id among them.
    """
    from flask import request

    from mlflow_compress.tracking.query import UnknownExperiment

    ids = {name: number for number, name in known.items()}
    asked = [(name, ids.get(name, "")) for name in request.args.getlist("experiment")]
    asked += [(number, number if number in known else "") for number in request.args.getlist("experiment_id")]
    for name, number in asked:
        if not number:
            raise UnknownExperiment(name, list(ids), request.host_url)
    return {number: known[number] for _, number in asked}


def _runs(store: Opened, experiments: Mapping[str, str], selection: Selection) -> list[Run]:
    """Read the variants of experiments that the reader gets; others look as if there were none."""
    shown = _visible(store, experiments) if _has_auth() else experiments
    ids = {number: name for number, name in experiments.items() if number in shown}
    return store.runs(ids, selection) if ids else []


def _visible(store: Opened, ids: Collection[str]) -> dict[str, Variants]:
    """Return how many variants experiments of these ids have, by id, less those that the reader gets none of."""
    from mlflow_compress.plugin import reader

    counts = store.counts(ids)
    if not _has_auth():
        return counts
    seen = reader.visible({number: variants.run_id for number, variants in counts.items()})
    return {number: variants for number, variants in counts.items() if number in seen}
