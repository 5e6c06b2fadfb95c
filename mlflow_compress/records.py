"""The frozen records that flow through the pipeline, and their JSON form.

`Variant` says what is asked for, `Result` what came of it, `Run` is a result as the tracking server gives it back, and
`Comparison` is what a report shows. All of them can be printed, saved and replayed.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from mlflow_compress import untrusted
from mlflow_compress.budget import Budget as Budget
from mlflow_compress.errors import Cause
from mlflow_compress.files import whole_file
from mlflow_compress.plain_text import plain
from mlflow_compress.untrusted import read_json as read_json
from mlflow_compress.words import ORIGINAL

SCHEMA_VERSION = 1

Status = Literal["ok", "skipped", "failed"]
Scalar = str | int | float | bool | None
Scale = Literal["share", "hundred", "error_rate", "unbounded"]
LAST_S = 253_402_300_799  # seconds since the epoch at the end of the year 9999: no calendar goes further
LAST_RANK = 1000  # of a metric that says nothing of its rank: it comes after the package's own
_LONGEST_LABEL, _LONGEST_CAUTION = 80, 600  # characters


@dataclass(frozen=True)
class Step:
    """One method of a chain, with the options that were given (defaults are left out)."""

    method: str
    options: Mapping[str, Scalar] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the form of the command line: `prune_magnitude:amount=0.5`."""
        options = ",".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.method}:{options}" if options else self.method


def is_original(chain: tuple[Step, ...]) -> bool:
    """Return whether a chain of methods changes nothing."""
    return chain in ((), (Step(ORIGINAL),))


