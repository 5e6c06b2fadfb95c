from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlflow_compress.errors import RecipeError
from mlflow_compress.records import Comparison, Row
from mlflow_compress.reporting import markdown_tables, readme_notes
from mlflow_compress.reporting.import_tables import BEGIN, END
from mlflow_compress.reporting.update_readme import language_of, update

COURSE = Path(__file__).parents[1] / "course_tables"
HOSTILE = [
    "int8|dynamic",
    "`x`",
    "<b>y</b>",
    "*z* _w_",
    "a\\|b\\",
    "[1]",
    "m [2]",
    "модель 🙂",
    " x ",
    "@team",
    "",
    "\n",
    END,
]


def row(team: str = "alpha", model: str = "yolo11l", method: str = "original", **values: float) -> Row:
    names = {
        "size": "size/weights_mib",
        "cpu": "cpu/latency_p50_ms",
        "gpu": "gpu/latency_p50_ms",
        "ram": "cpu/ram_peak_mib",
    }
    return Row(team, model, method, {names.get(name, f"quality/{name}"): value for name, value in values.items()})


def comparison(*rows: Row, notes: tuple[str, ...] = ()) -> Comparison:
    return Comparison(rows=rows, footnotes=notes, title="hw1")


def course(number: str) -> str:
    return (COURSE / f"table-{number}.md").read_bytes().decode()


def changed(before: str, after: str) -> tuple[list[str], list[str]]:
    """Return the removed and the added lines."""
    old, new = before.splitlines(), after.splitlines()
    return [line for line in old if line not in new], [line for line in new if line not in old]


ROWS = (row(size=96.66, cpu=492.7), row(method="int8", size=24.17, cpu=98.4, map50=0.7))
FITTING = "| Model | Method | CPU ms |\n|---|---|---|\n| a | b | 1 |\n"
SURROUNDINGS = st.lists(
    st.sampled_from(
        ["text", "", "| a | b |\n|---|---|\n| 1 | 2 |", "| Model | Method |\n|---|---|\n| m | x |", "```", "<!--",
         "-->", "<div>", "> quote", "- item", "    code", "\t", "# Title", "<!-- compress-report -->", "<details>",
         "~~~", "1. <pre>", "\u2028", "\x00", "&lt;", "[x]: y", "a\\", "\ufeff", "---", BEGIN.upper()]
    )
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    max_size=6,
)  # fmt: skip


@settings(deadline=None)
@example(before=[FITTING], after=[FITTING], inside=[FITTING, FITTING], ending="\n")
@given(before=SURROUNDINGS, after=SURROUNDINGS, inside=SURROUNDINGS, ending=st.sampled_from(["\n", "\r\n"]))
def test_nothing_outside_of_the_markers_changes(
    before: list[str], after: list[str], inside: list[str], ending: str
) -> None:
    start, middle, end = (ending.join(["", *lines, ""]) for lines in (before, inside, after))
    text = f"{start}{ending}{BEGIN}{middle}{END}{end}"
    try:
        new = update(text, comparison(*ROWS))
    except RecipeError:  # the markers are inside a code block, or hidden by the text around them
        return
    assert new.startswith(f"{start}{ending}{BEGIN}{ending}")
    assert new.endswith(f"{END}{end}")
    assert "\n" not in new[len(start) : len(new) - len(end)].replace(ending, "")
    assert update(new, comparison(*ROWS)) == new


@settings(deadline=None)
@given(before=SURROUNDINGS, after=SURROUNDINGS, ending=st.sampled_from(["\n", "\r\n"]))
def test_nothing_outside_of_the_table_changes(before: list[str], after: list[str], ending: str) -> None:
    table = course("33").rstrip("\n").replace("\n", ending)
    start, end = ending.join([*before, "", ""]), ending.join(["", "", *after])
    rows = (row(model="efficientvit_b3", size=185.75), row(model="efficientvit_b3", method="int8", cpu=50.0))
    try:
        new = update(start + table + end, comparison(*rows))
    except RecipeError:  # hidden by the text around it, or two tables
        return
    assert new.startswith(start + table.split(ending)[0])
    assert new.endswith(end)
    assert new.count("| int8 ") == 1
    assert update(new, comparison(*rows)) == new


