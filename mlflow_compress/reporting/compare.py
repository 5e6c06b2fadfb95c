"""Puts runs side by side: from the runs of some experiments to the rows of one table.

Nothing here asks a server or the clock: the same runs always give the same comparison, in whatever order they come.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import cached_property, lru_cache

from mlflow_compress import words
from mlflow_compress.percentiles import difference_interval, ratio_interval
from mlflow_compress.records import Comparison, Failure, Outcome, Row, Run, finite, short_texts
from mlflow_compress.reporting import metric_facts
from mlflow_compress.reporting.table_text import COLUMNS, DIFFERENCE, natural
from mlflow_compress.words import DEVICES, ORIGINAL

_PROTOCOL = "compress.protocol."
_WITH_HARDWARE = ("hardware", *(column.key for column in COLUMNS))
_CAUTION = "compress.caution."


def compare(
    runs: Iterable[Run],
    *,
    originals: Iterable[Run] = (),
    title: str | None = None,
    language: str = "en",
    devices: Sequence[str] = (),
    every_run: bool = False,
) -> Comparison:
    """Put a table together.

    A row is one team's model under one method at one batch size and setting. Each device's numbers come from the newest
    run in which that device was ok, so that a laptop's CPU run and a server's GPU run make one row; size and quality
    come from the newest of these that has them. Ratios are to the original of the same team and model at the same
    batch size and setting, else to the newest of another team. Numbers of different hardware are never divided.

    A score that was made of the same samples by the same protocol as the original's gets its difference from that,
    `quality/wer_difference`, with the ends of the 95 % interval of it, `_low` and `_high`: where both were paired when
    they were measured, that of the pairs, else one from both scores' own intervals, which is wider. Where neither is
    known the difference has no interval.

    A device that has no number, or whose newest attempt failed or was skipped, is listed as a failure.

    Rows are sorted by team and model, the original first, then by method, all in natural order. Where their hardware
    differs, rows of the same hardware stand together, and the table says what it is.

    Args:
        runs: all runs of the experiments; those that are no variant are passed over.
        originals: runs that are not shown, but that those shown may be compared with.
        title: None takes the experiments' names.
        language: `en` or `ru`.
        devices: `cpu`, `gpu`: what was measured on others is left out. Empty takes all.
        every_run: a row for each run, whatever came after it.
    """
    newest = _variants(runs, devices)
    lines, failures = _sorted_out(newest, language, every_run)
    everything = _sorted_out(_variants([*newest, *originals], devices), language)[0]
    known = everything if every_run else everything | lines
    scored = sorted(
        {run.run_id: run for line in lines.values() if (run := line.scored) is not None}.values(),
        key=lambda run: (-run.started_ms, run.run_id),
    )
    newest_of: dict[_Key, _Line] = {}  # the newest original of any team, by all else
    for key, line in everything.items():
        if key.method == ORIGINAL:
            newest_of.setdefault(key.original(""), line)
    found = {key: known.get(key.original(key.team)) or newest_of.get(key.original("")) for key in lines}
    hardware = {key: _hardware_of(lines[key], found[key]) for key in lines}
    apart = len(set(hardware.values())) > 1

    def place(key: _Key) -> tuple[object, ...]:
        return (natural(hardware.get(key, "")) if apart else (), key.place())

    footnotes: dict[str, int] = {}
    return Comparison(
        rows=tuple(_row(lines[key], found[key], footnotes, language) for key in sorted(lines, key=place)),
        failures=tuple(failure for key in sorted(failures, key=_Key.place) for failure in failures[key]),
        footnotes=tuple(footnotes),
        title=", ".join(sorted({run.experiment for run in newest})) if title is None else title,
        language=language,
        columns=_WITH_HARDWARE if apart else (),
        metrics=metric_facts.agreed(scored),
    )


def _variants(runs: Iterable[Run], devices: Sequence[str]) -> list[Run]:
    """Give the runs that are variants, the newest first, without what other devices measured; those by hand last."""
    variants = [run for run in runs if run.tags.get("compress.role") == "variant"]
    # What was measured is never hidden by what somebody wrote down, however late that was read.
    variants.sort(key=lambda run: (_is_by_hand(run), -run.started_ms, run.run_id))
    if not devices:
        return variants
    others = tuple(f"{device}/" for device in DEVICES if device not in devices)
    gone = {f"compress.outcome.{device[:-1]}" for device in others}
    return [
        replace(
            run,
            tags={name: value for name, value in run.tags.items() if name not in gone},
            metrics={name: value for name, value in run.metrics.items() if not name.startswith(others)},
        )
        for run in variants
        if any(f"compress.outcome.{device}" in run.tags for device in devices)
    ]


@dataclass(frozen=True)
class _Key:
    """What a row is about."""

    team: str
    model: str
    method: str
    batch: str
    setting: str = ""
    run_id: str = ""  # where every run has a row of its own
    started_ms: int = 0

    @classmethod
    def of(cls, run: Run, every_run: bool = False) -> _Key:
        batch, setting = run.tags.get("compress.batch_size") or "1", run.tags.get("compress.setting", "")
        alone = (run.run_id, run.started_ms) if every_run else ("", 0)
        return cls(run.said("team"), run.said("model"), run.said("method"), batch, setting, *alone)

    @property
    def label(self) -> str:
        when = datetime.fromtimestamp(self.started_ms / 1000, timezone.utc) if self.run_id else None
        batch = "" if self.batch == "1" else f"batch {self.batch}"
        apart = ", ".join(filter(None, (batch, self.setting, f"{when:%Y-%m-%d %H:%M} UTC" if when else "")))
        return f"{self.method} [{apart}]" if apart else self.method

    def place(self) -> tuple[object, ...]:
        return (
            natural(self.team),
            natural(self.model),
            self.method != ORIGINAL,
            natural(self.method),
            natural(self.setting),
            natural(self.batch),
            self.started_ms,
            self.run_id,
        )

    def original(self, team: str) -> _Key:
        """Give the key of what this is compared with, in a team."""
        return _Key(team, self.model, ORIGINAL, self.batch, self.setting)


@dataclass
class _Line:
    """The runs behind a row: the newest good one for each device, the newest of them first."""

    key: _Key
    runs: dict[str, Run] = field(default_factory=dict)

    @cached_property
    def values(self) -> Mapping[str, float]:
        """Take each device's numbers from its own run, size and quality from the newest that has any."""
        values = next((numbers for run in self.runs.values() if (numbers := _group(run, "size"))), {})
        values |= {} if (run := self.scored) is None else _without_differences(_group(run, "quality"))
        for device, run in self.runs.items():
            values.update(_group(run, device))
        return values

    @cached_property
    def scored(self) -> Run | None:
        """The newest run with scores; where there is none, that with output errors alone."""
        found = [run for run in self.runs.values() if any(name.startswith("quality/") for name in run.metrics)]
        found.sort(key=lambda run: "quality/samples" not in run.metrics)
        return found[0] if found else None


