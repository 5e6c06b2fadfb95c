"""`Cargo`: the files that variants need of this machine, found once, and put into the cluster's store once."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mlflow_compress.errors import RecipeError
from mlflow_compress.records import Variant, to_json
from mlflow_compress.sweeping import file_bundle, ray_node
from mlflow_compress.sweeping.placement import Node
from mlflow_compress.sweeping.ray_cluster import Cluster


class Cargo:
    """What is sent to nodes with the variants of one sweep.

    Args:
        cluster: the cluster.
        fetch: fetches the model of a variant that the tracking server keeps, and returns its path; None for others.
    """

    def __init__(self, cluster: Cluster, fetch: Callable[[Variant], Path | None]) -> None:
        self._cluster, self._fetch = cluster, fetch
        self._parcels: dict[str, file_bundle.Parcel | None] = {}
        self._packed: dict[str, list[Any]] = {}

    def sent(self, variant: Variant) -> Variant:
        """Return a variant as a node is told of it: its model, where the tracking server keeps it, by path."""
        fetched = self._fetch(variant)
        return variant if fetched is None else dataclasses.replace(variant, weights=str(fetched))

    def needs(self, variant: Variant) -> file_bundle.Parcel | None:
        """Return what a variant needs of this machine's disk; None where that is nothing.

        Raises:
            RecipeError: it can't be read.
        """
        key = repr((variant.folder, variant.source, variant.weights, variant.data, variant.metrics))
        if key not in self._parcels:
            self._parcels[key] = file_bundle.contents(self.sent(variant))
        return self._parcels[key]

    def described(self) -> list[dict[str, Any]]:
        """Return all parcels so far, each once, as JSON: a node says which it has."""
        known = {each.digest: to_json(each) for each in self._parcels.values() if each is not None}
        return list(known.values())

    def chunks(self, parcel: file_bundle.Parcel) -> list[Any]:
        """Put a parcel into the cluster's store, once, and return the references of its pieces."""
        if parcel.digest not in self._packed:
            with tempfile.TemporaryFile() as file:
                file_bundle.pack(parcel, file)
                file.seek(0)
                chunks = iter(lambda: file.read(ray_node.CHUNK_BYTES), b"")
                self._packed[parcel.digest] = [self._cluster.keep(chunk) for chunk in chunks]
        return self._packed[parcel.digest]

    def require_small(self, nodes: Iterable[Node]) -> None:
        """Raise for what is too much to be sent to the nodes that lack it, before anything runs.

        Raises:
            RecipeError: something is.
        """
        for parcel in self._parcels.values():
            if parcel is None or parcel.size <= file_bundle.MOST_BYTES:
                continue
            if lacking := [node.name for node in nodes if parcel.digest not in node.parcels]:
                largest = max(parcel.files.values(), key=lambda file: file.size)
                raise RecipeError(
                    f"{parcel.size / 2**30:.1f} GiB, such as {largest.path}, would have to be sent to "
                    f"{', '.join(lacking)}; at most {file_bundle.MOST_BYTES / 2**30:.0f} GiB is. Put it into a "
                    "folder that all machines have under the same path."
                )
