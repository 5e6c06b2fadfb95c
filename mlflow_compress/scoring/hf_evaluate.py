"""Hugging Face `evaluate`, both ways: our metrics as its metrics, and its modules as metrics of ours.

A recipe's `metrics` name ours, and other distributions' (`f1`, `f1:average=micro`), or modules of evaluate: a script or
its folder (`./my_metric.py`, relative to the recipe) or one of the hub (`evaluate:accuracy`, `evaluate:owner/name`),
whose code is then run. Options of a module are `key`, the number to take where it gives several, and what evaluate does
not know: `greater_is_better`, and `scale`, as `Metric.scale` has it: `evaluate:rouge:key=rougeLsum,scale=share`,
`./edits.py:greater_is_better=false`.
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
from mlflow_compress.sockets import Metric

_PREFIX = "evaluate:"
_ENTRY = re.compile(r"(?P<name>.+?)(?::(?P<options>\w+=.*))?", re.DOTALL)
_OPTIONS = ("key", "greater_is_better", "scale")
_SCALES: tuple[Scale, ...] = get_args(Scale)
_TRUTH = {"true": True, "false": False}


@dataclass
class Evaluated(Metric):
    """A number that a module of Hugging Face evaluate computes.

    Attributes:
        source: its id on the hub, or the path of its script or folder.
        key: which of the numbers that it gives; empty for the first.
        number_scale: what the number goes up to, as `Metric.scale` has it; None: it is not known.
    """

    unit: ClassVar[str] = ""
    greater_is_better: ClassVar[bool] = True

    source: str
    key: str = ""
    number_scale: Scale | None = None
    _module: Any = field(default=None, init=False, repr=False, compare=False)

    @property
    def protocol(self) -> str:
        """The module, with the hash of its code."""
        name = f"{Path(self.source).name}, {self.key}" if self.key else Path(self.source).name
        return f"Hugging Face evaluate module {name}, code {str(self.module()._hash)[:12]}"

    @property
    def facts(self) -> MetricFacts:
        """What is logged beside the number: its label is the module's name, and its key."""
        label = " ".join(filter(None, (Path(self.source).stem, self.key)))
        return MetricFacts({"en": label}, self.number_scale, self.greater_is_better)

    def module(self) -> Any:
        """Load the `evaluate.EvaluationModule`, once.

        Raises:
            RecipeError: it can't be had, or does not run here.
        """
        if self._module is None:
            self._module = _load(self.source)
        return self._module

    def compute(self, references: Sequence[Any], predictions: Sequence[Any]) -> float:
        """Have the module compute, and take its number (see `Metric.compute`).

        Of ranked labels it gets the best, unless it asks for lists.
        """
        module = self.module()
        if not len(references) or len(references) != len(predictions):
            raise ValueError(f"{len(references)} references and {len(predictions)} predictions can't be scored")
        if _takes_scalars(module):
            predictions = [each[0] if isinstance(each, (list, tuple)) and each else each for each in predictions]
        return self._number(module.compute(references=references, predictions=predictions))

    def _number(self, result: Any) -> float:
        numbers = {key: value for key, value in (result or {}).items() if _is_number(value)}
        if self.key and self.key not in numbers:
            raise ValueError(f"{self.source} gives no number {self.key!r}, but {', '.join(numbers) or 'none'}")
        if not numbers:
            raise ValueError(f"{self.source} gives no number")
        value = float(numbers[self.key] if self.key else next(iter(numbers.values())))
        if not math.isfinite(value):
            raise ValueError(f"{self.source} gives no finite number")
        return value


@dataclass
class EvaluatedLoss(Evaluated):
    """The same, for a number that is better when it is smaller."""

    greater_is_better: ClassVar[bool] = False


def metrics_of(
    entries: Sequence[str], folder: Path, *, load: bool = False, gives: Sequence[str] = ()
) -> dict[str, Metric]:
    """Build the metrics that a recipe names.

    Args:
        entries: as the recipe has them (see above).
        folder: what relative paths start from.
        load: whether to load modules of evaluate too, which takes seconds, and the hub: to fail now and not at the end.
        gives: what the predictions are, as `Metric.takes` names it; empty when that is not known.

    Returns:
        The metrics by the names of their numbers: `f1`, or `f1_micro` for `f1:average=micro`.

    Raises:
        UnknownName: there is no such metric or option.
        RecipeError: an option's value is refused, a path does not exist, two metrics have one name, one takes other
            predictions, or a module can't be loaded.
    """
    metrics: dict[str, Metric] = {}
    for entry in entries:
        name, metric = _metric(entry.strip(), folder)
        if gives and metric.takes not in (*gives, "anything"):
            fitting = [each for each in registry.names("metrics") if registry.find("metrics", each).takes in gives]
            raise RecipeError(
                f"The metric {entry} takes {metric.takes}, but the model gives {' or '.join(gives)}. What takes these: "
                f"{', '.join(fitting)}. Name them in a recipe: metrics: [...]."
            )
        if name in metrics:
            raise RecipeError(f"Two metrics would both be called {name!r}: leave one out ({entry!r}).")
        if load and isinstance(metric, Evaluated):
            metric.module()
        metrics[name] = metric
    return metrics


