"""The content of tables that people filled in by hand: their rows, and the result of reading each cell."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from mlflow_compress.records import SCHEMA_VERSION
from mlflow_compress.words import DEVICES

Fate = Literal["name", "read", "missing", "unread", "ignored"]


@dataclass(frozen=True)
class Origin:
    """The table of a row. Only rows of one table may be compared, because they were made together.

    Attributes:
        source: the file's name.
        section: the heading above the table; empty where there is none.
        place: the table's position under this heading, from 1.
        headers: the headers of its columns as plain text.
        team: the team of the file; empty where it is not known.
    """

    source: str
    section: str
    place: int
    headers: tuple[str, ...]
    team: str = ""

    @property
    def name(self) -> str:
        """The name for people: `README.md: Quantisation, table 2`."""
        table = f"table {self.place}" if self.place > 1 else ""
        parts = ", ".join(filter(None, (self.section, table)))
        return f"{self.source}: {parts}" if parts else self.source

    @cached_property
    def digest(self) -> str:
        """A fingerprint of the table: it changes with the heading, place or columns, but not with other rows."""
        identity = json.dumps([self.team, self.source, self.section, self.place, self.headers], ensure_ascii=False)
        return hashlib.sha256(identity.encode(errors="surrogatepass")).hexdigest()[:12]


@dataclass(frozen=True)
class Reading:
    """The result of reading one cell.

    Attributes:
        line: the line in the file, from 1.
        row: the row in its table, from 1.
        column: the column, from 1.
        header: the header of its column as plain text; empty where the table has no such column.
        text: the cell's text in the file.
        fate: what happened to it.
        metrics: the numbers read from it.
        reason: why it was not read, or a remark on how it was read.
        environment: what it states about the machine, by the name of a circumstance.
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

    @property
    def remark(self) -> str:
        """Where the cell is, its text and its reason, in one line."""
        location = f"line {self.line}, row {self.row}, column {self.column}"
        header = f" ({self.header})" if self.header else ""
        return f"{location}{header}: {self.text!r}: {self.reason}"


@dataclass(frozen=True)
class ByHand:
    """One row that will be stored as a run.

    Attributes:
        team, model, method: what the row is about; the original's method is `original`, all others are as written.
        table: its table.
        readings: its cells.
        shared: what the table states about the machine of all its rows.
    """

    team: str
    model: str
    method: str
    table: Origin
    readings: tuple[Reading, ...]
    shared: Mapping[str, str] = field(default_factory=dict)

    @property
    def line(self) -> int:
        """The line of the file, from 1."""
        return self.readings[0].line

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The numbers by metric name."""
        return {name: value for reading in self.readings for name, value in reading.metrics.items()}

    @cached_property
    def environment(self) -> dict[str, str]:
        """What its cells and its table state about the machine, for the devices that it has numbers of."""
        own = {name: text for reading in self.readings for name, text in reading.environment.items()}
        devices = {name.partition("/")[0] for name in self.metrics}
        return {name: text for name, text in self.shared.items() if name.partition("_")[0] in devices} | own

    @property
    def params(self) -> dict[str, str]:
        """The run's parameters in MLflow."""
        return {"model": self.model, "method": self.method, "team": self.team}

    @cached_property
    def tags(self) -> dict[str, str]:
        """All tags of the run, including its cells as written."""
        tags = {
            **self.params,
            "status": "ok",
            "compress.schema": str(SCHEMA_VERSION),
            "compress.role": "variant",
            "compress.source": "imported",
            "compress.imported.from": self.table.source,
            "compress.imported.line": str(self.line),
            "compress.import_id": self.digest,
            "compress.table": self.table.digest,
            "compress.table.name": self.table.name,
            "compress.batch_size": "1",
        }
        devices = {name.partition("/")[0] for name in self.metrics}
        # A row with only a size or a score belongs to no device, and is still a row.
        tags |= {f"compress.outcome.{device}": "ok" for device in devices & DEVICES.keys() or {"table"}}
        tags |= {f"compress.env.{name}": text for name, text in self.environment.items()}
        for reading in self.readings:
            if reading.text:
                name = re.sub(r"[^\w.-]+", " ", reading.header).strip(" .")[:200]
                tags[f"compress.cell.{reading.column} {name}".strip()] = reading.text
        if remarks := [reading.remark for reading in self.readings if reading.reason]:
            tags["compress.imported.remarks"] = "\n".join(remarks)
        return tags

    @cached_property
    def digest(self) -> str:
        """A fingerprint of the row's content, its interpretation and its table, but not of its line number."""
        cells = [[cell.header, cell.text, cell.metrics, cell.environment] for cell in self.readings]
        identity = json.dumps([self.table.digest, self.team, self.model, self.method, cells], ensure_ascii=False)
        return hashlib.sha256(identity.encode(errors="surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True)
class Import:
    """The content of a file's tables.

    Attributes:
        source: the file's name.
        rows: the rows to store, from the top.
        readings: every cell of every row of every table, once.
        ignored: what is not stored: line, kind and reason.
    """

    source: str
    rows: tuple[ByHand, ...]
    readings: tuple[Reading, ...]
    ignored: tuple[tuple[int, str, str], ...]

    @property
    def unread(self) -> tuple[Reading, ...]:
        """The cells that could not be read."""
        return tuple(reading for reading in self.readings if reading.fate == "unread")

    @property
    def doubtful(self) -> tuple[Reading, ...]:
        """The cells that were read with a remark."""
        return tuple(
            reading for reading in self.readings if reading.reason and reading.fate not in ("unread", "ignored")
        )
