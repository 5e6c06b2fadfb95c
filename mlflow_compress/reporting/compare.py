"""Compares runs: turns the runs of experiments into the rows of one table.

Nothing here reads a server or the clock: the same runs always give the same comparison, in any order.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from functools import lru_cache

from mlflow_compress import words
from mlflow_compress.percentiles import ratio_error
from mlflow_compress.records import Comparison, PublishedVerdict, Reference, Row, Run, short_texts
from mlflow_compress.reporting import circumstances, claims, metric_facts, published_scores
from mlflow_compress.reporting.against_original import (
    Ratios,
    contradicts,
    differences,
    in_turns,
    is_believed,
    latency,
    ratios_to,
    unpaired,
    why_unsure,
    without_own_original,
)
from mlflow_compress.reporting.baselines import Baseline, baselines_of
from mlflow_compress.reporting.footnotes import CAUTION, Note, numbered
from mlflow_compress.reporting.possible import NEVER_NOTHING, impossible
from mlflow_compress.reporting.table_lines import Key, Line, sorted_out, variants_of
from mlflow_compress.reporting.table_text import COLUMNS, DIFFERENCE, label, natural, ratio
from mlflow_compress.words import DEVICES, ORIGINAL

_WITH_HARDWARE = (*(column.key for column in COLUMNS), "hardware")
_CAUTION = "compress.caution."
_USUAL_PRECISION = "float32"  # the table does not name it for originals
_VRAM = "gpu/vram_peak_mib"


def compare(
    runs: Iterable[Run],
    *,
    originals: Iterable[Run] = (),
    title: str | None = None,
    language: str = "en",
    devices: Sequence[str] = (),
    every_run: bool = False,
    baselines: Sequence[Baseline] = (),
) -> Comparison:
    """Build a comparison from runs.

    A row is one team's model under one method at one batch size and setting. Each device's numbers come from the newest
    run in which that device was ok, so a laptop's CPU run and a server's GPU run make one row. Size and quality come
    from the newest of these runs that has them. Ratios are to the original of the same team and model at the same batch
    size and setting, else to the newest of another team. Numbers from other circumstances (see `circumstances`) are
    never divided. Numbers copied from a table are divided only by that table's original. Rows with a baseline are
    compared with it, and a footnote says so.

    A latency ratio has an interval where it was measured in turns, or where the noise between launches is known. All
    these claims and those on scores are judged together, see `claims`.

    A score on the same samples by the same protocol as the original's gets its difference from that,
    `quality/wer_difference`, with the ends of its 95 % interval, `_low` and `_high`. The interval is the paired one
    where the two were paired when measured, else one from both scores' own intervals, which is wider. Where neither is
    known, the difference has no interval.

    A device without a number, or whose newest attempt failed or was skipped, is listed as a failure.

    Rows are sorted by team and model, the original first, then by method, all in natural order. Where the hardware
    differs, the table shows it, and rows of the same hardware are together: each original with the rows compared with
    it. Rows of a processor alone are among the rows of that processor with its GPU.

    Args:
        runs: all runs of the experiments; runs that are not variants are ignored.
        originals: runs that are not shown, but that the shown runs may be compared with.
        title: the title; None uses the experiments' names.
        language: `en` or `ru`.
        devices: the devices to show, of `cpu` and `gpu`. Empty shows all.
        every_run: whether each run gets a row, even where a newer one exists.
        baselines: what rows are compared with instead of their own model's original; the first that accepts a row.
    """
    newest = variants_of(runs, devices)
    lines, failures = sorted_out(newest, language, every_run)
    all_lines = sorted_out(variants_of([*newest, *originals], devices), language)[0]
    original_of = _originals_of(lines, all_lines.values() if every_run else (all_lines | lines).values())
    baseline_of = baselines_of(lines, original_of, baselines)
    original_of |= {key: baseline.line_of(key) for key, baseline in baseline_of.items()}
    lines = _without_copies(lines, original_of)
    hardware = _wholes({key: _hardware_of(lines[key], original_of[key]) for key in lines})
    are_on_different_hardware = len(set(hardware.values()) - {""}) > 1

    def place(key: Key) -> tuple[object, ...]:
        return (
            (key.by_hand, natural("" if key.by_hand else hardware[key])) if are_on_different_hardware else (),
            key.place(),
        )

    compared = [(lines[key], original_of[key], baseline_of.get(key)) for key in sorted(lines, key=place)]
    rows, footnotes = _rows(compared, language)
    return Comparison(
        rows=rows,
        failures=tuple(failure for key in sorted(failures, key=Key.place) for failure in failures[key]),
        footnotes=footnotes,
        title=", ".join(sorted({run.experiment for run in newest})) if title is None else title,
        language=language,
        columns=_WITH_HARDWARE if _differ(_hardware(line) for line in lines.values()) else (),
        metrics=metric_facts.agreed(_scored(lines.values())),
    )


def _originals_of(lines: Iterable[Key], candidates: Iterable[Line]) -> dict[Key, Line | None]:
    """Return the original that each row is compared with: its team's, else the newest of another team.

    Args:
        lines: the keys of the rows.
        candidates: all lines, the newest runs first.
    """
    originals: dict[object, Line] = {}
    for line in candidates:
        if line.key.is_original:
            of_team, of_any = line.key.work(line.key.team), line.key.work("")
            if of_team not in originals or line.key.method == ORIGINAL:  # preferred to an original with another name
                originals[of_team] = line
            originals.setdefault(("", *of_any), line)
    return {key: originals.get(key.work(key.team)) or originals.get(("", *key.work(""))) for key in lines}


def _without_copies(lines: Mapping[Key, Line], original_of: Mapping[Key, Line | None]) -> dict[Key, Line]:
    """Leave out rows copied by hand whose numbers were all measured too.

    Keep a copied original where a row from the same table stays: that row is divided by it.
    """
    measured: dict[tuple[str, ...], Set[str]]
    measured = {_row_of(key): line.values.keys() for key, line in lines.items() if not key.by_hand}
    nothing: Set[str] = frozenset()
    kept_keys = {
        key
        for key, line in lines.items()
        if not key.by_hand or not line.values.keys() <= measured.get(_row_of(key), nothing)
    }
    kept_keys |= {original.key for key in kept_keys if key.by_hand and (original := original_of[key]) is not None}
    return {key: line for key, line in lines.items() if key in kept_keys}


def _row_of(key: Key) -> tuple[str, ...]:
    return key.team, key.model, key.method, key.batch, key.setting, key.run_id


def _scored(lines: Iterable[Line]) -> list[Run]:
    """Return the runs that the scores of lines come from, the newest first."""
    scored = {run.run_id: run for line in lines if (run := line.scored) is not None}
    return sorted(scored.values(), key=lambda run: (-run.started_ms, run.run_id))


def _rows(
    lines: Sequence[tuple[Line, Line | None, Baseline | None]], language: str
) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """Return the rows with their footnotes, from lines, what they are compared with, and the baselines that say so."""
    rows, notes = zip(*(_row(*compared, language) for compared in lines), strict=True) if lines else ((), ())
    footnotes, indices = numbered(notes, language)
    noted = (replace(row, notes=places) for row, places in zip(rows, indices, strict=True))
    return claims.corrected(noted), footnotes


def _row(line: Line, original: Line | None, baseline: Baseline | None, language: str) -> tuple[Row, list[Note]]:
    is_same = original is not None and _is_same(line, original, baseline)
    values, scored = dict(line.values), line.scored
    if baseline is not None:
        values, scored = without_own_original(values), scored and unpaired(scored)
    notes = _about_weights(line) + _about_cautions(line, language)
    published = _published(line)
    notes += published_scores.notes(published, {} if scored is None else metric_facts.recorded(scored.tags), language)
    ratios = in_turns(values)  # more precise than two separate runs
    if baseline is not None and not is_same:
        notes.append(baseline.note(original))
    if original is None and baseline is None and not ratios.values and not line.key.is_original:
        notes.append(Note("no_original_in_table" if line.key.by_hand else "no_original"))
    elif original is not None and not is_same:
        if original.key.team != line.key.team and not (baseline is not None and baseline.is_run):
            notes.append(Note("other_team", original.key.team))
        if baseline is None and line.precision and original.precision and line.precision != original.precision:
            notes.append(Note("other_precision", line.precision, (original.precision,)))
        values |= differences(scored, original.scored)
        ratios, reasons = _compared(line, original, ratios, language)
        notes += reasons
    notes += _about_noise(line, original, values, ratios, language)
    notes += [Note("not_believed", label(name, language, with_unit=False)) for name in sorted(ratios.not_believed)]
    row = Row(
        team=line.key.team,
        model=line.key.model,
        method=line.key.label(line.precision if line.key.is_original and line.precision != _USUAL_PRECISION else ""),
        values=values,
        ratios=ratios.values,
        ratio_intervals=ratios.intervals,
        ratio_degrees=ratios.degrees,
        not_believed=(*ratios.not_believed, *_impossible(line)),
        runs={device: line.runs[device].run_id for device in sorted(line.runs)},
        hardware="; ".join(dict.fromkeys(filter(None, _hardware(line).values()))),
        circumstances=_circumstances(line),
        links={device: line.runs[device].link for device in sorted(line.runs) if line.runs[device].link},
        by_hand=line.key.by_hand,
        original=None if original is None or is_same else _reference(original, baseline),
        random_weights=_is_random(line),
        is_original=line.key.is_original if baseline is None else is_same,
        baseline="" if baseline is None or is_same else baseline.name,
        published=published_scores.worst(published.values()),
        source=next((source for run in line.runs.values() if (source := run.params.get("source", ""))), ""),
        cautions=tuple(note.about for note in notes if note.is_of_a_result),
        table=line.key.table,
    )
    return row, notes


def _impossible(line: Line) -> list[str]:
    """Return the names of the numbers that a row lacks because the logged values are impossible."""
    names = {name for run in line.runs.values() for name in impossible(run)}
    return sorted(names - line.values.keys())


def _reference(original: Line, baseline: Baseline | None = None) -> Reference:
    launches = {device: original.values.get(f"{device}/launches", 1.0) for device in sorted(original.runs)}
    run_id = baseline.name if baseline is not None and baseline.is_run else ""
    return Reference(
        original.key.team,
        original.key.by_hand,
        _is_random(original),
        launches,
        original.key.model,
        run_id,
        published_scores.worst(_published(original).values()),
    )


def _published(line: Line) -> Mapping[str, PublishedVerdict]:
    """Return the comparison of an original's scores with published ones, by metric name."""
    if line.scored is None or not line.key.is_original:
        return {}
    return published_scores.recorded(line.scored.tags)


