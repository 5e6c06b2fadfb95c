"""Files of rows: every format, their columns, and errors for bad rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from datafiles import REVIEWS, ROLES, SPEECH, picture, sound, values, write
from pyarrow import parquet

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


def test_rows_state_their_origin(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", 'text,label\n"two\nlines",1\n\nbad,0\n')
    write(tmp_path / "b.jsonl", '{"text": "a", "label": 1}\n\n{"text": "b", "label": 1}\n')
    write(tmp_path / "c.json", '[{"text": "a", "label": 1}, {"text": "b", "label": 1}]')
    for name, places in (
        ("a.csv", ["a.csv, row 2", "a.csv, row 4"]),
        ("b.jsonl", ["b.jsonl, line 1", "b.jsonl, line 3"]),
        ("c.json", ["c.json, item 1", "c.json, item 2"]),
    ):
        assert [row.where for row in read(name, tmp_path, ROLES).rows] == places


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


def test_fields_may_have_any_length(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", f"text,label\n{'x' * 500_000},1\n")
    assert len(values(read("a.csv", tmp_path, ROLES))[0]) == 500_000


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "There is no sample in a.csv: it is empty"),
        ("a.csv", b"text,label\n", "There is no sample in a.csv: it is empty"),
        ("a.csv", b"text,label\na,1\nb\n", "a.csv, row 3: it has 1 values, but there are 2 columns"),
        ("a.csv", b"text,label\na,1\n  ,1\n", "a.csv, row 3: text is empty"),
        ("a.csv", b"text,text\na,1\n", "two columns have the name 'text'"),
        ("a.csv", b"text,label\ncaf\xe9,1\n", "a.csv, line 2: it is not UTF-8"),
        ("a.csv", b"text,label\ngo\0od,1\n", "a.csv, line 2: it contains a null character"),
        (
            "a.csv",
            b"text,label\na,b,1\n",
            r"a.csv, row 2: it has 3 values, but there are 2 columns\. Put a value that contains ','",
        ),
        ("a.parquet", b"PAR1", "a.parquet can't be read as Parquet"),
        ("a.csv.gz", b"", r"'\.gz' files are not supported .* Unpack it"),
        ("a.json", b'{"text": "a"}', "must be a list of objects, not an object"),
        ("a.json", b"[1", "can't be read as JSON"),
        ("a.json", b'[{"text": "a", "label": 1}, 7]', "a.json, item 2: it must be an object, not 7"),
        ("a.json", b"[1, 2]", "a.json, item 1: it must be an object, not 1"),
        ("a.json", b'{"text": ["a", "b"], "label": [1]}', "columns must have the same length, .*'text' 2, 'label' 1"),
        ("a.json", b"[" * 100_000, "can't be read as JSON"),
        ("a.json", b"[]", "There is no sample in a.json: it is empty"),
        ("a.jsonl", b'{"text": "a", "label": 1}\nnope\n', "a.jsonl, line 2: it can't be read as JSON"),
        ("a.jsonl", b'{"text": "a", "label": null}\n', "a.jsonl, line 1: label is empty"),
        ("a.jsonl", b'{"text": "a", "label": 1}\n{"text": "b"}\n', "a.jsonl, line 2: label is empty"),
        ("a.jsonl", b'{"text": "\\ud800", "label": 1}\n', "text contains half of a surrogate pair"),
        ("a.xlsx", b"", r"'\.xlsx' files are not supported .* Save it as CSV"),
        ("a.txt", b"hello", "text files have no labels"),
    ],
)
def test_unreadable_files_are_reported(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RecipeError, match=message):
        read(name, tmp_path, ROLES)


def test_texts(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "One.\nTwo.\n\n \nThree.\r\nFour.\n", "utf-8-sig")
    assert values(read("a.txt", tmp_path, ("text",))) == ["One.\nTwo.\n\n \nThree.\r\nFour.\n"]
    lines = read("a.txt:unit=line", tmp_path, ("text",))
    assert values(lines) == ["One.", "Two.", "Three.", "Four."]
    assert lines.rows[2].where == "a.txt, line 5"
    assert values(read("a.txt:unit=paragraph", tmp_path, ("text",))) == ["One.\nTwo.", "Three.\nFour."]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_texts_in_utf_16_are_read(tmp_path: Path, name: str, encoding: str) -> None:
    write(tmp_path / name, TABLES[name].replace("good", "хорошо"), encoding)
    assert values(read(name, tmp_path, ROLES)) == ["хорошо", "bad", "fine"]


def test_other_encodings_can_be_stated(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "text,label\nДа,1\nЛучше,0\n", "cp1251")
    with pytest.raises(RecipeError, match=r"a\.csv, line 2: it is not UTF-8.*encoding=cp1251"):
        read("a.csv", tmp_path, ROLES)
    table = read("a.csv:encoding=cp1251", tmp_path, ROLES)
    assert values(table) == ["Да", "Лучше"]
    assert table.source == "a.csv:encoding=cp1251"
    write(tmp_path / "texts" / "a.txt", "привет", "koi8-r")
    assert values(read("texts:encoding=koi8-r", tmp_path, ("text",))) == ["привет"]
    for unknown in ("cp99999", "hex"):
        with pytest.raises(RecipeError, match=f"has no text encoding '{unknown}'"):
            read(f"a.csv:encoding={unknown}", tmp_path, ROLES)


@pytest.mark.parametrize("delimiter", [";", "\t", "|", ","])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_the_delimiter_is_detected_from_the_header(tmp_path: Path, name: str, delimiter: str) -> None:
    write(tmp_path / name, REVIEWS.replace(",", delimiter))
    assert values(read(name, tmp_path, ROLES)) == ["good", "bad", "fine"]


def test_commas_in_the_texts_of_semicolons_stay(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "text;label\ngood, very;1\n")
    assert values(read("a.csv", tmp_path, ROLES)) == ["good, very"]
    write(tmp_path / "a.csv", "text;price, EUR;label\ngood;1,5;1\nbad;0\nfine;2,5;0\n")  # the third row is short
    assert values(read("a.csv:skip_bad=true", tmp_path, ROLES), "label") == ["1", "0"]
    write(tmp_path / "b.csv", "text\none; two\n")
    assert values(read("b.csv", tmp_path, ("text",))) == ["one; two"]
    write(tmp_path / "c.csv", "sep=;\r\ntext;label\r\ngood;1\r\n\r\n;0\r\n")
    with pytest.raises(RecipeError, match=r"c\.csv, row 5: text is empty"):
        read("c.csv", tmp_path, ROLES)


def test_unused_columns_may_have_the_same_name(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", ",text,label,x,x,\n0,good,1,2,3,\n")
    assert values(read("a.csv", tmp_path, ROLES)) == ["good"]
    with pytest.raises(RecipeError, match=r"a\.csv: two columns have the name 'x'\. Rename one"):
        read("a.csv:text=x", tmp_path, ROLES)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", TABLES["a.jsonl"]),
        ("a.jsonl", TABLES["a.json"]),
        ("a.ndjson", TABLES["a.jsonl"]),
        ("a.json", json.dumps({"version": 1, "data": json.loads(TABLES["a.json"])})),
        ("a.json", json.dumps({"text": ["good", "bad", "fine"], "label": ["1", "0", "1"]})),
    ],
)
def test_json_is_read_in_any_form(tmp_path: Path, name: str, text: str) -> None:
    write(tmp_path / name, text)
    table = read(name, tmp_path, ROLES)
    assert values(table) == ["good", "bad", "fine"]
    assert values(table, "label") == ["1", "0", "1"]


def test_parquet(tmp_path: Path) -> None:
    schema = {"info": {"features": {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}}}
    table = pa.table({"text": ["good", "bad", None], "label": [1, 0, 1]})
    parquet.write_table(table, tmp_path / "plain.parquet")
    parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps(schema)}), tmp_path / "named.parquet")
    for name, labels in (("plain", [1, 0]), ("named", ["pos", "neg"])):
        with pytest.raises(RecipeError, match=rf"{name}\.parquet, row 3: text is empty"):
            read(f"{name}.parquet", tmp_path, ROLES)
        samples = read(f"{name}.parquet:skip_bad=true", tmp_path, ROLES)
        assert (values(samples), values(samples, "label")) == (["good", "bad"], labels)
    picture(tmp_path / "1.png", 7)
    pictures = [{"bytes": (tmp_path / "1.png").read_bytes(), "path": "1.png"}]
    parquet.write_table(pa.table({"image": pictures, "label": ["cat"]}), tmp_path / "pictures.parquet")
    (image,) = values(read("pictures.parquet", tmp_path, ("image", "label")), "image")
    assert np.asarray(image)[0, 0].tolist() == [7, 7, 7]


@pytest.mark.parametrize(
    "feature",
    [
        {"feature": {"names": ["O", "B-PER"], "_type": "ClassLabel"}, "_type": "Sequence"},
        {"feature": {"names": ["O", "B-PER"], "_type": "ClassLabel"}, "length": -1, "_type": "List"},
        [{"names": ["O", "B-PER"], "_type": "ClassLabel"}],
    ],
)
def test_numbers_in_lists_of_parquet_get_their_names(tmp_path: Path, feature: object) -> None:
    metadata = json.dumps({"info": {"features": {"tokens": {"feature": {"dtype": "string"}}, "ner_tags": feature}}})
    table = pa.table({"tokens": [["Anna", "sleeps"]], "ner_tags": [[1, 0]]})
    parquet.write_table(table.replace_schema_metadata({"huggingface": metadata}), tmp_path / "a.parquet")
    assert values(read("a.parquet", tmp_path, ("words", "tags")), "tags") == [["B-PER", "O"]]


TREE = """# text = Boats don't sail.
1\tBoats\tboat\tNOUN\tNNS\t_\t4\tnsubj\t_\t_
2-3\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdo\tdo\tAUX\tVBP\t_\t4\taux\t_\t_
3\tn't\tnot\tPART\tRB\t_\t4\tadvmod\t_\t_
4\tsail\tsail\tVERB\tVB\t_\t0\troot\t_\t_
4.1\tgone\t_\tVERB\t_\t_\t_\t_\t_\t_