CELLS = st.sampled_from(
    ["", "-", "yolo11l", "`yolo11l`", "original", "**int8**", "1", "1300Mb", "a\\|b", "  x  ", "[1]", "`a", "x [1]"]
)


@settings(deadline=None)
@given(
    headers=st.lists(st.sampled_from(["Notes", "RAM (GB)", "Link", "Accuracy, %", "Quality"]), max_size=3),
    rows=st.lists(st.lists(CELLS, max_size=7), max_size=5),
    ending=st.sampled_from(["\n", "\r\n"]),
    outer=st.booleans(),
)
def test_lines_that_are_not_ours_stay_byte_for_byte(
    headers: list[str], rows: list[list[str]], ending: str, outer: bool
) -> None:
    edge = "|" if outer else ""
    head = ["Model", "Method", "CPU ms", *headers]
    text = ending.join(
        f"{edge}{'|'.join(line)}{edge}" for line in (head, ["-"] * len(head), *(row or ["z", ""] for row in rows))
    )
    old_table = markdown_tables.read(text).tables[0]
    others_lines = [line for line in old_table.rows if "yolo11l" not in [cell.text for cell in line.cells[:1]]]
    try:
        new = update(text, comparison(*ROWS))
    except RecipeError:  # several lines for one of the rows
        assert len(old_table.rows) - len(others_lines) > 1
        return
    assert update(new, comparison(*ROWS)) == new
    names = [[cell.text for cell in line.cells[:2]] for line in markdown_tables.read(new).tables[0].rows]
    assert names.count(["yolo11l", "original"]) == 1
    lines = iter(new.split(ending))
    assert all(text.split(ending)[line.number - 1] in lines for line in others_lines)  # in this order


@pytest.mark.parametrize("number", sorted(path.stem[6:] for path in COURSE.glob("*.md") if path.stem != "table-29"))
def test_each_course_table_takes_a_row_and_keeps_its_own(number: str) -> None:
    old_text = course(number)
    new_text = update(old_text, comparison(*ROWS))
    removed, added = changed(old_text, new_text)
    # Table 21 has a placeholder row.
    assert (len(removed), len(added)) == ((1, 2) if number in ("21", "31") else (0, 2))
    assert update(new_text, comparison(*ROWS)) == new_text
    (old,), (new,) = markdown_tables.read(old_text).tables, markdown_tables.read(new_text).tables
    assert old_text[: old.header.end] == new_text[: new.header.end]
    assert {len(line.cells) for line in new.rows} == {len(new.header.cells)}


def test_cells_are_written_in_the_columns_and_units_that_are_there() -> None:
    whisper = row(model="openai/whisper-large-v3", size=5888.3, gpu=981.5, wer=0.0673111)
    whisper = replace(whisper, ratios={"gpu/latency_p50_ms": 0.5, "quality/wer": 0.9})
    _, (line,) = changed(course("09"), update(course("09"), comparison(whisper)))
    assert [cell.strip() for cell in line.split("|")[1:-1]] == [
        "openai/whisper-large-v3", "Оригинал", "5888.30 MB", "-", "0.9815 (0.50x)", "265.25", "6536.38", "0.9327"
    ]  # fmt: skip


def test_what_was_not_measured_and_what_is_not_ours_stays() -> None:
    text = (
        "| Model | Method | Notes | CPU ms | RAM (MB) |\n|---|:-:|---|---|---|\n"
        "| `yolo11l` | **baseline** | a \\| b | 1 | 1300Mb |\n| m | y | c | 2 | 3 |"
    )
    new = update(text, comparison(row(cpu=5.0), row(method="int8", cpu=2.0), row(model="z", cpu=7.0)))
    assert new == (
        "| Model | Method | Notes | CPU ms | RAM (MB) |\n|---|:-:|---|---|---|\n"
        "| `yolo11l` | **baseline** | a \\| b | 5.000 | 1300Mb |\n"
        "| yolo11l | int8   |       | 2.000  | -        |\n| m | y | c | 2 | 3 |\n"
        "| z     | original |       | 7.000  | -        |"
    )