def _sorted_out(
    newest: Sequence[Run], language: str, every_run: bool = False
) -> tuple[dict[_Key, _Line], dict[_Key, list[Failure]]]:
    """Part what has numbers from what has none. A failure that was since made good is forgotten."""
    lines: dict[_Key, _Line] = {}
    failures: dict[_Key, list[Failure]] = {}
    tried: dict[_Key, set[str]] = {}
    for run in newest:
        key = _Key.of(run, every_run)
        later = frozenset(tried.setdefault(key, set()))
        for device, outcome in _outcomes(run, language).items():
            tried[key].add(device)
            if outcome.status == "ok" and device == "quality":
                continue  # scored along with a device: the numbers are that device's run's
            if outcome.status == "ok":
                lines.setdefault(key, _Line(key)).runs.setdefault(device, run)
            elif device not in later and (device or not later):
                failure = Failure(
                    key.team, key.model, key.label, outcome.status, device, outcome.reason.strip(), run.run_id
                )
                failures.setdefault(key, []).append(failure)
    for several in failures.values():
        several.sort(key=lambda failure: (failure.device, failure.run_id))
    return lines, failures


def _outcomes(run: Run, language: str) -> dict[str, Outcome]:
    """Give how each device fared, how scoring did (`quality`), and under `""` what befell the run as a whole."""
    prefix = "compress.outcome."
    reason = run.tags.get("compress.reason", "")
    found: dict[str, Outcome] = {}
    for tag, value in run.tags.items():
        if tag.startswith(prefix) and (device := tag.removeprefix(prefix)):
            found[device] = _outcome(value, run.tags.get(f"compress.reason.{device}") or reason)
    status = run.tags.get("status")
    if status == "ok":
        return found or _measured(run, language)
    if status is None and not found:
        sentence = "never_ended" if run.lifecycle in ("RUNNING", "SCHEDULED") else "no_result"
        return {"": Outcome("failed", reason or _say(sentence, language))}
    if status is not None and all(outcome.status == "ok" for outcome in found.values()):
        return {"": _outcome(status, reason), **found}
    return found


def _outcome(status: str, reason: str) -> Outcome:
    if status == "ok":
        return Outcome("ok")
    if status == "skipped":
        return Outcome("skipped", reason)
    return Outcome("failed", reason)