1\tYes\tyes\tINTJ\tUH\t_\t0\troot\t_\t_
"""


def test_a_treebank_has_words_and_parts_of_speech(tmp_path: Path) -> None:
    write(tmp_path / "a.conllu", TREE)
    table = read("a.conllu", tmp_path, ("words", "tags"))
    assert values(table, "words") == [["Boats", "do", "n't", "sail"], ["Yes"]]
    assert values(table, "tags") == [["NOUN", "AUX", "PART", "VERB"], ["INTJ"]]
    write(
        tmp_path / "a.conll", TREE.replace("2-3\tdon't\t_\t_\t_\t_\t_\t_\t_\t_\n", "").split("4.1")[0].split("\n", 1)[1]
    )
    with pytest.raises(
        RecipeError, match=r"a\.conll, line 1: the words are the numbers 1 to 4\. Name CoNLL-U files \.conllu"
    ):
        read("a.conll", tmp_path, ("words", "tags"))
    write(tmp_path / "a.conll", "1 B-NUM\n2 I-NUM\n")  # a sentence of numbers
    assert values(read("a.conll", tmp_path, ("words", "tags")), "words") == [["1", "2"]]


def test_a_word_of_a_treebank_may_have_a_blank_in_it_and_one_without_a_tag_is_reported_by_its_line(
    tmp_path: Path,
) -> None:
    rows = "# a comment\n1\t10 000\t_\tNUM\t_\t_\t_\t_\t_\t_\n1-2\tab\t_\t_\n2\tkm\t_\tNOUN\t_\t_\t_\t_\t_\t_\n"
    write(tmp_path / "a.conllu", rows)
    assert values(read("a.conllu", tmp_path, ("words", "tags")), "words") == [["10 000", "km"]]
    write(tmp_path / "b.conllu", rows + "3\tand\n")
    with pytest.raises(RecipeError, match=r"b\.conllu, line 5: there is a word without a tag"):
        read("b.conllu", tmp_path, ("words", "tags"))


COMMON_VOICE = (
    "client_id\tpath\tsentence_id\tsentence\tup_votes\n"
    'a1\tcommon_voice_ru_1.mp3\ts1\t"Да", сказал он.\t2\n'
    'a2\tcommon_voice_ru_2.mp3\ts2\t"""Нет"" - и всё."\t2\n'
    'a3\tcommon_voice_ru_3.mp3\ts3\tДа, "нет\t2\n'
)


