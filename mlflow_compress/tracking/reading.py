"""Reads from a tracking store through MLflow's client: experiments, runs, and their files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlflow_compress.errors import StoreError
from mlflow_compress.records import Run
from mlflow_compress.tracking import private_mlflow, run_tags
from mlflow_compress.tracking.connection import HTTP, Store, check, quiet, refusals, without_secrets
from mlflow_compress.untrusted import MOST_BYTES, check_size

_PAGE = 50_000  # MLflow's limit: every further page queries the database again
_EXPERIMENTS_PER_PAGE = 1000
_SEARCH = "/api/2.0/mlflow/runs/search"
_SERVED, _EXPERIMENTS_PER_ADDRESS = "/compress/runs.json", 100
SERVED_LAYOUT = 2  # of the page's content: 1 lacks the tags that MLflow's UI hides
_NEWEST = ["start_time DESC"]


def experiments(store: Store) -> dict[str, str]:
    """Return the ids of all experiments that are not deleted, by name."""
    with quiet(), refusals(store.uri):
        ids: dict[str, str] = {}
        token = None
        while True:
            page = store.client.search_experiments(max_results=_EXPERIMENTS_PER_PAGE, page_token=token)
            ids |= {experiment.name: str(experiment.experiment_id) for experiment in page}
            token = page.token
            if not token:
                return ids


def experiment_name(store: Store, experiment_id: str) -> str:
    """Return the experiment's name."""
    with refusals(store.uri):
        return str(store.client.get_experiment(experiment_id).name)


def experiment_of(store: Store, run_id: str) -> str:
    """Return the id of the experiment that a run belongs to."""
    with refusals(store.uri):
        return str(store.client.get_run(run_id).info.experiment_id)


def run_name(store: Store, run_id: str) -> str:
    """Return a run's name."""
    with refusals(store.uri):
        return str(store.client.get_run(run_id).info.run_name or "")


def has_run(store: Store, run_id: str) -> bool:
    """Return whether a run exists and is not deleted."""
    try:
        with refusals(store.uri):
            return bool(store.client.get_run(run_id).info.lifecycle_stage == "active")
    except StoreError:
        check(store)
        return False


def run(store: Store, run_id: str) -> Run:
    """Return one run.

    Raises:
        StoreError: there is no run with that id.
    """
    with quiet(), refusals(store.uri):
        entity = store.client.get_run(run_id)
        return _run(store, entity, store.client.get_experiment(entity.info.experiment_id).name)


def runs(store: Store, experiments: Mapping[str, str], where: str = "") -> list[Run]:
    """Return the runs of experiments, newest first.

    Args:
        store: the tracking store.
        experiments: names by ids.
        where: a filter in MLflow's own language, with the tag names of `run_tags`.

    Raises:
        StoreError: the server can't answer, or can't read the filter.
    """
    by_id: dict[str, Run] = {}
    with quiet(), refusals(store.uri):
        filters = run_tags.filters(where)
        for part in filters:
            pages = _pages(store, list(experiments), part)
            by_id |= {run.run_id: replace(run, experiment=experiments[run.experiment]) for run in pages}
    newest_first = list(by_id.values())
    if len(filters) > 1:
        newest_first.sort(key=lambda run: -run.started_ms)
    return newest_first


def served(store: Store, experiments: Mapping[str, str], asked: Mapping[str, Sequence[str]]) -> list[Run] | None:
    """Return variants from our page on a server with our app; MLflow's search takes far longer.

    Args:
        store: the tracking store.
        experiments: names by ids.
        asked: the page's parameters: `team`, `model`, `method`, `device`, `since_ms`.

    Returns:
        The runs, newest first, without what no comparison needs. None: the server has no such page.
    """
    newest_first: list[Run] = []
    ids = list(experiments)
    for start in range(0, len(ids), _EXPERIMENTS_PER_ADDRESS):
        part = ids[start : start + _EXPERIMENTS_PER_ADDRESS]
        try:
            page = private_mlflow.get(store.uri, _SERVED, {**asked, "experiment_id": part})
            if page is None or page.get("compress_runs") != SERVED_LAYOUT:
                return None
            newest_first += [_run_as_served(store, row, experiments) for row in page["runs"]]
        except Exception:  # MLflow's own search meets the same error, and reports it
            return None
    return newest_first