def _measured(run: Run, language: str) -> dict[str, Outcome]:
    """Tell the devices of a run that has no outcomes from the numbers that it has."""
    devices = {device: Outcome("ok") for device in DEVICES if _group(run, device)}
    return devices or {"": Outcome("failed", _say("no_numbers", language))}


def _row(line: _Line, original: _Line | None, footnotes: dict[str, int], language: str) -> Row:
    values = dict(line.values)
    sentences = _about_weights(line, language) + _about_cautions(line, language)
    ratios: dict[str, float] = {}
    in_turns, their_intervals = _in_turns(values)  # better than two runs one after the other
    if original is None and not in_turns:
        sentences.append(_say("no_original", language))
    elif original is not None and not _is_same(line, original):
        apart, reasons = _apart(line, original, language)
        ratios = _ratios(values, original.values, apart)
        values |= _differences(line.scored, original.scored)
        if original.key.team != line.key.team:
            sentences.append(_say("other_team", language, team=original.key.team))
        sentences += reasons
    intervals = _intervals(values, original.values, ratios) if original else {}
    return Row(
        team=line.key.team,
        model=line.key.model,
        method=line.key.label,
        values=values,
        ratios={**ratios, **in_turns},
        ratio_intervals={**intervals, **their_intervals},
        runs={device: line.runs[device].run_id for device in sorted(line.runs)},
        notes=tuple(sorted({footnotes.setdefault(sentence, len(footnotes)) for sentence in sentences})),
        hardware="; ".join(dict.fromkeys(filter(None, _hardware(line).values()))),
        circumstances={**_hardware(line), **_scored_on(line)},
        links={device: line.runs[device].link for device in sorted(line.runs) if line.runs[device].link},
        by_hand=all(_is_by_hand(run) for run in line.runs.values()),
    )


def _is_same(line: _Line, original: _Line) -> bool:
    """Say whether a line is the very original."""
    return line.runs == original.runs and line.key.method == ORIGINAL


def _is_by_hand(run: Run) -> bool:
    return run.tags.get("compress.source") == "imported"


def _hardware(line: _Line) -> dict[str, str]:
    """Say by device what it was; empty where the run does not know."""
    found = {}
    for device, run in sorted(line.runs.items()):
        said = {name: run.tags.get(f"compress.env.{name}", "") for name in words.CIRCUMSTANCES.get(device, {})}
        parts = [f"{value} {name}" if name == "threads" else value for name, value in said.items() if value]
        found[device] = ", ".join(parts)
    return found


def _hardware_of(line: _Line, original: _Line | None) -> str:
    """Say under what hardware a row stands: its original's, where that is what it is compared with."""
    own = _hardware(line)
    if original is not None:
        theirs = _hardware(original)
        if any(device in theirs for device in own) and all(
            theirs.get(device, said) == said for device, said in own.items()
        ):
            own = theirs | own
    return "; ".join(own[device] for device in sorted(own))


def _scored_on(line: _Line) -> dict[str, str]:
    """Say on what data a row was scored, so that only scores of the same data are ranked."""
    run = line.scored
    if run is None or not (digest := run.tags.get("compress.data_digest")):
        return {}
    return {"quality": f"{digest}, {run.metrics.get('quality/samples', 0):.0f} samples"}


