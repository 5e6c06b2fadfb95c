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

_PAGE = 50_000  # MLflow's most: every further page asks the database anew
_EXPERIMENTS_PER_PAGE = 1000
_SEARCH = "/api/2.0/mlflow/runs/search"
_SERVED, _EXPERIMENTS_PER_ADDRESS = "/compress/runs.json", 100
SERVED_LAYOUT = 2  # of what that page gives: 1 lacks the tags that MLflow's UI does not show
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
    """Return whether there is such a run that is not deleted."""
    try:
        with refusals(store.uri):
            return bool(store.client.get_run(run_id).info.lifecycle_stage == "active")
    except StoreError:
        check(store)
        return False


def run(store: Store, run_id: str) -> Run:
    """Read one run.

    Raises:
        StoreError: there is none of that id.
    """
    with quiet(), refusals(store.uri):
        found = store.client.get_run(run_id)
        return _run(store, found, store.client.get_experiment(found.info.experiment_id).name)


def runs(store: Store, experiments: Mapping[str, str], where: str = "") -> list[Run]:
    """Read the runs of experiments, newest first.

    Args:
        store: the tracking store.
        experiments: names by ids.
        where: a filter in MLflow's own language, with the names of tags as `run_tags` tells them.

    Raises:
        StoreError: the server can't answer, or can't read the filter.
    """
    found: dict[str, Run] = {}
    with quiet(), refusals(store.uri):
        several = run_tags.filters(where)
        for one in several:
            pages = _pages(store, list(experiments), one)
            found |= {run.run_id: replace(run, experiment=experiments[run.experiment]) for run in pages}
    newest_first = list(found.values())
    if len(several) > 1:
        newest_first.sort(key=lambda run: -run.started_ms)
    return newest_first


def served(store: Store, experiments: Mapping[str, str], asked: Mapping[str, Sequence[str]]) -> list[Run] | None:
    """Read variants from the page that a server has for it which runs our app; MLflow's search takes far longer.

    Args:
        store: the tracking store.
        experiments: names by ids.
        asked: what the page takes: `team`, `model`, `method`, `device`, `since_ms`.

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
            newest_first += [_run_as_served(store, found, experiments) for found in page["runs"]]
        except Exception:  # whatever it is, MLflow's own search meets it too, and says what
            return None
    return newest_first


def has_page(store: Store, experiment_id: str) -> bool:
    """Return whether a server has our page of an experiment's runs."""
    try:
        none = {"experiment_id": experiment_id, "since_ms": "9" * 15}  # none is that new
        page = private_mlflow.get(store.uri, _SERVED, none)
    except Exception:  # it answers with what is no JSON, or not at all
        return False
    return page is not None and page.get("compress_runs") == SERVED_LAYOUT


def artifact(store: Store, run_id: str, path: str, most_bytes: int = MOST_BYTES) -> bytes | None:
    """Read a file of a run's; None where it has none of that name.

    Args:
        store: where it is.
        run_id: the run.
        path: the file's name, in no folder.
        most_bytes: a larger one is not fetched, as far as the store tells how large it is.

    Raises:
        StoreError: the server can't give it.
        Malformed: it is too large.
    """
    import tempfile

    with quiet(), refusals(store.uri):
        sizes = {each.path: each.file_size or 0 for each in store.client.list_artifacts(run_id) if not each.is_dir}
    if path not in sizes:
        return None
    check_size(path, sizes[path], most_bytes)
    with tempfile.TemporaryDirectory() as folder:
        with quiet(), refusals(store.uri):
            fetched = Path(store.client.download_artifacts(run_id, path, folder))
        check_size(path, fetched.stat().st_size, most_bytes)
        return fetched.read_bytes()


def _pages(store: Store, experiments: list[str], where: str) -> Iterator[Run]:
    """Yield the runs that one filter finds, newest first, with their experiments' ids for names."""
    ask = _search_http if store.uri.startswith(HTTP) else _search
    token = ""
    while True:
        page, token = ask(store, experiments, where, token)
        yield from page
        if not token:
            return


def _search(store: Store, experiments: list[str], where: str, token: str) -> tuple[list[Run], str]:
    """Return a page of runs, with their experiments' ids for names, and the token of the next page."""
    page = store.client.search_runs(experiments, where, max_results=_PAGE, order_by=_NEWEST, page_token=token or None)
    return [_run(store, run, run.info.experiment_id) for run in page], page.token or ""


def _search_http(store: Store, experiments: list[str], where: str, token: str) -> tuple[list[Run], str]:
    """Do as `_search` does, without making protocol buffers of JSON: that is what takes MLflow's client so long."""
    asked = {"experiment_ids": experiments, "filter": where, "max_results": _PAGE, "order_by": _NEWEST}
    page = private_mlflow.post(store.uri, _SEARCH, {**asked, **({"page_token": token} if token else {})})
    runs = [_run_of_json(store, found["info"], found["data"]) for found in page.get("runs", [])]
    return runs, page.get("next_page_token", "")


def _run_of_json(store: Store, info: Mapping[str, Any], data: Mapping[str, Any]) -> Run:
    return Run(
        run_id=info["run_id"],
        experiment=info["experiment_id"],
        name=info.get("run_name", ""),
        lifecycle=info["status"],
        started_ms=int(info.get("start_time", 0)),
        tags=run_tags.told((each["key"], each.get("value", "")) for each in data.get("tags", [])),
        params={each["key"]: each.get("value", "") for each in data.get("params", [])},
        metrics={each["key"]: float(each.get("value", 0)) for each in data.get("metrics", [])},
        link=_link(store, info["experiment_id"], info["run_id"]),
    )


def _run_as_served(store: Store, each: Mapping[str, Any], experiments: Mapping[str, str]) -> Run:
    return Run(
        run_id=each["run_id"],
        experiment=experiments[each["experiment_id"]],
        name=each["name"],
        lifecycle=each["lifecycle"],
        started_ms=each["started_ms"],
        tags=each["tags"],
        params=each["params"],
        metrics={name: float(value) for name, value in each["metrics"].items()},
        link=_link(store, each["experiment_id"], each["run_id"]),
    )


def _run(store: Store, run: Any, experiment: str) -> Run:
    return Run(
        run_id=run.info.run_id,
        experiment=experiment,
        name=run.info.run_name or "",
        lifecycle=run.info.status,
        started_ms=run.info.start_time or 0,
        tags=run_tags.told(run.data.tags.items()),
        params=dict(run.data.params),
        metrics=dict(run.data.metrics),
        link=_link(store, run.info.experiment_id, run.info.run_id),
    )


def _link(store: Store, experiment_id: str, run_id: str) -> str:
    if not store.uri.startswith(HTTP):
        return ""
    return f"{without_secrets(store.uri).rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"
