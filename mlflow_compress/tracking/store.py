"""The door to MLflow: `open_store`, `Store.log` on the one side, `Store.query` on the other.

Layout of a run (schema 1):

* params: what was asked, as strings (`model`, `method`, `team`, `device`, `weights`, ...);
* metrics: what was measured (`cpu/latency_p50_ms`); the samples behind them are in `result.json`;
* tags: `team`, `model`, `method`, `status`, and `compress.*` for all else: `compress.schema`, `compress.role`
  (`variant` or `sweep`), `compress.weights`, `compress.outcome.cpu` and `.gpu` (`ok`, `skipped`, `failed`),
  `compress.reason`, `compress.reason.cpu` and `.gpu`, for each metric `compress.protocol.wer` (how it was scored) and
  `compress.metric.wer` (its label, scale, direction and rank, as JSON), `compress.batch_size`,
  `compress.setting` (`tokens=64`), `compress.cautions` (codes, separated by commas), `compress.seconds` (how long it
  took), and `compress.env.*` for the machine and its libraries;
  `compress.result_id`, `compress.variant_digest`, `compress.process` (who logs it), `compress.logged` (`complete` when
  all of it is there), `compress.not_logged` (what the server refused, and why);
  a row of a hand-made table has `compress.source` (`imported`), `compress.imported.from`, `.line` and `.remarks`,
  `compress.import_id` (of its text) and `compress.cell.*` (its cells as they were written);
* artifacts: `variant.json`, `result.json`, plots, logs, and the model as an MLflow model.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import sqlite3
import time
import urllib.error
import urllib.parse
import urllib.request
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_compress.errors import StoreError
from mlflow_compress.records import Result, Run, finite, to_json

if TYPE_CHECKING:
    import tempfile

    from mlflow import MlflowClient

    from mlflow_compress.measuring.input_example import Example
    from mlflow_compress.reporting.import_tables import ByHand

_TAG_LIMIT = 5000
_METRICS_PER_CALL, _PARAMS_PER_CALL, _TAGS_PER_CALL = 1000, 100, 100
_TABLE = "predictions.json"
_PAGE = 50_000  # MLflow's most: every further page asks the database anew
_EXPERIMENTS_PER_PAGE = 1000
_SERVED, _EXPERIMENTS_PER_ADDRESS = "/compress/runs.json", 100
_NEWEST = ["start_time DESC"]
_HTTP = ("http://", "https://")
_HTTP_TIMEOUT_SECONDS = 5
LOGGED = "compress.logged"  # this tag of a run says that all of a result is there
SECONDS = "compress.seconds"  # this one says how long the variant took
_SHORTEST_SECRET = 4  # shorter ones would blot out ordinary words


def probe(tracking_uri: str | None = None) -> None:
    """Find out within seconds, and before MLflow's import takes some, whether a server at an address answers.

    Args:
        tracking_uri: as `open_store` takes it. What is no address of a server is not looked at.

    Raises:
        StoreError: it does not answer.
    """
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    if uri.startswith(_HTTP):
        _probe(uri)


def open_store(tracking_uri: str | None = None, *, create: bool = True) -> Store:
    """Connect to the tracking server, and find out now rather than after an hour of measuring that it is gone.

    Args:
        tracking_uri: as MLflow takes it; None takes MLFLOW_TRACKING_URI, or MLflow's default (`mlflow.db` here).
        create: make a SQLite store that does not exist yet. A reader never does.

    Raises:
        StoreError: it can't be reached.
    """
    probe(tracking_uri)
    with _quiet():
        import mlflow
        from mlflow import MlflowClient

        if tracking_uri:
            mlflow.set_tracking_uri(tracking_uri)
        uri = mlflow.get_tracking_uri()
        if not create:
            _require_database(uri)
        try:
            client = MlflowClient(uri)
            client.search_experiments(max_results=1)
        except Exception as error:
            reason = _first_line(error, uri)
            if "Can't locate revision" in reason or "out-of-date database schema" in reason:
                reason = (
                    f"another MLflow than {mlflow.__version__} made it. Either this one is too old (pip install "
                    f"--upgrade mlflow), or the store is (mlflow db upgrade {without_secrets(uri)}; copy it first)"
                )
            raise StoreError(f"The tracking store {without_secrets(uri)} can't be opened: {reason}") from error
    return Store(client, uri)


def chosen_uri() -> str:
    """Give the address of the store that MLflow uses in this process: as `mlflow.set_tracking_uri` was told, or so."""
    import mlflow

    return str(mlflow.get_tracking_uri())


@contextlib.contextmanager
def fluent_run(name: str) -> Iterator[tuple[Store, str]]:
    """Give the run that is active in this process and its store; where none is, one that is ended with the block.

    Raises:
        StoreError: the store can't be reached.
    """
    store = open_store()
    import mlflow

    active = mlflow.active_run()
    if active is not None:
        yield store, str(active.info.run_id)
        return
    with _told(store.uri):
        started = mlflow.start_run(run_name=name)
    with started as run:
        yield store, str(run.info.run_id)


class Store:
    """An open tracking store."""

    def __init__(self, client: MlflowClient, uri: str) -> None:
        """Take an open client; `open_store` makes one."""
        self._client = client
        self.uri = uri
        self._fetched: dict[str, tuple[Path, tempfile.TemporaryDirectory[str]]] = {}

    def experiment_id(self, name: str) -> str:
        """Give the experiment's id; make the experiment if there is none of that name."""
        with _quiet(), _told(self.uri):
            found = self._client.get_experiment_by_name(name)
            if found is None:
                with contextlib.suppress(Exception):  # another process may have made it in between
                    return str(self._client.create_experiment(name))
                found = self._client.get_experiment_by_name(name)
            if found is None:
                return str(self._client.create_experiment(name))  # which says what is wrong
            if found.lifecycle_stage != "active":
                raise StoreError(f"The experiment {name!r} is deleted. Restore it, or choose another name.")
            return str(found.experiment_id)

    def experiment_name(self, experiment_id: str) -> str:
        """Give the experiment's name."""
        with _told(self.uri):
            return str(self._client.get_experiment(experiment_id).name)

    def start(self, experiment_id: str, name: str, tags: Mapping[str, str], start_ms: int | None = None) -> str:
        """Start a run of ours and give its id. MLflow's own tags are set by hand: only its fluent API sets them."""
        import getpass

        known = {
            "mlflow.user": getpass.getuser(),
            "mlflow.source.name": "compress-bench",
            "mlflow.source.type": "LOCAL",
        }
        with _told(self.uri):
            run = self._client.create_run(
                experiment_id, run_name=name, tags=_cut({**known, **tags}), start_time=start_ms
            )
            return str(run.info.run_id)

    def claim(
        self, experiment_id: str, result_id: str, name: str, tags: Mapping[str, str], start_ms: int | None = None
    ) -> str:
        """Give the run of a result, and start it if there is none.

        A server that dies between doing and answering is asked again, and so may have started two: one is deleted.
        """
        tags = {**tags, "compress.result_id": result_id}
        if found := self._runs_of(experiment_id, result_id):
            self.tag(found[0], tags)
        else:
            self.start(experiment_id, name, tags, start_ms)
            found = self._runs_of(experiment_id, result_id)
        with _told(self.uri):
            for double in found[1:]:
                self._client.delete_run(double)
        return found[0]

    def has(self, run_id: str) -> bool:
        """Say whether there is such a run that is not deleted."""
        try:
            with _told(self.uri):
                return bool(self._client.get_run(run_id).info.lifecycle_stage == "active")
        except StoreError:
            self.check()
            return False

    def _runs_of(self, experiment_id: str, result_id: str) -> list[str]:
        found = self.query({experiment_id: ""}, f"tags.`compress.result_id` = '{result_id}'")
        return [run.run_id for run in sorted(found, key=lambda run: (LOGGED not in run.tags, run.run_id))]

    def check(self) -> None:
        """Find out whether the server answers.

        Raises:
            StoreError: it does not.
        """
        probe(self.uri)
        with _told(self.uri):
            self._client.search_experiments(max_results=1)

    def experiment_of(self, run_id: str) -> str:
        """Give the id of the experiment that a run belongs to."""
        with _told(self.uri):
            return str(self._client.get_run(run_id).info.experiment_id)

    def name_of(self, run_id: str) -> str:
        """Give a run's name."""
        with _told(self.uri):
            return str(self._client.get_run(run_id).info.run_name or "")

    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run."""
        with _told(self.uri):
            for key, value in _cut(tags).items():
                self._client.set_tag(run_id, key, value)

    def end(self, run_id: str, succeeded: bool) -> None:
        """End a run as FINISHED or FAILED."""
        self.close(run_id, "FINISHED" if succeeded else "FAILED")

    def close(self, run_id: str, lifecycle: str) -> None:
        """End a run as FINISHED, FAILED or KILLED."""
        with _told(self.uri):
            self._client.set_terminated(run_id, lifecycle)

    def log(
        self,
        run_id: str,
        result: Result,
        asked: Mapping[str, str],
        note: str,
        files: Mapping[str, bytes],
        *,
        with_metrics: bool = True,
    ) -> None:
        """Write a result into a run: params, metrics, tags, and the files as artifacts. Doing so twice changes nothing.

        Args:
            run_id: the run, of ours or of `mlflow run`.
            result: what to log.
            asked: parameters as the user gave them. Those that the run has already are left as they are.
            note: Markdown for the run's description.
            files: content by artifact path (`latency.png`).
            with_metrics: whether to write the metrics too, or leave that to MLflow's evaluation, which does so itself.

        Raises:
            StoreError: the server refused, or is gone.
        """
        from mlflow.entities import Metric, Param, RunTag

        with _told(self.uri):
            known = self._client.get_run(run_id).data.params
            params = [Param(key, value[:_TAG_LIMIT]) for key, value in asked.items() if key not in known]
            tags = [RunTag(key, value) for key, value in _cut({**tags_of(result), "mlflow.note.content": note}).items()]
            now = int(result.ended_s * 1000)
            numbers = finite(result.measurements) if with_metrics else {}
            metrics = [Metric(key, value, now, 0) for key, value in numbers.items()]
            for part in _parts(metrics, _METRICS_PER_CALL):
                self._client.log_batch(run_id, metrics=part)
            for part in _parts(params, _PARAMS_PER_CALL):
                self._client.log_batch(run_id, params=part)
            for part in _parts(tags, _TAGS_PER_CALL):
                self._client.log_batch(run_id, tags=part)
            records = {"variant.json": to_json(result.variant), "result.json": to_json(result)}
            for path, record in records.items():
                self._client.log_text(run_id, json.dumps(record, ensure_ascii=False, indent=1), path)
            self._log_data(run_id, result.facts)
        self.log_files(run_id, files)

    def _log_data(self, run_id: str, facts: Mapping[str, str]) -> None:
        """Name the data set that quality was scored on, so that MLflow shows it with the run."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        if "data_digest" not in facts:
            return
        source = json.dumps({"uri": facts["data_source"]})
        data = Dataset(facts["data_name"], facts["data_digest"], source_type="mlflow_compress", source=source)
        self._client.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "evaluation")])])

    def log_files(self, run_id: str, files: Mapping[str, bytes]) -> None:
        """Write files into a run, by artifact path."""
        import tempfile

        with _told(self.uri), tempfile.TemporaryDirectory() as folder:
            for path, content in files.items():
                local = Path(folder, path)
                local.parent.mkdir(parents=True, exist_ok=True)
                local.write_bytes(content)
            if files:
                self._client.log_artifacts(run_id, folder)
            if _TABLE in files:
                shown = json.dumps([{"path": _TABLE, "type": "table"}])
                self._client.set_tag(run_id, "mlflow.loggedArtifacts", shown)  # so that the UI opens it as a table

    def log_model(self, run_id: str, folder: Path, requirements: Sequence[str], example: Example | None = None) -> str:
        """Log a saved model folder as an MLflow model that `mlflow.pyfunc.load_model` loads, unless the run has it.

        Args:
            run_id: the run it belongs to.
            folder: the model folder that was measured.
            requirements: pip requirements; never inferred, as that takes minutes.
            example: its input example, which the signature is made of.

        Returns:
            The logged model's id.
        """
        import tempfile

        with _quiet(), _told(self.uri), tempfile.TemporaryDirectory() as temporary:
            import mlflow
            from mlflow.models import Model

            run = self._client.get_run(run_id)
            model = self._model_of(run)
            if model.status != "READY":
                path = str(Path(temporary, "model"))
                about = Model(model.artifact_location, run_id, model_uuid=model.model_id, model_id=model.model_id)
                mlflow.pyfunc.save_model(
                    path,
                    loader_module="mlflow_compress.pyfunc",
                    data_path=str(folder),
                    pip_requirements=list(requirements),
                    mlflow_model=about,
                    **(_shown(example) if example else {}),
                )
                try:
                    self._client.log_model_artifacts(model.model_id, path)
                except Exception:
                    self._client.finalize_logged_model(model.model_id, "FAILED")
                    raise
                self._client.finalize_logged_model(model.model_id, "READY")
            return str(model.model_id)

    def _model_of(self, run: Any) -> Any:
        """Give the run's logged model, perhaps one whose upload an earlier try did not end; make it if there is none.

        Not with MLflow's `Model.log`, which works on the run and the experiment that are active in the process.
        """
        from mlflow.entities import LoggedModelOutput

        linked = [each.model_id for each in run.outputs.model_outputs][:1] if run.outputs else []
        where = f"source_run_id = '{run.info.run_id}'"
        for each in self._client.search_logged_models([run.info.experiment_id], filter_string=where):
            if each.model_id not in linked:  # it was made, and nothing more
                self._client.delete_logged_model(each.model_id)
        if linked:
            return self._client.get_logged_model(linked[0])
        model = self._client.create_logged_model(
            run.info.experiment_id, name="model", source_run_id=run.info.run_id, params=dict(run.data.params)
        )
        self._client.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, step=0)])
        return model

    def register(self, model_id: str, name: str, result: Result) -> None:
        """Make a logged model a version of a registered one, which is made where there is none; once."""
        from mlflow.exceptions import MlflowException

        variant, source = result.variant, f"models:/{model_id}"
        with _quiet(), _told(self.uri):
            try:
                self._client.create_registered_model(name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            quoted = name.replace("'", "\\'")
            known = self._client.search_model_versions(f"name = '{quoted}'")
            if not any(source in (each.source, f"models:/{each.model_id}") for each in known):
                tags = {"team": variant.team, "model": variant.model, "method": variant.method}
                self._client.create_model_version(name, source, run_id=None, tags=_cut(tags), model_id=model_id)

    def link(self, run_id: str, model_id: str, result: Result) -> None:
        """Show the numbers of a result with a logged model too. Doing so twice changes nothing."""
        from mlflow.entities import Metric

        now = int(result.ended_s * 1000)
        with _told(self.uri):
            metrics = [
                Metric(name, value, now, 0, model_id=model_id, run_id=run_id)
                for name, value in finite(result.measurements).items()
            ]
            for part in _parts(metrics, _METRICS_PER_CALL):
                self._client.log_batch(run_id, metrics=part)

    def model_name(self, model_id: str) -> str:
        """Give the name that a logged model was given."""
        with _told(self.uri):
            return str(self._client.get_logged_model(model_id).name)

    def experiments(self) -> dict[str, str]:
        """Give the ids of all experiments that are not deleted, by name."""
        with _quiet(), _told(self.uri):
            found: list[Any] = []
            token = None
            while True:
                page = self._client.search_experiments(max_results=_EXPERIMENTS_PER_PAGE, page_token=token)
                found += page
                token = page.token
                if not token:
                    return {each.name: str(each.experiment_id) for each in found}

    def query(self, experiments: Mapping[str, str], where: str = "") -> list[Run]:
        """Read the runs of experiments, newest first.

        Args:
            experiments: names by ids.
            where: a filter in MLflow's own language.

        Raises:
            StoreError: the server can't answer, or can't read the filter.
        """
        ask = self._search_http if self.uri.startswith(_HTTP) else self._search
        with _quiet(), _told(self.uri):
            runs: list[Run] = []
            token = ""
            while True:
                page, token = ask(list(experiments), where, token)
                runs += [replace(run, experiment=experiments[run.experiment]) for run in page]
                if not token:
                    return runs

    def _search(self, experiments: list[str], where: str, token: str) -> tuple[list[Run], str]:
        """Give a page of runs, with their experiments' ids for names, and the token of the next page."""
        page = self._client.search_runs(
            experiments, where, max_results=_PAGE, order_by=_NEWEST, page_token=token or None
        )
        return [self._run(run, run.info.experiment_id) for run in page], page.token or ""

    def _search_http(self, experiments: list[str], where: str, token: str) -> tuple[list[Run], str]:
        """Do as `_search` does, without making protocol buffers of JSON: that is what takes MLflow's client so long."""
        from mlflow.utils.credentials import get_default_host_creds
        from mlflow.utils.rest_utils import http_request, verify_rest_response

        path = "/api/2.0/mlflow/runs/search"
        asked = {"experiment_ids": experiments, "filter": where, "max_results": _PAGE, "order_by": _NEWEST}
        asked |= {"page_token": token} if token else {}
        credentials = get_default_host_creds(self.uri)  # type: ignore[no-untyped-call]
        answer = http_request(credentials, path, "POST", json=asked)  # type: ignore[no-untyped-call]
        found = verify_rest_response(answer, path).json()
        return [self._run_of_json(each["info"], each["data"]) for each in found.get("runs", [])], found.get(
            "next_page_token", ""
        )

    def served(self, experiments: Mapping[str, str], asked: Mapping[str, Sequence[str]]) -> list[Run] | None:
        """Read variants from the page that a server has for it which runs our app; MLflow's search takes far longer.

        Args:
            experiments: names by ids.
            asked: what the page takes: `team`, `model`, `method`, `device`, `since_ms`.

        Returns:
            The runs, newest first, without what no comparison needs. None: the server has no such page.
        """
        from mlflow.utils.credentials import get_default_host_creds
        from mlflow.utils.rest_utils import http_request

        runs: list[Run] = []
        for ids in _parts(list(experiments), _EXPERIMENTS_PER_ADDRESS):
            try:
                credentials = get_default_host_creds(self.uri)  # type: ignore[no-untyped-call]
                answer = http_request(  # type: ignore[no-untyped-call]
                    credentials,
                    _SERVED,
                    "GET",
                    max_retries=0,
                    raise_on_status=False,
                    params={**asked, "experiment_id": ids},
                )
                found = answer.json() if answer.status_code == 200 else {}
                if found.get("compress_runs") != 1:
                    return None
                runs += [self._run_as_served(each, experiments) for each in found["runs"]]
            except Exception:  # whatever it is, MLflow's own search meets it too, and says what
                return None
        return runs

    def _run_as_served(self, each: Mapping[str, Any], experiments: Mapping[str, str]) -> Run:
        return Run(
            run_id=each["run_id"],
            experiment=experiments[each["experiment_id"]],
            name=each["name"],
            lifecycle=each["lifecycle"],
            started_ms=each["started_ms"],
            tags=each["tags"],
            params=each["params"],
            metrics={name: float(value) for name, value in each["metrics"].items()},
            link=self._link(each["experiment_id"], each["run_id"]),
        )

    def log_comparison(self, experiment_id: str, files: Mapping[str, bytes], summary: str) -> str:
        """Keep a comparison's files in the run `comparison`, and tell of it in the experiment's description.

        Args:
            experiment_id: the experiment. It has one such run, which is made where there is none yet.
            files: content by artifact path (`comparison.html`).
            summary: Markdown.

        Returns:
            the run's id.
        """
        with _quiet(), _told(self.uri):
            found = self._client.search_runs([experiment_id], "tags.`compress.role` = 'comparison'", max_results=1)
            tags = {"compress.role": "comparison", "mlflow.note.content": summary}
            run_id = found[0].info.run_id if found else self.start(experiment_id, "comparison", tags)
            self.tag(run_id, tags)
            self.log_files(run_id, files)
            if not found:
                self.end(run_id, succeeded=True)
            self._client.set_experiment_tag(experiment_id, "mlflow.note.content", summary[:_TAG_LIMIT])
            return str(run_id)

    def run(self, run_id: str) -> Run:
        """Read one run.

        Raises:
            StoreError: there is none of that id.
        """
        with _quiet(), _told(self.uri):
            run = self._client.get_run(run_id)
            return self._run(run, self._client.get_experiment(run.info.experiment_id).name)

    def read(self, run_id: str, path: str) -> bytes | None:
        """Read a file of a run's; None where it has none of that name."""
        import tempfile

        with _quiet(), _told(self.uri), tempfile.TemporaryDirectory() as folder:
            if path not in {each.path for each in self._client.list_artifacts(run_id)}:
                return None
            return Path(self._client.download_artifacts(run_id, path, folder)).read_bytes()

    def fetch(self, uri: str) -> Path:
        """Download a model that MLflow names (`models:/NAME/1`, `runs:/ID/model`), once; it goes when the store does.

        Raises:
            StoreError: there is none of that name.
        """
        import tempfile

        if uri not in self._fetched:
            with _quiet(), _told(self.uri):
                import mlflow

                folder = tempfile.TemporaryDirectory(prefix="mlflow-compress-model-")
                path = mlflow.artifacts.download_artifacts(uri, dst_path=folder.name, tracking_uri=self.uri)
                self._fetched[uri] = (Path(path), folder)
        return self._fetched[uri][0]

    def add(
        self, run_id: str, numbers: Mapping[str, float], facts: Mapping[str, str], files: Mapping[str, bytes]
    ) -> None:
        """Add numbers, facts and files to a run that has ended."""
        with _quiet(), _told(self.uri):
            for name, value in finite(numbers).items():
                self._client.log_metric(run_id, name, value)
            self.log_files(run_id, files)
        self.tag(run_id, {f"compress.{name}": text for name, text in facts.items()})

    def add_by_hand(self, experiment_id: str, rows: Sequence[ByHand]) -> int:
        """Store rows of hand-made tables, each as a run that has ended. What is there already is left as it is.

        What a file says about one team, model and method is stored anew when it is not what the newest such runs say;
        these stay, and are older.

        Args:
            experiment_id: where to.
            rows: all rows of the files, the later after the earlier.

        Returns:
            How many were stored.

        Raises:
            StoreError: the server refused, or is gone.
        """
        known: dict[tuple[str, ...], list[str]] = {}
        for run in reversed(self.query({experiment_id: ""}, "tags.`compress.source` = 'imported'")):
            if run.tags.get(LOGGED):
                known.setdefault(_place(run.tags), []).append(run.tags["compress.import_id"])
        asked: dict[tuple[str, ...], list[ByHand]] = {}
        for row in rows:
            asked.setdefault(_place(row.tags), []).append(row)
        new = [
            row
            for place, several in asked.items()
            if [row.digest for row in several] != known.get(place, [])[-len(several) :]
            for row in several
        ]
        now = int(time.time() * 1000)
        for at, row in enumerate(sorted(new, key=lambda row: row.line)):
            self._log_by_hand(experiment_id, row, now + at)  # the later in the file is the newer
        return len(new)

    def _log_by_hand(self, experiment_id: str, row: ByHand, start_ms: int) -> None:
        from mlflow.entities import Metric, Param, RunTag

        source = {"mlflow.source.name": "compress-report import"}
        run_id = self.start(experiment_id, f"{row.model} {row.method}", source, start_ms)
        with _told(self.uri):
            metrics = [Metric(name, value, start_ms, 0) for name, value in finite(row.metrics).items()]
            params = [Param(name, text[:_TAG_LIMIT]) for name, text in row.params.items()]
            tags = [RunTag(name, text) for name, text in _cut({**row.tags, LOGGED: "complete"}).items()]
            self._client.log_batch(run_id, metrics=metrics, params=params)
            for part in _parts(tags, _TAGS_PER_CALL):
                self._client.log_batch(run_id, tags=part)
            self._client.set_terminated(run_id, "FINISHED", end_time=start_ms)

    def _run_of_json(self, info: Mapping[str, Any], data: Mapping[str, Any]) -> Run:
        return Run(
            run_id=info["run_id"],
            experiment=info["experiment_id"],
            name=info.get("run_name", ""),
            lifecycle=info["status"],
            started_ms=int(info.get("start_time", 0)),
            tags={each["key"]: each.get("value", "") for each in data.get("tags", [])},
            params={each["key"]: each.get("value", "") for each in data.get("params", [])},
            metrics={each["key"]: float(each.get("value", 0)) for each in data.get("metrics", [])},
            link=self._link(info["experiment_id"], info["run_id"]),
        )

    def _link(self, experiment_id: str, run_id: str) -> str:
        if not self.uri.startswith(_HTTP):
            return ""
        return f"{without_secrets(self.uri).rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"

    def _run(self, run: Any, experiment: str) -> Run:
        return Run(
            run_id=run.info.run_id,
            experiment=experiment,
            name=run.info.run_name or "",
            lifecycle=run.info.status,
            started_ms=run.info.start_time or 0,
            tags=dict(run.data.tags),
            params=dict(run.data.params),
            metrics=dict(run.data.metrics),
            link=self._link(run.info.experiment_id, run.info.run_id),
        )


def _shown(example: Example) -> dict[str, Any]:
    """Give what MLflow logs of an input example: itself, and a signature."""
    import numpy as np
    import pandas as pd
    from mlflow.models import ModelSignature, infer_signature
    from mlflow.types import Schema, TensorSpec

    given: Any = pd.DataFrame({"text": example.inputs})
    if example.dtype:
        given = np.array(example.inputs, dtype=example.dtype)
    answers: Any = example.outputs
    if answers and isinstance(answers[0], (int, float)):
        answers = np.array(answers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of whole numbers, which can't be missing
        signature = infer_signature(given, answers)
    inputs, outputs = signature.inputs, signature.outputs
    if example.dtype:
        inputs = Schema([TensorSpec(np.dtype(example.dtype), (-1, *example.shape))])
    if outputs is not None and "Any" in str(outputs):  # of a picture in which there was nothing
        outputs = None
    signature = ModelSignature(inputs, outputs)
    return {"signature": signature, "input_example": given}


def tags_of(result: Result) -> dict[str, str]:
    """Give all tags of a result's run."""
    variant = result.variant
    tags = {
        "team": variant.team,
        "model": variant.model,
        "method": variant.method,
        "status": result.status,
        "compress.schema": str(result.schema),
        "compress.role": "variant",
        "compress.batch_size": str(variant.batch_size),
        "compress.setting": variant.setting,
        "compress.cautions": ",".join(caution.code for caution in result.cautions),
        SECONDS: f"{result.ended_s - result.started_s:.1f}",
    }
    if result.reason:
        tags["compress.reason"] = result.reason
    for device, outcome in result.outcomes.items():
        tags[f"compress.outcome.{device}"] = outcome.status
        if outcome.reason:
            tags[f"compress.reason.{device}"] = outcome.reason
    tags |= {f"compress.{key}": value for key, value in result.facts.items()}
    tags |= {f"compress.env.{key}": value for key, value in result.environment.items()}
    return tags


def without_secrets(uri: str) -> str:
    """Give a URI without user name, password and query, fit for messages."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return uri
    # Not urlsplit: it raises on a malformed URI, and a password may hold a slash that nobody escaped.
    rest = rest.partition("?")[0].partition("#")[0]
    return f"{scheme}://{rest if rest.startswith('/') else rest.rpartition('@')[2]}"


def lasting(uri: str) -> str:
    """Give a URI fit to be kept: without secrets, and meaning the same whatever the working folder is."""
    for prefix in ("sqlite:///", ""):
        if uri.startswith(prefix):
            path = uri.removeprefix(prefix)
            is_path = "://" not in path and not path.startswith(("file:", ":", "databricks"))
            return f"{prefix}{Path(path).absolute()}" if is_path and path else without_secrets(uri)
    return without_secrets(uri)


def _place(tags: Mapping[str, str]) -> tuple[str, ...]:
    """Give what an imported run is about, and which file says so."""
    return tuple(tags.get(name, "") for name in ("team", "model", "method", "compress.imported.from"))


def names_model(source: str) -> bool:
    """Say whether a text is the name of a model that a tracking server keeps."""
    return source.startswith(("models:/", "runs:/"))


def _cut(tags: Mapping[str, str]) -> dict[str, str]:
    """Shorten values that MLflow would cut without a word."""
    return {key: value if len(value) <= _TAG_LIMIT else value[: _TAG_LIMIT - 1] + "…" for key, value in tags.items()}


def _parts(things: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(things), size):
        yield things[start : start + size]


def _probe(uri: str) -> None:
    """Ask a server for a sign of life. MLflow's own client would retry for minutes."""
    address = without_secrets(uri).rstrip("/") + "/health"  # urllib takes user:password@ for a part of the host's name
    try:
        urllib.request.urlopen(address, timeout=_HTTP_TIMEOUT_SECONDS).close()  # noqa: S310  (the callers asked for http)
    except urllib.error.HTTPError:
        return  # it answers; whether it lets us in, the client finds out
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise StoreError(
            f"The tracking server {without_secrets(uri)} can't be reached: {reason}. Start it (mlflow server), or set "
            "MLFLOW_TRACKING_URI to one that runs. Nothing was measured."
        ) from error


def _require_database(uri: str) -> None:
    """Make sure that a SQLite store is there and is MLflow's: its client would make tables in whatever it finds."""
    path = uri.removeprefix("sqlite:///")
    if path == uri or path == ":memory:":
        return
    if not Path(path).exists():
        raise StoreError(
            f"There is no tracking store {uri}. Measure something first (compress-bench run digits_cnn), or give "
            "--tracking-uri."
        )
    try:
        address = f"file:{urllib.parse.quote(str(Path(path).resolve()))}?mode=ro"
        with contextlib.closing(sqlite3.connect(address, uri=True)) as database:
            found = database.execute("SELECT COUNT(*) FROM sqlite_master WHERE name IN ('alembic_version', 'runs')")
            is_mlflow = found.fetchone() == (2,)
    except sqlite3.DatabaseError:
        is_mlflow = False
    if not is_mlflow:
        raise StoreError(f"{path} is no tracking store of MLflow's. Give another one with --tracking-uri.")


@contextlib.contextmanager
def _told(uri: str) -> Iterator[None]:
    """Turn whatever MLflow raises into a StoreError that names the server."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        raise StoreError(f"The tracking store {without_secrets(uri)} refused: {_first_line(error, uri)}") from error


def _first_line(error: Exception, uri: str) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0].replace(uri, without_secrets(uri))
    for secret in _secrets(uri):
        line = line.replace(secret, "***")
    return line[:300]


def _secrets(uri: str) -> list[str]:
    """Give what must not be repeated of a URI: the longest first, as one may hold another."""
    rest, _, query = uri.partition("://")[2].partition("?")
    before = "" if rest.startswith("/") else rest.rpartition("@")[0]
    found = {before, before.partition(":")[2], query, *(value for _, value in urllib.parse.parse_qsl(query))}
    return sorted((each for each in found if len(each) >= _SHORTEST_SECRET), key=len, reverse=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep MLflow's notices about tables and signatures off the user's terminal."""
    import mlflow  # noqa: F401  (sets its own levels when it is imported)

    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