def _is_random(line: Line) -> bool:
    """Return whether the scored run has random weights; if none was scored, whether any run has."""
    scored = [line.scored] if line.scored is not None else line.runs.values()
    return any(run.tags.get("compress.weights") == "random" for run in scored)


def _compared(line: Line, original: Line, turns: Ratios, language: str) -> tuple[Ratios, list[Note]]:
    """Return a line's ratios to its original, and notes on ratios that are left out.

    Args:
        line: a line of the table.
        original: the line that it is compared with.
        turns: the ratios measured in turns, from `in_turns`; they replace those of two runs.
        language: the language of the notes.
    """
    excluded: set[str] = set()
    notes: list[Note] = []
    for device in sorted(line.runs.keys() & original.runs.keys()):
        own, base = line.runs[device], original.runs[device]
        if reason := circumstances.apart(own, base, device, language):
            excluded.add(device)
            notes.append(reason)
        elif circumstances.counts_other_memory(own, base) and _VRAM in line.values.keys() & original.values.keys():
            excluded.add(_VRAM)
            notes.append(Note("other_memory"))
    ratios = Ratios(ratios_to(line.values, original.values, excluded))
    beyond = {name for name in NEVER_NOTHING & ratios.values.keys() if not is_believed(ratios.values[name])}
    for name in beyond.union(turns.not_believed):
        ratios.disbelieve(name)
    for device in line.runs:
        name = latency(device)
        if name not in ratios.values:
            continue
        errors = line.error(device), original.error(device)
        error = None if errors[0] is None or errors[1] is None else ratio_error(errors[0], errors[1])
        if name not in turns.values:
            if error is not None and not line.key.by_hand:
                ratios.add_interval(name, error)
        elif contradicts(turns.values[name], ratios.values[name], None if _was_busy(line, original, device) else error):
            notes.append(Note("contradiction", DEVICES.get(device, device), (ratio(turns.values[name]),)))
            turns.disbelieve(name)
            ratios.disbelieve(name)
    compared = Ratios(
        {**ratios.values, **turns.values},
        {**ratios.intervals, **turns.intervals},
        {**ratios.degrees, **turns.degrees},
        ratios.not_believed,
    )
    compared.follow_medians(line.values, original.values)
    return compared, notes


