"""Puts runs side by side: from the runs of some experiments to the rows of one table.

Nothing here asks a server or the clock: the same runs always give the same comparison, in whatever order they come.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from mlflow_compress import words
from mlflow_compress.records import Comparison, Reference, Row, Run, short_texts
from mlflow_compress.reporting import metric_facts
from mlflow_compress.reporting.against_original import differences, in_turns, intervals_of, ratios_to
from mlflow_compress.reporting.footnotes import CAUTION, Note, numbered
from mlflow_compress.reporting.table_lines import Key, Line, is_by_hand, sorted_out, variants_of
from mlflow_compress.reporting.table_text import COLUMNS, natural
from mlflow_compress.words import DEVICES, ORIGINAL

_WITH_HARDWARE = (*(column.key for column in COLUMNS), "hardware")
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
    newest = variants_of(runs, devices)
    lines, failures = sorted_out(newest, language, every_run)
    everything = sorted_out(variants_of([*newest, *originals], devices), language)[0]
    known = everything if every_run else everything | lines
    newest_of: dict[Key, Line] = {}  # the newest original of any team, by all else
    for key, line in everything.items():
        if key.method == ORIGINAL:
            newest_of.setdefault(key.original(""), line)
    found = {key: known.get(key.original(key.team)) or newest_of.get(key.original("")) for key in lines}
    hardware = {key: _hardware_of(lines[key], found[key]) for key in lines}
    apart = len(set(hardware.values())) > 1

    def place(key: Key) -> tuple[object, ...]:
        return (natural(hardware.get(key, "")) if apart else (), key.place())

    rows, footnotes = _rows([(lines[key], found[key]) for key in sorted(lines, key=place)], language)
    return Comparison(
        rows=rows,
        failures=tuple(failure for key in sorted(failures, key=Key.place) for failure in failures[key]),
        footnotes=footnotes,
        title=", ".join(sorted({run.experiment for run in newest})) if title is None else title,
        language=language,
        columns=_WITH_HARDWARE if _differ(row.circumstances for row in rows) else (),
        metrics=metric_facts.agreed(_scored(lines.values())),
    )


def _scored(lines: Iterable[Line]) -> list[Run]:
    """Return the runs that scores of lines come from, the newest first."""
    scored = {run.run_id: run for line in lines if (run := line.scored) is not None}
    return sorted(scored.values(), key=lambda run: (-run.started_ms, run.run_id))


def _rows(lines: Sequence[tuple[Line, Line | None]], language: str) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """Return the rows of lines and their originals, and the footnotes that the rows refer to."""
    rows, notes = zip(*(_row(line, original, language) for line, original in lines), strict=True) if lines else ((), ())
    footnotes, indices = numbered(notes, language)
    return tuple(replace(row, notes=own) for row, own in zip(rows, indices, strict=True)), footnotes


def _row(line: Line, original: Line | None, language: str) -> tuple[Row, list[Note]]:
    values = dict(line.values)
    notes = _about_weights(line) + _about_cautions(line, language)
    ratios: dict[str, float] = {}
    ratios_in_turns, their_intervals = in_turns(values)  # better than two runs one after the other
    if original is None and not ratios_in_turns:
        notes.append(Note("no_original"))
    elif original is not None and not _is_same(line, original):
        apart, reasons = _apart(line, original, language)
        ratios = ratios_to(values, original.values, apart)
        values |= differences(line.scored, original.scored)
        if original.key.team != line.key.team:
            notes.append(Note("other_team", details=(original.key.team,)))
        notes += reasons
    intervals = intervals_of(values, original.values, ratios) if original else {}
    row = Row(
        team=line.key.team,
        model=line.key.model,
        method=line.key.label,
        values=values,
        ratios={**ratios, **ratios_in_turns},
        ratio_intervals={**intervals, **their_intervals},
        runs={device: line.runs[device].run_id for device in sorted(line.runs)},
        hardware="; ".join(dict.fromkeys(filter(None, _hardware(line).values()))),
        circumstances={**_hardware(line), **_scored_on(line)},
        links={device: line.runs[device].link for device in sorted(line.runs) if line.runs[device].link},
        by_hand=_is_by_hand(line),
        original=None if original is None or _is_same(line, original) else _reference(original),
        random_weights=_is_random(line),
    )
    return row, notes


def _reference(original: Line) -> Reference:
    return Reference(original.key.team, _is_by_hand(original), _is_random(original))


def _is_by_hand(line: Line) -> bool:
    return all(is_by_hand(run) for run in line.runs.values())


def _is_random(line: Line) -> bool:
    """Return whether the run that was scored has random weights; where none was, whether any run has."""
    scored = [line.scored] if line.scored is not None else line.runs.values()
    return any(run.tags.get("compress.weights") == "random" for run in scored)


def _is_same(line: Line, original: Line) -> bool:
    """Return whether a line is the very original."""
    return line.runs == original.runs and line.key.method == ORIGINAL


def _hardware(line: Line) -> dict[str, str]:
    """Say by device what it was; empty where the run does not know."""
    found = {}
    for device, run in sorted(line.runs.items()):
        said = {name: run.tags.get(f"compress.env.{name}", "") for name in words.CIRCUMSTANCES.get(device, {})}
        parts = [f"{value} {name}" if name == "threads" else value for name, value in said.items() if value]
        found[device] = ", ".join(parts)
    return found


def _hardware_of(line: Line, original: Line | None) -> str:
    """Say under what hardware a row stands: its original's, where that is what it is compared with."""
    own = _hardware(line)
    if original is not None:
        theirs = _hardware(original)
        if any(device in theirs for device in own) and all(
            theirs.get(device, said) == said for device, said in own.items()
        ):
            own = theirs | own
    return "; ".join(own[device] for device in sorted(own))


