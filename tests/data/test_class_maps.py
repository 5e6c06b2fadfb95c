"""Class maps: the labels of data, such as ImageNet's synsets, and the model's classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datafiles import picture, write

from mlflow_compress.data.class_maps import mapped
from mlflow_compress.data.datasets import Row, read
from mlflow_compress.data.labels import labels_of
from mlflow_compress.errors import RecipeError

SYNSETS = {"n01440764": "tench, Tinca tinca", "n01443537": "goldfish, Carassius auratus", "n02012849": "crane"}
FULL = dict(enumerate(SYNSETS.values()))
SHORT = {0: "Tench", 1: "goldfish", 2: "crane (2)"}
ROLES = ("image", "label")


def imagenet(folder: Path, *synsets: str) -> Path:
    """Write a picture for each synset, in its folder."""
    for synset in synsets or SYNSETS:
        picture(folder / "val" / synset / "ILSVRC2012_val_00000001.JPEG")
    return folder


def labels(data: str, folder: Path, names: dict[int, str]) -> list[str]:
    rows = read(data, folder, ROLES).rows
    return labels_of(mapped(rows, data, folder, names), names)


FORMS: dict[str, str] = {
    "LOC_synset_mapping.txt": "".join(f"{synset} {name}\n" for synset, name in SYNSETS.items()),
    "imagenet_class_index.json": json.dumps({i: [synset, name] for i, (synset, name) in enumerate(SYNSETS.items())}),
    "names.json": json.dumps(SYNSETS),
    "numbers.json": json.dumps({synset: number for number, synset in enumerate(SYNSETS)}),
    "numbers.txt": "".join(f"{synset} {number}\n" for number, synset in enumerate(SYNSETS)),
    "map.yaml": json.dumps({"names": ["a"], "map": SYNSETS}),
    "map.csv": "wnid;words\n" + "".join(f'{synset};"{name}"\n' for synset, name in SYNSETS.items()),
    "map_clsloc.txt": "n02012849 3 crane\nn01440764 1 tench\nn01443537 2 goldfish\n",
}


@pytest.mark.parametrize("file", FORMS)
@pytest.mark.parametrize("names", [FULL, {number: name.title() for number, name in FULL.items()}])
def test_synsets_become_the_models_classes(tmp_path: Path, file: str, names: dict[int, str]) -> None:
    imagenet(tmp_path / "imagenet")
    write(tmp_path / file, FORMS[file])
    assert labels(f"imagenet/val:class_map={file}", tmp_path, names) == list(names.values())


def test_a_class_map_beside_the_data_is_found(tmp_path: Path) -> None:
    imagenet(tmp_path / "ILSVRC" / "Data" / "CLS-LOC")
    write(tmp_path / "LOC_synset_mapping.txt", FORMS["LOC_synset_mapping.txt"])
    assert labels("ILSVRC/Data/CLS-LOC/val", tmp_path, FULL) == list(FULL.values())
    imagenet(tmp_path / "other")
    write(tmp_path / "other" / "class_map.json", FORMS["numbers.json"])
    assert labels("other:split=val", tmp_path, {0: "a", 1: "b", 2: "c"}) == ["a", "b", "c"]


def test_numbers_are_used_where_names_do_not_fit(tmp_path: Path) -> None:
    imagenet(tmp_path)
    write(tmp_path / "map.txt", FORMS["LOC_synset_mapping.txt"])
    assert labels("val:class_map=map.txt", tmp_path, SHORT) == list(SHORT.values())


def test_a_map_of_a_few_classes_fits_a_model_of_many(tmp_path: Path) -> None:
    imagenet(tmp_path, "n01443537")
    write(tmp_path / "map.txt", FORMS["LOC_synset_mapping.txt"])
    names = {number: f"thing {number}" for number in range(1000)} | {7: "goldfish"}
    assert labels("val:class_map=map.txt", tmp_path, names) == ["goldfish"]


@pytest.mark.full
def test_ultralytics_knows_the_synsets_of_imagenet(tmp_path: Path) -> None:
    pytest.importorskip("ultralytics")
    imagenet(tmp_path, "n01440764", "n02012849")
    names = {number: f"thing {number}" for number in range(1000)} | {0: "tench", 134: "bird crane"}
    data = "val:class_map=package:ultralytics/cfg/datasets/ImageNet.yaml"
    assert labels(data, tmp_path, names) == ["tench", "bird crane"]


def test_without_synsets_and_a_map_nothing_changes(tmp_path: Path) -> None:
    picture(tmp_path / "d" / "cat" / "1.png")
    assert labels("d", tmp_path, {0: "cat"}) == ["cat"]
    rows = [Row({"label": "n01440764"}, "a.csv, row 2")]
    assert mapped(rows, "a.csv", tmp_path, {0: "n01440764"}) == rows


@pytest.mark.parametrize(
    ("content", "file", "message"),
    [
        (
            "n01440764 tench\n",
            "map.txt",
            r"n01443537/.*: the class map .*map\.txt has no 'n01443537'\. It has n01440764",
        ),
        (
            FORMS["names.json"],
            "map.json",
            r"'n02012849' is 'crane', which is not one of the model's 2 classes: tench, g",
        ),
        ('{"n01440764": 5, "n01443537": 1, "n02012849": 0}', "map.json", "'n01440764' is 'class 5', which is not one"),
        ("[1, 2]", "map.json", r"map\.json can't be read as a class map"),
        ("{", "map.json", r"map\.json can't be read as a class map"),
        ("", "map.txt", r"map\.txt can't be read as a class map: .*does not give each label"),
        ('{"n01440764": {"a": 1}}', "map.json", r"does not give each label the name or number of a class"),
        ("label\nn01440764\n", "map.csv", r"map\.csv can't be read as a class map"),
    ],
)
def test_a_class_map_that_does_not_fit_is_reported(tmp_path: Path, content: str, file: str, message: str) -> None:
    imagenet(tmp_path)
    write(tmp_path / file, content)
    names: dict[int, Any] = {0: "tench", 1: "goldfish"}
    if "class 5" in message:
        names[2] = "crane"
    with pytest.raises(RecipeError, match=message):
        labels(f"val:class_map={file}", tmp_path, names)


def test_a_missing_class_map_is_reported(tmp_path: Path) -> None:
    imagenet(tmp_path)
    with pytest.raises(RecipeError, match=r"There is no class map .*gone\.txt"):
        labels("val:class_map=gone.txt", tmp_path, FULL)
    with pytest.raises(RecipeError, match=r"class_map=package:gone/a\.txt: no Python package 'gone' is installed"):
        labels("val:class_map=package:gone/a.txt", tmp_path, FULL)
    with pytest.raises(RecipeError, match=r"the label 'n01440764' is a synset of WordNet.*class_map=LOC_synset_map"):
        labels("val", tmp_path, FULL)


def test_numbers_of_a_few_classes_fit_a_model_of_many(tmp_path: Path) -> None:
    imagenet(tmp_path, "n01440764", "n01443537")
    write(tmp_path / "map.json", '{"n01440764": 2, "n01443537": 0}')
    assert labels("val:class_map=map.json", tmp_path, FULL) == [FULL[2], FULL[0]]
    write(tmp_path / "map.json", '{"n01440764": 2, "n01443537": 7}')
    with pytest.raises(RecipeError, match=r"'n01443537' is 'class 7', which is not one of the model's 3 classes"):
        labels("val:class_map=map.json", tmp_path, FULL)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("a.json", "[1]"),
        ("a.yaml", "5"),
        ("a.yaml", "map: [1]"),
        ("a.json", '{"n01440764": true}'),
        ("a.csv", "a\nb\n"),
    ],
)
def test_other_files_are_not_class_maps(tmp_path: Path, file: str, content: str) -> None:
    imagenet(tmp_path)
    write(tmp_path / file, content)
    with pytest.raises(RecipeError, match=r"a class map: it (does not give|has 1 columns)"):
        labels(f"val:class_map={file}", tmp_path, FULL)
    with pytest.raises(RecipeError, match="There is no class map"):
        labels(f"val:class_map={'a' * 5000}", tmp_path, FULL)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({0: "cat", 1: "dog"}, None),
        ({0: "bird", 1: "fox"}, None),
        ({0: "LABEL_0", 1: "LABEL_1"}, ["LABEL_0", "LABEL_1"]),
    ],
)
def test_the_order_of_labels_is_not_used_against_names(
    tmp_path: Path, names: dict[int, str], expected: list[str] | None
) -> None:
    imagenet(tmp_path, "n01440764", "n01443537")
    write(tmp_path / "map.txt", "n01440764 dog\nn01443537 kitten\n")
    if expected is None:
        with pytest.raises(RecipeError, match=r"is '(kitten|dog)', which is not one of the model's 2 classes"):
            labels("val:class_map=map.txt", tmp_path, names)
    else:
        assert labels("val:class_map=map.txt", tmp_path, names) == expected


def test_the_order_of_labels_gives_the_few_names_that_are_spelled_differently(tmp_path: Path) -> None:
    labels_of_data = [f"n0144076{digit}" for digit in range(4)]
    imagenet(tmp_path, *labels_of_data)
    names = dict(enumerate(["cat", "dog", "great_white_shark", "fox"]))
    write(tmp_path / "map.txt", "n01440760 cat\nn01440761 dog\nn01440762 white shark\nn01440763 fox\n")
    assert labels("val:class_map=map.txt", tmp_path, names) == list(names.values())
    swapped = {**names, 0: "dog", 1: "cat"}
    with pytest.raises(RecipeError, match="'n01440762' is 'white shark', which is not one of the model's 4 classes"):
        labels("val:class_map=map.txt", tmp_path, swapped)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("map.txt", "n01440764 cat\nn01440764 dog\n"),
        ("map.csv", "label,name\nn01440764,cat\nn01440764,dog\n"),
        ("map.json", '{"n01440764": "cat", "n01440764": "dog"}'),
    ],
)
def test_a_label_with_two_names_is_reported(tmp_path: Path, file: str, content: str) -> None:
    imagenet(tmp_path, "n01440764")
    write(tmp_path / file, content)
    with pytest.raises(RecipeError, match=r"a class map: the label 'n01440764' stands for both 'cat' and 'dog'"):
        labels(f"val:class_map={file}", tmp_path, {0: "cat", 1: "dog"})


def test_a_table_of_classes_needs_no_header(tmp_path: Path) -> None:
    imagenet(tmp_path, "n01440764", "n01443537")
    write(tmp_path / "map.csv", "n01440764,cat\nn01443537,dog\n")
    assert labels("val:class_map=map.csv", tmp_path, {0: "dog", 1: "cat"}) == ["cat", "dog"]