def _was_busy(line: Line, original: Line, device: str) -> bool:
    """Return whether the machine was busy while one of the two lines was measured: the load may then explain much."""
    return any(
        "busy_machine" in measured_line.runs[device].tags.get("compress.cautions", "")
        for measured_line in (line, original)
    )


def _about_noise(
    line: Line, original: Line | None, values: Mapping[str, float], ratios: Ratios, language: str
) -> list[Note]:
    """Return notes on the numbers of a row that support no claim, because their noise is not known."""
    if line.key.by_hand:
        return []
    unsure = [device for device in line.runs if latency(device) in ratios.values.keys() - ratios.intervals.keys()]
    reference = None if original is None else _reference(original)
    notes = [Note(kind) for kind in sorted({why_unsure(values, reference, device) for device in unsure})]
    moved = [name for name in values if name.endswith(DIFFERENCE) and claims.difference_ends(values, name) is None]
    if unknown := tuple(label(name.removesuffix(DIFFERENCE), language) for name in moved):
        notes.append(Note("score_noise", details=unknown))
    return notes


def _is_same(line: Line, original: Line, baseline: Baseline | None) -> bool:
    """Return whether a line is the original itself, or the baseline that replaces it."""
    return line.runs == original.runs and line.key.is_original if baseline is None else baseline.is_in(line)


