"""Collects runs into the lines of a table: the newest good run of each device, and the failures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import cached_property

from mlflow_compress import words
from mlflow_compress.percentiles import LogError
from mlflow_compress.records import Failure, Run, row_label
from mlflow_compress.reporting import launch_noise
from mlflow_compress.reporting.against_original import shown_scores
from mlflow_compress.reporting.possible import dated, without_impossible
from mlflow_compress.reporting.table_text import LOAD, PREPARE, natural
from mlflow_compress.torch_devices import ACCELERATORS
from mlflow_compress.words import DEVICES

_LONGEST_PACKING = 80  # characters of the description of a quantised checkpoint
_GPU = "compress.outcome.gpu"
_SIZE = "size"
_PRECISIONS = ("float16", "bfloat16", "float32", "float64")


def variants_of(runs: Iterable[Run], devices: Sequence[str]) -> list[Run]:
    """Return the runs that are variants, the newest first, without other devices' numbers; copied rows come last."""
    variants = [dated(run) for run in runs if run.tags.get("compress.role") == "variant"]
    # A copied row never hides a measurement, even if it was imported later.
    variants.sort(key=lambda run: (is_by_hand(run), -run.started_ms, run.run_id))
    if not devices:
        return variants
    hidden_prefixes = tuple(f"{device}/" for device in DEVICES if device not in devices)
    hidden_tags = {f"compress.outcome.{device[:-1]}" for device in hidden_prefixes}
    return [
        replace(
            run,
            tags={name: value for name, value in run.tags.items() if name not in hidden_tags},
            metrics={name: value for name, value in run.metrics.items() if not name.startswith(hidden_prefixes)},
        )
        for run in variants
        if any(f"compress.outcome.{device}" in run.tags for device in devices)
    ]


def on_accelerator(runs: Iterable[Run], device: str) -> list[Run]:
    """Return runs without the GPU numbers of other kinds of accelerators; a run of nothing else is left out.

    Args:
        runs: the runs.
        device: the kind that counts: `cuda`, `mps` or `xpu`. Others (`cpu`, `gpu`, empty) leave the runs as they are.
    """
    if device not in ACCELERATORS:
        return list(runs)
    return [
        run if _accelerator(run) == device else _without_gpu(run)
        for run in runs
        if _accelerator(run) == device or _GPU not in run.tags or "compress.outcome.cpu" in run.tags
    ]


def _accelerator(run: Run) -> str:
    """Return the kind of accelerator of a run's GPU numbers; runs before 0.3 name only CUDA's version."""
    return run.tags.get("compress.env.gpu_device") or ("cuda" if "compress.env.cuda" in run.tags else "")


def _without_gpu(run: Run) -> Run:
    return replace(
        run,
        tags={name: value for name, value in run.tags.items() if name != _GPU},
        metrics={name: value for name, value in run.metrics.items() if not name.startswith("gpu/")},
    )


@dataclass(frozen=True)
class Key:
    """What identifies a row."""

    team: str
    model: str
    method: str
    batch: str
    setting: str = ""
    is_original: bool = False
    by_hand: bool = False
    table: str = ""  # for a copied row: the table that it was copied from
    run_id: str = ""  # where every run has its own row
    started_ms: int = 0

    @classmethod
    def of(cls, run: Run, every_run: bool = False) -> Key:
        """Return the key of the row that a run belongs to."""
        batch, setting = run.tags.get("compress.batch_size") or "1", run.tags.get("compress.setting", "")
        names = run.said("team"), run.said("model"), run.said("method"), batch, setting
        by_hand = is_by_hand(run)
        table = run.tags.get("compress.table", "") if by_hand else ""
        run_identity = (run.run_id, run.started_ms) if every_run else ("", 0)
        return cls(*names, run.is_original, by_hand, table, *run_identity)

    def label(self, precision: str = "") -> str:
        """Return the method as the row names it, see `row_label`; with the time where every run has its own row.

        Args:
            precision: the precision of an original whose weights are not in float32.
        """
        started = datetime.fromtimestamp(self.started_ms / 1000, timezone.utc) if self.run_id else None
        precision_shown = "" if precision in self.setting else precision
        return row_label(
            self.method, self.batch, precision_shown, self.setting, f"{started:%Y-%m-%d %H:%M} UTC" if started else ""
        )

    def place(self) -> tuple[object, ...]:
        """Return the row's position as a sorting key."""
        return (
            natural(self.team),
            natural(self.model),
            self.by_hand,
            natural(self.table),
            not self.is_original,
            natural(self.method),
            natural(self.setting),
            natural(self.batch),
            self.started_ms,
            self.run_id,
        )

    def work(self, team: str) -> tuple[object, ...]:
        """Return what a row and its original have in common, for an original of a given team.

        Measured rows are compared with measured rows, and copied rows with a row of the same table.
        """
        return team, self.model, self.batch, self.setting, self.by_hand, self.table