def has_page(store: Store, experiment_id: str) -> bool:
    """Return whether a server has our page of an experiment's runs."""
    try:
        none = {"experiment_id": experiment_id, "since_ms": "9" * 15}  # no run is that new
        page = private_mlflow.get(store.uri, _SERVED, none)
    except Exception:  # the answer is not JSON, or there is none
        return False
    return page is not None and page.get("compress_runs") == SERVED_LAYOUT


def artifact(store: Store, run_id: str, path: str, most_bytes: int = MOST_BYTES) -> bytes | None:
    """Return the content of a run's file; None where it has no file with that name.

    Args:
        store: the tracking store.
        run_id: the run.
        path: the file's name, without a folder.
        most_bytes: the size limit; a larger file is not downloaded, if the store reports its size.

    Raises:
        StoreError: the server can't send it.
        Malformed: it is too large.
    """
    import tempfile

    with quiet(), refusals(store.uri):
        sizes = {file.path: file.file_size or 0 for file in store.client.list_artifacts(run_id) if not file.is_dir}
    if path not in sizes:
        return None
    check_size(path, sizes[path], most_bytes)
    with tempfile.TemporaryDirectory() as folder:
        with quiet(), refusals(store.uri):
            fetched = Path(store.client.download_artifacts(run_id, path, folder))
        check_size(path, fetched.stat().st_size, most_bytes)
        return fetched.read_bytes()


def _pages(store: Store, experiments: list[str], query: str) -> Iterator[Run]:
    """Yield the runs that match one filter, newest first, with their experiments' ids as names."""
    search = _search_http if store.uri.startswith(HTTP) else _search
    token = ""
    while True:
        page, token = search(store, experiments, query, token)
        yield from page
        if not token:
            return


def _search(store: Store, experiments: list[str], query: str, token: str) -> tuple[list[Run], str]:
    """Return a page of runs, with their experiments' ids as names, and the token of the next page."""
    page = store.client.search_runs(experiments, query, max_results=_PAGE, order_by=_NEWEST, page_token=token or None)
    return [_run(store, run, run.info.experiment_id) for run in page], page.token or ""


def _search_http(store: Store, experiments: list[str], query: str, token: str) -> tuple[list[Run], str]:
    """Search as `_search` does, without MLflow's slow conversion of JSON to protocol buffers."""
    body = {"experiment_ids": experiments, "filter": query, "max_results": _PAGE, "order_by": _NEWEST}
    page = private_mlflow.post(store.uri, _SEARCH, {**body, **({"page_token": token} if token else {})})
    runs = [_run_of_json(store, run["info"], run["data"]) for run in page.get("runs", [])]
    return runs, page.get("next_page_token", "")


def _run_of_json(store: Store, info: Mapping[str, Any], data: Mapping[str, Any]) -> Run:
    return Run(
        run_id=info["run_id"],
        experiment=info["experiment_id"],
        name=info.get("run_name", ""),
        lifecycle=info["status"],
        started_ms=int(info.get("start_time", 0)),
        tags=run_tags.unhidden((tag["key"], tag.get("value", "")) for tag in data.get("tags", [])),
        params={param["key"]: param.get("value", "") for param in data.get("params", [])},
        metrics={metric["key"]: float(metric.get("value", 0)) for metric in data.get("metrics", [])},
        link=_link(store, info["experiment_id"], info["run_id"]),
    )


def _run_as_served(store: Store, row: Mapping[str, Any], experiments: Mapping[str, str]) -> Run:
    return Run(
        run_id=row["run_id"],
        experiment=experiments[row["experiment_id"]],
        name=row["name"],
        lifecycle=row["lifecycle"],
        started_ms=row["started_ms"],
        tags=row["tags"],
        params=row["params"],
        metrics={name: float(value) for name, value in row["metrics"].items()},
        link=_link(store, row["experiment_id"], row["run_id"]),
    )


def _run(store: Store, run: Any, experiment: str) -> Run:
    return Run(
        run_id=run.info.run_id,
        experiment=experiment,
        name=run.info.run_name or "",
        lifecycle=run.info.status,
        started_ms=run.info.start_time or 0,
        tags=run_tags.unhidden(run.data.tags.items()),
        params=dict(run.data.params),
        metrics=dict(run.data.metrics),
        link=_link(store, run.info.experiment_id, run.info.run_id),
    )


def _link(store: Store, experiment_id: str, run_id: str) -> str:
    if not store.uri.startswith(HTTP):
        return ""
    return f"{without_secrets(store.uri).rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"
