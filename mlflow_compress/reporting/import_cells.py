"""Reads the cells of one row of a hand-made table: numbers in our units, and the reasons for unreadable cells."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mlflow_compress.reporting.hand_made_rows import Reading
from mlflow_compress.reporting.markdown_tables import Cell, Line
from mlflow_compress.reporting.table_headings import Heading, rate, size_metric
from mlflow_compress.reporting.written_circumstances import hardware_in, several_inputs
from mlflow_compress.reporting.written_scores import read_scores
from mlflow_compress.reporting.written_units import Measure, Unreadable, is_missing, measure, to_float
from mlflow_compress.words import DEVICES

_NAMES = ("team", "model", "method")
_NOTHING = {
    "size": "no model has that size",
    "time": "no call takes that time",
    "ram": "it was not measured, or the device was not used",
}
_RATIO = re.compile(r"≈?[\d.]+x(;.*)?")  # written by this tool after a number


@dataclass(frozen=True)
class Said:
    """What a person states about a file's tables, in addition to their text.

    Attributes:
        team: the team of the rows, unless a column names it.
        model: the model of tables without a column of methods; empty where it is not stated.
        scales: how a metric's numbers without a per cent sign are meant, by metric name: `share` or `percent`.
    """

    team: str = ""
    model: str = ""
    scales: Mapping[str, str] = field(default_factory=dict)


def read_cells(line: Line, row: int, columns: Sequence[Heading], said: Said, doubt: str) -> list[Reading]:
    """Read each cell of a row once, and add a reading for each column that the row lacks.

    Args:
        line: the row.
        row: its position in the table, from 1.
        columns: the columns of the table.
        said: statements of the person who imports the table.
        doubt: a remark on the cells that name the model and the method; may be empty.
    """
    readings: list[Reading] = []
    sources: dict[str, str] = {}
    names = [cell.text for cell, heading in zip(line.cells, columns, strict=False) if heading.kind in _NAMES]
    input_count = next(filter(None, map(several_inputs, names)), "")
    for number, cell in enumerate(line.cells, 1):
        beyond = Heading("", "unknown", reason="the table has no such column")
        heading = columns[number - 1] if number <= len(columns) else beyond
        reading = Reading(line.number, row, number, heading.text, cell.raw, "unread")
        if heading.kind in _NAMES:
            reading = replace(reading, fate="name", reason=doubt if heading.kind != "team" else "")
        elif is_missing(cell.text):
            reading = replace(reading, fate="missing")
        else:
            try:
                metrics, remarks, environment = _read(cell, heading, sources, said, input_count)
            except Unreadable as error:
                reading = replace(reading, reason=str(error))
            else:
                sources |= dict.fromkeys(metrics, heading.text)
                reason = "; ".join(remarks)
                reading = replace(reading, fate="read", metrics=metrics, reason=reason, environment=environment)
        readings.append(reading)
    for number, heading in enumerate(columns[len(line.cells) :], len(line.cells) + 1):
        readings.append(Reading(line.number, row, number, heading.text, "", "missing", reason="the row ends before it"))
    return readings


def _read(
    cell: Cell, heading: Heading, sources: Mapping[str, str], statements: Said, input_count: str
) -> tuple[dict[str, float], list[str], dict[str, str]]:
    """Return the metrics, remarks and circumstances of a cell that is not empty."""
    if heading.reason:
        raise Unreadable(heading.reason)
    if heading.kind == "quality":
        metrics, remarks = read_scores(cell.lines, heading, sources, statements.scales)
        return metrics, remarks, {}
    quantity = measure(cell.text)
    if heading.kind == "time":
        input_count = next(filter(None, map(several_inputs, quantity.notes)), "") or heading.several or input_count
        _refuse_several(input_count, quantity, heading)
    name, value, remarks = _quantity(quantity, heading)
    if name in sources:
        raise Unreadable(f"{name} was already read from the column {sources[name]!r}")
    device = name.partition("/")[0]
    hardware = heading.hardware if device in DEVICES else ""
    for note in quantity.notes:
        if device in DEVICES and (hardware_text := hardware_in(note)):
            hardware = hardware_text
        if not (device in DEVICES and hardware == note) and not _RATIO.fullmatch(note) and not size_metric(note):
            remarks.append(f"“({note})” is kept in the cell's text only")
    return {name: value}, remarks, {f"{device}_model": hardware} if hardware else {}


def _refuse_several(several: str, quantity: Measure, heading: Heading) -> None:
    sign = quantity.unit or heading.unit
    if several and (sign is None or sign.kind == "time"):
        raise Unreadable(f"“{several}”: a time for several inputs; it is not clear whether for all or for each")


def _quantity(quantity: Measure, heading: Heading) -> tuple[str, float, list[str]]:
    remarks = list(quantity.remarks)
    sign = quantity.unit or heading.unit
    name = heading.metric
    if heading.kind == "size":
        name = next(filter(None, map(size_metric, quantity.notes)), "") or name
    if sign is None and heading.kind == "time":
        raise Unreadable("neither the cell nor the header has a unit: seconds or milliseconds?")
    if sign is None and heading.needs_unit:
        raise Unreadable(heading.needs_unit)
    kinds = {"time": ("time", "tokens", "samples")}.get(heading.kind, ("size",))
    if sign is not None and sign.kind not in kinds:
        raise Unreadable(f"{sign.text} is not a unit of this column")
    if sign is None:
        remarks.append("neither the cell nor the header has a unit: read as MB")
    elif heading.kind == "time":
        name = f"{heading.device}/latency_p50_ms" if sign.kind == "time" else rate(heading.device, sign)
        if sign.is_inverse:
            remarks.append("it is the time per token: stored as tokens per second")
        elif sign.kind != "time":
            remarks.append("it is a rate, not a time")
    if quantity.unit and heading.unit and not quantity.unit.is_same(heading.unit):
        remarks.append(f"the cell's unit is {quantity.unit.text}, the header's {heading.unit.text}: the cell's is used")
    if quantity.value <= 0:
        raise Unreadable(f"{quantity.value:f} is impossible: {_NOTHING.get(heading.kind, _NOTHING['ram'])}")
    return name, to_float(sign.ours(quantity.value) if sign else quantity.value), remarks
