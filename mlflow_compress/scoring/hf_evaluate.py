"""Hugging Face `evaluate`: use our metrics as its metrics, and its modules as our metrics.

A recipe's `metrics` name our metrics, metrics of other distributions (`f1`, `f1:average=micro`), or evaluate modules: a
script or its folder (`./my_metric.py`, relative to the recipe) or a module on the hub (`evaluate:accuracy`,
`evaluate:owner/name`), whose code is then run. A module's options are `key`, which chooses one of several numbers, and
facts that evaluate does not know: `greater_is_better`, and `scale` (see `Metric.scale`):
`evaluate:rouge:key=rougeLsum,scale=share`, `./edits.py:greater_is_better=false`. Tasks of lm-evaluation-harness are
metrics, too: see `lm_eval_tasks`.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, get_args

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError, UnknownName, named_line
from mlflow_compress.networks import hub
from mlflow_compress.records import MetricFacts, Scale
from mlflow_compress.scoring import lm_eval_tasks
from mlflow_compress.scoring.lm_eval_tasks import HarnessTask
from mlflow_compress.sockets import Metric

_PREFIX = "evaluate:"
_ENTRY = re.compile(r"(?P<name>.+?)(?::(?P<options>\w+=.*))?", re.DOTALL)
_OPTIONS = ("key", "greater_is_better", "scale")
_SCALES: tuple[Scale, ...] = get_args(Scale)
_TRUTH = {"true": True, "false": False}


@dataclass
class Evaluated(Metric):
    """A number computed by a Hugging Face evaluate module.

    Attributes:
        source: its id on the hub, or the path of its script or folder.
        key: which of its numbers to use; empty: the first.
        number_scale: the scale of the number, see `Metric.scale`; None: unknown.
    """

    unit: ClassVar[str] = ""
    greater_is_better: ClassVar[bool] = True

    source: str
    key: str = ""
    number_scale: Scale | None = None
    _module: Any = field(default=None, init=False, repr=False, compare=False)

    @property
    def protocol(self) -> str:
        """The module's name, and the hash of its code."""
        name = f"{Path(self.source).name}, {self.key}" if self.key else Path(self.source).name
        return f"Hugging Face evaluate module {name}, code {str(self.module()._hash)[:12]}"

    @property
    def facts(self) -> MetricFacts:
        """The facts logged with the number; its label is the module's name and the key."""
        label = " ".join(filter(None, (Path(self.source).stem, self.key)))
        return MetricFacts({"en": label}, self.number_scale, self.greater_is_better)

    def module(self) -> Any:
        """Load the `evaluate.EvaluationModule`, once.

        Raises:
            RecipeError: it is not available, or does not run here.
        """
        if self._module is None:
            self._module = _load(self.source)
        return self._module

    def compute(self, references: Sequence[Any], predictions: Sequence[Any]) -> float:
        """Run the module and return its number (see `Metric.compute`).

        The module gets the best of ranked labels, unless it takes lists.
        """
        module = self.module()
        if not len(references) or len(references) != len(predictions):
            raise ValueError(f"{len(references)} references and {len(predictions)} predictions can't be scored")
        if _takes_scalars(module):
            predictions = [
                ranking[0] if isinstance(ranking, (list, tuple)) and ranking else ranking for ranking in predictions
            ]
        return self._number(module.compute(references=references, predictions=predictions))

    def _number(self, result: Any) -> float:
        numbers = {key: value for key, value in (result or {}).items() if _is_number(value)}
        if self.key and self.key not in numbers:
            raise ValueError(f"{self.source} returns no number {self.key!r}, only {', '.join(numbers) or 'none'}")
        if not numbers:
            raise ValueError(f"{self.source} returns no number")
        value = float(numbers[self.key] if self.key else next(iter(numbers.values())))
        if not math.isfinite(value):
            raise ValueError(f"{self.source} returns no finite number")
        return value


@dataclass
class EvaluatedLoss(Evaluated):
    """A number of a Hugging Face evaluate module that is better when it is smaller."""

    greater_is_better: ClassVar[bool] = False


