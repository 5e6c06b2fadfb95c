"""The result of a benchmark: a table, a goal, and whether it was met; as text, as JSON, and in the README."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent / "README.md"
_BEGIN = "<!-- results: written by python -m benchmarks --readme -->"
_END = "<!-- end of results -->"

Cell = str | int | float | None


@dataclass(frozen=True)
class Finding:
    """The result of one benchmark.

    Attributes:
        name: the benchmark's name.
        goal: the goal.
        met: whether the goal was met; None if this is unknown.
        rows: the table, with values by column.
        notes: notes for readers of the table.
        quick: whether the numbers come from a short trial, which only shows that the benchmark works.
        seconds: its duration.
        when: date and time of day, UTC.
        machine: the machine and its libraries.
    """

    name: str
    goal: str
    met: bool | None
    rows: Sequence[Mapping[str, Cell]]
    notes: Sequence[str] = ()
    quick: bool = False
    seconds: float = 0.0
    when: str = ""
    machine: Mapping[str, str] = field(default_factory=dict)


def stamped(finding: Finding, started: float, quick: bool) -> Finding:
    """Add time, machine and duration to a finding."""
    from mlflow_compress.meters.environment import machine

    return dataclasses.replace(
        finding,
        quick=quick,
        seconds=round(time.time() - started, 1),
        when=time.strftime("%Y-%m-%d %H:%M", time.gmtime(started)),
        machine=machine(),
    )


def text(finding: Finding) -> str:
    """Format a finding as Markdown."""
    verdict = {True: "met", False: "NOT met", None: "not known"}[finding.met]
    quick = " (a quick trial: ignore the numbers)" if finding.quick else ""
    lines = [f"### {finding.name}", "", f"Goal: {finding.goal} **{verdict}**{quick}", "", *table(finding.rows)]
    if finding.notes:
        lines += ["", *(f"* {note}" for note in finding.notes)]
    return "\n".join(lines) + "\n"


def write(finding: Finding) -> Path:
    """Store a finding for the README, and return its file."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{finding.name}.json"
    path.write_text(as_json(finding) + "\n", encoding="utf-8")
    return path


def stored_rows(name: str) -> Sequence[Mapping[str, Cell]]:
    """Return the stored rows of a benchmark; empty if there are none."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []


def as_json(finding: Finding | Sequence[Finding]) -> str:
    """Format one finding, or several, as JSON."""
    findings = [finding] if isinstance(finding, Finding) else finding
    data = [dataclasses.asdict(item) for item in findings]
    return json.dumps(data[0] if isinstance(finding, Finding) else data, indent=1, ensure_ascii=False)


def fill_readme() -> int:
    """Write all stored findings into the README, between its markers, and return their number."""
    stored_findings = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    findings = [Finding(**stored) for stored in stored_findings]
    head, _, tail = README.read_text(encoding="utf-8").partition(_BEGIN)
    text_after = tail.partition(_END)[2]
    parts = [f"{text(stored)}\n{_where(stored)}" for stored in findings] or ["None yet.\n"]
    README.write_text(f"{head}{_BEGIN}\n\n{chr(10).join(parts)}\n{_END}{text_after}", encoding="utf-8")
    return len(findings)


def _where(finding: Finding) -> str:
    machine = finding.machine
    names = ("python", "torch", "transformers", "mlflow")
    libraries = ", ".join(f"{name} {machine[name]}" for name in names if name in machine)
    return (
        f"{finding.when} UTC, {finding.seconds:.0f} s, on {machine.get('cpu_model')}, "
        f"{machine.get('cores_physical')} cores, {machine.get('ram_total_mib')} MiB, {machine.get('os')}; "
        f"{libraries}; mlflow-compress {machine.get('version')}\n"
    )


def table(rows: Sequence[Mapping[str, Cell]]) -> list[str]:
    """Format rows as the lines of a Markdown table."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [columns, *([_cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    lines = [_line(line, widths) for line in cells]
    return [lines[0], _line(["-" * width for width in widths], widths), *lines[1:]]


def _line(cells: Iterable[str], widths: Iterable[int]) -> str:
    return f"| {' | '.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))} |"


def _cell(value: Cell) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.1f}"
    return str(value)
