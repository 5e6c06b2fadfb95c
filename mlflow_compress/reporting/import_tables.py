"""Reads the comparison tables that people filled in by hand, cell by cell.

Each cell has one fate: it is a name, it was read into metrics, it says that there is no number, it could not be read,
or its row or table was passed over. Nothing is dropped without a word, and what could mean two things is not read.

How numbers are stored, which are in the units and under the names that measured ones have:

* the unit is the cell's, else the header's; sizes and memory without either are MB, and that is remarked upon; a time
  without either is not read. Units are those of `written_units`: MB is 2^20 bytes, times are of one sample;
* nothing takes 0 MB or 0 ms: such a number is not read;
* scores are shares of 1 (`80.00%` accuracy is 0.8, `1 - WER` is turned round), BLEU and chrF 0 to 100. A BLEU of 0.6
  may be either, so it is not read. `Точность` is accuracy. A score that is given for CPU and GPU is stored twice, the
  second one as `quality/accuracy_gpu`;
* a GPU or processor in brackets (`31.9ms (Tesla T4)`) is what the row's numbers of that device were measured on.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from mlflow_compress.plain_text import unbroken
from mlflow_compress.records import SCHEMA_VERSION
from mlflow_compress.reporting import markdown_tables
from mlflow_compress.reporting.markdown_tables import Line
from mlflow_compress.reporting.table_headings import (
    ORIGINALS,
    Heading,
    headings,
    is_comparison,
    rate,
)
from mlflow_compress.reporting.written_scores import read_scores
from mlflow_compress.reporting.written_units import Measure, Unreadable, is_missing, measure, to_float
from mlflow_compress.words import DEVICES, ORIGINAL

BEGIN, END = "<!-- compress-report: begin -->", "<!-- compress-report: end -->"
UNNAMED = "unnamed"

Fate = Literal["name", "read", "missing", "unread", "passed over"]

_PLACEHOLDER = re.compile(
    r"(your |the )?model( |_)?name|your model|(название|имя) (вашей )?модели|ваша модель|\.{3}|…|x{3,}|todo|tbd",
    re.IGNORECASE,
)
_HARDWARE = re.compile(
    r"tesla|nvidia|geforce|quadro|[rg]tx|radeon|\b(?:k80|[pvah]100|h200|p40|t4|l40?s?|a10g?|a\d{4})\b|intel|xeon|"
    r"\bcore i\d|amd|ryzen|epyc|apple|\bm[1-5]\b|snapdragon|colab|kaggle",
    re.IGNORECASE,
)
_WITHOUT = {"missing": "no number", "unread": "not read"}
_NOTHING = {
    "size": "no model weighs that",
    "time": "nothing takes that time",
    "ram": "it was not measured, or the device was not used",
}
_RATIO = re.compile(r"≈?[\d.]+x(;.*)?")  # this tool writes it behind a number


@dataclass(frozen=True)
class Reading:
    """What became of one cell.

    Attributes:
        line: of the file, from 1.
        row: of its table's rows, from 1.
        column: from 1.
        header: of its column, plain; empty where the table has no such column.
        text: the cell as it stands in the file.
        fate: what became of it.
        metrics: the numbers that were read from it.
        reason: why it was not read, or what to know about what was read.
    """

    line: int
    row: int
    column: int
    header: str
    text: str
    fate: Fate
    metrics: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ByHand:
    """One row that will be stored as a run.

    Attributes:
        team, model, method: what it is about; the original's method is `original`, all others are as written.
        source: the name of its file.
        readings: its cells.
    """

    team: str
    model: str
    method: str
    source: str
    readings: tuple[Reading, ...]

    @property
    def line(self) -> int:
        """The line of the file, from 1."""
        return self.readings[0].line

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The numbers, by metric name."""
        return {name: value for reading in self.readings for name, value in reading.metrics.items()}

    @property
    def params(self) -> dict[str, str]:
        """What MLflow shows as the run's parameters."""
        return {"model": self.model, "method": self.method, "team": self.team}

    @cached_property
    def tags(self) -> dict[str, str]:
        """All tags of the run, its cells as they were written among them."""
        tags = {
            **self.params,
            "status": "ok",
            "compress.schema": str(SCHEMA_VERSION),
            "compress.role": "variant",
            "compress.source": "imported",
            "compress.imported.from": self.source,
            "compress.imported.line": str(self.line),
            "compress.import_id": self.digest,
            "compress.batch_size": "1",
        }
        devices = {name.partition("/")[0] for name in self.metrics}
        # A row with a size or a score alone is one of no device, and still a row.
        tags |= {f"compress.outcome.{device}": "ok" for device in devices & DEVICES.keys() or {"table"}}
        for reading in self.readings:
            tags |= {f"compress.env.{name}": text for name, text in reading.environment.items()}
            if reading.text:
                name = re.sub(r"[^\w.-]+", " ", reading.header).strip(" .")[:200]
                tags[f"compress.cell.{reading.column} {name}".strip()] = reading.text
        if remarks := [told(reading) for reading in self.readings if reading.reason]:
            tags["compress.imported.remarks"] = "\n".join(remarks)
        return tags

    @cached_property
    def digest(self) -> str:
        """A fingerprint of what it says: names, headers and cells, but not where it stands."""
        said = [[reading.header, reading.text] for reading in self.readings]
        whole = json.dumps([self.team, self.model, self.method, said], ensure_ascii=False)
        return hashlib.sha256(whole.encode(errors="surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True)
class Import:
    """What a file's tables hold.

    Attributes:
        source: the file's name.
        rows: what will be stored, from the top.
        readings: every cell of every row of every table, once.
        passed_over: lines, what they are, and why nothing of them is stored.
    """

    source: str
    rows: tuple[ByHand, ...]
    readings: tuple[Reading, ...]
    passed_over: tuple[tuple[int, str, str], ...]

    @property
    def unread(self) -> tuple[Reading, ...]:
        """The cells that could not be read."""
        return tuple(each for each in self.readings if each.fate == "unread")

    @property
    def doubtful(self) -> tuple[Reading, ...]:
        """The cells that were read, with something to know about how."""
        return tuple(each for each in self.readings if each.reason and each.fate not in ("unread", "passed over"))


def read(text: str, *, team: str, source: str, model: str = "") -> Import:
    """Read all hand-made comparison tables of a Markdown file.

    Args:
        text: the file.
        team: whose rows they are, unless a column says so.
        source: the file's name, for messages and tags.
        model: the model of tables that have no column of methods: what stands under Model is taken as the method.
    """
    page = markdown_tables.read(text)
    own = _own_lines(text, page.html)
    rows: list[ByHand] = []
    earlier: dict[tuple[str, str, str], dict[str, ByHand]] = {}
    readings: list[Reading] = []
    passed: list[tuple[int, str, str]] = []
    for table in page.tables:
        found = headings([cell.text for cell in table.header.cells])
        why = "written by compress-report" if table.header.number in own else _no_comparison(found)
        if why:
            passed.append((table.header.number, "table", why))
            readings += [each for at, line in enumerate(table.rows, 1) for each in _passed(line, at, found, why)]
            continue
        for at, line in enumerate(table.rows, 1):
            row, cells, reason = _row(line, at, found, team, source, model)
            if row is not None:
                row, cells, reason = _once(row, earlier.setdefault((row.team, row.model, row.method), {}))
            if row is not None:
                rows.append(row)
            else:
                passed.append((line.number, "row", reason))
            readings += cells
    for first, last in page.lookalikes:
        passed.append((first, "lines", f"to {last}: no table for GitHub: the rule has other columns than the header"))
    return Import(source, tuple(rows), tuple(readings), tuple(sorted(passed)))


def listing(found: Import) -> str:
    """Say in plain text what would be stored, what could not be read, and what was passed over."""
    blocks = [f"{found.source}: {_count(len(found.rows), 'row')} to store"]
    for row in found.rows:
        lines = [f"line {row.line}: {row.model} / {row.method}" + (f" (team {row.team})" if row.team else "")]
        for reading in row.readings:
            lines += [
                f"  {name} = {value:.12g}   <- {reading.header}: {unbroken(reading.text)}"
                for name, value in reading.metrics.items()
            ]
            lines += [f"  {name}: {text}   <- {reading.header}: {unbroken(reading.text)}" for name, text in
                      sorted(reading.environment.items())]  # fmt: skip
            if reading.fate in _WITHOUT:
                lines.append(f"  {_WITHOUT[reading.fate]}   <- {reading.header}: {unbroken(reading.text)}".rstrip())
        blocks.append("\n".join(lines))
    for title, several in (
        ("Not read; the text is kept with the run", found.unread),
        ("Read, but look at it", found.doubtful),
    ):
        if several:
            blocks.append("\n".join([f"{title}:", *(f"  {told(each)}" for each in several)]))
    if found.passed_over:
        lines = [f"  line {line}, {what}: {why}" for line, what, why in found.passed_over]
        blocks.append("\n".join(["Passed over:", *lines]))
    return "\n\n".join(blocks) + "\n"


def told(it: Reading) -> str:
    """Say in one line where a cell stands, what it says, and what to know about it."""
    where = f"line {it.line}, row {it.row}, column {it.column}"
    return f"{where} ({it.header}): {it.text!r}: {it.reason}" if it.header else f"{where}: {it.text!r}: {it.reason}"


def _count(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _own_lines(text: str, html: Sequence[tuple[int, int, int]]) -> set[int]:
    """Return the lines between our markers."""
    lines: set[int] = set()
    begin = None
    for at, start, end in html:
        mark = text[start:end].strip()
        if mark == BEGIN:
            begin = at
        elif mark == END and begin is not None:
            lines |= set(range(begin, at))
            begin = None
    return lines


def _no_comparison(found: Sequence[Heading]) -> str:
    return "" if is_comparison(found) else "no comparison: it needs a column of models, and one of numbers known here"


def _passed(line: Line, row: int, found: Sequence[Heading], why: str) -> list[Reading]:
    headers = [each.text for each in found]
    return [
        Reading(
            line.number, row, at, headers[at - 1] if at <= len(headers) else "", cell.raw, "passed over", reason=why
        )
        for at, cell in enumerate(line.cells, 1)
    ]


def _row(
    line: Line, row: int, found: Sequence[Heading], team: str, source: str, model: str
) -> tuple[ByHand | None, list[Reading], str]:
    """Read one row: what to store, what became of its cells, and why nothing is stored where that is so."""
    named = {each.kind: cell for each, cell in zip(found, line.cells, strict=False)}
    names = {kind: named[kind].text if kind in named else "" for kind in ("team", "model", "method")}
    kinds = {each.kind for each in found}
    doubt = ""
    if "method" not in kinds and model:
        names["model"], names["method"] = model, names["model"]
        doubt = f"taken as the method, since the table has no column of methods; the model is {model}, as was said"
    elif "method" not in kinds:
        names["method"] = UNNAMED
        doubt = "the table has no column of methods; this may be one: name the model (--model) to read it as such"
    elif "model" not in kinds:
        names["model"] = model or UNNAMED
        doubt = f"the table has no column of models: the model is taken as {names['model']}"
    why = _no_row(names)
    if not why:
        cells = _cells(line, row, found, doubt)
        if any(reading.metrics for reading in cells):
            method = ORIGINAL if ORIGINALS.fullmatch(names["method"]) else names["method"]
            whose = team if is_missing(names["team"]) else names["team"]
            return ByHand(whose, names["model"], method, source, tuple(cells)), cells, ""
        why = "it holds no number that could be read"
        unread = {each.column: each for each in cells if each.fate == "unread"}
        return None, [unread.get(each.column, each) for each in _passed(line, row, found, why)], why
    return None, _passed(line, row, found, why), why


def _no_row(names: Mapping[str, str]) -> str:
    if is_missing(names["model"]):
        return "it names no model"
    if _PLACEHOLDER.fullmatch(names["model"]):
        return f"{names['model']!r} is a placeholder"
    return "it names no method" if is_missing(names["method"]) else ""


def _once(row: ByHand, same: dict[str, ByHand]) -> tuple[ByHand | None, list[Reading], str]:
    """See whether a row was there before: the same again is not stored twice.

    Args:
        row: the row.
        same: the rows before it of this team, model and method, by their digests; this one is added.
    """
    if row.digest in same:
        why = f"the same row as in line {same[row.digest].line}"
        passed = [
            each if each.fate == "missing" else replace(each, fate="passed over", metrics={}, reason=why)
            for each in row.readings
        ]
        return None, passed, why
    if same:
        last = next(reversed(same.values())).line
        why = f"line {last} has this model and method with other cells: a table shows the later"
        at = max(at for at, each in enumerate(row.readings) if each.fate == "name")
        told = replace(row.readings[at], reason="; ".join(filter(None, [row.readings[at].reason, why])))
        row = replace(row, readings=(*row.readings[:at], told, *row.readings[at + 1 :]))
    same[row.digest] = row
    return row, list(row.readings), ""


def _cells(line: Line, row: int, found: Sequence[Heading], doubt: str) -> list[Reading]:
    readings: list[Reading] = []
    known: dict[str, str] = {}
    for at, cell in enumerate(line.cells, 1):
        heading = found[at - 1] if at <= len(found) else Heading("", "unknown", reason="the table has no such column")
        reading = Reading(line.number, row, at, heading.text, cell.raw, "unread")
        if heading.kind in ("team", "model", "method"):
            reading = replace(reading, fate="name", reason=doubt if heading.kind != "team" else "")
        elif is_missing(cell.text):
            reading = replace(reading, fate="missing")
        else:
            try:
                metrics, remarks, environment = _read(cell.text, heading, known)
                known |= dict.fromkeys(metrics, heading.text)
                reading = replace(
                    reading, fate="read", metrics=metrics, reason="; ".join(remarks), environment=environment
                )
            except Unreadable as error:
                reading = replace(reading, reason=str(error))
        readings.append(reading)
    for at, heading in enumerate(found[len(line.cells) :], len(line.cells) + 1):
        readings.append(Reading(line.number, row, at, heading.text, "", "missing", reason="the row ends before it"))
    return readings


def _read(text: str, heading: Heading, known: Mapping[str, str]) -> tuple[dict[str, float], list[str], dict[str, str]]:
    """Read a cell that says something: metrics, remarks, and what is known of the machine."""
    if heading.reason:
        raise Unreadable(heading.reason)
    if heading.kind == "quality":
        metrics, remarks = read_scores(text, heading, known)
        return metrics, remarks, {}
    found = measure(text)
    name, value, remarks = _quantity(found, heading)
    if name in known:
        raise Unreadable(f"{name} was read from the column {known[name]!r} already")
    environment: dict[str, str] = {}
    device = name.partition("/")[0]
    for note in found.notes:
        if device in DEVICES and _HARDWARE.search(note) and "," not in note:
            environment[f"{device}_model"] = note
        elif not _RATIO.fullmatch(note):
            remarks.append(f"“({note})” is kept in the cell's text only")
    return {name: value}, remarks, environment


def _quantity(found: Measure, heading: Heading) -> tuple[str, float, list[str]]:
    remarks = list(found.remarks)
    sign = found.unit or heading.unit
    name = heading.metric
    if sign is None and heading.kind == "time":
        raise Unreadable("neither the cell nor the header has a unit: seconds or milliseconds?")
    kinds = {"time": ("time", "tokens", "samples")}.get(heading.kind, ("size",))
    if sign is not None and sign.kind not in kinds:
        raise Unreadable(f"{sign.text} is no unit of this column")
    if sign is None:
        remarks.append("neither the cell nor the header has a unit: taken as MB")
    elif heading.kind == "time":
        name = f"{heading.device}/latency_p50_ms" if sign.kind == "time" else rate(heading.device, sign)
        if sign.kind != "time":
            remarks.append("a rate and no time")
    if found.unit and heading.unit and (found.unit.kind, found.unit.factor) != (heading.unit.kind, heading.unit.factor):
        remarks.append(f"the cell's unit is {found.unit.text}, the header's {heading.unit.text}: the cell's is taken")
    value = found.value * (sign.factor if sign else 1)
    if value <= 0:
        raise Unreadable(f"{found.value:f} is impossible: {_NOTHING.get(heading.kind, _NOTHING['ram'])}")
    return name, to_float(value), remarks
