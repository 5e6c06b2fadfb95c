"""Maintains our part of an experiment's description in MLflow's UI: a link to the comparison, and its summary.

All other text in the description stays as it is.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from urllib.parse import urlencode

from mlflow_compress.errors import StoreError
from mlflow_compress.tracking import reading
from mlflow_compress.tracking.connection import HTTP, Store, refusals, without_secrets
from mlflow_compress.tracking.run_tags import NOTE, TAG_LIMIT

_DEFAULT_WORKSPACE = "default"  # MLflow's name for it, also where a server has no workspaces
_BEGIN, _END = "<!-- mlflow-compress -->", "<!-- end of mlflow-compress -->"  # not visible in the UI
_MARKED = re.compile(f"{_BEGIN}.*?{_END}", re.DOTALL)
_LINK = re.compile(
    r"^(The comparison of these runs: `compress-report --experiment .*`|\[The comparison of these runs\]\(.*\))$",
    re.MULTILINE,
)
# The format of earlier versions: without markers, and the whole description.
_UNMARKED = re.compile(
    r"^\d+ rows of \d+ teams: see the run `comparison`, artifact `comparison\.html`\.(\n\n- .*(\n- .*)*)?", re.MULTILINE
)


def describe(store: Store, experiment_id: str, name: str) -> None:
    """Link the comparison in the experiment's description, unless somebody else has written one.

    A server that refuses this, or allows it only to others, keeps its description: no result depends on it.

    Args:
        store: the tracking store.
        experiment_id: the experiment.
        name: the experiment's name.
    """
    text = f"The comparison of these runs: `compress-report --experiment {shlex.quote(name)}`"
    with contextlib.suppress(StoreError), refusals(store.uri):
        experiment = store.client.get_experiment(experiment_id)
        note = experiment.tags.get(NOTE, "")
        if note not in ("", text):
            return
        if store.uri.startswith(HTTP) and reading.has_page(store, experiment_id):
            query = {"experiment": name}
            if experiment.workspace != _DEFAULT_WORKSPACE:
                query["workspace"] = experiment.workspace
            page = f"{without_secrets(store.uri).rstrip('/')}/compress?{urlencode(query)}"
            text = f"[The comparison of these runs]({page})"
        if note != text:
            store.client.set_experiment_tag(experiment_id, NOTE, text)


def set_summary(store: Store, experiment_id: str, summary: str) -> None:
    """Replace the summary of the newest comparison in the experiment's description.

    Args:
        store: the tracking store.
        experiment_id: the experiment.
        summary: the summary in Markdown.

    Raises:
        StoreError: the server refused, or is gone.
    """
    with refusals(store.uri):
        note = str(store.client.get_experiment(experiment_id).tags.get(NOTE, ""))
        if (changed := with_part(note, summary)) != note:
            store.client.set_experiment_tag(experiment_id, NOTE, changed)


def with_part(note: str, summary: str) -> str:
    """Return a description with our part replaced, or appended where it has none.

    The text of others has priority: if there is no room for both, it stays alone. Our link to the comparison is kept.

    Args:
        note: the description.
        summary: the summary in Markdown. It is cut where it is too long.
    """
    link = _LINK.search(note)
    link_line = f"{link[0]}\n\n" if link else ""
    pattern = next((pattern for pattern in (_MARKED, _UNMARKED, _LINK) if pattern.search(note)), None)

    def around(text: str) -> str:
        part = f"{_BEGIN}\n\n{link_line}{text}\n\n{_END}"
        return pattern.sub(lambda _: part, note, count=1) if pattern else f"{note.rstrip()}\n\n{part}".lstrip()

    text = summary.replace("<!--", "").replace("-->", "")  # a method's name may contain these
    room = TAG_LIMIT - len(around(""))
    if room < 1:
        return note
    return around(text if len(text) <= room else f"{text[: room - 1]}…")
