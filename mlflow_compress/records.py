"""The frozen records that flow through the pipeline, and their JSON form.

A `Variant` is what to measure, a `Result` its outcome, a `Run` a result as the tracking server returns it, and a
`Comparison` what a report shows. All of them can be printed, saved and replayed.
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
from mlflow_compress.torch_devices import CPU
from mlflow_compress.untrusted import read_json as read_json
from mlflow_compress.words import ORIGINAL

SCHEMA_VERSION = 1

Status = Literal["ok", "skipped", "failed"]
Scalar = str | int | float | bool | None
Scale = Literal["share", "hundred", "error_rate", "correlation", "unbounded"]
LAST_S = 253_402_300_799  # the end of the year 9999, seconds since the epoch: `datetime` goes no further
LAST_RANK = 1000  # of a metric without a rank: after those of this package
_LONGEST_LABEL, _LONGEST_CAUTION = 80, 600  # characters


@dataclass(frozen=True)
class Step:
    """One method of a chain, with its options (without defaults)."""

    method: str
    options: Mapping[str, Scalar] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the step as on the command line: `prune_magnitude:amount=0.5`."""
        options = ",".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.method}:{options}" if options else self.method


def is_original(chain: tuple[Step, ...]) -> bool:
    """Return whether a chain of methods changes nothing."""
    return chain in ((), (Step(ORIGINAL),))


@dataclass(frozen=True)
class Variant:
    """One model, one chain of methods, one set of settings: everything that a worker needs.

    Attributes:
        model: Name of the model in tables (the recipe's name, a hub id).
        method: Name of the chain in tables; a recipe may define it.
        team: Team of the variant.
        family: Family of the model.
        source: Source of the model: a hub id, a file name, `file.py`.
        weights: `auto`, `pretrained`, `random`, or a local path.
        data: Data for quality; None skips quality.
        chain: Methods in order; empty for the original.
        options: Options of the family.
        metrics: Names of the quality metrics.
        devices: `cpu` and/or an accelerator: `cuda`, `mps` or `xpu`.
        batch_size: Samples in one timed call.
        setting: Other settings that distinguish its row (`tokens=64`, `threads=1`); may be empty.
        threads: Intra-op threads; None: torch's own choice (the physical cores), limited by affinity and a container's
            limit.
        interleave: Whether it is measured in turns with its original.
        seed: Seed for random weights and inputs.
        limit: Maximum number of samples to score; None scores all.
        folder: Base folder of relative paths in `source` and `data`.
        requires: Requirements on the machine, see `requirements`; empty: any machine.
        published: Published scores of the original, by metric.
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
    published: Mapping[str, PublishedScore] = field(default_factory=dict)

    @property
    def is_original(self) -> bool:
        """Return whether it is the original that the model's other variants are compared with."""
        return is_original(self.chain)

    @property
    def label(self) -> str:
        """Return the name of its row among those of its model, see `row_label`."""
        return row_label(self.method, str(self.batch_size), self.setting)

    @classmethod
    def from_json(cls, data: object) -> Variant:
        """Rebuild a variant from untrusted data of `to_json`.

        Raises:
            Malformed: It is not a variant.
        """
        return untrusted.record(cls, data, "the variant")


