"""Tasks of lm-evaluation-harness as metrics of language models: `lm_eval:arc_easy`.

A recipe's `metrics` name a task or a group of the installed package `lm-eval`, or a task's YAML file, relative to the
recipe, whose code then runs: `lm_eval:mmlu`, `lm_eval:./tasks/ours.yaml`. The task brings its own data and asks the
model its own questions. Options: `key` (which of the task's numbers; the first one), `filter` (which reading of the
answers; the first one), `num_fewshot` (number of examples in the prompt; the task's own) and `limit` (number of samples
of each task; all): `lm_eval:gsm8k:filter=flexible-extract,num_fewshot=5,limit=200`.

Source: Gao et al., A framework for few-shot language model evaluation (lm-evaluation-harness).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from mlflow_compress.errors import RecipeError, UnknownName, named_line
from mlflow_compress.networks import hub
from mlflow_compress.records import MetricFacts, Scale
from mlflow_compress.scoring.lm_eval_model import Clock, harness_model
from mlflow_compress.sockets import AdditiveMetric, TextModel

PREFIX = "lm_eval:"
INSTALL = 'pip install "mlflow-compress[lm-eval]"'
_DISTRIBUTION, _MODULE = "lm-eval", "lm_eval"
_OPTIONS = ("key", "filter", "num_fewshot", "limit")
_COUNTS = {"num_fewshot": 0, "limit": 1}  # least value
_SUFFIXES = (".yaml", ".yml")
_SEED = 1234  # of the harness, for the examples in the prompt
_SHARES = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match")
_SAME = 1e-9


@dataclass(frozen=True)
class Answered:
    """The answers of a model to a task.

    Attributes:
        samples: Numbers of each sample (see `HarnessTask.statistics`).
        digest: Identifies the samples.
    """

    samples: Sequence[Sequence[float]]
    digest: str


@dataclass
class HarnessTask(AdditiveMetric):
    """The score of a task of lm-evaluation-harness.

    It is a mean over samples, or a perplexity: other scores of tasks (F1, BLEU) are rejected when the task is loaded.

    Attributes:
        source: Name of the task or group, or the path of its YAML file.
        key: Which of its numbers to use; empty: the first.
        filter: Which of its filters of the answers to use; empty: the first.
        num_fewshot: Number of examples in the prompt; None: as the task says.
        limit: Number of samples of each task; None: all.
    """

    unit: ClassVar[str] = ""
    greater_is_better: ClassVar[bool] = True  # `facts` has that of the task
    takes = "requests"
    undefined = "no sample has a number"

    source: str
    key: str = ""
    filter: str = ""
    num_fewshot: int | None = None
    limit: int | None = None
    _loaded: Any = field(default=None, init=False, repr=False, compare=False)
    _digest: str = field(default="", init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The name of the task without its folder."""
        return Path(self.source).stem if is_path(self.source) else self.source

    @property
    def facts(self) -> MetricFacts:
        """The facts logged with the number; the direction and the scale are those of the task."""
        task, key = self._first(), self._key()
        scale: Scale = "share" if key in _SHARES and not _is_exponent(task, key) else "unbounded"
        is_better = bool(task.higher_is_better().get(key, True))
        counts = [f"{name}={getattr(self, name)}" for name in _COUNTS if getattr(self, name) is not None]
        return MetricFacts({"en": " ".join(filter(None, (self.name, self.filter, key, *counts)))}, scale, is_better)

    @property
    def protocol(self) -> str:
        """Version of the harness and of the task, its number, the examples in the prompt, and the samples."""
        task, version = self._first(), importlib.metadata.version(_DISTRIBUTION)
        shots = sorted({int(task.config.num_fewshot or 0) for task in self._tasks().values()})
        parts = [
            f"lm-evaluation-harness {version}: {self.name}, version {task.VERSION}",
            self._key(),
            self.filter and f"filter {self.filter}",
            f"{'/'.join(map(str, shots))} examples in the prompt",
            self._digest and f"samples {self._digest}",
        ]
        return ", ".join(filter(None, parts))

    def load(self) -> None:
        """Load the task and its data, once.

        Raises:
            RecipeError: lm-eval is not installed, there is no such task, its data are not available, or its score is
                neither a mean nor a perplexity.
            UnknownName: It has no number of that name.
        """
        if self._loaded is not None:
            return
        if importlib.util.find_spec(_MODULE) is None:
            raise RecipeError(f"The metric {PREFIX}{self.source} requires the package lm-eval: {INSTALL}")
        self._loaded = _load(self.source)
        for name, task in self._tasks().items():
            self._set_shots(name, task)
            if getattr(task, "UNSAFE_CODE", False):
                raise RecipeError(f"The task {name} runs code that the model writes: this is not supported.")
            if getattr(task, "MULTIMODAL", False):
                raise RecipeError(f"The task {name} needs pictures or sound: only tasks of text are supported.")
            if (key := self._key()) not in task.aggregation():
                raise UnknownName(f"number of {name}", key, task.aggregation())
            if _kind(task, key) is None:
                raise RecipeError(
                    f"{PREFIX}{self.source}: {key} of {name} is neither a mean over samples nor a perplexity. Choose "
                    f"another number: {PREFIX}{self.source}:key={'|'.join(task.aggregation())}"
                )

    def ask(self, model: TextModel, limit: int | None, clock: Clock) -> Answered:
        """Ask a model all questions of the task.

        Args:
            model: The model.
            limit: Number of samples of each task if the metric has no limit; None: all.
            clock: Reports progress, and ends the task.

        Raises:
            OutOfTime: The time is over.
            RecipeError: The task does not fit the model, or has no such filter.
        """
        from lm_eval.evaluator import evaluate

        self.load()
        results = evaluate(
            harness_model(model, clock),
            self._loaded,
            limit=self.limit if self.limit is not None else limit,
            bootstrap_iters=0,
            log_samples=True,
        )
        samples = {name: self._chosen(name, rows) for name, rows in results["samples"].items()}
        hashes = [[name, *(str(row["doc_hash"]) for row in rows)] for name, rows in sorted(samples.items())]
        self._digest = hashlib.sha256(repr(hashes).encode()).hexdigest()[:12]
        tasks, key = self._tasks(), self._key()
        numbers = [[_numbers(_kind(tasks[name], key), row[key]) for row in rows] for name, rows in samples.items()]
        answered = [row for rows in numbers for row in rows]
        stated = self._stated(results)
        if stated is not None and not self._is(stated, answered):  # the mean of the tasks' means
            answered = [
                [value / len(rows), weight / len(rows), flag] for rows in numbers for value, weight, flag in rows
            ]
            if not self._is(stated, answered):
                raise RecipeError(
                    f"{PREFIX}{self.source}: the harness computes {stated:.6g}, which is not a mean over samples. Name "
                    f"its tasks one by one: {', '.join(sorted(tasks)[:5])}."
                )
        return Answered(answered, self._digest)

    def statistics(self, references: Sequence[Any], predictions: Sequence[Any]) -> Any:
        """Return for each sample its value, its weight, and 1 if the score is e to their ratio, else 0."""
        import numpy as np

        return np.array(predictions, dtype=np.float64).reshape(-1, 3)

    def reduce(self, sums: Any) -> float:
        """Divide the values by their weights."""
        value, weight, flags = map(float, sums)
        ratio = value / weight if weight else math.nan
        return math.exp(ratio) if flags and ratio < 700 else math.inf if flags else ratio

    def error(self, statistics: Any) -> float:
        """Return the standard error of the score from the numbers of its samples; NaN for a single sample.

        That of a mean is the standard deviation over the root of the number, as in the harness; that of a ratio is
        linearised (delta method).
        """
        import numpy as np

        count, sums = len(statistics), statistics.sum(axis=0)
        if count < 2:
            return math.nan
        score, ratio = self.reduce(sums), sums[0] / sums[1]
        spread = float(np.sqrt(((statistics[:, 0] - ratio * statistics[:, 1]) ** 2).sum() * count / (count - 1)))
        return spread / float(sums[1]) * (score if sums[2] else 1.0)

    def _is(self, stated: float, rows: Sequence[Sequence[float]]) -> bool:
        own = self.reduce(self.statistics([], rows).sum(axis=0))
        return math.isclose(own, stated, rel_tol=_SAME, abs_tol=_SAME)

    def _stated(self, results: Mapping[str, Any]) -> float | None:
        """Return the score of the harness itself; None if it computes none, as for a tag."""
        tables = (results["results"], results.get("groups") or {})
        names = [*self._loaded.get("groups", {})][:1] or [*self._tasks()] if self._is_one() else []
        for name in names:
            for table in tables:
                for metric, value in table.get(name, {}).items():
                    key, _, reading = metric.partition(",")
                    if key == self._key() and reading == (self.filter or reading):
                        return float(value)
        return None

    def _is_one(self) -> bool:
        """Return whether the harness has one score: of a single task, or of a group."""
        return bool(self._loaded.get("groups")) or len(self._tasks()) == 1

    def _chosen(self, name: str, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return the samples of one filter that have the number, in order."""
        filters = list(dict.fromkeys(str(row["filter"]) for row in rows))
        if self.filter and self.filter not in filters:
            raise UnknownName(f"filter of {name}", self.filter, filters)
        chosen = self.filter or filters[0]
        return [row for row in rows if row["filter"] == chosen and self._key() in row]

    def _set_shots(self, name: str, task: Any) -> None:
        """Set the number of examples in the prompt, as the harness does; a task may fix it at 0."""
        stated = task.get_config("num_fewshot")
        if self.num_fewshot is not None and self.num_fewshot != stated:
            if stated == 0:
                raise RecipeError(f"The task {name} allows no examples in the prompt: leave num_fewshot out.")
            task.set_config(key="num_fewshot", value=self.num_fewshot)
        elif stated is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=_SEED)

    def _tasks(self) -> dict[str, Any]:
        self.load()
        tasks: dict[str, Any] = self._loaded["tasks"]
        return tasks

    def _first(self) -> Any:
        return next(iter(self._tasks().values()))

    def _key(self) -> str:
        return self.key or next(iter(self._first().aggregation()))


def task_of(entry: str, source: str, options: Mapping[str, str], folder: Path) -> HarnessTask:
    """Build the metric that a recipe names.

    Args:
        entry: The entry in the recipe, for messages.
        source: Name of the task, or the path of its YAML file.
        options: Its options, as text.
        folder: Folder where a relative path starts.

    Raises:
        UnknownName: An option is unknown.
        RecipeError: A value is not valid, or there is no such file.
    """
    for key in options:
        if key not in _OPTIONS:
            raise UnknownName(f"option of {PREFIX}{source}", key, _OPTIONS)
    counts = {name: _count(entry, name, options[name]) for name in _COUNTS if name in options}
    if is_path(source):
        path = (folder / Path(source).expanduser()).resolve()
        if not path.is_file():
            raise RecipeError(f"There is no task of lm-eval at {path}. Name a YAML file, or a task of the package.")
        source = str(path)
    return HarnessTask(source, options.get("key", ""), options.get("filter", ""), **counts)


def is_task(entry: str) -> bool:
    """Return whether a metric of a recipe is a task."""
    return entry.strip().startswith(PREFIX)


def is_path(source: str) -> bool:
    """Return whether a task is a file: it may name Python code, which then runs."""
    return source.startswith((".", "/", "~")) or source.endswith(_SUFFIXES) or "\\" in source


def _count(entry: str, name: str, text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text) or int(text) < _COUNTS[name]:
        raise RecipeError(f"{entry}: {name} must be a whole number of at least {_COUNTS[name]}, not {text!r}.")
    return int(text)


def _load(source: str) -> dict[str, Any]:
    """Load a task or group with its data, by the task manager of the harness."""
    obstacle = hub.unreachable()
    path = Path(source) if is_path(source) else None
    try:
        with _offline() if obstacle else contextlib.nullcontext(), _inside(path.parent if path else None):
            manager, name = _of_file(path) if path else (_manager(source), source)
            loaded: dict[str, Any] = dict(manager.load([name]))
    except RecipeError:
        raise
    except Exception as error:  # errors of the hub, of data files and of the task's own code have no common class
        reason = f"; {obstacle}" if obstacle else ""
        raise RecipeError(
            f"The task {source} of lm-eval can't be loaded: {named_line(error)}{reason}. Its data must be in the local "
            "cache of the hub, or the hub must be reachable."
        ) from error
    if not loaded.get("tasks"):
        raise RecipeError(f"The task {source} of lm-eval is empty.")
    return loaded


def _of_file(path: Path) -> tuple[Any, str]:
    """Return a task manager that knows the tasks in the folder of a file, and the name of the task in the file."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(path.parent), include_defaults=False)
    entries = manager.task_index.items()
    name = next((name for name, entry in entries if entry.yaml_path and Path(entry.yaml_path).resolve() == path), None)
    if name is None:  # another file defines a task of the same name, or this one defines none
        return manager, str(path)
    if name in manager.all_groups:  # it may name tasks of the package
        members = (manager.task_index[name].cfg or {}).get("task") or ()
        members = [members] if isinstance(members, str) else [member for member in members if isinstance(member, str)]
        if not set(members) <= set(manager.all_tasks):
            manager = TaskManager(include_path=str(path.parent))
    return manager, str(name)


def _manager(source: str) -> Any:
    """Return a task manager that knows a task: it indexes only the folder of the task, because all take half a minute.

    Raises:
        RecipeError: There is no such task.
    """
    from lm_eval.tasks import TaskManager

    folders = _folders(source)
    if len(folders) == 1:
        manager = TaskManager(include_path=str(folders[0]), include_defaults=False)
        if source in manager.all_tasks and source not in manager.all_groups:  # a group may name tasks elsewhere
            return manager
    manager = TaskManager()
    if source not in manager.all_tasks:
        raise RecipeError(_unknown(source, manager.all_tasks))
    return manager


def _unknown(source: str, names: Sequence[str]) -> str:
    """Return the message about an unknown task; the package has too many to list them."""
    import difflib

    near = difflib.get_close_matches(source, names, n=3, cutoff=0.6)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"lm-eval has no task {source!r}.{hint} `lm-eval ls tasks` lists them; a file must end with .yaml."


def _folders(source: str) -> list[Path]:
    """Return the folders directly below the package's tasks with a file that defines a task of this name."""
    import lm_eval.tasks

    root = Path(lm_eval.tasks.__file__).parent
    pattern = re.compile(rb"^task:\s*['\"]?" + re.escape(source.encode()) + rb"['\"]?\s*$", re.MULTILINE)
    files = (path for path in root.rglob("*.y*ml") if pattern.search(path.read_bytes()))
    return sorted({root / path.relative_to(root).parts[0] for path in files if path.parent != root})


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Make the data sets of the hub come from the local cache, without long tries to connect."""
    import datasets
    from huggingface_hub import constants

    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def _inside(folder: Path | None) -> Iterator[None]:
    """Change to the folder of a task's file, where the paths of its data start."""
    before = Path.cwd()
    if folder is not None:
        os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _kind(task: Any, key: str) -> str | None:
    """Return how the numbers of single samples give the score: by the name of the harness; None: in another way."""
    from lm_eval.api.registry import get_aggregation

    kinds = ("mean", "perplexity", "weighted_perplexity", "bits_per_byte")
    aggregation = task.aggregation().get(key)
    return next((kind for kind in kinds if aggregation is get_aggregation(kind)), None)


def _is_exponent(task: Any, key: str) -> bool:
    return _kind(task, key) in ("perplexity", "weighted_perplexity")


def _numbers(kind: str | None, item: Any) -> list[float]:
    """Return the value of one sample, its weight, and whether the score is e to their ratio."""
    if kind == "mean":
        return [float(item), 1.0, 0.0]
    if kind == "perplexity":
        return [-float(item), 1.0, 1.0]
    likelihood, units = item
    if kind == "bits_per_byte":
        return [-float(likelihood), float(units) * math.log(2), 0.0]
    return [-float(likelihood), float(units), 1.0]
