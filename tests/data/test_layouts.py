"""Folders with splits, texts, sounds and pictures."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from datafiles import HOSTILE, REVIEWS, ROLES, SPEECH, picture, sound, values, write

from mlflow_compress.data.datasets import read
from mlflow_compress.errors import RecipeError


def test_splits_by_files_and_folders(tmp_path: Path) -> None:
    for name in ("train", "val", "test"):
        write(tmp_path / "files" / f"imdb_{name}.csv", f"text,label\n{name},1\n")
        write(tmp_path / "folders" / name / "metadata.jsonl", json.dumps({"text": name, "label": 1}))
    for folder in ("files", "folders"):
        assert values(read(folder, tmp_path, ROLES)) == ["test"]
        assert values(read(f"{folder}:split=validation", tmp_path, ROLES)) == ["val"]
        with pytest.raises(RecipeError, match=r"has no split 'nope'\. Use one of split="):
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


def test_an_empty_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for roles in (("text",), ROLES, SPEECH, ("image", "label")):
        with pytest.raises(RecipeError, match=r"/d: .*\.csv"):
            read("d", tmp_path, roles)


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
    with pytest.raises(RecipeError, match=r"empty\.txt, line 1: it is not UTF-8"):
        read("d", tmp_path, ("text",))
    assert len(read("d:skip_bad=true", tmp_path, ("text",)).skipped) == 1


def test_texts_in_folders_named_for_labels(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for label in ("neg", "pos"):
            write(tmp_path / "aclImdb" / split / label / "0_1.txt", f"{split} {label}")
    table = read("aclImdb", tmp_path, ROLES)
    assert [tuple(row.values.values()) for row in table.rows] == [("test neg", "neg"), ("test pos", "pos")]


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
    samples = read("d", tmp_path, SPEECH)
    assert values(samples) == ["hello", "good day"]
    assert [np.asarray(recording).shape for recording in values(samples, "audio")] == [(1600,), (1600,)]


def test_a_table_may_name_sounds_without_their_suffix(tmp_path: Path) -> None:
    sound(tmp_path / "d" / "wavs" / "LJ001-0001.wav")
    write(tmp_path / "d" / "metadata.csv", "id|normalized_text\nLJ001-0001|printing\n")
    assert values(read('d:delimiter="|"', tmp_path, SPEECH)) == ["printing"]


def test_commas_in_texts_do_not_split_columns(tmp_path: Path) -> None:
    """LJSpeech's table has rows with as many commas as bars."""
    for name in "ab":
        sound(tmp_path / "d" / "wavs" / f"{name}.wav")
    write(tmp_path / "d" / "metadata.csv", "a|One, two, 3|One, two, three\nb|in being, so 2|in being, so, two\n")
    assert values(read("d", tmp_path, SPEECH)) == ["One, two, three", "in being, so, two"]


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