@dataclass(frozen=True)
class MetricFacts:
    """The facts about a quality metric that are needed to name its number, compare it and judge a loss.

    They are logged with the run, so that a reader without the metric's code can interpret the number.

    Attributes:
        label: Its name for people, by language. The default is the English one, then the metric's own name.
        scale: `share` (0 to 1), `hundred` (0 to 100), `error_rate` (errors per unit, 0 is perfect, values above 1 are
            possible), `correlation` (-1 to 1, 0 is chance) or `unbounded`; None if unknown.
        greater_is_better: Its direction; None if unknown.
        rank: If several metrics were measured, the one with the smallest rank represents the model's quality.
    """

    label: Mapping[str, str] = field(default_factory=dict)
    scale: Scale | None = None
    greater_is_better: bool | None = None
    rank: int = LAST_RANK

    @property
    def lacks(self) -> tuple[str, ...]:
        """The names of the unknown facts."""
        facts = {"label": bool(self.label), "scale": self.scale, "greater_is_better": self.greater_is_better}
        return tuple(name for name, fact in facts.items() if fact is None or (name == "label" and not fact))

    def to_text(self) -> str:
        """Return the facts as one short line of JSON for a tag; `from_text` reads it."""
        label = {language: plain(words, _LONGEST_LABEL) for language, words in self.label.items()}
        data = {**dataclasses.asdict(self), "label": label}
        return json.dumps(data, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> MetricFacts | None:
        """Read the facts from a tag; None if it has none. Invalid facts are unknown."""
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
class PublishedScore:
    """A score of the original that somebody published.

    Attributes:
        value: The score; a share may be in percent.
        data: The data it was computed on, as in a recipe; empty if unknown.
        source: Where it is published.
        tolerance: The difference that is not worth mentioning; None: see `measuring.published`.
    """

    value: float
    data: str = ""
    source: str = "recipe"
    tolerance: float | None = None


PUBLISHED = "published."  # the beginning of the names of the facts that hold a `PublishedVerdict`


@dataclass(frozen=True)
class PublishedVerdict:
    """The comparison of the original's own score with a published one.

    Attributes:
        verdict: `as published`, `differs` (by the protocol, or the model is not the same), or `not comparable`.
        published: The published score, in the metric's scale.
        own: The own score; None if it was not scored.
        source: Where the published score is from.
        reason: Why it is not comparable: `other_data`, `not_scored`.
        data: The data of the published score, for `other_data`.
    """

    verdict: Literal["as published", "differs", "not comparable"]
    published: float
    own: float | None
    source: str
    reason: Literal["", "other_data", "not_scored"] = ""
    data: str = ""

    def to_text(self) -> str:
        """Return it as one short line of JSON for a tag; `from_text` reads it."""
        texts = {"source": plain(self.source, _LONGEST_LABEL), "data": plain(self.data, _LONGEST_LABEL)}
        return json.dumps({**dataclasses.asdict(self), **texts}, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> PublishedVerdict | None:
        """Read it from a tag; None if it is not valid."""
        try:
            verdict = untrusted.record(cls, untrusted.parse_json(text, "a tag"), "the tag")
        except untrusted.Malformed:
            return None
        source, data = (plain(text, _LONGEST_LABEL) for text in (verdict.source, verdict.data))
        return dataclasses.replace(verdict, source=source, data=data)

    @property
    def is_same(self) -> bool:
        """Whether the own score is as published."""
        return self.verdict == "as published"

    @property
    def text(self) -> str:
        """The verdict as a sentence part in English: `differs by -0.021 from 0.911 (recipe; another protocol?)`."""
        published = f"{self.published:g} ({self.source})"
        if self.verdict == "as published":
            return f"as published: {published}"
        if self.verdict == "differs" and self.own is not None:
            return f"differs by {self.own - self.published:+.3g} from the published {published}; another protocol?"
        why = f"was published on {self.data or 'unknown data'}" if self.reason == "other_data" else "was not scored"
        return f"not comparable with the published {published}: it {why}"


@dataclass(frozen=True)
class Caution:
    """Something that makes a number less trustworthy, and what to do about it.

    Attributes:
        code: Code of its kind.
        message: What is wrong, in English.
        advice: What to do, in English.
        texts: The texts of `CautionKind` by `short`, `message` and `advice`, then by language. Empty: there is only
            `message`, and a table shows it.
    """

    code: str
    message: str
    advice: str = ""
    texts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def to_text(self) -> str:
        """Return it as one line of JSON for a tag, with all languages; `short_texts` reads it."""
        texts = self.texts or {"short": {"en": self.message}, "message": {"en": self.message}}
        cut = {
            name: {language: _cut(text, _LONGEST_CAUTION) for language, text in by_language.items()}
            for name, by_language in texts.items()
        }
        return json.dumps({"code": self.code, **cut}, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True)
class CautionKind:
    """The texts of one kind of caution, in each language, declared where the caution is raised.

    Attributes:
        code: Name of the kind in tags; kinds with the same code have the same `short`.
        short: Text for a table, which shows it once for all rows: without numbers. Empty: a table does not show it.
        message: What is wrong, with numbers as `str.format` fields.
        advice: What to do, in the same form.
    """

    code: str
    short: Mapping[str, str]
    message: Mapping[str, str]
    advice: Mapping[str, str]

    def of(self, **values: object) -> Caution:
        """Return a caution.

        Args:
            values: Numbers and names in its texts; a mapping has a word for each language.
        """
        texts = {
            name: {
                language: text.format_map({key: _in(language, value) for key, value in values.items()})
                for language, text in getattr(self, name).items()
            }
            for name in ("message", "advice")
        }
        return Caution(self.code, texts["message"]["en"], texts["advice"]["en"], {"short": dict(self.short), **texts})


def short_texts(text: str) -> tuple[str, Mapping[str, str]] | None:
    """Read a caution of `Caution.to_text`: its code, and its short text by language; None if the text is invalid.

    If `short` is empty, tables do not show the caution; if it has no English, the code is used.
    """
    try:
        data = untrusted.parse_json(text, "a tag")
    except untrusted.Malformed:
        return None
    if not isinstance(data, dict) or not isinstance(data.get("code"), str) or not isinstance(data.get("short"), dict):
        return None
    short = {str(language): words for language, words in data["short"].items() if isinstance(words, str) and words}
    return data["code"], {"en": data["code"], **short} if data["short"] else {}


@dataclass(frozen=True)
class Outcome:
    """The outcome of one device: its status, the reason if it is not `ok`, and the cause (see `Result.cause`)."""

    status: Status
    reason: str = ""
    cause: Cause = ""


@dataclass(frozen=True)
class Result:
    """The result of a variant. There is exactly one for each variant, whatever happens.

    Attributes:
        variant: The variant.
        status: `ok`, `skipped` (does not apply) or `failed`.
        reason: Why it is not `ok`.
        cause: Cause of a failure: `recipe`, `weights`, or `measuring` for anything else; `machine`: it was skipped
            because this machine lacks a device or a library. Otherwise empty, also in results of 0.1.
        measurements: Final numbers by metric name (`cpu/latency_p50_ms`); only finite numbers.
        samples: Raw samples by name (`cpu/latency_ms`: one number per timed call).
        cautions: What to know before trusting the numbers.
        environment: The machine and the library versions, as text.
        outcomes: Outcome of each device, by `cpu` and `gpu`, and of scoring, by `quality`. Empty if the variant could
            not be prepared.
        facts: Facts about the measurement: `weights` (pretrained, random, local), `timed` (what is inside the timed
            region), `data`, `dtype`.
        started_s: Start time, seconds since the epoch.
        ended_s: End time, seconds since the epoch.
        schema: Version of this record's layout.
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
        """Rebuild a result from untrusted data of `to_json`.

        Raises:
            Malformed: It is not a result, or its times are impossible.
        """
        result = untrusted.record(cls, data, "the result")
        if not 0 <= min(result.started_s, result.ended_s) <= max(result.started_s, result.ended_s) <= LAST_S:
            raise untrusted.Malformed(f"The result has impossible times: {result.started_s} s to {result.ended_s} s.")
        return result


@dataclass(frozen=True)
class Part:
    """The output of one worker process: a part of the variant's `Result`, with the same names.

    Attributes:
        outcome: Outcome of preparing, or of measuring on the device.
        quality: Outcome of scoring; None if nothing was to be scored.
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
        """Rebuild a part from untrusted data of `to_json`.

        Raises:
            Malformed: It is not a part.
        """
        return untrusted.record(cls, data, "the part")


@dataclass(frozen=True)
class Run:
    """One run of the tracking server.

    Attributes:
        run_id: Id of the run.
        experiment: Name of the experiment.
        name: Name of the run.
        lifecycle: MLflow's own status: RUNNING, FINISHED, FAILED, KILLED, SCHEDULED.
        started_ms: Start time, milliseconds since the epoch.
        tags, params, metrics: As logged.
        link: Its page in MLflow's UI; empty if there is no server.
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
        """Return a tag, or else the param of that name; empty if there is neither."""
        return self.tags.get(name) or self.params.get(name, "")

    @property
    def is_original(self) -> bool:
        """Whether it is the original that the model's other variants are compared with; for 0.1 the name decides."""
        tag = self.tags.get("compress.original")
        return tag == "yes" if tag else self.said("method") == ORIGINAL


@dataclass(frozen=True)
class Selection:
    """A selection of runs.

    Attributes:
        teams, models, methods: Names as logged; empty selects all.
        device: `cpu` or `gpu`: runs with a measurement on it. Empty selects all.
        since_ms: Earliest start time, milliseconds since the epoch.
        where: Filter in MLflow's search syntax.
    """

    teams: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    device: str = ""
    since_ms: int = 0
    where: str = ""

    def takes(self, run: Run) -> bool:
        """Return whether it selects a run, without evaluating `where`, which needs a server."""
        filters = (("team", self.teams), ("model", self.models), ("method", self.methods))
        return (
            run.started_ms >= self.since_ms
            and all(not names or run.said(kind) in names for kind, names in filters)
            and (not self.device or f"compress.outcome.{self.device}" in run.tags)
        )


@dataclass(frozen=True)
class Reference:
    """The original that a row is compared with, or the baseline requested instead.

    Attributes:
        team: Its team.
        by_hand: Whether it was copied from a hand-made table, not measured by this tool.
        random_weights: Whether its quality is meaningless because the weights are random.
        launches: Number of processes in which its latency was measured, by device.
        model: Its model.
        run_id: Id of the run that was named as the baseline; empty for an original.
        published: See `Row.published`.
    """

    team: str
    by_hand: bool = False
    random_weights: bool = False
    launches: Mapping[str, float] = field(default_factory=dict)
    model: str = ""
    run_id: str = ""
    published: str = ""


@dataclass(frozen=True)
class Row:
    """One row of the table: one team's model with one method, combined from its newest runs.

    Attributes:
        team, model, method: Names of the row.
        values: Numbers by metric name, without metrics that were not measured.
        ratios: Value divided by the original's value, by metric name, where both exist.
        ratio_intervals: The 95 % confidence interval of a single ratio; absent if its noise is unknown.
        ratio_degrees: Degrees of freedom of such an interval; absent if they are many.
        not_believed: Metrics whose ratio is omitted because compression can't reach it, or whose number is omitted
            because it is impossible.
        told_apart: Whether a ratio, or a score's difference (`quality/wer_difference`), is significant at 5 % over the
            whole table; absent if its noise is unknown.
        runs: Run of each device's numbers, by `cpu` and `gpu`; by `size` of a model that only another machine can run.
        notes: Indices into the comparison's footnotes.
        hardware: Hardware of the measurement, as text; empty if unknown.
        circumstances: Conditions that must be equal to compare numbers: by `cpu` and `gpu` the hardware and libraries,
            by `quality` the data; by `cpu_work` and `gpu_work` the work of one call, which differs between models.
        links: Page of each device's run in MLflow's UI, if a server has one.
        by_hand: Whether it was copied from a hand-made table, not measured by this tool.
        original: What its ratios and differences refer to; None if there is none, and for an original itself.
        random_weights: Whether its quality is meaningless because the weights are random.
        dominated: Whether another row is at least as good in every objective and better in one. None: not ranked,
            because it lacks an objective or no ranking was requested.
        ranked_in: Number of the group of rows that it was ranked in; None if it was not ranked.
        is_original: Whether others are compared with it; None: the method name decides.
        source: Source of the model in its recipe; empty if unknown.
        cautions: Cautions about the model and its scores, in the comparison's language; not about noise.
        table: For a row by hand, the table it was copied from; otherwise empty.
        baseline: Model or run id that was requested as its baseline; empty: it is compared with the original of its own
            model.
        published: For an original: `as published`, `differs` or `not comparable`, the worst verdict on its scores;
            empty: no published score is known.
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
    published: str = ""


@dataclass(frozen=True)
class Summary:
    """The effect of a method over several models.

    Attributes:
        method: Its name, with batch size and settings.
        models: Number of models; a model of several teams counts once.
        ratios: Geometric means over the models of value divided by the original's, by metric name.
        differences: Means over the models of a score's difference from the original's, by the score's metric name.
        counts: Number of models for each of these numbers, by metric name.
        rows: Number of rows.
        within_noise: Names of the numbers that are not significantly different from no change.
        noise_unknown: Names of the numbers with unknown noise.
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
    """A variant, or one device of it, without numbers: listed below the table.

    Attributes:
        team, model, method: Names of the row.
        status: `failed`, `skipped`, or `in_progress`: it has no result yet.
        device: `cpu` or `gpu`; `quality` for scoring; empty for the whole run.
        reason: Why it has no numbers.
        run_id: Its run.
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
    """Rows compared with their originals, ready to be rendered.

    Attributes:
        rows: Rows by team and model, the original first.
        failures: Variants without numbers.
        footnotes: Sentences that rows refer to by index.
        title: Experiments of the rows.
        language: `en` or `ru`.
        columns: Columns of a table: `team`, `model`, `method`, `hardware`, `pareto`, `quality` (all scores), or names
            of metrics. Empty: the course's columns.
        objectives: Metrics that `Row.dominated` is based on.
        metrics: Facts of the runs about their quality metrics, by metric name (`quality/wer`).
        greater_is_better: Direction of each metric that has one.
        summaries: Effect of each method over all models.
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
    """Return the name of a row among those of its model, as in tables: `int8_dynamic [batch 4, threads=1]`."""
    batch = "" if batch_size == "1" else f"batch {batch_size}"
    details = ", ".join(filter(None, (batch, *apart)))
    return f"{method} [{details}]" if details else method


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _in(language: str, value: object) -> object:
    return value[language] if isinstance(value, Mapping) else value


def to_json(record: Any) -> dict[str, Any]:
    """Return a record as JSON data; `from_json` of the same class reads it."""
    return dataclasses.asdict(record)


def metric_group(device: str) -> str:
    """Return the first part of a device's metric names: `cpu`, or `gpu` for every accelerator."""
    return CPU if device == CPU else "gpu"


def finite(numbers: Mapping[str, float]) -> dict[str, float]:
    """Return only the finite numbers: NaN and infinity are never logged (MLflow stores inf as 1.8e308)."""
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}


def write_json(path: Path, record: Any) -> None:
    """Write a record atomically: a reader sees all of it or nothing.

    Raises:
        OSError: The folder can't be written to.
    """
    with whole_file(path) as partial_path:
        partial_path.write_text(
            json.dumps(to_json(record), ensure_ascii=False, indent=1, allow_nan=False), encoding="utf-8"
        )
