"""Each weight matrix as a product of two thin ones: truncated singular value decomposition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Lt

from mlflow_compress.compression import pruning
from mlflow_compress.compression.coverage import note
from mlflow_compress.compression.layers import head_of, replace, sharing
from mlflow_compress.errors import Unsupported
from mlflow_compress.networks.plain_layers import make_plain
from mlflow_compress.sockets import Family, LayerSizes, Method, Model

_AS_BUILT: LayerSizes = {"numbers": {}, "parameters": {}, "buffers": {}}
_HALVINGS = 50  # bisection steps, down to the precision of a float


@dataclass
class LowRank(Method):
    """Truncated SVD: a layer becomes two thin ones, if these have fewer parameters.

    A linear layer [out, in] of rank r becomes [r, in] and [out, r]; a convolution becomes one with r filters of the
    same kernel and one of 1x1. A language model's head, layers that share their weight with another, grouped
    convolutions, and layers whose weight torch's own transformer modules read directly stay unchanged.

    Ranks are chosen so that every layer keeps the same share of its energy, the sum of its squared singular values; a
    layer that would not get smaller stays whole. With `samples`, the method keeps the principal components of each
    layer's outputs on calibration data (not centred) instead of those of its weights: the least squared error of the
    outputs at that rank. Trained weights rarely have low rank, outputs more often. There is no retraining: expect to
    lose quality.

    Source: Denton et al., arXiv 1404.0736 (linear layers); Zhang et al., arXiv 1505.06798, section 2.1 (convolutions,
    and components of the outputs); Eckart and Young, Psychometrika 1936.

    Attributes:
        ratio: Share of these layers' weights to keep in total.
        energy: Share of each layer's energy to keep; if set, ratio is not used.
        samples: Calibration samples for the outputs; 0 uses only the weights.
    """

    changes: ClassVar[Literal["architecture"]] = "architecture"
    revision: ClassVar[int] = 2

    ratio: Annotated[float, Gt(0), Lt(1)] = 0.5
    energy: Annotated[float | None, Gt(0), Lt(1)] = None
    samples: Annotated[int, Ge(0)] = 0

    def compress(self, model: Model, family: Family) -> Model:
        """Split layers in place.

        Raises:
            Unsupported: No layer gets smaller.
        """
        make_plain(model)
        layers = _layers(model.module)
        moments = _output_moments(model, family, layers, self.samples) if self.samples else {}
        spectra = {layer: _spectrum(layer, moments.get(layer)) for layer in layers}
        energies = {layer: spectrum for layer, (spectrum, _) in spectra.items()}
        share = _share(energies, self.ratio) if self.energy is None else self.energy
        split = {}
        for layer, (_, directions) in spectra.items():
            rank = _rank(energies[layer], share)
            if _weights(layer, rank) < layer.weight.numel():
                split[layer] = _halves(layer, directions[:, :rank])
        if not split:
            raise Unsupported("no layer gets smaller at this rank" if layers else "there is no layer to split")
        note(model, [layer.weight for layer in split])
        weights_before = sum(layer.weight.numel() for layer in layers)
        weights_after = sum(half.weight.numel() for layer in layers for half in split.get(layer, [layer]))
        model.facts["layers"] = (
            f"{len(split)} of {len(layers)} layers split, {weights_after / weights_before:.0%} of their weights left"
        )
        names = {layer: name for name, layer in model.module.named_modules()}
        _note(model, {names[layer]: halves[0].weight.shape[0] for layer, halves in split.items()})
        model.module = replace(model.module, split)
        return model

    def rebuild(self, model: Model, family: Family) -> Model:
        """Split the layers that the config or the structure lists."""
        from torch import nn

        for name, rank in _noted(model).items():
            layer = model.module.get_submodule(name)
            if not isinstance(layer, nn.Sequential):
                model.module = replace(model.module, {layer: _unfilled(layer, rank)})
        return model


def _share(energies: Mapping[Any, Any], ratio: float) -> float:
    """Return the largest share of energy at which the layers keep `ratio` of their weights in total."""
    max_weights = ratio * sum(layer.weight.numel() for layer in energies)
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        ranks = {layer: _rank(spectrum, middle) for layer, spectrum in energies.items()}
        weights = sum(min(_weights(layer, rank), layer.weight.numel()) for layer, rank in ranks.items())
        low, high = (middle, high) if weights <= max_weights else (low, middle)
    return low


def _rank(energies: Any, share: float) -> int:
    """Return the smallest rank that keeps a share of the energy."""
    return 1 + int((energies.cumsum(0) < share * energies.sum()).sum())


def _weights(layer: Any, rank: int) -> int:
    """Count the weights of a layer's two halves."""
    return rank * (len(layer.weight) + int(layer.weight[0].numel()))