def test_pictures_in_folders_named_for_labels(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        picture(tmp_path / "d" / label / "deeper" / "1.png", 10 if label == "cat" else 20)
    table = read("d", tmp_path, ("image", "label"))
    assert values(table, "label") == ["cat", "dog"]
    assert [int(np.asarray(image)[0, 0, 0]) for image in values(table, "image")] == [10, 20]
    picture(tmp_path / "d" / "stray.png")
    with pytest.raises(RecipeError, match=r"stray\.png: it is not in a sub-folder"):
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
    with pytest.raises(RecipeError, match=r"names '2\.png', but there are several"):
        read("d", tmp_path, ("image", "label"))


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


LEFT = [".ipynb_checkpoints/1-checkpoint.png", "cat/.ipynb_checkpoints/1-checkpoint.png", "cat/._1.png",
        "__MACOSX/cat/1.png", "cat/Thumbs.db", "cat/.DS_Store", "._labels.csv", ".~lock.labels.csv"]  # fmt: skip


@pytest.mark.parametrize("place", LEFT)
def test_files_of_editors_and_systems_are_not_samples(tmp_path: Path, place: str) -> None:
    for label in ("cat", "dog"):
        picture(tmp_path / "d" / label / "1.png")
    stray = tmp_path / "d" / place
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.write_bytes((tmp_path / "d" / "cat" / "1.png").read_bytes())
    assert values(read("d", tmp_path, ("image", "label")), "label") == ["cat", "dog"]


def test_the_data_may_be_in_a_hidden_folder(tmp_path: Path) -> None:
    picture(tmp_path / ".cache" / "d" / "cat" / "1.png")
    assert values(read(".cache/d", tmp_path, ("image", "label")), "label") == ["cat"]


def test_transcripts_and_sounds_of_a_mac_are_not_doubled(tmp_path: Path) -> None:
    librispeech(tmp_path / "d")
    for place in ("._121-121726.trans.txt", "._121-121726-0000.flac"):
        write(tmp_path / "d" / "test-clean" / "121" / "121726" / place, "\0")
    write(tmp_path / "d" / "__MACOSX" / "x.trans.txt", "x no\n")
    assert len(read("d", tmp_path, SPEECH).rows) == 3
    sound(tmp_path / "e" / "wavs" / "a.wav")
    write(tmp_path / "e" / ".ipynb_checkpoints" / "a.wav", "")
    write(tmp_path / "e" / "metadata.csv", "file,text\na.wav,hello\n")
    assert values(read("e", tmp_path, SPEECH)) == ["hello"]


@pytest.mark.parametrize("label", ["red fox", "ёлка", "🐱", "naïve"])
def test_folders_of_classes_may_have_any_name_on_any_system(tmp_path: Path, label: str) -> None:
    for form in ("NFC", "NFD"):
        picture(tmp_path / form / unicodedata.normalize(form, label) / "1.png")
        assert values(read(form, tmp_path, ("image", "label")), "label") == [label]


@pytest.mark.parametrize(
    ("file_name", "listed_name"),
    [
        ("x/йод.png", "йод.png"),
        ("x/1.PNG", "x/1.png"),
        ("x/1.png", "x\\1.png"),
        ("x/1.png", " x/1.png "),
        ("x/1.png", "/data/elsewhere/1.png"),
    ],
)
def test_files_are_found_as_other_systems_write_them(tmp_path: Path, file_name: str, listed_name: str) -> None:
    picture(tmp_path / "d" / unicodedata.normalize("NFD", file_name))
    write(tmp_path / "d" / "labels.csv", f"image,label\n{listed_name},cat\n")
    assert values(read("d", tmp_path, ("image", "label")), "label") == ["cat"]


def test_a_name_in_the_same_case_is_preferred(tmp_path: Path) -> None:
    picture(tmp_path / "d" / "x" / "A.png", 1)
    picture(tmp_path / "d" / "x" / "a.png", 2)
    write(tmp_path / "d" / "labels.csv", "image,label\na.png,cat\n")
    (image,) = values(read("d", tmp_path, ("image", "label")), "image")
    assert int(np.asarray(image)[0, 0, 0]) == 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("transcripts.txt", "a.wav hello there\nb.wav good day\n"),
        ("what is said.txt", "a.wav\thello there\n\nb.wav\tgood day\n"),
        ("transcript.txt", "wavs/a.wav|hello there\r\nwavs/b.wav|good day\r\n"),
        ("text", "a hello there\nb good day\n"),
        ("metadata.csv", "a|Hello there.|hello there\nb|Good day!|good day\n"),
        ("metadata.csv", "a|Hello, you, there.|hello there\nb|Good day!|good day\n"),
        ("metadata.csv", "a.wav,hello there\nb.wav,good day\n"),
        ("any name.tsv", "a.wav\thello there\nb.wav\tgood day\n"),
    ],
)
def test_transcripts_may_be_in_any_list(tmp_path: Path, name: str, text: str) -> None:
    for number, stem in enumerate("ab"):
        sound(tmp_path / "d" / "wavs" / f"{stem}.wav", seed=number)
    write(tmp_path / "d" / "README.txt", "Two people.\n")
    write(tmp_path / "d" / name, text)
    table = read("d", tmp_path, SPEECH)
    assert values(table) == ["hello there", "good day"]
    assert [medium.name.rpartition("/")[2] for medium in values(table, "audio")] == ["a.wav", "b.wav"]
    assert table.rows[0].where.startswith(name)