def is_code(entry: str) -> bool:
    """Return whether a metric is a module of evaluate, by path or hub id, whose code runs when it is loaded."""
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
    """Make a metric of a module of Hugging Face evaluate, and load it.

    Args:
        path_or_hub_id: a script, its folder, or an id on the hub (whose code is run).
        key: which of its numbers to take; empty for the first.
        greater_is_better: the number's direction, which evaluate does not know.
        scale: what the number goes up to, as `Metric.scale` has it; evaluate does not know that either.
        folder: what a relative path starts from; None: the current one.

    Raises:
        RecipeError: there is no such script, or the module can't be loaded.
    """
    metric = _evaluated(path_or_hub_id, folder or Path(), key, greater_is_better, scale)
    metric.module()
    return metric


def as_evaluate(name: str, **options: Any) -> Any:
    """Make an `evaluate.Metric` of a metric of ours: `as_evaluate("f1", average="micro").compute(...)`.

    Its `facts` are our metric's. It takes references and predictions as the metric does, by `compute`, `add` and
    `add_batch`; labels of boxes must be numbers.

    Raises:
        UnknownName: no such metric, or no such option.
        RecipeError: a value of the wrong type or out of range.
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
    made = type(type(metric).__name__, (evaluate.Metric,), verbs)
    return made(keep_in_memory=True)


def _metric(entry: str, folder: Path) -> tuple[str, Metric]:
    match = _ENTRY.fullmatch(entry.removeprefix(_PREFIX))
    if match is None:
        raise RecipeError(f"{entry!r} names no metric.")
    source, options = match["name"], _options(entry, match["options"])
    if not (entry.startswith(_PREFIX) or _is_path(source)):
        return _named(source, registry.check("metrics", source, options)), registry.build("metrics", source, options)
    for key in options:
        if key not in _OPTIONS:
            raise UnknownName(f"option of {source}", key, _OPTIONS)
    direction = options.get("greater_is_better", "true").lower()
    if direction not in _TRUTH:
        raise RecipeError(f"{entry}: greater_is_better must be true or false, not {direction!r}.")
    scale = next((each for each in _SCALES if each == options.get("scale")), None)
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
            raise RecipeError(f"{entry!r}: {pair!r} is no option, or is given twice; write NAME:key=value,key=value")
        options[key] = value
    return options


def _named(name: str, options: Mapping[str, Any]) -> str:
    """Name the numbers of a metric, in letters that a tracking server takes."""
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
            f"There is no metric at {path}. Give a Python file that defines an evaluate.Metric, or a folder with such "
            "a file of the same name."
        )
    return kind(source, key, scale)


def _load(source: str) -> Any:
    is_local = Path(source).is_file()
    obstacle = None if is_local else hub.unreachable()
    if obstacle is not None and not _is_cached(source):
        raise RecipeError(
            f"The evaluate module {source} can't be had: {obstacle}, and it is not in the local cache. Connect, or "
            "give the path of its script."
        )
    import evaluate

    if obstacle is not None:
        evaluate.config.HF_EVALUATE_OFFLINE = True  # it would try for long
    try:
        return evaluate.load(source, keep_in_memory=True)
    except Exception as error:  # the module's own code, what it imports, and what evaluate makes of both
        raise RecipeError(f"The evaluate module {source} can't be loaded: {named_line(error)}") from error


def _is_cached(name: str) -> bool:
    """Return whether evaluate has loaded a module of the hub before; asks no evaluate, whose import takes seconds."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    modules = Path(os.environ.get("HF_MODULES_CACHE") or Path(home, "modules")).expanduser()
    folder = name.replace("/", "--") if "/" in name else f"evaluate-*--{name}"
    return any((modules / "evaluate_modules" / "metrics").glob(folder))


def _takes_scalars(module: Any) -> bool:
    """Return whether a module wants one value as each prediction, and no list."""
    import datasets

    kinds = module.features if isinstance(module.features, list) else [module.features]
    return all(isinstance(each.get("predictions"), datasets.Value) for each in kinds)


def _is_number(value: Any) -> bool:
    value = value.item() if getattr(value, "shape", None) == () else value
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _features(takes: str) -> Any:
    """Return the forms in which a metric takes its inputs, of which evaluate chooses one by the first sample."""
    from datasets import Features, Sequence, Value

    text, number = Value("string"), Value("float64")  # as float64, labels of any type of number stay what they are
    texts, numbers = Sequence(text), Sequence(number)

    boxes = {"boxes": Sequence(numbers), "labels": numbers}
    counts = {"nll": number, "tokens": number, "words": number, "bytes": number}
    forms = {
        "labels": [(text, text), (text, texts), (number, number), (number, numbers)],
        "texts": [(text, text)],
        "tags": [(texts, texts)],
        "likelihoods": [(text, counts)],
        "boxes": [(boxes, {**boxes, "scores": numbers})],
    }
    chosen = forms.get(takes) or [pair for pairs in forms.values() for pair in pairs]
    return [Features(references=true, predictions=predicted) for true, predicted in chosen]