def _hardware(line: Line) -> dict[str, str]:
    """Return the hardware by device; empty where the run does not record it."""
    return {device: circumstances.hardware(run, device) for device, run in sorted(line.runs.items())}


def _hardware_of(line: Line, original: Line | None) -> dict[str, str]:
    """Return the hardware, by device, that a row is listed under: its original's where they belong together."""
    own = _hardware(line)
    if original is None:
        return own
    original_hardware = _hardware(original)
    shared = own.keys() & original_hardware.keys()
    is_compared = bool(shared) and all(own[device] == original_hardware[device] for device in shared)
    is_own = (original.key.team, original.key.model) == (line.key.team, line.key.model)
    return original_hardware if is_compared or is_own else own


def _wholes(hardware: Mapping[Key, Mapping[str, str]]) -> dict[Key, str]:
    """Return the name of each row's hardware. A part of another row's hardware gets the name of the whole.

    For example a processor alone is listed under the processor with its GPU.
    """
    device_names = {
        key: tuple((device, names[device]) for device in sorted(names) if names[device])
        for key, names in hardware.items()
    }
    wholes: dict[tuple[tuple[str, str], ...], str] = {(): ""}
    for devices in sorted(set(device_names.values()), key=lambda devices: (-len(devices), natural(str(devices)))):
        for count in range(1, len(devices) + 1):
            for part in itertools.combinations(devices, count):
                wholes.setdefault(part, "; ".join(name for _, name in devices))
    return {key: wholes[devices] for key, devices in device_names.items()}


def _differ(hardware: Iterable[Mapping[str, str]]) -> bool:
    """Return whether rows were measured on different hardware; rows with unknown hardware do not count."""
    by_device: dict[str, set[str]] = {}
    for names in hardware:
        for device in DEVICES:
            by_device.setdefault(device, set()).update(filter(None, [names.get(device, "")]))
    return any(len(device_hardware) > 1 for device_hardware in by_device.values())


def _circumstances(line: Line) -> dict[str, str]:
    """Return what must be the same before a row's numbers are compared, see `Row.circumstances`."""
    texts = {device: circumstances.surroundings(run, device) for device, run in sorted(line.runs.items())}
    texts |= {f"{device}_work": work for device, run in line.runs.items() if (work := circumstances.work(run))}
    run = line.scored
    if run is not None and (digest := run.tags.get("compress.data_digest")):
        texts["quality"] = f"{digest}, {run.metrics.get('quality/samples', 0):.0f} samples"
    return texts


def _about_weights(line: Line) -> list[Note]:
    random = [device for device, run in line.runs.items() if run.tags.get("compress.weights") == "random"]
    if not random:
        return []
    if len(random) == len(line.runs):
        return [Note("random")]
    devices = ", ".join(DEVICES.get(device, device) for device in sorted(random))
    return [Note("partly_random", devices)]


def _about_cautions(line: Line, language: str) -> list[Note]:
    notes: dict[Note, None] = {}
    for device in sorted(line.runs):
        notes |= dict.fromkeys(_cautions(line.runs[device], language))
    return list(notes)


def _cautions(run: Run, language: str) -> Iterator[Note]:
    """Yield what a run's cautions say in a table: the text that the run recorded, else the code's, else the code."""
    tags = sorted((tag for tag in run.tags if tag.startswith(_CAUTION)), key=natural)
    recorded: dict[str, list[Mapping[str, str]]] = {}
    for code, texts in filter(None, (_short_texts(run.tags[tag]) for tag in tags)):
        recorded.setdefault(code, []).append(texts)
    for code in dict.fromkeys(part.strip() for part in run.tags.get("compress.cautions", "").split(",")):
        for texts in recorded.get(code) or [words.CAUTIONS_OF_0_1.get(code, {"en": code})]:
            if text := texts.get(language) or texts.get("en"):
                yield Note(CAUTION, text, code=code)


@lru_cache(maxsize=4096)
def _short_texts(text: str) -> tuple[str, Mapping[str, str]] | None:
    return short_texts(text)
