"""Data sets of the Hugging Face hub, from its local cache if possible."""

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
    """Load one split of a data set, memory-mapped by Apache Arrow.

    Args:
        source: the data set's id.
        revision: a branch, a tag, or the beginning of a commit; empty: a cached one, or the newest.
        config: the data set's configuration; empty: the only one.
        split: the split's name, or a synonym of it.

    Returns:
        Its rows, in which sounds and pictures are functions that open them, and its commit.

    Raises:
        RecipeError: it is not available, or has several configurations.
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
                data_set = f"{source} at {revision}" if revision else source
                raise RecipeError(
                    f"There is no file or folder {source!r}, and it is not available as a data set on the hub: "
                    f"{obstacle}, and {data_set} is not in the local cache. Connect once, use a file, or set data=none."
                )
            builder = datasets.load_dataset_builder(source, config or None, revision=revision or None)
            builder.download_and_prepare()
        splits = builder.as_dataset()
    except RecipeError:
        raise
    except Exception as error:  # errors of the hub, files and formats have no common base class
        raise RecipeError(f"The data set {source} can't be loaded from the hub: {one_line(error)}") from error
    name = find_split(list(splits), split, source)
    if name is None:
        raise MissingSplit(
            f"{source} has no split {split!r}. Use one of {', '.join(f'split={name}' for name in splits)}."
        )
    rows = _Rows(splits[name])
    return Records(rows.columns, rows, lambda index: f"{source}, {name}, row {index + 1}"), str(
        builder.hash or revision
    )


def _cached(source: str, revision: str, config: str) -> Any:
    """Return the builder of a data set in the local cache, or None if it is not there."""
    from datasets import config as settings
    from datasets.naming import camelcase_to_snakecase
    from datasets.packaged_modules.cache.cache import Cache

    *space, name = source.split("/")
    root = Path(settings.HF_DATASETS_CACHE).expanduser() / "___".join([*space, camelcase_to_snakecase(name)])
    cached = [path.parent for path in root.glob(f"{config or '*'}/*/{revision}*/dataset_info.json")]
    if not cached:
        return None
    configs = sorted({path.parts[-3] for path in cached})
    if len(configs) > 1:
        listing = ", ".join(f"config={name}" for name in configs)
        raise RecipeError(f"{source} has several configurations. Use one of {listing}.")
    newest = max(cached, key=lambda path: path.stat().st_mtime)
    version, commit = newest.parts[-2:]
    return Cache(repo_id=source, dataset_name=name, config_name=configs[0], version=version, hash=commit)


class _Rows(Sequence[Mapping[str, Any]]):
    """The rows of a split, read on access: labels by name, sounds and pictures not opened."""

    def __init__(self, split: Any) -> None:
        from datasets import Audio, Image

        self.columns = tuple(split.column_names)
        self._labels = {
            name: labels for name, feature in split.features.items() if (labels := _labels_of(feature)) is not None
        }
        self._files = [name for name, feature in split.features.items() if isinstance(feature, (Audio, Image))]
        for name in self._files:
            split = split.cast_column(name, type(split.features[name])(decode=False))
        self._split, self._light = split, split.remove_columns(self._files)

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: Any) -> Any:
        if index >= len(self):
            raise IndexError(index)  # it ends iteration
        values = dict(self._light[index]) if self._light.column_names else {}
        label_names = {name: _named(labels, values[name]) for name, labels in self._labels.items()}
        return values | label_names | {name: functools.partial(self._open, index, name) for name in self._files}

    def _open(self, index: int, name: str) -> BinaryIO:
        file = self._split[index][name]
        return io.BytesIO(file["bytes"]) if file["bytes"] is not None else Path(file["path"]).open("rb")


def _labels_of(feature: Any) -> Any:
    """Return the label type of a column, or of the items in its lists; None if it has none."""
    inner = getattr(feature, "feature", feature)
    return inner if hasattr(inner, "int2str") else None


def _named(labels: Any, value: Any) -> Any:
    if isinstance(value, list):
        return [_named(labels, number) for number in value]
    return None if value is None or value < 0 else labels.int2str(value)  # -1: the label is not public
