"""Data sets of the Hugging Face hub, from its local cache where they are there."""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from mlflow_compress.data.layouts import MissingSplit, find_split
from mlflow_compress.data.tables import Records
from mlflow_compress.errors import RecipeError, one_line
from mlflow_compress.networks.hub import unreachable


def load_split(source: str, revision: str, config: str, split: str) -> tuple[Records, str]:
    """Load one split of a data set, as Apache Arrow keeps it on disk.

    Args:
        source: its id.
        revision: a branch, a tag, or the beginning of a commit; empty: any that is cached, or else the newest.
        config: which of the data sets under the id; empty: the only one.
        split: the split's name, or a synonym of it.

    Returns:
        Its rows, whose values for sounds and pictures are functions that open them, and its commit.

    Raises:
        RecipeError: it can't be had, or is several data sets.
        MissingSplit: it has no such split.
    """
    try:
        import datasets
    except ImportError as error:
        raise RecipeError(f"{source}: data sets of the hub need `pip install datasets` ({error}).") from error
    try:
        builder = _cached(source, revision, config)
        if builder is None:
            if (obstacle := unreachable()) is not None:
                wanted = f"{source} at {revision}" if revision else source
                raise RecipeError(
                    f"There is no file or folder {source!r}, and as a data set of the hub it can't be had: {obstacle}, "
                    f"and {wanted} is not in the local cache. Connect once, give a file, or say data=none."
                )
            builder = datasets.load_dataset_builder(source, config or None, revision=revision or None)
            builder.download_and_prepare()
        splits = builder.as_dataset()
    except RecipeError:
        raise
    except Exception as error:  # those of the hub, the files and the formats share no root
        raise RecipeError(f"The data set {source} can't be loaded from the hub: {one_line(error)}") from error
    name = find_split(list(splits), split, source)
    if name is None:
        raise MissingSplit(
            f"{source} has no split {split!r}. Say one of {', '.join(f'split={each}' for each in splits)}."
        )
    rows = _Rows(splits[name])
    return Records(rows.columns, rows, lambda index: f"{source}, {name}, row {index + 1}"), str(
        builder.hash or revision
    )


def _cached(source: str, revision: str, config: str) -> Any:
    """Return what builds a data set from the local cache, or None where it is not there."""
    from datasets import config as places
    from datasets.naming import camelcase_to_snakecase
    from datasets.packaged_modules.cache.cache import Cache

    *space, name = source.split("/")
    root = Path(places.HF_DATASETS_CACHE).expanduser() / "___".join([*space, camelcase_to_snakecase(name)])
    found = [path.parent for path in root.glob(f"{config or '*'}/*/{revision}*/dataset_info.json")]
    if not found:
        return None
    configs = sorted({path.parts[-3] for path in found})
    if len(configs) > 1:
        listing = ", ".join(f"config={each}" for each in configs)
        raise RecipeError(f"{source} is several data sets. Say one of {listing}.")
    newest = max(found, key=lambda path: path.stat().st_mtime)
    version, commit = newest.parts[-2:]
    return Cache(repo_id=source, dataset_name=name, config_name=configs[0], version=version, hash=commit)


class _Rows(Sequence[Mapping[str, Any]]):
    """The rows of a split, read when they are asked for: labels by name, sounds and pictures not opened."""

    def __init__(self, split: Any) -> None:
        from datasets import Audio, Image

        self.columns = tuple(split.column_names)
        self._labels = {
            name: labels for name, each in split.features.items() if (labels := _labels_of(each)) is not None
        }
        self._files = [name for name, each in split.features.items() if isinstance(each, (Audio, Image))]
        for name in self._files:
            split = split.cast_column(name, type(split.features[name])(decode=False))
        self._split, self._light = split, split.remove_columns(self._files)

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: Any) -> Any:
        if index >= len(self):
            raise IndexError(index)  # or iteration would not end
        values = dict(self._light[index]) if self._light.column_names else {}
        named = {name: _named(labels, values[name]) for name, labels in self._labels.items()}
        return values | named | {name: functools.partial(self._open, index, name) for name in self._files}

    def _open(self, index: int, name: str) -> BinaryIO:
        held = self._split[index][name]
        return io.BytesIO(held["bytes"]) if held["bytes"] is not None else Path(held["path"]).open("rb")


def _labels_of(feature: Any) -> Any:
    """Return the type of labels that a column, or each item of its lists, is of; None if it is of none."""
    inner = getattr(feature, "feature", feature)
    return inner if hasattr(inner, "int2str") else None


def _named(labels: Any, value: Any) -> Any:
    if isinstance(value, list):
        return [_named(labels, each) for each in value]
    return None if value is None or value < 0 else labels.int2str(value)  # -1 stands for those kept secret
