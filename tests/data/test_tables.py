"""Files of rows: every format, their columns, and what is told of bad ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from datafiles import REVIEWS, ROLES, values, write

from mlflow_compress.data.datasets import read
from mlflow_compress.errors import RecipeError

TABLES = {
    "a.csv": REVIEWS,
    "a.tsv": REVIEWS.replace(",", "\t"),
    "a.json": json.dumps([{"text": t, "label": n} for t, n in (("good", "1"), ("bad", "0"), ("fine", "1"))]),
    "a.jsonl": "".join(
        json.dumps({"text": t, "label": n}) + "\n" for t, n in (("good", "1"), ("bad", "0"), ("fine", "1"))
    ),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str, encoding: str, ends: str) -> None:
    write(tmp_path / name, TABLES[name].replace("\n", ends), encoding)
    table = read(name, tmp_path, ROLES)
    assert values(table) == ["good", "bad", "fine"]
    assert values(table, "label") == ["1", "0", "1"]
    assert (table.name, table.source, table.skipped) == ("a", name, ())
    assert table.digest == "36661c3353448c98"


def test_rows_say_where_they_are_from(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", 'text,label\n"two\nlines",1\n\nbad,0\n')
    write(tmp_path / "b.jsonl", '{"text": "a", "label": 1}\n\n{"text": "b", "label": 1}\n')
    write(tmp_path / "c.json", '[{"text": "a", "label": 1}, {"text": "b", "label": 1}]')
    for name, where in (
        ("a.csv", ["a.csv, row 2", "a.csv, row 4"]),
        ("b.jsonl", ["b.jsonl, line 1", "b.jsonl, line 3"]),
        ("c.json", ["c.json, item 1", "c.json, item 2"]),
    ):
        assert [row.where for row in read(name, tmp_path, ROLES).rows] == where


def test_types_of_json_stay(tmp_path: Path) -> None:
    write(tmp_path / "a.json", '[{"text": "x", "label": 3}, {"text": "y", "label": ["B-PER", "O"]}]')
    assert values(read("a.json", tmp_path, ROLES), "label") == [3, ["B-PER", "O"]]


def test_quotes_and_delimiters(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", 'text;label\n"a;""b""";1\n')
    assert values(read('a.csv:delimiter=";"', tmp_path, ROLES)) == ['a;"b"']
    write(tmp_path / "b.tsv", 'text\tlabel\n"open\t1\nan "inner" one\t0\n')
    with pytest.raises(RecipeError, match=r"b\.tsv, line 3: .*quotes=false"):
        read("b.tsv", tmp_path, ROLES)
    assert values(read("b.tsv:quotes=false", tmp_path, ROLES)) == ['"open', 'an "inner" one']


def test_a_field_may_be_as_long_as_it_is(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", f"text,label\n{'x' * 500_000},1\n")
    assert len(values(read("a.csv", tmp_path, ROLES))[0]) == 500_000


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.csv", b"", "There is no sample in a.csv: it is empty"),
        ("a.csv", b"text,label\n", "There is no sample in a.csv: it is empty"),
        ("a.csv", b"text,label\na,1\nb\n", "a.csv, row 3: it has 1 values, but there are 2 columns"),
        ("a.csv", b"text,label\na,1\n  ,1\n", "a.csv, row 3: text is empty"),
        ("a.csv", b"text,text\na,1\n", "two columns are called 'text'"),
        ("a.csv", b"text,label\ncaf\xe9,1\n", "a.csv, line 2: this is not UTF-8"),
        ("a.csv", "text,label\n".encode("utf-16"), "line 1: this is not UTF-8"),
        ("a.json", b'{"text": "a"}', "must be a list of objects, not an object"),
        ("a.json", b"[1", "is not readable as JSON"),
        ("a.json", b'[{"text": "a", "label": 1}, 7]', "a.json, item 2: it must be an object, not 7"),
        ("a.json", b"[" * 100_000, "is not readable as JSON"),
        ("a.json", b"[]", "There is no sample in a.json: it is empty"),
        ("a.jsonl", b'{"text": "a", "label": 1}\nnope\n', "a.jsonl, line 2: it is not readable as JSON"),
        ("a.jsonl", b'{"text": "a", "label": null}\n', "a.jsonl, line 1: label is empty"),
        ("a.jsonl", b'{"text": "a", "label": 1}\n{"text": "b"}\n', "a.jsonl, line 2: label is empty"),
        ("a.jsonl", b'{"text": "\\ud800", "label": 1}\n', "text has half a character"),
        ("a.xlsx", b"", r"not from '\.xlsx'"),
        ("a.txt", b"hello", "texts alone are no labelled data"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RecipeError, match=why):
        read(name, tmp_path, ROLES)


def test_texts(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "One.\nTwo.\n\n \nThree.\r\nFour.\n", "utf-8-sig")
    assert values(read("a.txt", tmp_path, ("text",))) == ["One.\nTwo.\n\n \nThree.\r\nFour.\n"]
    lines = read("a.txt:unit=line", tmp_path, ("text",))
    assert values(lines) == ["One.", "Two.", "Three.", "Four."]
    assert lines.rows[2].where == "a.txt, line 5"
    assert values(read("a.txt:unit=paragraph", tmp_path, ("text",))) == ["One.\nTwo.", "Three.\nFour."]