def test_short_lines_are_filled_and_tables_without_outer_pipes_stay_so() -> None:
    text = "Model|Method|CPU ms|RAM (MB)\n-|-|-|-\nyolo11l|original\nyolo11l|x|1\n"
    new = update(text, comparison(row(cpu=5.0, ram=6.0), row(method="x", cpu=2.0)))
    assert new == "Model|Method|CPU ms|RAM (MB)\n-|-|-|-\nyolo11l|original | 5.000 | 6.000 |\nyolo11l|x| 2.000\n"


def test_a_line_that_is_filled_and_one_that_is_added_do_not_mix() -> None:
    new = update("Model|Method|CPU ms\n-|-|-\nyolo11l|original", comparison(row(cpu=5.0), row(method="x", cpu=2.0)))
    assert new == "Model|Method|CPU ms\n-|-|-\nyolo11l|original | 5.000 |\n| yolo11l | x    | 2.000 |"


@pytest.mark.parametrize(
    ("header", "values", "cell"),
    [
        ("Weights (GB)", {"size": 1536.0}, "1.500 GB"),
        ("RAM, GB", {"ram": 1536.0}, "1.500"),
        ("RAM", {"ram": 1536.0}, "1536 MB"),
        ("CPU time", {"cpu": 5.0}, "5.000 ms"),
        ("CPU time, s", {"cpu": 5.0}, "0.005000"),
        ("CPU, tokens/sec", {"cpu": 5.0}, "-"),
        ("Accuracy, %", {"accuracy": 0.8}, "80.00"),
        ("BLEU, %", {"bleu": 35.2}, "35.20"),
        ("1 - WER", {"wer": 0.1}, "0.9000"),
        ("Quality (PPL, BLEU)", {"wer": 0.1, "bleu": 35.2}, "0.1000 WER, 35.20 BLEU"),
        ("Notes", {"wer": 0.1}, ""),
    ],
)
def test_each_column_keeps_its_unit(header: str, values: dict[str, float], cell: str) -> None:
    text = f"| Model | Method | CPU FPS | {header} |\n|---|---|---|---|\n"
    new = update(text, comparison(row("alpha", "yolo11l", "original", **values)))
    (table,) = markdown_tables.read(new).tables
    assert [cell.text for cell in table.rows[0].cells] == ["yolo11l", "original", "-", cell]


def test_the_columns_between_the_markers_stay_where_other_teams_have_rows() -> None:
    rows = (replace(row("beta", cpu=2.0), hardware="Xeon"), replace(row(cpu=1.0), hardware="T4"))
    text = update(
        f"{BEGIN}\n{END}\n", replace(comparison(*rows), columns=("hardware", "team", "model", "method", "quality/f1"))
    )
    new = update(text, comparison(replace(row(cpu=1.0, f1=0.5), hardware="A100")), teams=["alpha"])
    (table,) = markdown_tables.read(new).tables
    assert [[cell.text for cell in line.cells] for line in (table.header, *table.rows)] == [
        ["Hardware", "Team", "Model", "Method", "F1"],
        ["A100", "alpha", "yolo11l", "original", "0.5000"],
        ["Xeon", "beta", "yolo11l", "original", "-"],
    ]


def test_any_name_is_found_again() -> None:
    rows = [
        row(model=model, method=method, cpu=1.0)
        for model in HOSTILE
        for method in ("original", "x|y [batch 16]", *HOSTILE)
    ]
    new = update("| Модель | Метод | Время (CPU, ms) |\n|---|---|---|", comparison(*rows[:2]))
    assert update(new, comparison(*rows[:2])) == new
    for named_row in rows:
        updated = update("| Модель | Метод | Время (CPU, ms) |\n|---|---|---|", comparison(named_row))
        assert len(updated.splitlines()) == 3
        assert update(updated, comparison(named_row)) == updated
        marked = update(f"{BEGIN}\n{END}", comparison(named_row))
        assert update(marked, comparison(named_row)) == marked


