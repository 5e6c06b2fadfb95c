"""Rows of hand-made tables are stored once, each as a run that any table shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlflow_compress.records import Run
from mlflow_compress.reporting.compare import compare
from mlflow_compress.reporting.hand_made_rows import Import
from mlflow_compress.reporting.import_tables import read
from mlflow_compress.tracking import imported_rows, writing
from mlflow_compress.tracking.connection import Store
from mlflow_compress.tracking.reading import runs as logged_runs

COURSE = Path(__file__).parents[1] / "course_tables"


def course(number: str) -> Import:
    path = COURSE / f"table-{number}.md"
    return read(path.read_bytes().decode(), team="alpha", source=path.name)


def imported(store: Store, experiment: str) -> list[Run]:
    return logged_runs(store, {writing.experiment_id(store, experiment): experiment})


HOSTILE = (
    "| Model | Method | RAM (MB) | Note |\n|---|---|---|---|\n"
    "| `'\"; --` \\| 🙂 | ../<b>x</b> %s | 5 | Привет, *мир*: [x](y) |"
)


def test_rows_are_stored_once_and_shown_as_by_hand(store: Store) -> None:
    experiment = writing.experiment_id(store, "by hand")
    rows = [row for number in ("05", "43", "13") for row in course(number).rows]
    assert imported_rows.write_rows(store, experiment, rows) == len(rows)
    runs = imported(store, "by hand")
    assert {run.lifecycle for run in runs} == {"FINISHED"}
    assert {run.tags["mlflow.source.name"] for run in runs} == {"compress-report import"}
    first = next(
        run
        for run in runs
        if run.tags["compress.imported.from"] == "table-05.md" and run.params["method"] == "original"
    )
    assert first.metrics == rows[0].metrics
    assert first.tags["compress.cell.5 Время инференса GPU ms"] == "31.9ms (Tesla T4)"
    assert first.tags["compress.imported.line"] == "3"
    assert "header's MB" in first.tags["compress.imported.remarks"]
    rows_shown = compare(runs, language="en").rows
    assert all(row.by_hand for row in rows_shown)
    fish = next(row for row in rows_shown if row.model == "FishSpeech")
    assert fish.values["cpu/tokens_per_s"] == 0.42
    assert imported_rows.write_rows(store, experiment, rows) == 0
    assert len(imported(store, "by hand")) == len(rows)


def test_a_changed_row_is_stored_beside_the_older_one(store: Store) -> None:
    experiment = writing.experiment_id(store, "changed by hand")

    def text(ram: int, before: str = "") -> Import:
        row = f"{before}| Model | Method | RAM (MB) |\n|---|---|---|\n| m | x | {ram} |\n| m | y | 1 |"
        return read(row, team="alpha", source="README.md")

    def ram() -> float:
        with_ram = [row for row in compare(imported(store, "changed by hand"), language="en").rows if row.method == "x"]
        return with_ram[0].values["cpu/ram_peak_mib"]

    assert imported_rows.write_rows(store, experiment, text(5).rows) == 2
    assert imported_rows.write_rows(store, experiment, text(5, before="moved\n\n").rows) == 0
    assert imported_rows.write_rows(store, experiment, text(6).rows) == 1
    assert ram() == 6
    assert imported_rows.write_rows(store, experiment, text(5).rows) == 1  # as before
    assert ram() == 5
    assert len(imported(store, "changed by hand")) == 4


def test_a_run_of_0_1_gets_its_table_and_is_replaced_by_new_rows(store: Store) -> None:
    experiment = writing.experiment_id(store, "0.1 by hand")
    text = "| Model | Method | RAM (MB) |\n|---|---|---|\n| m | x | 5 |"
    rows = read(text, team="alpha", source="README.md").rows
    assert imported_rows.write_rows(store, experiment, rows) == 1
    (run,) = imported(store, "0.1 by hand")
    writing.untag(store, run.run_id, {"compress.table", "compress.table.name"})
    assert [imported_rows.write_rows(store, experiment, rows) for _ in range(2)] == [1, 0]
    runs = imported(store, "0.1 by hand")
    assert {run.tags["compress.table"] for run in runs} == {rows[0].table.digest}
    assert len(runs) == 2


def test_a_table_holds_its_own_row_though_another_holds_the_same(store: Store) -> None:
    experiment = writing.experiment_id(store, "two tables by hand")
    table = "| Model | Method | RAM (MB) |\n|---|---|---|\n| m | original | 5 |\n"
    rows = read(f"{table}\n{table}| m | x | 4 |\n", team="alpha", source="README.md").rows
    assert [imported_rows.write_rows(store, experiment, rows) for _ in range(2)] == [3, 0]
    tables = {run.tags["compress.table.name"] for run in imported(store, "two tables by hand")}
    assert tables == {"README.md", "README.md: table 2"}


def test_rows_of_one_name_are_stored_in_the_order_of_the_file_and_once(store: Store) -> None:
    experiment = writing.experiment_id(store, "twice by hand")
    text = "| Model | Method | RAM (MB) |\n|---|---|---|\n| m | x | 5 |\n| m | x | 6 |"
    rows = read(text, team="alpha", source="README.md").rows
    assert [imported_rows.write_rows(store, experiment, rows) for _ in range(3)] == [2, 0, 0]
    (row,) = compare(imported(store, "twice by hand"), language="en").rows
    assert row.values["cpu/ram_peak_mib"] == 6


def test_any_text_is_stored_as_it_is(store: Store) -> None:
    experiment = writing.experiment_id(store, "hostile by hand")
    rows = read(HOSTILE % ("z" * 300), team="te'am \"`", source="READ ME`'.md").rows
    assert imported_rows.write_rows(store, experiment, rows) == 1
    (run,) = imported(store, "hostile by hand")
    assert run.tags["model"] == "'\"; -- | 🙂"
    assert run.tags["compress.cell.4 Note"] == "Привет, *мир*: [x](y)"
    assert imported_rows.write_rows(store, experiment, rows) == 0


def test_a_row_with_a_size_alone_is_a_row(store: Store) -> None:
    experiment = writing.experiment_id(store, "size by hand")
    text = "| Model | Method | Weight size |\n|---|---|---|\n| m | x | 5 MB |"
    imported_rows.write_rows(store, experiment, read(text, team="alpha", source="README.md").rows)
    comparison = compare(imported(store, "size by hand"), language="en")
    assert [row.values for row in comparison.rows] == [{"size/weights_mib": 5.0}]
    assert not comparison.failures


@pytest.mark.parametrize("count", [3, 12])
def test_a_row_takes_three_calls_whatever_is_stored_already(
    store: Store, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    calls: list[str] = []
    progress: list[tuple[int, int]] = []
    for name in ("create_run", "log_batch", "set_terminated", "set_tag", "search_runs"):
        method = getattr(store.client, name)

        def watched(*args: Any, _name: str = name, _method: Any = method, **options: Any) -> Any:
            calls.append(_name)
            return _method(*args, **options)

        monkeypatch.setattr(store.client, name, watched)
    experiment = writing.experiment_id(store, f"{count} by hand")
    lines = "".join(f"| m{row} | x | {row + 1} |\n" for row in range(count))
    rows = read(f"| Model | Method | RAM (MB) |\n|---|---|---|\n{lines}", team="alpha", source="README.md").rows
    imported_rows.write_rows(store, experiment, rows, lambda done, total, left: progress.append((done, total)))
    assert [calls.count(name) for name in ("create_run", "log_batch", "set_terminated")] == [count] * 3
    assert len(calls) - 3 * count <= 1  # existing runs are read once
    assert progress == [(done, count) for done in range(1, count + 1)]
    assert {run.tags["compress.logged"] for run in imported(store, f"{count} by hand")} == {"complete"}