def _differ(circumstances: Iterable[Mapping[str, str]]) -> bool:
    """Return whether rows were measured on different hardware; one that doesn't know its own says nothing of it."""
    known: dict[str, set[str]] = {}
    for said in circumstances:
        for device in DEVICES:
            known.setdefault(device, set()).update(filter(None, [said.get(device, "")]))
    return any(len(several) > 1 for several in known.values())


def _scored_on(line: Line) -> dict[str, str]:
    """Say on what data a row was scored, so that only scores of the same data are ranked."""
    run = line.scored
    if run is None or not (digest := run.tags.get("compress.data_digest")):
        return {}
    return {"quality": f"{digest}, {run.metrics.get('quality/samples', 0):.0f} samples"}


def _apart(line: Line, original: Line, language: str) -> tuple[set[str], list[Note]]:
    """Return the devices whose numbers can't be divided by the original's, and a note why for each."""
    apart, notes = set(), []
    for device in sorted(line.runs.keys() & original.runs.keys()):
        differences = []
        for name, text in words.CIRCUMSTANCES.get(device, {}).items():
            own, other = (each.runs[device].tags.get(f"compress.env.{name}", "") for each in (line, original))
            if own != other or (own == "" and line.key.team != original.key.team):
                unknown = words.footnote("unknown", language)
                said = {"what": text[language], "own": own or unknown, "other": other or unknown}
                differences.append(words.footnote("difference", language, **said))
        if differences:
            apart.add(device)
            notes.append(Note("hardware", DEVICES.get(device, device), tuple(differences)))
    return apart, notes


def _about_weights(line: Line) -> list[Note]:
    random = [device for device, run in line.runs.items() if run.tags.get("compress.weights") == "random"]
    if not random:
        return []
    if len(random) == len(line.runs):
        return [Note("random")]
    devices = ", ".join(DEVICES.get(device, device) for device in sorted(random))
    return [Note("partly_random", devices)]


def _about_cautions(line: Line, language: str) -> list[Note]:
    told: dict[Note, None] = {}
    for device in sorted(line.runs):
        told |= dict.fromkeys(_cautions(line.runs[device], language))
    return list(told)


def _cautions(run: Run, language: str) -> Iterator[Note]:
    """Return what a run's cautions say in a table: its own words, else those of the code, else the code itself."""
    tags = sorted((tag for tag in run.tags if tag.startswith(_CAUTION)), key=natural)
    own: dict[str, list[Mapping[str, str]]] = {}
    for code, texts in filter(None, (_short_texts(run.tags[tag]) for tag in tags)):
        own.setdefault(code, []).append(texts)
    for code in dict.fromkeys(part.strip() for part in run.tags.get("compress.cautions", "").split(",")):
        for texts in own.get(code) or [words.CAUTIONS_OF_0_1.get(code, {"en": code})]:
            if said := texts.get(language) or texts.get("en"):
                yield Note(CAUTION, said, code=code)


@lru_cache(maxsize=4096)
def _short_texts(text: str) -> tuple[str, Mapping[str, str]] | None:
    return short_texts(text)