def test_a_team_changes_its_own_rows_only() -> None:
    text = (
        "| Team | Model | Method | CPU ms |\n|---|---|---|---|\n| alpha | yolo11l | original | 1 |\n"
        "| beta | yolo11l | original | 2 |\n"
    )
    rows = comparison(row(cpu=5.0), row("beta", cpu=6.0), row("beta", method="x", cpu=7.0))
    removed, added = changed(text, update(text, rows, teams=["alpha"]))
    assert removed == ["| alpha | yolo11l | original | 1 |"]
    assert added == ["| alpha | yolo11l | original | 5.000 |"]
    assert "6.000" in update(text, rows)
    assert update(text, rows).splitlines()[-1].replace(" ", "") == "|beta|yolo11l|x|7.000|"


def test_a_column_of_teams_is_added_where_teams_mix() -> None:
    text = "# T\n\n| Model | Method | CPU ms |\n|---|:-:|--:|\n| yolo11l | original | 1 |\n| z | x | 9 |\n\nMore.\n"
    rows = comparison(row(cpu=5.0), row("beta", cpu=6.0))
    new = update(text, rows)
    assert new == (
        "# T\n\n| Team | Model | Method | CPU ms |\n| :--- |---|:-:|--:|\n| alpha | yolo11l | original | 5.000 |\n"
        "| - | z | x | 9 |\n| beta | yolo11l | original | 6.000  |\n\nMore.\n"
    )
    assert update(new, rows) == new
    assert update(text, rows, teams=["beta"]) == text.replace("| 1 |", "| 6.000 |")  # the team of the rows is clear
    russian = "Модель|Метод|CPU, ms\n-|-|-\nyolo11l|исходная\nz|x\n"
    new = update(russian, rows)
    assert new == (
        "| Команда | Модель|Метод|CPU, ms\n| :--- | -|-|-\n| alpha | yolo11l|исходная | 5.000 |\n| - | z|x\n"
        "| beta    | yolo11l | Оригинал | 6.000 |\n"
    )
    assert update(new, rows) == new


def test_a_row_that_only_keeps_a_place_gives_way() -> None:
    head = "| Model | Method | CPU ms |\r\n|---|---|---|"
    placeholder = "\r\n| your model name | original | 0.0ms |"
    kept_line = "\r\n| z | x | 9 |"
    new_line = "\r\n| yolo11l | original | 5.000  |"
    rows = comparison(row(cpu=5.0))
    assert update(head + placeholder, rows) == head + new_line
    assert update(head + placeholder + kept_line, rows) == head + kept_line + new_line
    assert update(f"{head}{kept_line}{placeholder}\r\n\r\nEnd", rows) == f"{head}{kept_line}{new_line}\r\n\r\nEnd"
    assert update(head + placeholder, comparison()) == head + placeholder


def test_footnotes_stand_below_a_table_that_somebody_made_and_go_when_they_must() -> None:
    text = "| Model | Method | CPU ms |\n|---|---|---|\n| yolo11l | original | 1 |\n| z | x [1] | 2 |\n\n[1]: y\n"
    rows = comparison(
        replace(row(cpu=5.0), notes=(0,)),
        replace(row(method="int8", cpu=2.0), notes=(0, 1)),
        notes=("the *machine* was busy", "few calls"),
    )
    new = update(text, rows)
    assert new == (
        "| Model | Method | CPU ms |\n|---|---|---|\n| yolo11l | original [2] | 5.000 |\n"
        "| yolo11l | int8 [2] [3] | 2.000  |\n| z | x [1] | 2 |\n\n"
        "<!-- compress-report: notes -->\n\n- [2] the \\*machine\\* was busy\n- [3] few calls\n\n"
        "<!-- compress-report: end of notes -->\n\n[1]: y\n"
    )
    assert update(new, rows) == new
    fewer = comparison(row(cpu=5.0), replace(row(method="int8", cpu=2.0), notes=(0,)), notes=("few calls",))
    with_fewer = update(new, fewer)
    assert "| yolo11l | original     | 5.000 |\n| yolo11l | int8 [3]     |" in with_fewer
    assert "- [3] few calls\n\n<!--" in with_fewer
    assert "busy" not in with_fewer
    assert "compress-report" not in update(with_fewer, comparison(row(cpu=5.0), row(method="int8", cpu=2.0)))


