"""The comparison as a server shows it: a list of experiments, the page of some, and their runs as JSON."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlencode

from mlflow_compress import words
from mlflow_compress.records import Run
from mlflow_compress.renderers.html import Html, Link, filled
from mlflow_compress.reporting import ranking
from mlflow_compress.reporting.compare import compare
from mlflow_compress.reporting.table_text import natural

_POLICY = re.compile(rb'http-equiv="Content-Security-Policy"\s+content="([^"]+)"')


@dataclass(frozen=True)
class _Line:
    """An experiment in the list: its page, its name, how many variants it has, and when the newest began."""

    address: str
    name: str
    runs: int
    newest: str


def index(experiments: Mapping[str, str], counts: Mapping[str, tuple[int, int]], language: str, here: str) -> bytes:
    """Write the page that leads to the comparisons.

    Args:
        experiments: names by ids of those that the reader may see.
        counts: how many variants each has, and when the newest began, in milliseconds, by id.
        language: `en` or `ru`.
        here: the path of this page.
    """
    shown = sorted((each for each in experiments if each in counts), key=lambda each: natural(experiments[each]))
    lines = [
        _Line(_address(here, experiments[each], language), experiments[each], counts[each][0], _when(counts[each][1]))
        for each in shown
    ]
    about = {"language": language, "texts": words.SERVER_PAGES[language], "here": here, "experiments": lines}
    return filled("experiments.html", about)


def page(runs: Iterable[Run], experiments: Mapping[str, str], language: str, here: str, root: str) -> bytes:
    """Write the comparison of experiments, with links to each run and back.

    Args:
        runs: their variants.
        experiments: their names by ids.
        language: `en` or `ru`.
        here: the path of the list of experiments.
        root: where MLflow's UI is, with its scheme and host, ending in a slash.
    """
    ids = {name: number for number, name in experiments.items()}
    linked = [replace(run, link=f"{root}#/experiments/{ids[run.experiment]}/runs/{run.run_id}") for run in runs]
    compared = compare(linked, title=", ".join(experiments.values()), language=language)
    comparison = ranking.ordered(ranking.summed_up(ranking.directed(compared)), "")
    texts = words.SERVER_PAGES[language]
    trail = [Link(f"{here}?{urlencode({'lang': language})}", texts["all"])]
    trail += [
        Link(f"{root}#/experiments/{each}", texts["experiment"].format(name=experiments[each])) for each in experiments
    ]
    return Html().page(comparison, trail)


def policy(content: bytes) -> str:
    """Return the policy that a page has in itself, for the answer's header, which alone can say who may frame it."""
    found = _POLICY.search(content)
    assert found is not None
    return f"{found[1].decode()}; frame-ancestors 'self'"


def as_json(runs: Sequence[Run], experiments: Mapping[str, str]) -> bytes:
    """Write runs as `reading.served` reads them: NaN as text, since JSON has none."""
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
            "metrics": {name: "NaN" if math.isnan(value) else value for name, value in run.metrics.items()},
        }
        for run in runs
    ]
    return json.dumps({"compress_runs": 1, "runs": rows}, allow_nan=False, separators=(",", ":")).encode()


def _address(here: str, name: str, language: str) -> str:
    asked: dict[str, Any] = {"experiment": name, "lang": language}
    return f"{here}?{urlencode(asked)}"


def _when(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M")
