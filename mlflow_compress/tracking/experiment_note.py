"""Our part of an experiment's description in MLflow's UI: where its comparison is, and what the newest one says.

All else that stands there is somebody's own, and stays.
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
_BEGIN, _END = "<!-- mlflow-compress -->", "<!-- end of mlflow-compress -->"  # which the UI does not show
_MARKED = re.compile(f"{_BEGIN}.*?{_END}", re.DOTALL)
_LINK = re.compile(
    r"^(The comparison of these runs: `compress-report --experiment .*`|\[The comparison of these runs\]\(.*\))$",
    re.MULTILINE,
)
# What earlier versions wrote without marks, which took the whole description.
_UNMARKED = re.compile(
    r"^\d+ rows of \d+ teams: see the run `comparison`, artifact `comparison\.html`\.(\n\n- .*(\n- .*)*)?", re.MULTILINE
)


def describe(store: Store, experiment_id: str, name: str) -> None:
    """Say in the experiment's description where its comparison is, where nobody else has written one.

    A server that does not take it, or lets only others describe the experiment, keeps it as it is: no result needs it.

    Args:
        store: the tracking store.
        experiment_id: the experiment.
        name: its name.
    """
    text = f"The comparison of these runs: `compress-report --experiment {shlex.quote(name)}`"
    with contextlib.suppress(StoreError), refusals(store.uri):
        experiment = store.client.get_experiment(experiment_id)
        note = experiment.tags.get(NOTE, "")
        if note not in ("", text):
            return
        if store.uri.startswith(HTTP) and reading.has_page(store, experiment_id):
            asked = {"experiment": name}
            if experiment.workspace != _DEFAULT_WORKSPACE:
                asked["workspace"] = experiment.workspace
            page = f"{without_secrets(store.uri).rstrip('/')}/compress?{urlencode(asked)}"
            text = f"[The comparison of these runs]({page})"
        if note != text:
            store.client.set_experiment_tag(experiment_id, NOTE, text)


def tell(store: Store, experiment_id: str, summary: str) -> None:
    """Say in the experiment's description what its newest comparison says, in place of what an earlier one said.

    Args:
        store: the tracking store.
        experiment_id: the experiment.
        summary: Markdown.

    Raises:
        StoreError: the server refused, or is gone.
    """
    with refusals(store.uri):
        note = str(store.client.get_experiment(experiment_id).tags.get(NOTE, ""))
        if (told := with_part(note, summary)) != note:
            store.client.set_experiment_tag(experiment_id, NOTE, told)


def with_part(note: str, summary: str) -> str:
    """Return a description whose part of ours says this; ours is its end where it had none.

    Where there is room for the others' text alone, that stays alone. The link to the comparison stays in our part.

    Args:
        note: the description.
        summary: Markdown. What does not fit is cut off.
    """
    link = _LINK.search(note)
    above = f"{link[0]}\n\n" if link else ""
    pattern = next((each for each in (_MARKED, _UNMARKED, _LINK) if each.search(note)), None)

    def around(text: str) -> str:
        part = f"{_BEGIN}\n\n{above}{text}\n\n{_END}"
        return pattern.sub(lambda _: part, note, count=1) if pattern else f"{note.rstrip()}\n\n{part}".lstrip()

    text = summary.replace("<!--", "").replace("-->", "")  # which a method's name may hold
    room = TAG_LIMIT - len(around(""))
    if room < 1:
        return note
    return around(text if len(text) <= room else f"{text[: room - 1]}…")
