"""Leads from an experiment in MLflow's UI to its comparison: in the experiment's description, unless that is taken."""

from __future__ import annotations

import contextlib
import shlex
from urllib.parse import urlencode

from mlflow_compress.errors import StoreError
from mlflow_compress.tracking import reading
from mlflow_compress.tracking.connection import HTTP, Store, refusals, without_secrets

_NOTE = "mlflow.note.content"


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
        note = store.client.get_experiment(experiment_id).tags.get(_NOTE, "")
        if note not in ("", text):
            return
        if store.uri.startswith(HTTP) and reading.has_page(store, experiment_id):
            page = f"{without_secrets(store.uri).rstrip('/')}/compress?{urlencode({'experiment': name})}"
            text = f"[The comparison of these runs]({page})"
        if note != text:
            store.client.set_experiment_tag(experiment_id, _NOTE, text)