def _layers(module: Any) -> list[Any]:
    """Return the layers that can be split."""
    from torch import nn

    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    readers = (nn.MultiheadAttention, nn.TransformerEncoderLayer)  # read their linear layers' weights directly
    fixed = {child for parent in module.modules() if isinstance(parent, readers) for child in parent.children()}
    fixed.add(head_of(module))
    unshared = (group[0] for group in sharing(module) if len(group) == 1)
    layers = (layer for layer in unshared if type(layer) in kinds and layer not in fixed)
    return [layer for layer in layers if getattr(layer, "groups", 1) == 1 and layer.weight.numel()]


def _spectrum(layer: Any, moments: Any) -> tuple[Any, Any]:
    """Return descending energies [n] and their orthonormal directions [out, n], where n is the smaller of out and in.

    Args:
        layer: Layer with a weight matrix [out, in].
        moments: Moments of its outputs (see `_output_moments`); None for those of its weights.
    """
    import torch

    basis, projected = _basis(layer)
    energies, vectors = torch.linalg.eigh(projected @ projected.T if moments is None else moments)
    return energies.flip(0).clamp_min(0), (basis @ vectors.flip(1)).float()


def _basis(layer: Any) -> tuple[Any, Any]:
    """Return an orthonormal basis [out, n] of the layer's outputs, and its weights in that basis [n, in]."""
    import torch

    weight = layer.weight.detach().flatten(1).double()
    rows, columns = weight.shape
    return torch.linalg.qr(weight) if rows > columns else (torch.eye(rows, dtype=weight.dtype), weight)


def _output_moments(model: Model, family: Family, layers: list[Any], samples: int) -> dict[Any, Any]:
    """Return the sum of z z^T [n, n] over each layer's outputs without bias, where z is an output in its basis."""
    moments: dict[Any, Any] = {}
    bases = {layer: _basis(layer)[0].float() for layer in layers}

    def see(layer: Any, inputs: Any, output: Any) -> None:
        vectors = output.float().movedim(1 - layer.weight.dim(), -1)  # channels come before the positions
        vectors = vectors - (0 if layer.bias is None else layer.bias.float())
        projected = vectors.reshape(-1, vectors.shape[-1]) @ bases[layer]
        moments[layer] = moments.get(layer, 0) + (projected.T @ projected).double()

    pruning.observe(model, family, layers, samples, see)
    return moments


def _halves(layer: Any, directions: Any) -> Any:
    """Return the two layers that keep orthonormal directions [out, rank] of a layer's outputs."""
    import torch

    weight = layer.weight
    halves = _unfilled(layer, directions.shape[1])
    for half, factor in zip(halves, (directions.T @ weight.flatten(1).float(), directions), strict=True):
        half.weight = torch.nn.Parameter(factor.to(weight.dtype).reshape(half.weight.shape), requires_grad=False)
    halves[1].bias = layer.bias
    return halves


def _unfilled(layer: Any, rank: int) -> Any:
    """Return the two layers without memory for their parameters."""
    from torch import nn

    has_bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        halves = nn.Sequential(
            nn.Linear(layer.in_features, rank, bias=False, device="meta"),
            nn.Linear(rank, layer.out_features, bias=has_bias, device="meta"),
        )
    else:
        geometry = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "padding_mode")}
        halves = nn.Sequential(
            type(layer)(layer.in_channels, rank, layer.kernel_size, bias=False, device="meta", **geometry),
            type(layer)(rank, layer.out_channels, 1, bias=has_bias, device="meta"),
        )
    for name in layer.__constants__:  # Whisper reads the stride of its convolutions
        setattr(halves, name, getattr(layer, name))
    return halves.eval()


def _note(model: Model, ranks: Mapping[str, int]) -> None:
    """Write ranks, by the layer's name, into the config or structure that the model is rebuilt from."""
    if model.is_transformer:
        model.config.low_ranks = {**_noted(model), **ranks}
        return
    split: dict[str, LayerSizes] = {}
    for name, rank in ranks.items():
        split[name] = {**_AS_BUILT, **model.structure.get(name, {}), "rank": rank}
    model.structure = {**model.structure, **split}


def _noted(model: Model) -> dict[str, int]:
    if model.is_transformer:
        return dict(getattr(model.config, "low_ranks", {}))
    numbers = {name: sizes["numbers"] for name, sizes in model.structure.items()}  # version 0.1 wrote the rank there
    ranks = {name: sizes.get("rank", numbers[name].get("low_rank")) for name, sizes in model.structure.items()}
    return {name: rank for name, rank in ranks.items() if rank is not None}
