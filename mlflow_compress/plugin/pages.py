"""The comparison as a server shows it: a list of experiments, the page of some, and their runs as JSON."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from string import Template
from typing import Any
from urllib.parse import urlencode

from mlflow_compress import registry, words
from mlflow_compress.records import Run
from mlflow_compress.reporting import ranking
from mlflow_compress.reporting.compare import compare
from mlflow_compress.reporting.table_text import natural

_POLICY = re.compile(rb'http-equiv="Content-Security-Policy"\s+content="([^"]+)"')
_INDEX = Template("""<!doctype html>
<html lang="$language">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>$title</title>
<link rel="stylesheet" href="$here/page.css">
</head>
<body>
<nav><p class="facts"><a href="./">$ui</a></p></nav>
<header><h1>$title</h1></header>
<main>
$body
</main>
</body>
</html>
""")


def index(experiments: Mapping[str, str], counts: Mapping[str, tuple[int, int]], language: str, here: str) -> bytes:
    """Write the page that leads to the comparisons.

    Args:
        experiments: names by ids of those that the reader may see.
        counts: how many variants each has, and when the newest began, in milliseconds, by id.
        language: `en` or `ru`.
        here: the path of this page.
    """
    texts = words.SERVER_PAGES[language]
    shown = sorted((each for each in experiments if each in counts), key=lambda each: natural(experiments[each]))
    lines = [
        f'<tr><th scope="row"><a href="{_address(here, experiments[each], language)}">{_text(experiments[each])}</a>'
        f'</th><td class="number">{counts[each][0]}</td><td class="text">{_when(counts[each][1])}</td></tr>'
        for each in shown
    ]
    head = f'<th scope="col">{texts["name"]}</th><th scope="col" class="number">{texts["runs"]}</th>'
    head += f'<th scope="col">{texts["newest"]}</th>'
    table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(lines) + "\n</tbody>\n</table>"
    body = f'<div class="scroll">{table}</div>' if shown else f"<p>{texts['none']}</p>"
    filled = {"language": language, "title": texts["title"], "ui": texts["ui"], "body": body, "here": here}
    return _INDEX.substitute(filled).encode()


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
    content: bytes = registry.build("renderers", "html").render(comparison)
    texts = words.SERVER_PAGES[language]
    links = {f"{here}?{urlencode({'lang': language})}": texts["all"]}
    links |= {f"{root}#/experiments/{each}": texts["experiment"].format(name=experiments[each]) for each in experiments}
    trail = " · ".join(f'<a href="{_text(link)}">{_text(text)}</a>' for link, text in links.items())
    return content.replace(b"<header>", f'<nav><p class="facts">{trail}</p></nav>\n<header>'.encode(), 1)


def policy(content: bytes) -> str:
    """Give the policy that a page has in itself, for the answer's header, which alone can say who may frame it."""
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
    return _text(f"{here}?{urlencode(asked)}")


def _text(text: str) -> str:
    return html.escape("".join(char if char.isprintable() else "\ufffd" for char in text))


def _when(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M")
