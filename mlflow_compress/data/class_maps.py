"""Class maps: files that give the labels of data, such as ImageNet's synsets, the names or numbers of classes.

LOC_synset_mapping.txt       n01440764 tench, Tinca tinca
imagenet_class_index.json    {"0": ["n01440764", "tench"], ...}
a.json                       {"n01440764": "tench", ...}, or numbers of the model's classes
a.yaml                       the same, or under the key `map`, as in ultralytics' ImageNet.yaml
a.csv                        two columns: label and name
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_compress.data.data_files import is_file
from mlflow_compress.data.datasets import Row
from mlflow_compress.data.label_forms import in_words, unambiguous
from mlflow_compress.data.labels import listed
from mlflow_compress.data.spec import Data, parse, path_of
from mlflow_compress.data.tables import DELIMITERS, Bad, read_table
from mlflow_compress.data.text_files import read_text
from mlflow_compress.data.unique_keys import mapping_of
from mlflow_compress.errors import RecipeError, one_line
from mlflow_compress.networks.hub import PACKAGE, in_package
from mlflow_compress.untrusted_yaml import read_yaml

_SYNSET = re.compile(r"n\d{8}")
_USUAL = ("LOC_synset_mapping.txt", "imagenet_class_index.json", "synset_words.txt", "class_map.json", "class_map.txt")
_LEVELS = 4  # folders above the data in which a class map is looked for: ILSVRC/Data/CLS-LOC/val
_MOST_BYTES = 2**22
_COLUMNS = 2  # of a table
_MOST = 0.75  # share of names that fit, so that the order of the others is believed
_NUMBERED = re.compile(r"(?:label|class)?[\s_-]*\d+", re.IGNORECASE)
_LINE = re.compile(r"(\S+)\s+(?:\d+\s+)?(.*\S)")  # label, and in map_clsloc.txt a number of another order, and name


@dataclass(frozen=True)
class ClassMap:
    """A class map.

    Attributes:
        path: its file.
        names: names of classes by label; empty where there are only numbers.
        numbers: numbers of classes by label; empty if they are unknown.
        is_order: whether the file has no numbers, and these are the order of its labels.
    """

    path: Path
    names: Mapping[str, str]
    numbers: Mapping[str, int]
    is_order: bool = False

    def classes_for(self, names: Mapping[int, str]) -> dict[str, str]:
        """Return the model's classes by label, without labels that fit none.

        Names win where all fit. Otherwise numbers are used if the map has no names, or as many classes as the model,
        and the numbers agree with all names that fit. The mere order of the labels needs more: three of four names fit,
        or the model's names are only numbers, as LABEL_0.
        """
        by_number = {label: names[number] for label, number in self.numbers.items() if number in names}
        if not self.names:
            return by_number
        by_name = self._with_number(by_number) | self._by_name(list(names.values()))
        if len(by_name) == len(self.names):
            return by_name
        if len(self.numbers) != len(names) or any(by_number.get(label) != name for label, name in by_name.items()):
            return by_name
        is_known = all(_NUMBERED.fullmatch(name) for name in names.values()) or len(by_name) >= _MOST * len(self.names)
        return by_number if is_known or not self.is_order else by_name

    def _with_number(self, by_number: Mapping[str, str]) -> dict[str, str]:
        """Return the model's names that end in their number, by label: of two cranes (see `labels.distinct`)."""
        numbered = {label: f"{_first(self.names[label])} ({self.numbers[label]})" for label in by_number}
        return {label: name for label, name in by_number.items() if in_words(name) == in_words(numbered[label])}

    def _by_name(self, names: Sequence[str]) -> dict[str, str]:
        """Return the model's names by label: the same in words, or the same first synonym."""
        full = unambiguous({name: in_words(name) for name in names})
        short = unambiguous({name: in_words(_first(name)) for name in names})
        classes = {}
        for label, name in self.names.items():
            spellings = ((full, name), (full, _first(name)), (short, name), (short, _first(name)))
            match = next((by_words[in_words(text)] for by_words, text in spellings if in_words(text) in by_words), None)
            if match is not None:
                classes[label] = match
        exact = {*self.names.values()}  # of a dog Cardigan and a jacket cardigan, the latter is the model's cardigan
        return {label: name for label, name in classes.items() if name == self.names[label] or name not in exact}


def mapped(rows: Sequence[Row], text: str, folder: Path, names: Mapping[int, str]) -> list[Row]:
    """Return rows whose labels a class map has replaced by the model's; unchanged without a class map.

    Args:
        rows: the rows, with `label`.
        text: the data; its key `class_map` names the file. ImageNet's synsets need one: without the key, it is looked
            for beside the data.
        folder: folder where relative paths start.
        names: the model's classes.

    Raises:
        RecipeError: the class map can't be read, has no class for a label, or names one that the model does not have.
    """
    data = parse(text)
    labels = [str(row.values["label"]) for row in rows]
    are_synsets = all(map(_SYNSET.fullmatch, labels)) and not {*labels} & {*names.values()}
    path = _path(data, folder) if data.class_map else _beside(data, folder) if are_synsets else None
    if path is None:
        if are_synsets:
            raise RecipeError(
                f"{rows[0].where}: the label {labels[0]!r} is a synset of WordNet. Give the file that names the "
                "classes: class_map=LOC_synset_mapping.txt, or class_map=package:ultralytics/cfg/datasets/ImageNet.yaml"
            )
        return list(rows)
    class_map = read(path, frozenset(labels))
    classes = class_map.classes_for(names)
    replaced = []
    for row, label in zip(rows, labels, strict=True):
        if label not in class_map.names and label not in class_map.numbers:
            shown = listed(dict.fromkeys(class_map.names or class_map.numbers, ""))
            raise RecipeError(f"{row.where}: the class map {path} has no {label!r}. It has {shown}.")
        if label not in classes:
            meant = class_map.names.get(label) or f"class {class_map.numbers.get(label)}"
            raise RecipeError(
                f"{row.where}: the class map {path} does not fit the model: {label!r} is {meant!r}, which is not one "
                f"of the model's {len(names)} classes: {listed({name: name for name in names.values()})}."
            )
        replaced.append(dataclasses.replace(row, values={**row.values, "label": classes[label]}))
    return replaced