def test_sounds_of_one_name_are_distinguished_by_their_folders(tmp_path: Path) -> None:
    for number, place in enumerate(("s1/001", "s2/001")):
        sound(tmp_path / "d" / f"{place}.wav", seed=number)
    write(tmp_path / "d" / "list.txt", "s2/001.wav hello\ns1/001.wav world\n")
    table = read("d", tmp_path, SPEECH)
    assert values(table) == ["hello", "world"]
    assert [medium.name[-10:] for medium in values(table, "audio")] == ["s2/001.wav", "s1/001.wav"]
    write(tmp_path / "d" / "list.txt", "s2/001.wav hello\n001.wav world\n")
    with pytest.raises(RecipeError, match=r"list\.txt, line 2: it names '001\.wav', but there are several"):
        read("d", tmp_path, SPEECH)


def test_a_sound_without_a_suffix_is_that_of_the_same_letters(tmp_path: Path) -> None:
    for number, stem in enumerate(("AB", "ab")):
        sound(tmp_path / "d" / "wavs" / f"{stem}.wav", seed=number)
    write(tmp_path / "d" / "text", "ab hello\nAB world\n")
    assert [medium.name[-6:] for medium in values(read("d", tmp_path, SPEECH), "audio")] == ["ab.wav", "AB.wav"]


def test_of_three_values_between_tabs_none_is_guessed_to_be_the_text(tmp_path: Path) -> None:
    for number, stem in enumerate("ab"):
        sound(tmp_path / "d" / f"{stem}.wav", seed=number)
    write(tmp_path / "d" / "list.txt", "a.wav\thello there\t3.2\nb.wav\tgood day\t1.5\n")
    with pytest.raises(RecipeError, match=r"list\.txt, line 1: it has 3 values.* Use a table with a header"):
        read("d", tmp_path, SPEECH)
    write(tmp_path / "d" / "list.txt", "a.wav\thello there\t\nb.wav|Good day!|good day\n")
    assert values(read("d", tmp_path, SPEECH)) == ["hello there", "good day"]


def test_texts_may_be_beside_their_sounds(tmp_path: Path) -> None:
    for number, stem in enumerate("ab"):
        sound(tmp_path / "d" / f"{stem}.wav", seed=number)
    with pytest.raises(RecipeError, match=r"/d: there are 2 sounds in it, but no transcripts.*\.csv"):
        read("d", tmp_path, SPEECH)
    write(tmp_path / "d" / "a.txt", "hello there\n")
    with pytest.raises(RecipeError, match=r"b\.wav: there is no b\.txt beside it"):
        read("d", tmp_path, SPEECH)
    write(tmp_path / "d" / "b.txt", "\n")
    assert values(read("d", tmp_path, SPEECH)) == ["hello there", ""]
    (tmp_path / "d" / "b.txt").write_bytes(b"\xff\xfa")
    with pytest.raises(RecipeError, match=r"b\.txt, line 1: it is not UTF-8"):
        read("d", tmp_path, SPEECH)
    assert values(read("d:skip_bad=true", tmp_path, SPEECH)) == ["hello there"]


def test_a_header_without_a_picture_is_a_header(tmp_path: Path) -> None:
    picture(tmp_path / "d" / "1.png")
    write(tmp_path / "d" / "a.csv", "1.png,cat\n")
    assert values(read("d", tmp_path, ("image", "label")), "label") == ["cat"]
    write(tmp_path / "d" / "a.csv", "photo,what\n1.png,cat\n")
    with pytest.raises(RecipeError, match=r"a\.csv has no column 'image' for image\. Its columns are: 'photo', 'what'"):
        read("d", tmp_path, ("image", "label"))
    assert values(read("d:image=photo,label=what", tmp_path, ("image", "label")), "label") == ["cat"]


def test_unreadable_formats_are_reported_and_not_ignored(tmp_path: Path) -> None:
    picture(tmp_path / "d" / "cat" / "1.png")
    write(tmp_path / "d" / "dog" / "1.HEIC", "no")
    with pytest.raises(RecipeError, match=r"1\.HEIC can't be read as a picture: .*a format that Pillow can't read"):
        read("d", tmp_path, ("image", "label"))
    write(tmp_path / "e" / "1.m4a", "no")
    write(tmp_path / "e" / "1.txt", "hello")
    with pytest.raises(RecipeError, match=r"1\.m4a can't be read as sound: .*a format that libsndfile can't read"):
        read("e", tmp_path, SPEECH)
