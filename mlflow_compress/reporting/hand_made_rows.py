"""What is kept of tables that people filled in by hand: their rows, and what became of each cell."""

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

Fate = Literal["name", "read", "missing", "unread", "passed over"]


@dataclass(frozen=True)
class Origin:
    """The table that a row stands in. Only rows of one table may be compared: they were made together.

    Attributes:
        source: the file's name.
        section: the heading that the table stands under; empty where there is none.
        place: which of the tables under this heading it is, from 1.
        headers: of its columns, plain.
        team: whose file it is; empty where nobody said.
    """

    source: str
    section: str
    place: int
    headers: tuple[str, ...]
    team: str = ""

    @property
    def name(self) -> str:
        """What a person calls it: `README.md: Quantisation, table 2`."""
        place = f"table {self.place}" if self.place > 1 else ""
        said = ", ".join(filter(None, (self.section, place)))
        return f"{self.source}: {said}" if said else self.source

    @cached_property
    def digest(self) -> str:
        """A fingerprint: other rows do not change it, another heading, place or column does."""
        whole = json.dumps([self.team, self.source, self.section, self.place, self.headers], ensure_ascii=False)
        return hashlib.sha256(whole.encode(errors="surrogatepass")).hexdigest()[:12]


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
        environment: what it says of the machine, by the name of a circumstance.
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
    def told(self) -> str:
        """Say in one line where the cell stands, what it says, and what to know about it."""
        where = f"line {self.line}, row {self.row}, column {self.column}"
        header = f" ({self.header})" if self.header else ""
        return f"{where}{header}: {self.text!r}: {self.reason}"


@dataclass(frozen=True)
class ByHand:
    """One row that will be stored as a run.

    Attributes:
        team, model, method: what it is about; the original's method is `original`, all others are as written.
        table: where it stands.
        readings: its cells.
        shared: what the table says of the machine that all of its rows were measured on.
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
        """The numbers, by metric name."""
        return {name: value for reading in self.readings for name, value in reading.metrics.items()}

    @cached_property
    def environment(self) -> dict[str, str]:
        """What its cells and its table say of the machine, as far as it has numbers of that device."""
        own = {name: text for reading in self.readings for name, text in reading.environment.items()}
        devices = {name.partition("/")[0] for name in self.metrics}
        return {name: text for name, text in self.shared.items() if name.partition("_")[0] in devices} | own

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
            "compress.imported.from": self.table.source,
            "compress.imported.line": str(self.line),
            "compress.import_id": self.digest,
            "compress.table": self.table.digest,
            "compress.table.name": self.table.name,
            "compress.batch_size": "1",
        }
        devices = {name.partition("/")[0] for name in self.metrics}
        # A row with a size or a score alone is one of no device, and still a row.
        tags |= {f"compress.outcome.{device}": "ok" for device in devices & DEVICES.keys() or {"table"}}
        tags |= {f"compress.env.{name}": text for name, text in self.environment.items()}
        for reading in self.readings:
            if reading.text:
                name = re.sub(r"[^\w.-]+", " ", reading.header).strip(" .")[:200]
                tags[f"compress.cell.{reading.column} {name}".strip()] = reading.text
        if remarks := [reading.told for reading in self.readings if reading.reason]:
            tags["compress.imported.remarks"] = "\n".join(remarks)
        return tags

    @cached_property
    def digest(self) -> str:
        """A fingerprint of what it says and how that was read, and of its table; not of the line where it stands."""
        said = [[each.header, each.text, each.metrics, each.environment] for each in self.readings]
        whole = json.dumps([self.table.digest, self.team, self.model, self.method, said], ensure_ascii=False)
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
