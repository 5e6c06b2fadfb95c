"""`Cargo`: find the files of this machine that variants need, and put each into the cluster's store once."""

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
    """The files that are sent to nodes with the variants of one sweep.

    Args:
        cluster: The cluster.
        fetch: Downloads the model of a variant from the tracking server, and returns its path; None for other models.
    """

    def __init__(self, cluster: Cluster, fetch: Callable[[Variant], Path | None]) -> None:
        self._cluster, self._fetch = cluster, fetch
        self._parcels: dict[str, file_bundle.Parcel | None] = {}
        self._packed: dict[str, list[Any]] = {}

    def sent(self, variant: Variant) -> Variant:
        """Return a variant as it is sent to a node: a model from the tracking server is given by its local path."""
        fetched = self._fetch(variant)
        return variant if fetched is None else dataclasses.replace(variant, weights=str(fetched))

    def needs(self, variant: Variant) -> file_bundle.Parcel | None:
        """Return the files of this machine that a variant needs; None if it needs none.

        Raises:
            RecipeError: They can't be read.
        """
        key = repr((variant.folder, variant.source, variant.weights, variant.data, variant.metrics))
        if key not in self._parcels:
            self._parcels[key] = file_bundle.contents(self.sent(variant))
        return self._parcels[key]

    def described(self) -> list[dict[str, Any]]:
        """Return all parcels so far, each once, as JSON: a node answers which it has."""
        by_digest = {parcel.digest: to_json(parcel) for parcel in self._parcels.values() if parcel is not None}
        return list(by_digest.values())

    def chunks(self, parcel: file_bundle.Parcel) -> list[Any]:
        """Put a parcel into the cluster's store, once, and return the references of its chunks."""
        if parcel.digest not in self._packed:
            with tempfile.TemporaryFile() as file:
                file_bundle.pack(parcel, file)
                file.seek(0)
                chunks = iter(lambda: file.read(ray_node.CHUNK_BYTES), b"")
                self._packed[parcel.digest] = [self._cluster.keep(chunk) for chunk in chunks]
        return self._packed[parcel.digest]

    def require_small(self, nodes: Iterable[Node]) -> None:
        """Check, before anything runs, that no parcel is too large to be sent to the nodes that lack it.

        Raises:
            RecipeError: A parcel is too large.
        """
        for parcel in self._parcels.values():
            if parcel is None or parcel.size <= file_bundle.MOST_BYTES:
                continue
            if node_names := [node.name for node in nodes if parcel.digest not in node.parcels]:
                largest = max(parcel.files.values(), key=lambda file: file.size)
                raise RecipeError(
                    f"{parcel.size / 2**30:.1f} GiB of files, such as {largest.path}, would have to be sent to "
                    f"{', '.join(node_names)}; the limit is {file_bundle.MOST_BYTES / 2**30:.0f} GiB. Put them into a "
                    "folder that all machines have under the same path."
                )