def read(path: Path, labels: Collection[str] = ()) -> ClassMap:
    """Read a class map.

    Args:
        path: its file.
        labels: labels of the data; a table whose first row has one of them has no header.

    Raises:
        RecipeError: it can't be read, or has another form.
    """
    try:
        pairs = mapping_of(_pairs(path, labels))
        is_order = False
        numbers = {label: value for label, value in pairs.items() if type(value) is int}
        names = {label: value[-1] if isinstance(value, list) else value for label, value in pairs.items()}
        if pairs and all(isinstance(value, list) for value in pairs.values()):  # numbers, each with label and name
            if not all(number.isdecimal() and value for number, value in pairs.items()):
                raise ValueError("it does not give each number a label and a name")
            numbers = mapping_of((str(value[0]), int(number)) for number, value in pairs.items())
            names = {str(value[0]): str(value[-1]) for value in pairs.values()}
        elif all(isinstance(value, str) for value in pairs.values()) and list(pairs) == sorted(
            pairs
        ):  # the order of ImageNet's classes
            numbers, is_order = {label: number for number, label in enumerate(pairs)}, True
        if all(isinstance(name, str) and name.isdecimal() for name in names.values()):
            names, numbers, is_order = {}, {label: int(name) for label, name in names.items()}, False
        texts = {label: name for label, name in names.items() if isinstance(name, str)}
        if not pairs or (len(texts) < len(pairs) and len(numbers) < len(pairs)):
            raise ValueError("it does not give each label the name or number of a class")
    except RecipeError:
        raise
    except (OSError, RecursionError, ValueError) as error:
        raise RecipeError(f"{path} can't be read as a class map: {one_line(error)}") from error
    return ClassMap(path, texts, numbers, is_order)


def _pairs(path: Path, labels: Collection[str]) -> Iterable[tuple[str, Any]]:
    """Return what a file gives each label (or, in ImageNet's JSON, each number)."""
    suffix = path.suffix.lower()
    if suffix == ".json":
        content = json.loads(read_text(path), object_pairs_hook=mapping_of)
        return _texts(content).items()
    if suffix in (".yaml", ".yml"):
        content = read_yaml(path, _MOST_BYTES)
        by_label = _texts(content.get("map", content) if isinstance(content, dict) else content)
        names = content.get("names") if "map" in content else None
        if isinstance(names, (dict, list)) and len(names) == len(by_label):  # labels in the order of numbered names
            return [(str(number), [label, name]) for number, (label, name) in enumerate(by_label.items())]
        return by_label.items()
    if suffix in DELIMITERS:
        records = read_table(path)
        if len(records.columns) < _COLUMNS:
            raise ValueError(f"it has {len(records.columns)} columns; a class map has the label and the class")
        label, name = records.columns[:_COLUMNS]
        rows = [(str(row[label]).strip(), str(row[name]).strip()) for row in records.rows if not isinstance(row, Bad)]
        return [(label, name), *rows] if label in labels else rows
    lines = (_LINE.fullmatch(line.strip()) for line in read_text(path).split("\n") if line.strip())
    return [(line[1], line[2]) for line in lines if line is not None]


def _texts(content: Any) -> dict[str, Any]:
    """Return a mapping with its keys as text.

    Raises:
        ValueError: it is not a mapping.
    """
    if not isinstance(content, dict):
        raise ValueError("it does not give each label the name or number of a class")
    return {str(label): value for label, value in content.items()}


def _path(data: Data, folder: Path) -> Path:
    """Find the file that the data names: in a package, from the folder, or beside the data."""
    if data.class_map.startswith(PACKAGE):
        try:
            return in_package(data.class_map)[0]
        except (FileNotFoundError, ModuleNotFoundError) as error:
            raise RecipeError(f"class_map={data.class_map}: {error}.") from None
    above = [] if (source := path_of(data, folder)) is None else [source, *source.resolve().parents[:1]]
    for place in (folder, *above):
        if is_file(path := place / Path(data.class_map).expanduser()):
            return path
    raise RecipeError(f"There is no class map {folder / data.class_map}.")


def _beside(data: Data, folder: Path) -> Path | None:
    """Find a class map with a usual name in the data's folder or above it."""
    source = path_of(data, folder)
    if source is None:
        return None
    for place in (source, *source.resolve().parents[:_LEVELS]):
        for name in _USUAL:
            if (path := place / name).is_file():
                return path
    return None


def _first(name: str) -> str:
    """Return the first of several synonyms: `tench` of `tench, Tinca tinca`."""
    return name.partition(",")[0]