def metrics_of(
    entries: Sequence[str], folder: Path, *, load: bool = False, gives: Sequence[str] = ()
) -> dict[str, Metric]:
    """Build the metrics that a recipe names.

    Args:
        entries: the recipe's entries (see above).
        folder: folder where relative paths start.
        load: whether to load evaluate modules and tasks now, to fail early; it takes seconds and may need the hub.
        gives: kinds of predictions, see `Metric.takes`; empty: unknown.

    Returns:
        The metrics by the names of their numbers: `f1`, or `f1_micro` for `f1:average=micro`.

    Raises:
        UnknownName: a metric or option is unknown.
        RecipeError: an option's value is not valid, a path does not exist, two metrics have the same name, one takes
            other predictions, or a module can't be loaded.
    """
    metrics: dict[str, Metric] = {}
    for entry in entries:
        name, metric = _metric(entry.strip(), folder)
        if gives and isinstance(metric, HarnessTask) and metric.takes not in gives:
            raise RecipeError(
                f"The metric {entry} asks a language model how texts continue (family causal_lm), but this model "
                f"returns {' or '.join(gives)}. Leave it out."
            )
        if gives and metric.takes not in (*gives, "anything"):
            fitting = [name for name in registry.names("metrics") if registry.find("metrics", name).takes in gives]
            raise RecipeError(
                f"The metric {entry} takes {metric.takes}, but the model returns {' or '.join(gives)}. Use one of: "
                f"{', '.join(fitting)}. Name them in a recipe: metrics: [...]."
            )
        if name in metrics:
            raise RecipeError(f"Two metrics have the name {name!r}: leave one out ({entry!r}).")
        if load and isinstance(metric, Evaluated):
            metric.module()
        if load and isinstance(metric, HarnessTask):
            metric.load()
        metrics[name] = metric
    return metrics


def is_code(entry: str) -> bool:
    """Return whether a metric runs code when it is loaded: an evaluate module, by path or hub id, or a task's file."""
    if entry.strip().startswith(lm_eval_tasks.PREFIX):
        match = _ENTRY.fullmatch(entry.strip().removeprefix(lm_eval_tasks.PREFIX))
        return match is not None and lm_eval_tasks.is_path(match["name"])
    match = _ENTRY.fullmatch(entry.strip().removeprefix(_PREFIX))
    return entry.strip().startswith(_PREFIX) or (match is not None and _is_path(match["name"]))


def from_evaluate(
    path_or_hub_id: str,
    *,
    key: str = "",
    greater_is_better: bool = True,
    scale: Scale | None = None,
    folder: Path | None = None,
) -> Evaluated:
    """Create a metric from a Hugging Face evaluate module, and load it.

    Args:
        path_or_hub_id: a script, its folder, or an id on the hub (whose code is run).
        key: which of its numbers to use; empty: the first.
        greater_is_better: direction of the number, which evaluate does not know.
        scale: scale of the number, see `Metric.scale`; evaluate does not know it either.
        folder: folder where a relative path starts; None: the current one.

    Raises:
        RecipeError: there is no such script, or the module can't be loaded.
    """
    metric = _evaluated(path_or_hub_id, folder or Path(), key, greater_is_better, scale)
    metric.module()
    return metric


def as_evaluate(name: str, **options: Any) -> Any:
    """Create an `evaluate.Metric` from one of our metrics: `as_evaluate("f1", average="micro").compute(...)`.

    It has the metric's `facts`. Its `compute`, `add` and `add_batch` take the metric's references and predictions;
    labels of boxes must be numbers.

    Raises:
        UnknownName: a metric or option is unknown.
        RecipeError: a value has the wrong type or is out of range.
    """
    import evaluate

    metric: Metric = registry.build("metrics", name, options)

    def info(self: Any) -> Any:
        return evaluate.MetricInfo(
            description=metric.protocol,
            citation="",
            inputs_description=f"references and predictions: {metric.takes}",
            features=_features(metric.takes),
        )

    def compute(self: Any, references: Sequence[Any], predictions: Sequence[Any]) -> dict[str, float]:
        return {name: metric.compute(list(references), list(predictions))}

    verbs = {"_info": info, "_compute": compute, "facts": metric.facts}
    adapter = type(type(metric).__name__, (evaluate.Metric,), verbs)
    return adapter(keep_in_memory=True)


def _metric(entry: str, folder: Path) -> tuple[str, Metric]:
    is_task = entry.startswith(lm_eval_tasks.PREFIX)
    match = _ENTRY.fullmatch(entry.removeprefix(lm_eval_tasks.PREFIX if is_task else _PREFIX))
    if match is None:
        raise RecipeError(f"{entry!r} is not the name of a metric.")
    source, options = match["name"], _options(entry, match["options"])
    if is_task:
        task = lm_eval_tasks.task_of(entry, source, options, folder)
        return _named(task.name, {key: int(text) if text.isdigit() else text for key, text in options.items()}), task
    if not (entry.startswith(_PREFIX) or _is_path(source)):
        return _named(source, registry.check("metrics", source, options)), registry.build("metrics", source, options)
    for key in options:
        if key not in _OPTIONS:
            raise UnknownName(f"option of {source}", key, _OPTIONS)
    direction = options.get("greater_is_better", "true").lower()
    if direction not in _TRUTH:
        raise RecipeError(f"{entry}: greater_is_better must be true or false, not {direction!r}.")
    scale = next((name for name in _SCALES if name == options.get("scale")), None)
    if "scale" in options and scale is None:
        raise RecipeError(f"{entry}: scale must be {', '.join(_SCALES)}, not {options['scale']!r}.")
    key = options.get("key", "")
    metric = _evaluated(source, folder, key, _TRUTH[direction], scale)
    return _named(Path(source).stem, {"key": key} if key else {}), metric


