from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from mlflow_compress.errors import RecipeError
from mlflow_compress.records import Variant
from mlflow_compress.sweeping import file_bundle, ray_node
from mlflow_compress.sweeping.placement import Node
from mlflow_compress.sweeping.ray_cargo import Cargo
from mlflow_compress.sweeping.ray_cluster import Cluster


class Store:
    """A fake store of a cluster: a reference is an index."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []

    def keep(self, chunk: bytes) -> int:
        self.chunks.append(chunk)
        return len(self.chunks) - 1


@pytest.fixture
def stored() -> Store:
    return Store()


@pytest.fixture
def cargo(stored: Store) -> Cargo:
    return Cargo(cast(Cluster, stored), lambda variant: None)


def variant(folder: Path, method: str = "original") -> Variant:
    (folder / "m.py").write_text("model = 1")
    return Variant("m", method, "t", "python", "m.py", folder=str(folder))


def test_variants_of_one_model_share_a_parcel_that_is_stored_once(
    cargo: Cargo, stored: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_node, "CHUNK_BYTES", 1000)
    needs = cargo.needs(variant(tmp_path))
    assert needs is not None
    assert cargo.needs(variant(tmp_path, "fp16")) is needs
    references = cargo.chunks(needs)
    assert cargo.chunks(needs) == references == list(range(len(stored.chunks)))
    archive = io.BytesIO()
    file_bundle.pack(needs, archive)
    assert b"".join(stored.chunks) == archive.getvalue()
    assert max(len(chunk) for chunk in stored.chunks) == 1000
    (described,) = cargo.described()
    assert file_bundle.Parcel.from_json(described) == needs


def test_what_needs_nothing_of_this_disk_has_no_parcel(cargo: Cargo, tmp_path: Path) -> None:
    assert cargo.needs(replace(variant(tmp_path), source="org/name")) is None
    assert cargo.described() == []
    cargo.require_small([Node("a", "lab1", {})])


def test_a_model_of_the_tracking_server_travels_as_a_path(stored: Store, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "MLmodel").write_text("flavors: {}")
    cargo = Cargo(cast(Cluster, stored), lambda variant: model if variant.source.startswith("models:/") else None)
    of_server = Variant("m", "original", "t", "mlflow_model", "models:/m/1", folder=str(tmp_path / "elsewhere"))
    assert cargo.sent(of_server) == replace(of_server, weights=str(model))
    needs = cargo.needs(of_server)
    assert needs is not None
    assert [file.path for file in needs.files.values()] == [str(model / "MLmodel")]
    of_hub = replace(of_server, source="org/name")
    assert cargo.sent(of_hub) is of_hub


def test_what_is_too_much_is_sent_to_nobody_but_may_lie_there(
    cargo: Cargo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = cargo.needs(variant(tmp_path))
    assert needs is not None
    monkeypatch.setattr(file_bundle, "MOST_BYTES", needs.size - 1)
    with_parcel, without_parcel = Node("a", "lab1", {}, parcels={needs.digest: file_bundle.HERE}), Node("b", "lab2", {})
    cargo.require_small([with_parcel])
    with pytest.raises(RecipeError, match=r"m\.py, would have to be sent to lab2; the limit is"):
        cargo.require_small([with_parcel, without_parcel])