def _in_turns(values: Mapping[str, float]) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Give the ratios of latencies that were measured in turns with the original, and their intervals."""
    ratios, intervals = {}, {}
    for device in DEVICES:
        name, ratio = f"{device}/latency_p50_ms", f"{device}/latency_ratio"
        if ratio in values:
            ratios[name] = values[ratio]
            if f"{ratio}_low" in values and f"{ratio}_high" in values:
                intervals[name] = (values[f"{ratio}_low"], values[f"{ratio}_high"])
    return ratios, intervals


def _ratios(values: Mapping[str, float], base: Mapping[str, float], apart: set[str]) -> dict[str, float]:
    both = (name for name in values if base.get(name) and name.partition("/")[0] not in apart)
    return finite({name: values[name] / base[name] for name in both})


def _intervals(
    values: Mapping[str, float], base: Mapping[str, float], ratios: Mapping[str, float]
) -> dict[str, tuple[float, float]]:
    """Give the ratios of medians that come with standard errors their confidence intervals."""
    found = {}
    for name in ratios:
        error = f"{name.removesuffix('_ms')}_stderr_ms"
        if values[name] > 0 and error in values and error in base:
            found[name] = ratio_interval(values[name], values[error], base[name], base[error])
    return found


def _differences(own: Run | None, original: Run | None) -> dict[str, float]:
    """Return how far scores are from the original's, where samples and protocols are the same.

    With the ends of its interval, where that is known.
    """
    if own is None or original is None or not _same_samples(own, original):
        return {}
    found: dict[str, float] = {}
    for tag, protocol in own.tags.items():
        name = f"quality/{tag.removeprefix(_PROTOCOL)}"
        is_score = tag.startswith(_PROTOCOL) and name in own.metrics and name in original.metrics
        if is_score and original.tags.get(tag) == protocol:
            found[f"{name}{DIFFERENCE}"] = own.metrics[name] - original.metrics[name]
            if ends := _ends(name, own.metrics, original.metrics):
                found |= {f"{name}{DIFFERENCE}_low": ends[0], f"{name}{DIFFERENCE}_high": ends[1]}
    return finite(found)


def _same_samples(own: Run, original: Run) -> bool:
    said = [(run.tags.get("compress.data_digest"), run.metrics.get("quality/samples")) for run in (own, original)]
    return said[0] == said[1] and all(said[0])


def _ends(name: str, own: Mapping[str, float], original: Mapping[str, float]) -> tuple[float, float] | None:
    """Give the interval of a difference: that of the pairs, if it was this original that they were paired with."""
    ends = f"{name}_low", f"{name}_high"
    paired = [own.get(f"{name}{DIFFERENCE}{end}", math.nan) for end in ("", "_low", "_high")]
    if math.isclose(paired[0], own[name] - original[name], rel_tol=1e-9, abs_tol=1e-12):
        return None if any(map(math.isnan, paired)) else (paired[1], paired[2])
    if not all(end in numbers for end in ends for numbers in (own, original)):
        return None
    return difference_interval(
        own[name], (own[ends[0]], own[ends[1]]), original[name], (original[ends[0]], original[ends[1]])
    )


def _without_differences(numbers: Mapping[str, float]) -> dict[str, float]:
    """Leave out what was logged of differences: the row may have another original by now."""
    return {name: value for name, value in numbers.items() if DIFFERENCE not in name}


def _apart(line: _Line, original: _Line, language: str) -> tuple[set[str], list[str]]:
    """Give the devices whose numbers can't be divided by the original's, and a sentence why for each."""
    apart, sentences = set(), []
    for device in sorted(line.runs.keys() & original.runs.keys()):
        differences = []
        for name, text in words.CIRCUMSTANCES.get(device, {}).items():
            own, other = (each.runs[device].tags.get(f"compress.env.{name}", "") for each in (line, original))
            if own != other or (own == "" and line.key.team != original.key.team):
                unknown = _say("unknown", language)
                said = {"what": text[language], "own": own or unknown, "other": other or unknown}
                differences.append(_say("difference", language, **said))
        if differences:
            apart.add(device)
            where = DEVICES.get(device, device)
            sentences.append(_say("hardware", language, device=where, differences="; ".join(differences)))
    return apart, sentences


def _about_weights(line: _Line, language: str) -> list[str]:
    random = [device for device, run in line.runs.items() if run.tags.get("compress.weights") == "random"]
    if not random:
        return []
    if len(random) == len(line.runs):
        return [_say("random", language)]
    devices = ", ".join(DEVICES.get(device, device) for device in sorted(random))
    return [_say("partly_random", language, devices=devices)]


def _about_cautions(line: _Line, language: str) -> list[str]:
    told: dict[str, None] = {}
    for device in sorted(line.runs):
        told |= dict.fromkeys(_cautions(line.runs[device], language))
    return [_say("cautions", language, cautions="; ".join(told))] if told else []


def _cautions(run: Run, language: str) -> Iterator[str]:
    """Return what a run's cautions say in a table: its own words, else those of the code, else the code itself."""
    tags = sorted((tag for tag in run.tags if tag.startswith(_CAUTION)), key=natural)
    own: dict[str, list[Mapping[str, str]]] = {}
    for code, texts in filter(None, (_short_texts(run.tags[tag]) for tag in tags)):
        own.setdefault(code, []).append(texts)
    for code in dict.fromkeys(part.strip() for part in run.tags.get("compress.cautions", "").split(",")):
        for texts in own.get(code) or [words.CAUTIONS_OF_0_1.get(code, {"en": code})]:
            if said := texts.get(language) or texts.get("en"):
                yield said


def _group(run: Run, group: str) -> dict[str, float]:
    """Give the numbers of one group (`size`, `cpu`): what stands before the slash."""
    # MLflow stores infinity as the largest float.
    return {
        name: value
        for name, value in run.metrics.items()
        if name.startswith(f"{group}/") and abs(value) < sys.float_info.max  # NaN is not less either
    }


@lru_cache(maxsize=4096)
def _short_texts(text: str) -> tuple[str, Mapping[str, str]] | None:
    return short_texts(text)


def _say(sentence: str, language: str, **said: str) -> str:
    return words.FOOTNOTES[sentence][language].format(**said)