def _options(entry: str, text: str | None) -> dict[str, str]:
    options: dict[str, str] = {}
    for pair in text.split(",") if text else []:
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or key in options:
            raise RecipeError(f"{entry!r}: {pair!r} is not an option, or given twice; write NAME:key=value,key=value")
        options[key] = value
    return options


def _named(name: str, options: Mapping[str, Any]) -> str:
    """Return the name of a metric's numbers, in characters that a tracking server accepts."""
    parts = [str(value) if isinstance(value, str) else f"{key}_{value}".lower() for key, value in options.items()]
    return re.sub(r"[^\w.-]+", "_", "_".join([name, *parts]), flags=re.ASCII)


def _is_path(text: str) -> bool:
    return text.startswith((".", "/", "~")) or text.endswith(".py") or "\\" in text


def _evaluated(source: str, folder: Path, key: str, greater_is_better: bool, scale: Scale | None) -> Evaluated:
    kind = Evaluated if greater_is_better else EvaluatedLoss
    path = folder / Path(source).expanduser()
    if (script := path / f"{path.name}.py").is_file():
        path = script
    if path.is_file():
        return kind(str(path.resolve()), key, scale)
    if _is_path(source):
        raise RecipeError(
            f"There is no metric at {path}. Use a Python file that defines an evaluate.Metric, or a folder with "
            "such a file of the same name."
        )
    return kind(source, key, scale)


def _load(source: str) -> Any:
    is_local = Path(source).is_file()
    obstacle = None if is_local else hub.unreachable()
    if obstacle is not None and not _is_cached(source):
        raise RecipeError(
            f"The evaluate module {source} is not available: {obstacle}, and it is not in the local cache. Connect, or "
            "give the path of its script."
        )
    import evaluate

    if obstacle is not None:
        evaluate.config.HF_EVALUATE_OFFLINE = True  # otherwise it retries for a long time
    try:
        return evaluate.load(source, keep_in_memory=True)
    except Exception as error:  # any error of the module's code, its imports, or evaluate
        raise RecipeError(f"The evaluate module {source} can't be loaded: {named_line(error)}") from error


def _is_cached(name: str) -> bool:
    """Return whether evaluate has cached a hub module, without importing evaluate, which takes seconds."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    modules = Path(os.environ.get("HF_MODULES_CACHE") or Path(home, "modules")).expanduser()
    folder = name.replace("/", "--") if "/" in name else f"evaluate-*--{name}"
    return any((modules / "evaluate_modules" / "metrics").glob(folder))


def _takes_scalars(module: Any) -> bool:
    """Return whether a module takes a single value as each prediction, not a list."""
    import datasets

    forms = module.features if isinstance(module.features, list) else [module.features]
    return all(isinstance(form.get("predictions"), datasets.Value) for form in forms)


def _is_number(value: Any) -> bool:
    value = value.item() if getattr(value, "shape", None) == () else value
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _features(takes: str) -> Any:
    """Return the forms of a metric's inputs; evaluate chooses one by the first sample."""
    from datasets import Features, Sequence, Value

    text, number = Value("string"), Value("float64")  # float64 keeps labels of any number type
    texts, numbers = Sequence(text), Sequence(number)

    boxes = {"boxes": Sequence(numbers), "labels": numbers}
    counts = {"nll": number, "tokens": number, "words": number, "bytes": number}
    forms = {
        "labels": [(text, text), (text, texts), (number, number), (number, numbers)],
        "scores": [
            (text, {"labels": texts, "probabilities": numbers}),
            (number, {"labels": numbers, "probabilities": numbers}),
        ],
        "texts": [(text, text)],
        "tags": [(texts, texts)],
        "likelihoods": [(text, counts)],
        "boxes": [(boxes, {**boxes, "scores": numbers})],
    }
    pairs_of_features = forms.get(takes) or [pair for pairs in forms.values() for pair in pairs]
    return [Features(references=true, predictions=predicted) for true, predicted in pairs_of_features]
