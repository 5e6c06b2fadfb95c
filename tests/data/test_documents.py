"""WikiText as its articles, from its text files and from tables of its lines."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from datafiles import values, write
from pyarrow import parquet

from mlflow_compress.data.datasets import read

LINES = [
    "",
    " = Robert Boulter = ",
    "",
    " Robert Boulter is an English actor . ",
    " = = Career = = ",
    " = = = 2000 = = = ",
    " In 2000 , x = 1 and y = 2 . ",
    "",
    " = Du Fu = ",
    " Du Fu was a poet . ",
]
FIRST = "\n".join(LINES[1:8])
SECOND = "\n".join(LINES[8:])


def test_a_text_file_is_cut_at_titles(tmp_path: Path) -> None:
    write(tmp_path / "wiki.test.txt", "\n".join(LINES))
    table = read("wiki.test.txt:unit=document", tmp_path, ("text",))
    assert values(table) == [FIRST, SECOND]
    assert [row.where for row in table.rows] == ["wiki.test.txt, line 2", "wiki.test.txt, line 9"]
    assert values(read("wiki.test.txt:unit=document,limit=1", tmp_path, ("text",)))[0] in (FIRST, SECOND)


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_the_rows_of_a_table_are_its_lines(tmp_path: Path, suffix: str) -> None:
    rows = [{"text": f"{line}\n" if line else ""} for line in LINES]  # as on the hub
    if suffix == "parquet":
        parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "wiki.parquet")
    else:
        write(tmp_path / "wiki.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    table = read(f"wiki.{suffix}:unit=document", tmp_path, ("text",))
    assert values(table) == [FIRST, SECOND]
    assert [row.where.rpartition(", ")[2] for row in table.rows] in (["row 2", "row 9"], ["line 2", "line 9"])
    assert len(read(f"wiki.{suffix}", tmp_path, ("text",)).rows) == 7


def test_a_text_without_titles_is_one_document(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "One.\n\nTwo = 2.\n")
    assert values(read("a.txt:unit=document", tmp_path, ("text",))) == ["One.\n\nTwo = 2.\n"]


def test_a_row_that_cannot_be_read_is_reported_or_skipped(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", '{"text": " = A = \\n"}\nno json\n{"text": "x"}\n')
    table = read("a.jsonl:unit=document,skip_bad=true", tmp_path, ("text",))
    assert values(table) == [" = A = \n\nx"]
    assert len(table.skipped) == 1
