"""Data sets on the hub: from the cache, at a revision, or an error."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import datasets as arrow
import numpy as np
import pytest
from datafiles import ROLES, picture, sound, values
from huggingface_hub import constants

from mlflow_compress.data.datasets import read
from mlflow_compress.errors import RecipeError
from mlflow_compress.networks import hub


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_ask", lambda endpoint: f"{endpoint} can't be reached (no network)")


def cached(root: Path, source: str, splits: dict[str, Any], commit: str, config: str = "default") -> None:
    """Write a data set to the cache like the `datasets` library does."""
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
    for settings in (constants, arrow.config):  # as if the environment did not say so
        monkeypatch.setattr(settings, "HF_HUB_OFFLINE", False)
    return tmp_path / "cache"


def reviews(label: str = "good") -> Any:
    features = arrow.Features({"text": arrow.Value("string"), "label": arrow.ClassLabel(names=["neg", "pos"])})
    return arrow.Dataset.from_dict({"text": [label, "bad", "?"], "label": [1, 0, -1]}, features=features)


@pytest.mark.usefixtures("offline")
def test_without_a_network_the_hub_is_given_up_at_once(tmp_path: Path, cache: Path) -> None:
    started = time.monotonic()
    with pytest.raises(RecipeError, match=r"'imdb'.*no network.*imdb at e62 is not in the local cache.*data=none"):
        read("imdb@e62", tmp_path, ROLES)
    assert time.monotonic() - started < 15  # only the import takes time


@pytest.mark.usefixtures("offline")
def test_a_cached_data_set_needs_no_network(tmp_path: Path, cache: Path) -> None:
    cached(cache, "stanfordnlp/imdb", {"train": reviews("train"), "test": reviews()}, "e6281661ce1c")
    for source in ("stanfordnlp/imdb", "stanfordnlp/imdb@e6281661"):
        table = read(f"{source}:skip_bad=true", tmp_path, ROLES)
        assert [tuple(row.values.values()) for row in table.rows] == [("good", "pos"), ("bad", "neg")]
        assert table.skipped == ("stanfordnlp/imdb, test, row 3: label is empty.",)
        assert (table.name, table.source) == ("imdb", "stanfordnlp/imdb@e6281661ce1c:skip_bad=true")
    assert values(read("stanfordnlp/imdb:split=train", tmp_path, ("text",)))[0] == "train"
    with pytest.raises(RecipeError, match=r"has no split 'dev'. Use one of split=train, split=test"):
        read("stanfordnlp/imdb:split=dev", tmp_path, ROLES)
    with pytest.raises(RecipeError, match="stanfordnlp/imdb at ffff is not in the local cache"):
        read("stanfordnlp/imdb@ffff", tmp_path, ROLES)
    with pytest.raises(RecipeError, match="is not in the local cache"):
        read("stanfordnlp/imdb:config=other", tmp_path, ROLES)


@pytest.mark.usefixtures("offline")
def test_of_several_cached_data_sets_one_must_be_named(tmp_path: Path, cache: Path) -> None:
    cached(cache, "glue", {"test": reviews("a")}, "1234", "sst2")
    cached(cache, "glue", {"test": reviews("b")}, "1234", "cola")
    with pytest.raises(RecipeError, match=r"has several configurations\. Use one of config=cola, config=sst2"):
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
    columns = {
        "audio": [{"bytes": sound(tmp_path / "a.wav", rate=8000).read_bytes(), "path": None}],
        "text": ["hello"],
        "image": [{"bytes": picture(tmp_path / "a.png").read_bytes(), "path": None}],
        "label": [7],
    }
    table = pytest.importorskip("pyarrow").table(columns).cast(features.arrow_schema)
    cached(cache, "x/speech", {"test": arrow.Dataset(table, info=arrow.DatasetInfo(features=features))}, "12")
    samples = read("x/speech", tmp_path, ("audio", "text", "image", "label"))
    row = samples.rows[0].values
    assert (row["text"], row["label"], len(samples.digest)) == ("hello", 7, 16)
    assert np.asarray(row["audio"]).shape == (1600,)
    assert np.asarray(row["image"]).shape == (4, 6, 3)


class Builder:
    """Replaces the hub's builder."""

    hash = "c0ffee"

    def download_and_prepare(self) -> None:
        pass

    def as_dataset(self) -> dict[str, Any]:
        return {"test": reviews("from the hub")}


def test_the_hub_is_asked_for_the_revision(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[Any] = []
    monkeypatch.setattr(hub, "_ask", lambda endpoint: None)

    def load(*args: Any, **options: Any) -> Builder:
        requests.append((args, options))
        return Builder()

    monkeypatch.setattr(arrow, "load_dataset_builder", load)
    table = read("imdb@v2:config=plain", tmp_path, ("text",))
    assert requests == [(("imdb", "plain"), {"revision": "v2"})]
    assert values(table)[0] == "from the hub"
    assert table.source == "imdb@c0ffee:config=plain"


def test_messages_of_the_hub_are_reported(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> Any:
        raise ConnectionError("Dataset 'imdb' is a\ngated dataset")

    monkeypatch.setattr(hub, "_ask", lambda endpoint: None)
    monkeypatch.setattr(arrow, "load_dataset_builder", fail)
    with pytest.raises(RecipeError, match="imdb can't be loaded from the hub: Dataset 'imdb' is a gated dataset"):
        read("imdb", tmp_path, ROLES)


@pytest.mark.parametrize("source", ["reviews.csv", "some/folder/x", "./here", "/there/it/is", "a b"])
def test_a_path_is_never_requested_from_the_hub(tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_ask", lambda endpoint: pytest.fail("it was asked"))
    with pytest.raises(RecipeError, match="There is no file or folder"):
        read(source, tmp_path, ROLES)
