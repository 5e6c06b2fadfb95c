"""The pages of a server: a list of experiments, the comparison of some of them, and their runs as JSON."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from urllib.parse import urlencode

from mlflow_compress import words
from mlflow_compress.records import Run
from mlflow_compress.renderers.html import Html, Link, filled
from mlflow_compress.reporting import ranking
from mlflow_compress.reporting.compare import compare
from mlflow_compress.reporting.possible import is_time
from mlflow_compress.reporting.table_text import MISSING, natural
from mlflow_compress.tracking import reading
from mlflow_compress.tracking.database import Variants

_POLICY = re.compile(rb'http-equiv="Content-Security-Policy"\s+content="([^"]+)"')


@dataclass(frozen=True)
class Site:
    """The addresses of a server's pages.

    Attributes:
        language: `en` or `ru`.
        here: the path of the list of experiments.
        root: the address of MLflow's UI, with scheme and host, ending in a slash.
        workspace: the workspace that is shown; empty where the server has none.
    """

    language: str
    here: str
    root: str
    workspace: str = ""

    def list_of(self, workspace: str) -> str:
        """Return the address of the list of a workspace's experiments; for an empty name of the server's."""
        return f"{self.here}?{urlencode({'lang': self.language, **_workspace_query(workspace)})}"

    def comparison_of(self, experiment: str) -> str:
        """Return the address of an experiment's comparison, by the experiment's name."""
        query = {"experiment": experiment, "lang": self.language, **_workspace_query(self.workspace)}
        return f"{self.here}?{urlencode(query)}"

    def ui(self, route: str) -> str:
        """Return the address of a page of MLflow's UI, with the workspace."""
        query = urlencode(_workspace_query(self.workspace))
        return f"{self.root}#/{route}?{query}" if query else f"{self.root}#/{route}"


def _workspace_query(workspace: str) -> dict[str, str]:
    return {"workspace": workspace} if workspace else {}


@dataclass(frozen=True)
class _Line:
    """An experiment in the list: its page, its name, its number of variants, and the start of the newest."""

    address: str
    name: str
    runs: int
    newest: str


def index(
    experiments: Mapping[str, str], counts: Mapping[str, Variants], site: Site, workspaces: Sequence[str] = ()
) -> bytes:
    """Return the page with the list of experiments.

    Args:
        experiments: names by ids of the experiments that the reader may see.
        counts: their variants by id, for those that have some.
        site: the addresses of the server's pages.
        workspaces: the names of all workspaces that the reader may enter.
    """
    listed = [(name, counts[number]) for number, name in experiments.items() if number in counts]
    lines = [
        _Line(site.comparison_of(name), name, variants.count, _when(variants.newest_ms))
        for name, variants in sorted(listed, key=lambda line: natural(line[0]))
    ]
    other_workspaces = [
        Link(site.list_of(name), name) for name in sorted(workspaces, key=natural) if name != site.workspace
    ]
    page_values = {
        "language": site.language,
        "texts": words.SERVER_PAGES[site.language],
        "here": site.here,
        "ui": f"./{site.ui('').removeprefix(site.root)}",  # relative: behind a proxy scheme and host may differ
        "workspace": site.workspace,
        "others": other_workspaces,
        "experiments": lines,
    }
    return filled("experiments.html", page_values)


def page(runs: Iterable[Run], experiments: Mapping[str, str], site: Site) -> bytes:
    """Return the page with the comparison of experiments, with links to each run and back.

    Args:
        runs: their variants.
        experiments: their names by ids.
        site: the addresses of the server's pages.
    """
    ids = {name: number for number, name in experiments.items()}
    linked = [replace(run, link=site.ui(f"experiments/{ids[run.experiment]}/runs/{run.run_id}")) for run in runs]
    compared = compare(linked, title=", ".join(experiments.values()), language=site.language)
    comparison = ranking.ordered(ranking.summed_up(ranking.directed(compared)), "")
    texts = words.SERVER_PAGES[site.language]
    trail = [Link(site.list_of(site.workspace), texts["all"])]
    trail += [
        Link(site.ui(f"experiments/{number}"), texts["experiment"].format(name=name))
        for number, name in experiments.items()
    ]
    return Html().page(comparison, trail)


def policy(content: bytes) -> str:
    """Return a page's own policy for the response header, plus who may frame it, which only a header can state."""
    match = _POLICY.search(content)
    assert match is not None
    return f"{match[1].decode()}; frame-ancestors 'self'"


def as_json(runs: Sequence[Run], experiments: Mapping[str, str]) -> bytes:
    """Return runs as JSON for `reading.served`: NaN and infinity as text, since JSON has none."""
    ids = {name: number for number, name in experiments.items()}
    rows = [
        {
            "run_id": run.run_id,
            "experiment_id": ids[run.experiment],
            "name": run.name,
            "lifecycle": run.lifecycle,
            "started_ms": run.started_ms,
            "tags": run.tags,
            "params": run.params,
            "metrics": {
                name: value if math.isfinite(value) else json.dumps(value) for name, value in run.metrics.items()
            },
        }
        for run in runs
    ]
    page = {"compress_runs": reading.SERVED_LAYOUT, "runs": rows}
    return json.dumps(page, allow_nan=False, separators=(",", ":")).encode()


def _when(milliseconds: int) -> str:
    if not is_time(milliseconds):
        return MISSING
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M")