def test_footnotes_of_rows_that_are_not_written_now_stay() -> None:
    text = "| Team | Model | Method | CPU ms |\n|---|---|---|---|\n"
    beta = replace(row("beta", cpu=2.0), notes=(0,))
    new = update(text, comparison(beta, notes=("beta's note",)))
    alpha = replace(row(cpu=1.0), notes=(0, 1))
    updated = update(new, comparison(alpha, notes=("alpha's note", "beta's note")), teams=["alpha"])
    assert "- [1] beta's note\n- [2] alpha's note\n\n<!--" in updated
    (table,) = markdown_tables.read(updated).tables
    assert [line.cells[2].text for line in table.rows] == ["original [1]", "original [1] [2]"]


def test_the_language_is_that_of_the_table_in_the_file() -> None:
    russian = "| Модель | Метод | Размер весов |\n|---|---|---|\n"
    assert language_of(russian) == "ru"
    assert language_of(f"Привет\n\n{FITTING}") == "en"
    assert language_of(f"{BEGIN}\n\n{russian}\n{END}\n") == "ru"
    assert language_of("Без таблицы") == "en"


def test_scores_are_named_in_the_language_of_the_table() -> None:
    text = "| Модель | Метод | Качество |\n|---|---|---|\n"
    assert "0.1000 норм. WER |" in update(text, comparison(row(wer_normalized=0.1)))


NOTED = st.builds(
    lambda team, method, cpu, notes: replace(row(team, method=method, cpu=cpu), notes=tuple(sorted(notes))),
    st.sampled_from(["alpha", "beta"]),
    st.sampled_from(["original", "int8", "x [batch 4]"]),
    st.sampled_from([1.0, 2.5]),
    st.sets(st.integers(0, 2)),
)


@settings(deadline=None, max_examples=25)
@given(
    rows=st.lists(NOTED, max_size=4, unique_by=lambda row: (row.team, row.method)),
    other_rows=st.lists(NOTED, max_size=3, unique_by=lambda row: (row.team, row.method)),
    lines=st.lists(
        st.sampled_from(["| your model name | x | 1 |", "| z | y [1] | 1 |", "| yolo11l | original | 3 |", "| z |"]),
        max_size=3,
        unique=True,
    ),
    before=SURROUNDINGS,
    after=SURROUNDINGS,
    ending=st.sampled_from(["\n", "\r\n"]),
)
def test_updating_twice_changes_nothing_and_all_text_around_stays(
    rows: list[Row], other_rows: list[Row], lines: list[str], before: list[str], after: list[str], ending: str
) -> None:
    notes = ("the machine was busy", "few *calls*", "[3] is a name")
    start, end = ending.join([*before, "", ""]), ending.join(["", "", *after])
    table = ending.join(["| Model | Method | CPU ms |", "|---|---|---|", *lines])
    by_hand = set(readme_notes.marks(start + table + end))
    try:
        once = update(start + table + end, comparison(*rows, notes=notes))
        twice = update(once, comparison(*rows, notes=notes))
        with_other_rows = update(twice, comparison(*other_rows, notes=notes[1:] + notes[:1]))
        repeated = update(with_other_rows, comparison(*other_rows, notes=notes[1:] + notes[:1]))
    except RecipeError:  # hidden by the text around it, or another table
        return
    assert (once, with_other_rows) == (twice, repeated)
    for new in (once, with_other_rows):
        assert new.startswith(start)
        assert new.endswith(end)
        (updated_table,) = [table for table in markdown_tables.read(new).tables if table.header.start == len(start)]
        marks = {
            number for line in updated_table.rows for cell in line.cells for number in readme_notes.marks(cell.raw)
        }
        block = readme_notes.block_below(new, markdown_tables.read(new), updated_table)
        assert readme_notes.listed(new[slice(*block)] if block else "").keys() == marks - by_hand