def test_common_voice_with_and_without_quotes(tmp_path: Path) -> None:
    for split in ("train", "dev", "test", "validated", "invalidated", "other", "reported"):
        write(
            tmp_path / "ru" / f"{split}.tsv",
            COMMON_VOICE if split == "test" else COMMON_VOICE.partition("\n")[0] + "\n",
        )
    for number in (1, 2, 3):
        sound(tmp_path / "ru" / "clips" / f"common_voice_ru_{number}.mp3", rate=48_000, seed=number)
    table = read("ru", tmp_path, SPEECH)
    assert values(table) == ['"Да", сказал он.', '"Нет" - и всё.', 'Да, "нет']
    assert [len(np.asarray(clip)) for clip in values(table, "audio")] == pytest.approx([1600] * 3, abs=1200)
    assert table.rows[2].where == "test.tsv, row 4"


def test_lists_in_the_cells_of_a_table(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "tokens,ner_tags\n\"['EU', 'rejects']\",\"['B-ORG' 'O']\"\nAnna left,B-PER O\n")
    table = read("a.csv", tmp_path, ("words", "tags"))
    assert [list(row.values.values()) for row in table.rows] == [
        [["EU", "rejects"], ["B-ORG", "O"]],
        ["Anna left", "B-PER O"],
    ]
