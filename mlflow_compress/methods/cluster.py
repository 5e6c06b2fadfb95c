"""Weights that share few values: k-means within each tensor, stored on disk as a codebook and packed codes."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le

from mlflow_compress.compression import compact, pruning
from mlflow_compress.compression.calibration import require_data
from mlflow_compress.compression.coverage import STORED_ONLY, note
from mlflow_compress.compression.imitation import Lesson, imitate
from mlflow_compress.errors import Unsupported
from mlflow_compress.networks.plain_layers import make_plain
from mlflow_compress.sockets import Family, Method, Model, NativeFlavor, Published

_PRUNED = 0.01  # share of exact zeros that is worth a centroid: fewer are a padding row
_MOST_ITERATIONS = 10_000  # usually a few hundred, about ten milliseconds


@dataclass
class Cluster(Method):
    """Weight sharing: k-means over each weight tensor, on disk a codebook and packed codes.

    Applies to linear layers, convolutions (transposed ones too) and embeddings; biases and normalisation stay
    unchanged. 16 centroids take 4 bits per weight on disk. Loading replaces every code by its value: the model runs
    dense, with the original's memory and latency.

    As in the paper, the initial centroids are spaced evenly over [min, max], not by density: large weights are few but
    matter most, and density would leave no centroid near them. Unlike in the paper, a centroid without weights takes
    half of the widest cluster, so that one outlier does not cost most of the codebook. Lloyd's iterations run until
    nothing changes. If 1 % of the weights or more are exactly zero, they stay zero: `prune_magnitude+cluster` keeps
    its zeros.

    With `steps`, the centroids are then trained to reproduce the original's outputs on calibration data; the gradient
    of a centroid is the sum over its weights.

    Source: Han et al., Deep Compression, arXiv 1510.00149, sections 3 and 4.

    Attributes:
        centroids: Maximum number of distinct values in a tensor.
        layers: Layers to cluster: all, or one kind only.
        coding: `huffman` shortens the codes on disk by their frequency; useful after pruning.
        steps: Training steps, in float32; 0 keeps the centroids of k-means.
    """

    changes: ClassVar[Literal["storage"]] = "storage"
    revision: ClassVar[int] = 2

    centroids: Annotated[int, Ge(2), Le(256)] = 16
    layers: Literal["all", "linear", "convolution", "embedding"] = "all"
    coding: compact.Coding = "none"
    steps: Annotated[int, Ge(0)] = 0

    def compress(self, model: Model, family: Family) -> Model:
        """Cluster in place.

        Raises:
            Unsupported: There are no such layers, no weight has more than `centroids` distinct values, or `steps` is
                set for half-precision weights or for trained weights without data.
        """
        import torch
        from torch.nn.modules.conv import _ConvNd

        make_plain(model)
        kinds = {"linear": torch.nn.Linear, "convolution": _ConvNd, "embedding": torch.nn.Embedding}
        selected = kinds.values() if self.layers == "all" else (kinds[self.layers],)
        layers = pruning.learned(model.module, *selected)
        if self.steps and any(layer.weight.dtype != torch.float32 for layer in layers):
            raise Unsupported("centroids are trained only in float32: cluster first and cast afterwards")
        if self.steps:
            require_data(model, family)
        original = replace(model, module=deepcopy(model.module)) if self.steps else model
        changed = [_share(layer.weight.data, self.centroids) for layer in layers]
        if not layers:
            raise Unsupported("there is no layer to cluster" + ("" if self.layers == "all" else f" ({self.layers})"))
        if not any(changed):
            raise Unsupported(f"no weight has more than {self.centroids} distinct values")
        note(model, [layer.weight for layer, is_changed in zip(layers, changed, strict=True) if is_changed])
        model.cautions.append(STORED_ONLY.of(bits=max(1, (self.centroids - 1).bit_length())))
        if self.steps:
            _train(model, original, family, layers, self.steps)
        model.facts["layers"] = f"{sum(changed)} of {len(changed)} weights clustered"
        return model

    def save(self, model: Model, family: Family, folder: Path) -> None:
        """Write codebooks and packed codes."""
        compact.save_compact(model.module, folder, self.coding)

    def load(self, model: Model, family: Family, folder: Path) -> Model:
        """Load the weights, with codes replaced by their values."""
        compact.load_compact(model.module, folder)
        return model

    def publish(self, saved: Path, family: Family, portable: Callable[[], Model], folder: Path) -> Published:
        """Write the float weights (see `Method.publish`)."""
        return compact.publish_dense(saved, family, portable, folder)

    def native_flavor(self, saved: Path, family: Family) -> NativeFlavor:
        """Return the flavor of the float weights, if they are saved as such (see `Method.native_flavor`)."""
        return compact.native_flavor_of_dense(saved, family)


def _share(weight: Any, count: int) -> bool:
    """Replace each weight by the nearest of `count` centroids; return whether any weight changed."""
    import torch

    flat = weight.reshape(-1)
    values = flat.float()
    centroids = torch.from_numpy(kmeans(values.numpy(), count)).to(weight.dtype).unique()
    boundaries = (centroids[1:].float() + centroids[:-1].float()) / 2
    shared = centroids[torch.bucketize(values, boundaries, out_int32=True)]
    is_changed = not torch.equal(shared, flat)
    weight.copy_(shared.view(weight.shape))
    return is_changed


def _train(model: Model, original: Model, family: Family, layers: list[Any], steps: int) -> None:
    """Train the shared values. All weights of one value get the same gradient, so they stay equal."""

    def share(weight: Any) -> tuple[Any, Any]:
        values, codes = weight.detach().unique(return_inverse=True)
        movable = values != 0

        def summed(gradient: Any) -> Any:
            indices = codes.to(gradient.device)
            sums = gradient.new_zeros(len(values)).index_add_(0, indices.view(-1), gradient.reshape(-1))
            return (sums * movable.to(gradient.device))[indices]

        return codes, weight.requires_grad_(True).register_hook(summed)

    shared = [(layer.weight, *share(layer.weight)) for layer in layers]
    imitate(model, original, family, Lesson(steps))
    for weight, codes, hook in shared:
        hook.remove()
        values = weight.new_empty(int(codes.max()) + 1)
        values[codes] = weight.data  # equal weights may differ in the last bit
        weight.data = values[codes]


def kmeans(values: Any, count: int) -> Any:
    """Return at most `count` non-empty, ascending float32 centroids of values [n].

    In one dimension a cluster is a run of the sorted values, and its mean is a difference of prefix sums over its
    length: after sorting, an iteration costs only a few binary searches for any n.
    """
    import numpy as np

    ordered = np.sort(values)
    sums = np.concatenate([[0.0], np.cumsum(ordered, dtype=np.float64)])

    def means(starts: Any, ends: Any) -> Any:
        return (sums[ends] - sums[starts]) / (ends - starts)

    zeros = np.searchsorted(ordered, 0, "right") - np.searchsorted(ordered, 0, "left")
    has_zero = zeros >= _PRUNED * len(ordered)
    centroids = np.linspace(ordered[0], ordered[-1], count, dtype=np.float64)
    zero = int(np.abs(centroids).argmin())
    edges = np.zeros(count + 1, dtype=np.int64)
    for _ in range(_MOST_ITERATIONS):
        if has_zero:
            centroids[zero] = 0
        old_edges, edges = edges, _edges(ordered, centroids)
        if np.array_equal(edges, old_edges):
            break
        starts, ends = edges[:-1], edges[1:]
        filled, empty = np.flatnonzero(ends > starts), np.flatnonzero(ends == starts)
        centroids[filled] = means(starts[filled], ends[filled])
        spreads = ordered[ends[filled] - 1] - ordered[starts[filled]]
        by_width = np.argsort(-(ends - starts)[filled] * spreads.astype(np.float64) ** 2, kind="stable")
        widest = filled[by_width[spreads[by_width] > 0]][: len(empty)]
        middle = (starts[widest] + ends[widest] + 1) // 2
        centroids[widest] = means(starts[widest], middle)
        centroids[empty[: len(widest)]] = means(middle, ends[widest])
        if has_zero:
            centroids[zero] = 0
        centroids.sort()
        zero = int(np.abs(centroids).argmin())
    return centroids[np.diff(edges) > 0].astype(np.float32)


def _edges(ordered: Any, centroids: Any) -> Any:
    """Return the start of each centroid's run of nearest values, and the end of the last run."""
    import numpy as np

    boundaries = ((centroids[1:] + centroids[:-1]) / 2).astype(ordered.dtype)
    return np.concatenate([[0], np.searchsorted(ordered, boundaries, "right"), [len(ordered)]])
