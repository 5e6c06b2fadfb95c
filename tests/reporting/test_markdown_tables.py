from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from mlflow_compress.reporting.markdown_tables import Table, plain, read

COURSE = sorted((Path(__file__).parents[1] / "course_tables").glob("*.md"))
PARSER = MarkdownIt("commonmark").enable("table")

pieces = st.sampled_from(
    [
        "|",
        "||",
        "\\|",
        "\\",
        "\\\\|",
        "`a|b`",
        "`",
        "**b**",
        " ",
        "x",
        "1,5 МБ",
        "&nbsp;",
        "<br>",
        "[a](b)",
        "_",
        "~",
        "🙂",
        "\t",
    ]
)
lines = st.lists(pieces, max_size=8).map("".join)
endings = st.sampled_from(["\n", "\r\n", "\r"])


def texts(table: Table) -> list[list[str]]:
    return [[cell.text for cell in line.cells] for line in (table.header, *table.rows)]


def as_github_sees_it(text: str) -> list[list[list[str]]]:
    """Return the cells of all tables as the parser reports them: rows are cut or filled to the header's width."""
    tables: list[list[list[str]]] = []
    for token in PARSER.parse(text):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append([])
        elif token.type == "inline" and tables and token.level >= 4:
            tables[-1][-1].append(token.content)
    return tables


def to_width(row: Sequence[str], width: int) -> list[str]:
    return [*row[:width], *[""] * (width - len(row))]


@settings(deadline=None)
@given(before=lines, rows=st.lists(lines, max_size=4), after=lines, ending=endings)
def test_cells_are_those_that_github_shows_and_their_places_are_exact(
    before: str, rows: list[str], after: str, ending: str
) -> None:
    text = ending.join([before, "", "| a | b |", "|:-|-|", *rows, "", after])
    tables = read(text).tables
    expected_tables = as_github_sees_it(text)
    assert len(tables) == len(expected_tables)
    for table, expected in zip(tables, expected_tables, strict=True):
        for line, row in zip((table.header, *table.rows), expected, strict=True):
            raws = [cell.raw for cell in line.cells]
            assert to_width([raw.replace("\\|", "|") for raw in raws], len(row)) == row
            for cell in line.cells:
                assert text[cell.start : cell.end].strip(" \t") == cell.raw
            assert "\n" not in text[line.start : line.end]
            assert "\r" not in text[line.start : line.end]
            assert len(text[: line.start].replace("\r\n", "\n").replace("\r", "\n").split("\n")) == line.number
        assert table.newline == ending


@pytest.mark.parametrize("path", COURSE, ids=lambda path: path.name)
def test_each_course_table_is_one_table_with_all_its_lines(path: Path) -> None:
    text = path.read_bytes().decode()
    (table,) = read(text).tables
    assert len(table.rows) == len(text.splitlines()) - 2
    assert text[: table.header.start] == ""
    assert text[table.end :].strip() == ""


@pytest.mark.parametrize(
    "text",
    [
        "```\n| a | b |\n|---|---|\n| 1 | 2 |\n```",
        "    | a | b |\n    |---|---|",
        "<!--\n| a | b |\n|---|---|\n-->",
        "~~~md\n| a | b |\n|---|---|\n~~~",
        "<pre>\n| a | b |\n|---|---|\n</pre>",
        "| a | b |",
        "",
    ],
)
def test_what_github_shows_as_no_table_is_none(text: str) -> None:
    assert not read(text).tables


def test_a_rule_of_another_width_is_reported() -> None:
    page = read("text\n\n| a | b |\n|---|\n| 1 | 2 |\n\na | b\n--|--|--\n1 | 2")
    assert not page.tables
    assert page.lookalikes == ((3, 5), (7, 9))


def test_tables_in_lists_and_quotes_and_behind_a_byte_order_mark() -> None:
    text = "\ufeffa|b\r\n-|-\r\n1|2\r\n\r\n> - | `c` | d |\r\n>   |---|---|\r\n>   | **3** | 4 | 5 |"
    first, second = read(text).tables
    assert (texts(first), first.is_nested, first.newline) == ([["a", "b"], ["1", "2"]], False, "\r\n")
    assert (texts(second), second.is_nested, second.header.number) == ([["c", "d"], ["3", "4", "5"]], True, 5)
    assert text[second.rows[0].cells[0].start : second.rows[0].cells[0].end] == " **3** "


@pytest.mark.parametrize(
    ("raw", "visible"),
    [
        ("**5888.20**", "5888.20"),
        ("*Не применимо*", "Не применимо"),
        ("`openai/whisper-small` (пример)", "openai/whisper-small (пример)"),
        ("`a\\|b`", "a|b"),
        ("\\*x\\*", "*x*"),
        ("[yolo](https://example.org)", "yolo"),
        ("![yolo](y.png)", "yolo"),
        ("1&nbsp;234,5&#32;МБ", "1\u00a0234,5 МБ"),
        ("1<br/>2", "1 2"),
        ("<b>1</b>", "1"),
        ("int8_dynamic", "int8_dynamic"),
        ("", ""),
    ],
)
def test_decoration_goes_and_text_stays(raw: str, visible: str) -> None:
    assert plain(raw) == visible


def test_comments_are_found_on_lines_of_their_own_and_outside_of_code() -> None:
    text = "<!-- x -->\r\ntext\n\n```\n<!-- x -->\n```\n\n- <!-- x -->\n\ninside <!-- x -->\n\n<!-- x -->"
    assert [(number, text[start:end]) for number, start, end in read(text).html] == [
        (1, "<!-- x -->"),
        (12, "<!-- x -->"),
    ]


def test_tables_in_html_are_found_but_neither_in_comments_nor_in_code() -> None:
    table = "<table>\n<tr><td>1</td></tr>\n</table>"
    hidden = f"<!--\n{table}\n-->\n\n```\n{table}\n```"
    text = f"{hidden}\n\n<div>\n<TABLE border=1>\n</table></div>\n\n> {table[:7]}\n\n<tablet>"
    page = read(text)
    assert page.html_tables == (14, 17)
    assert not page.tables