@dataclass(frozen=True)
class Variant:
    """One model, one chain of methods, one set of settings: all that a worker needs to know.

    Attributes:
        model: the model's name in tables (the recipe's name, a hub id).
        method: the chain's name in tables; the recipe may have given it one.
        team: whose variant it is.
        family: which family handles the model.
        source: where the model comes from: a hub id, a file name, `file.py`.
        weights: `auto`, `pretrained`, `random`, or a local path.
        data: what quality is scored on; None skips quality.
        chain: the methods in order; empty for the original.
        options: the family's options.
        metrics: the names of the quality metrics.
        devices: `cpu` and/or `cuda`.
        batch_size: samples in one timed call.
        setting: what else its row must be told apart by (`tokens=64`, `threads=1`); empty for nothing.
        threads: intra-op threads; None: torch's own choice (the physical cores), but no more than affinity and a
            container's limit allow.
        interleave: whether it is measured in turns with its original.
        seed: of random weights and random inputs.
        limit: most samples to score; None scores all.
        folder: what relative paths in `source` and `data` start from.
        requires: what a machine must have to measure it, see `requirements`; empty: any serves.
    """

    model: str
    method: str
    team: str
    family: str
    source: str
    weights: str = "auto"
    data: str | None = None
    chain: tuple[Step, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("cpu",)
    batch_size: int = 1
    setting: str = ""
    threads: int | None = None
    interleave: bool = False
    seed: int = 0
    limit: int | None = None
    budget: Budget = field(default_factory=Budget)
    folder: str = "."
    requires: Mapping[str, Scalar] = field(default_factory=dict)

    @property
    def is_original(self) -> bool:
        """Return whether it is what its model's other variants are compared with."""
        return is_original(self.chain)

    @property
    def label(self) -> str:
        """Name its row among those of its model, see `row_label`."""
        return row_label(self.method, str(self.batch_size), self.setting)

    @classmethod
    def from_json(cls, data: object) -> Variant:
        """Rebuild what `to_json` wrote, whoever wrote it.

        Raises:
            Malformed: it is no variant.
        """
        return untrusted.record(cls, data, "the variant")


@dataclass(frozen=True)
class MetricFacts:
    """What a reader must know of a quality metric to name its number, to compare it and to judge a loss in it.

    They are logged with the run, so that a reader who has not installed the metric can read the number rightly.

    Attributes:
        label: its name for people, by language; a language that is missing has the English one, and where that is
            missing too, the metric's own name stands.
        scale: `share` (0 to 1), `hundred` (0 to 100), `error_rate` (errors per unit, 0 is perfect, above 1 is possible)
            or `unbounded`; None where it is not known.
        greater_is_better: its direction; None where it is not known.
        rank: which metric stands for a model's quality when several were measured: the smallest.
    """

    label: Mapping[str, str] = field(default_factory=dict)
    scale: Scale | None = None
    greater_is_better: bool | None = None
    rank: int = LAST_RANK

    @property
    def lacks(self) -> tuple[str, ...]:
        """The names of the facts that are not known; a metric without a label goes by its name."""
        known = {"label": bool(self.label), "scale": self.scale, "greater_is_better": self.greater_is_better}
        return tuple(name for name, fact in known.items() if fact is None or (name == "label" and not fact))

    def to_text(self) -> str:
        """Write them as one short line of JSON, for a tag; `from_text` reads it back."""
        label = {language: plain(words, _LONGEST_LABEL) for language, words in self.label.items()}
        data = {**dataclasses.asdict(self), "label": label}
        return json.dumps(data, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> MetricFacts | None:
        """Read a tag; None where it does not hold such facts. What it does not know of a fact is left unknown."""
        try:
            data = untrusted.parse_json(text, "a tag")
        except untrusted.Malformed:
            return None
        if not isinstance(data, dict):
            return None
        label, scale, greater, rank = (data.get(name) for name in ("label", "scale", "greater_is_better", "rank"))
        labels = {str(key): words for key, words in label.items() if words} if isinstance(label, dict) else {}
        return cls(
            label={key: plain(words, _LONGEST_LABEL) for key, words in labels.items() if isinstance(words, str)},
            scale=scale if scale in get_args(Scale) else None,
            greater_is_better=greater if isinstance(greater, bool) else None,
            rank=rank if isinstance(rank, int) and not isinstance(rank, bool) else LAST_RANK,
        )


@dataclass(frozen=True)
class Caution:
    """Something that makes a number less trustworthy, and what to do about it.

    Attributes:
        code: of its kind.
        message: what is wrong, in English.
        advice: what to do, in English.
        texts: the same in each language, as `CautionKind` writes it: by `short`, `message` and `advice`, then by
            language. Empty: `message` is all there is, and a table shows it as it is.
    """

    code: str
    message: str
    advice: str = ""
    texts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def to_text(self) -> str:
        """Write it as one line of JSON, for a tag that a reader in any language can use; `short_texts` reads it."""
        texts = self.texts or {"short": {"en": self.message}, "message": {"en": self.message}}
        texts = {name: {each: _cut(text, _LONGEST_CAUTION) for each, text in by.items()} for name, by in texts.items()}
        return json.dumps({"code": self.code, **texts}, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True)
class CautionKind:
    """What cautions of one kind say, in each language: declared once, where they are raised.

    Attributes:
        code: names the kind in tags; two kinds of one code have the same `short`.
        short: for a table, which says it once for all rows: without numbers. Empty: a table does not show it.
        message: what is wrong, with the numbers as `str.format` fields.
        advice: what to do, likewise.
    """

    code: str
    short: Mapping[str, str]
    message: Mapping[str, str]
    advice: Mapping[str, str]

    def of(self, **said: object) -> Caution:
        """Make a caution.

        Args:
            said: the numbers and names in its texts; a mapping holds a word by language.
        """
        texts = {
            name: {
                language: text.format_map({key: _in(language, value) for key, value in said.items()})
                for language, text in getattr(self, name).items()
            }
            for name in ("message", "advice")
        }
        return Caution(self.code, texts["message"]["en"], texts["advice"]["en"], {"short": dict(self.short), **texts})


def short_texts(text: str) -> tuple[str, Mapping[str, str]] | None:
    """Read what `Caution.to_text` wrote: the code, and the words for a table by language; None where it is no such.

    Where `short` is empty the table is not to show it; where it holds no English, the code stands for that.
    """
    try:
        data = untrusted.parse_json(text, "a tag")
    except untrusted.Malformed:
        return None
    if not isinstance(data, dict) or not isinstance(data.get("code"), str) or not isinstance(data.get("short"), dict):
        return None
    short = {str(each): said for each, said in data["short"].items() if isinstance(said, str) and said}
    return data["code"], {"en": data["code"], **short} if data["short"] else {}


@dataclass(frozen=True)
class Outcome:
    """How one device fared: its status, the reason when it is not `ok`, and the cause: see `Result.cause`."""

    status: Status
    reason: str = ""
    cause: Cause = ""


@dataclass(frozen=True)
class Result:
    """What came of a variant. There is exactly one for each, whatever happens.

    Attributes:
        variant: what was asked for.
        status: `ok`, `skipped` (does not apply) or `failed`.
        reason: why it is not `ok`.
        cause: what it failed for: `recipe`, `weights`, or `measuring`: anything else; `machine`: it was skipped, since
            this machine lacks a device or a library. Otherwise empty, and in what 0.1 wrote.
        measurements: final numbers by metric name (`cpu/latency_p50_ms`); finite numbers only.
        samples: raw samples by name (`cpu/latency_ms`: one number per timed call).
        cautions: what to know before trusting the numbers.
        environment: the machine and the library versions, as text.
        outcomes: how each device fared, by `cpu` and `gpu`, and how scoring did, by `quality`. A variant that could not
            be prepared has none.
        facts: what was found out on the way: `weights` (pretrained, random, local), `timed` (what is inside the timed
            region), `data`, `dtype`.
        started_s: when the variant began, seconds since the epoch.
        ended_s: when it ended, seconds since the epoch.
        schema: version of this record's layout.
    """

    variant: Variant
    status: Status
    reason: str = ""
    measurements: Mapping[str, float] = field(default_factory=dict)
    samples: Mapping[str, list[float]] = field(default_factory=dict)
    cautions: tuple[Caution, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    started_s: float = 0.0
    ended_s: float = 0.0
    cause: Cause = ""
    schema: int = SCHEMA_VERSION

    @classmethod
    def from_json(cls, data: object) -> Result:
        """Rebuild what `to_json` wrote, whoever wrote it.

        Raises:
            Malformed: it is no result, or began or ended at no time that a calendar has.
        """
        result = untrusted.record(cls, data, "the result")
        if not 0 <= min(result.started_s, result.ended_s) <= max(result.started_s, result.ended_s) <= LAST_S:
            raise untrusted.Malformed(f"The result began at {result.started_s} s and ended at {result.ended_s} s.")
        return result


@dataclass(frozen=True)
class Part:
    """What one worker process hands back: a share of the variant's `Result`, under the same names.

    Attributes:
        outcome: how preparing, or measuring on the device, fared.
        quality: how scoring fared; None when nothing was to be scored.
    """

    outcome: Outcome
    quality: Outcome | None = None
    measurements: Mapping[str, float] = field(default_factory=dict)
    samples: Mapping[str, list[float]] = field(default_factory=dict)
    cautions: tuple[Caution, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: object) -> Part:
        """Rebuild what `to_json` wrote, whoever wrote it.

        Raises:
            Malformed: it is no part.
        """
        return untrusted.record(cls, data, "the part")


@dataclass(frozen=True)
class Run:
    """One run as the tracking server holds it.

    Attributes:
        run_id: the server's id of the run.
        experiment: the experiment's name.
        name: the run's name.
        lifecycle: MLflow's own status: RUNNING, FINISHED, FAILED, KILLED, SCHEDULED.
        started_ms: when it started, milliseconds since the epoch.
        tags, params, metrics: as logged.
        link: its page in MLflow's UI; empty where no server shows one.
    """

    run_id: str
    experiment: str
    name: str
    lifecycle: str
    started_ms: int
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    link: str = ""

    def said(self, name: str) -> str:
        """Return a tag, or the param of that name; empty where it has neither."""
        return self.tags.get(name) or self.params.get(name, "")

    @property
    def is_original(self) -> bool:
        """Whether it is what its model's other variants are compared with; of a run of 0.1 its name says so."""
        told = self.tags.get("compress.original")
        return told == "yes" if told else self.said("method") == ORIGINAL


@dataclass(frozen=True)
class Selection:
    """Which runs of some experiments are asked for.

    Attributes:
        teams, models, methods: names as they were logged; empty takes all.
        device: `cpu` or `gpu`: runs that were to measure on it. Empty takes all.
        since_ms: started at or after this, milliseconds since the epoch.
        where: a filter in MLflow's own language.
    """

    teams: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    device: str = ""
    since_ms: int = 0
    where: str = ""

    def takes(self, run: Run) -> bool:
        """Return whether it takes a run, as far as can be told without a server: all but `where`."""
        asked = (("team", self.teams), ("model", self.models), ("method", self.methods))
        return (
            run.started_ms >= self.since_ms
            and all(not names or run.said(kind) in names for kind, names in asked)
            and (not self.device or f"compress.outcome.{self.device}" in run.tags)
        )


@dataclass(frozen=True)
class Reference:
    """The original that a row is compared with, or the baseline that was asked for in its place.

    Attributes:
        team: whose it is.
        by_hand: copied from a table that somebody wrote, not measured by this tool.
        random_weights: whether its quality says nothing, since the weights are random.
        launches: by device, how many processes its latency was measured in.
        model: whose original it is.
        run_id: of the one run that was named as the baseline; empty where it is an original.
    """

    team: str
    by_hand: bool = False
    random_weights: bool = False
    launches: Mapping[str, float] = field(default_factory=dict)
    model: str = ""
    run_id: str = ""


@dataclass(frozen=True)
class Row:
    """One line of the table: one team's model under one method, put together from its newest runs.

    Attributes:
        team, model, method: what the row is about.
        values: numbers by metric name; a metric that nobody measured is absent.
        ratios: value divided by the original's value, by metric name, where both exist.
        ratio_intervals: the 95 % confidence interval of a ratio, of it alone; absent where its noise is not known.
        ratio_degrees: the degrees of freedom behind such an interval; absent where it is as of many.
        not_believed: the metrics whose ratio is left out, since it is none that a compression reaches, or whose number
            is, since it can't be.
        told_apart: whether a ratio, or a score's difference (`quality/wer_difference`), is told apart from the
            original's at 5 % in the whole table; absent where its noise is not known.
        runs: the run that each device's numbers come from, by `cpu` and `gpu`.
        notes: indices into the comparison's footnotes.
        hardware: what its numbers were measured on, in words; empty where nobody knows.
        circumstances: what a number may only be compared under: by `cpu` and `gpu` the hardware and libraries, by
            `quality` the data; and by `cpu_work` and `gpu_work` what one call does, which two models differ in.
        links: the page of each device's run in MLflow's UI, where a server shows one.
        by_hand: copied from a table that somebody wrote, not measured by this tool.
        original: what its ratios and differences are to; None where it has none, and on an original itself.
        random_weights: whether its quality says nothing, since the weights are random.
        dominated: another row is at least as good in every objective and better in one. None: not ranked, since it
            lacks an objective or none was asked for.
        ranked_in: the group of rows that it was compared with for that, by a number; None where it was not ranked.
        is_original: whether it is what others are compared with; None: its name says so.
        source: where the model comes from, as its recipe says it; empty where nobody knows.
        cautions: what to know of what was made or scored, in the comparison's language; not of how quiet it was.
        table: of a row by hand, which table it was copied from; otherwise empty.
        baseline: the model, or the run's id, that was asked for as what it is compared with; empty: nothing was, and it
            is compared with the original of its own model.
    """

    team: str
    model: str
    method: str
    values: Mapping[str, float] = field(default_factory=dict)
    ratios: Mapping[str, float] = field(default_factory=dict)
    ratio_intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    ratio_degrees: Mapping[str, float] = field(default_factory=dict)
    not_believed: tuple[str, ...] = ()
    told_apart: Mapping[str, bool] = field(default_factory=dict)
    runs: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[int, ...] = ()
    hardware: str = ""
    circumstances: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    by_hand: bool = False
    original: Reference | None = None
    random_weights: bool = False
    dominated: bool | None = None
    ranked_in: int | None = None
    is_original: bool | None = None
    source: str = ""
    cautions: tuple[str, ...] = ()
    table: str = ""
    baseline: str = ""


@dataclass(frozen=True)
class Summary:
    """What a method did over several models.

    Attributes:
        method: its name, with batch size and settings.
        models: models behind it, those of several teams counted once.
        ratios: geometric means over the models of value divided by the original's, by metric name.
        differences: means over the models of a score's difference from the original's, by the score's metric name.
        counts: models behind each of these numbers, by metric name.
        rows: rows behind it.
        within_noise: names of those of these numbers that are not told apart from no change.
        noise_unknown: names of those whose noise is not known.
    """

    method: str
    models: int
    ratios: Mapping[str, float] = field(default_factory=dict)
    differences: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    rows: int = 0
    within_noise: tuple[str, ...] = ()
    noise_unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """A variant, or one device of it, that has no number: listed below the table.

    Attributes:
        team, model, method: what it is about.
        status: `failed`, `skipped`, or `in_progress`: it has no result yet.
        device: `cpu` or `gpu`; `quality` of scoring; empty when it befell the whole run.
        reason: why it has none.
        run_id: the run that says so.
    """

    team: str
    model: str
    method: str
    status: str
    device: str
    reason: str
    run_id: str


@dataclass(frozen=True)
class Comparison:
    """Rows against their original, ready to be rendered.

    Attributes:
        rows: by team and model, the original first.
        failures: what was tried and has no number.
        footnotes: sentences that rows refer to by index.
        title: the experiments that the rows come from.
        language: `en` or `ru`.
        columns: what a table shows: `team`, `model`, `method`, `hardware`, `pareto`, `quality` (all scores), or names
            of metrics. Empty: the course's.
        objectives: the metrics that `Row.dominated` was decided on.
        metrics: what the runs say of their quality metrics, by metric name (`quality/wer`).
        greater_is_better: the direction of each metric that has one.
        summaries: what each method did over all models.
    """

    rows: tuple[Row, ...]
    failures: tuple[Failure, ...] = ()
    footnotes: tuple[str, ...] = ()
    title: str = ""
    language: str = "en"
    columns: tuple[str, ...] = ()
    objectives: tuple[str, ...] = ()
    greater_is_better: Mapping[str, bool] = field(default_factory=dict)
    summaries: tuple[Summary, ...] = ()
    metrics: Mapping[str, MetricFacts] = field(default_factory=dict)


def row_label(method: str, batch_size: str, *apart: str) -> str:
    """Name a row among those of its model, as tables do: `int8_dynamic [batch 4, threads=1]`."""
    batch = "" if batch_size == "1" else f"batch {batch_size}"
    inside = ", ".join(filter(None, (batch, *apart)))
    return f"{method} [{inside}]" if inside else method


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _in(language: str, said: object) -> object:
    return said[language] if isinstance(said, Mapping) else said


def to_json(record: Any) -> dict[str, Any]:
    """Return a record as JSON-ready data; `from_json` of the same class reads it back."""
    return dataclasses.asdict(record)


def metric_group(device: str) -> str:
    """Return what the names of a device's metrics begin with: `cpu`, or `gpu` for `cuda`."""
    return "gpu" if device == "cuda" else device


def finite(numbers: Mapping[str, float]) -> dict[str, float]:
    """Keep what is a number: NaN and infinity are never logged (MLflow stores inf as 1.8e308)."""
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}


def write_json(path: Path, record: Any) -> None:
    """Write a record so that a reader sees all of it or nothing.

    Raises:
        OSError: the folder can't be written to.
    """
    with whole_file(path) as aside:
        aside.write_text(json.dumps(to_json(record), ensure_ascii=False, indent=1, allow_nan=False), encoding="utf-8")