@dataclass
class Line:
    """The runs behind a row: the newest good one for each device, the newest first.

    Attributes:
        key: what identifies the row.
        runs: the runs by device; under `size` a run whose model could only be sized.
        launches: all good runs of the same variant, by device: they show the noise between launches.
    """

    key: Key
    runs: dict[str, Run] = field(default_factory=dict)
    launches: dict[str, list[Run]] = field(default_factory=dict)

    @cached_property
    def values(self) -> Mapping[str, float]:
        """Each device's numbers from its own run; size, cost, load and quality from the newest run that has them."""
        values = next((numbers for run in self.runs.values() if (numbers := numbers_of(run, _SIZE))), {})
        for group in (PREPARE, LOAD):
            values |= next((numbers for run in self.runs.values() if (numbers := numbers_of(run, group))), {})
        values |= {} if (run := self.scored) is None else shown_scores(numbers_of(run, "quality"))
        for device, run in self.runs.items():
            values.update(numbers_of(run, device))
        return values

    @property
    def precision(self) -> str:
        """The original's precision: how its weights are quantised, else their type; empty where no run records it."""
        if packed := next((text for run in self.runs.values() if (text := run.tags.get("compress.packed", ""))), ""):
            return packed[:_LONGEST_PACKING]
        dtypes = (run.tags.get("compress.dtype", "") for run in self.runs.values())
        return next((dtype for dtype in dtypes if dtype in _PRECISIONS), "")

    def error(self, device: str) -> LogError | None:
        """Return the error of the latency on a device; None where it is unknown."""
        return launch_noise.of(self.runs[device], device, self.launches.get(device, ()))

    @cached_property
    def scored(self) -> Run | None:
        """The newest run with scores; where there is none, the newest with output errors alone."""
        scored = [run for run in self.runs.values() if any(name.startswith("quality/") for name in run.metrics)]
        scored.sort(key=lambda run: "quality/samples" not in run.metrics)
        return scored[0] if scored else None


def sorted_out(
    newest: Sequence[Run], language: str, every_run: bool = False
) -> tuple[dict[Key, Line], dict[Key, list[Failure]]]:
    """Separate lines with numbers from failures. A failure with a later success is dropped."""
    lines: dict[Key, Line] = {}
    failures: dict[Key, list[Failure]] = {}
    devices_tried: dict[Key, set[str]] = {}
    launched: dict[tuple[Key, str], list[Run]] = {}
    for run in newest:
        key, variant = Key.of(run, every_run), Key.of(run)
        newer_devices = frozenset(devices_tried.setdefault(key, set()))
        for device, outcome in _outcomes(run, language).items():
            devices_tried[key].add(device)
            if outcome.status == "ok" and device == "quality":
                continue  # scored in the run of a device: the numbers belong to that run
            if outcome.status == "ok":
                line = lines.setdefault(key, Line(key))
                launches = launched.setdefault((variant, device), [])
                launches.append(run)
                if device not in line.runs:
                    line.launches[device] = launches
                    line.runs[device] = without_impossible(run)
                continue
            if outcome.status == "skipped" and numbers_of(run, _SIZE) and key not in lines:  # only sized, not measured
                lines[key] = Line(key, {_SIZE: without_impossible(run)})
            if device not in newer_devices and (device or not newer_devices):
                failure = Failure(
                    key.team, key.model, key.label(), outcome.status, device, outcome.reason.strip(), run.run_id
                )
                failures.setdefault(key, []).append(failure)
    for row_failures in failures.values():
        row_failures.sort(key=lambda failure: (failure.device, failure.run_id))
    return lines, failures


@dataclass(frozen=True)
class _State:
    """The outcome of a device or a whole run: `ok`, `skipped`, `failed` or `in_progress`, and why it is not `ok`."""

    status: str
    reason: str = ""


def _outcomes(run: Run, language: str) -> dict[str, _State]:
    """Return the outcome of each device, of scoring (`quality`), and under `""` of the whole run."""
    prefix = "compress.outcome."
    reason = run.tags.get("compress.reason", "")
    outcomes: dict[str, _State] = {}
    for tag, value in run.tags.items():
        if tag.startswith(prefix) and (device := tag.removeprefix(prefix)):
            outcomes[device] = _outcome(value, run.tags.get(f"compress.reason.{device}") or reason)
    status = run.tags.get("status")
    if status == "ok":
        return outcomes or _measured(run, language)
    if status is None and not outcomes:
        if run.lifecycle in ("RUNNING", "SCHEDULED"):
            return {"": _State(words.IN_PROGRESS, words.footnote(words.IN_PROGRESS, language))}
        return {"": _State("failed", reason or words.footnote("no_result", language))}
    if status is not None and all(outcome.status == "ok" for outcome in outcomes.values()):
        return {"": _outcome(status, reason), **outcomes}
    return outcomes


def _outcome(status: str, reason: str) -> _State:
    if status == "ok":
        return _State("ok")
    if status == "skipped":
        return _State("skipped", reason)
    return _State("failed", reason)


def _measured(run: Run, language: str) -> dict[str, _State]:
    """Return the outcomes of a run without outcome tags, from the numbers that it has."""
    devices = {device: _State("ok") for device in DEVICES if numbers_of(run, device)}
    return devices or {"": _State("failed", words.footnote("no_numbers", language))}


def is_by_hand(run: Run) -> bool:
    """Return whether a run is a row copied by hand instead of a measurement."""
    return run.tags.get("compress.source") == "imported"


def numbers_of(run: Run, group: str) -> dict[str, float]:
    """Return the numbers of one group (`size`, `cpu`): the part before the slash."""
    return {name: value for name, value in run.metrics.items() if name.startswith(f"{group}/")}