def test_rows_by_hand_replace_nothing() -> None:
    text = "| Model | Method | CPU ms |\n|---|---|---|\n| yolo11l | original | 1 |\n"
    by_hand = [replace(row(method=method, cpu=5.0), by_hand=True) for method in ("original", "x")]
    new = update(text, comparison(*by_hand))
    assert changed(text, new) == ([], ["| yolo11l | x (by hand) | 5.000  |"])
    assert update(new, comparison(*by_hand)) == new


def test_rows_of_other_teams_stay_between_the_markers_with_their_notes() -> None:
    beta = replace(row("beta", cpu=2.0), notes=(0, 1))
    text = update(f"{BEGIN}\n{END}\n", comparison(beta, notes=("the machine was busy", "beta's note")))
    alpha = (replace(row(cpu=1.0), notes=(0,)), replace(row(method="[2] int8", cpu=3.0), notes=(1,)))
    rows = comparison(*alpha, notes=("alpha's note", "the machine was busy"))
    new = update(text, rows, teams=["alpha"])
    assert new == update(new, rows, teams=["alpha"])
    kept_line = next(line for line in text.splitlines() if "| beta" in line)
    assert kept_line in new.splitlines()
    (table,) = markdown_tables.read(new).tables
    assert [[cell.text for cell in line.cells][:3] for line in table.rows] == [
        ["alpha", "yolo11l", "original [3]"],
        ["alpha", "yolo11l", "[2] int8 [1]"],
        ["beta", "yolo11l", "original [1] [2]"],
    ]
    assert "- [1] the machine was busy\n- [2] beta's note\n- [3] alpha's note\n\nMB is" in new
    repeated = update(new, comparison(), teams=["alpha"])
    assert [line for line in repeated.splitlines() if "| beta" in line] == [kept_line]
    assert "| alpha" not in repeated
    assert update(new, comparison(row(cpu=9.0))).count("| beta") == 0  # without a team the whole table is ours
    with pytest.raises(
        RecipeError, match="line 3 has rows of other teams, and columns that can't be filled now: Team,"
    ):
        update(new, replace(rows, language="ru"), teams=["alpha"])


def test_a_byte_order_mark_and_the_lack_of_a_last_line_ending_stay() -> None:
    text = "\ufeff| Model | Method | CPU ms |\r\n|---|---|---|\r\n| yolo11l | original | 1 |"
    new = update(text, comparison(row(cpu=5.0), row(method="x", cpu=6.0)))
    assert new == (
        "\ufeff| Model | Method | CPU ms |\r\n|---|---|---|\r\n| yolo11l | original | 5.000 |\r\n"
        "| yolo11l | x      | 6.000  |"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "There is no table"),
        ("# Title\n", "There is no table"),
        (f"```\n{FITTING}```\n", "There is no table"),
        (f"<!--\n{FITTING}-->\n", "There is no table"),
        ("| Model | CPU ms |\n|---|---|\n", "There is no table"),
        ("| Model | Method |\n|---|---|\n", "There is no table"),
        (f"> {FITTING.replace(chr(10), chr(10) + '> ')}", "There is no table"),
        (f"{FITTING}\n\n{FITTING}", r"those in lines 1, 6\. Put <!-- compress-report: begin -->"),
        (f"{BEGIN}\n", "begin --> is in line 1, .*end --> in no line"),
        (f"{END}\n\n{BEGIN}\n", "begin --> is in line 3, .*end --> in line 1"),
        (f"{BEGIN}\n{BEGIN}\n{END}\n", "begin --> is in lines 1, 2, .*end --> in line 3"),
        (f"{FITTING}| a | b | 2 |\n", r"Lines 3 and 4 are both about a b\. Remove one"),
    ],
)
def test_errors_name_the_lines(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        update(text, comparison(row(model="a", method="b", cpu=1.0)))


def test_markers_in_a_code_block_are_an_example_and_no_markers() -> None:
    text = f"```\n{BEGIN}\n{END}\n```\n\n{BEGIN}\n{END}\n"
    new = update(text, comparison(*ROWS))
    assert new.startswith(f"```\n{BEGIN}\n{END}\n```\n\n{BEGIN}\n\n| Team")
