"""Pruning by weights and activations: the smallest products of a weight and the norm of its input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Lt

from mlflow_compress.compression import compact, pruning
from mlflow_compress.compression.coverage import DENSE_ZEROS, note
from mlflow_compress.errors import Unsupported
from mlflow_compress.networks.plain_layers import make_plain
from mlflow_compress.networks.stored_weights import save_weights
from mlflow_compress.sockets import Family, Method, Model, NativeFlavor, Published


@dataclass
class Wanda(Method):
    """Wanda: in each output, prunes the smallest products of a weight and the norm of its input; without retraining.

    Applies to linear layers and convolutions (there an input is a channel at one position of the kernel); a language
    model's head and layers that share their weight with another stay unchanged. The norms come from calibration data in
    one pass through the dense model; the paper's code prunes block by block and measures each block after the pruned
    ones.

    The dense model runs with zeros in it: memory and latency do not change. Unstructured zeros are stored densely too
    (`size/disk_gzip_mib` shows the gain); N:M patterns are stored as one bit per weight and the kept values.

    Source: Sun et al., A Simple and Effective Pruning Approach for Large Language Models, arXiv 2306.11695, equation 1.

    Attributes:
        sparsity: Share of the weights of each output that becomes zero; always 0.5 for N:M patterns.
        pattern: Prune anywhere in an output's weights, or 2 of each 4, or 4 of each 8 consecutive inputs.
        samples: Calibration samples; None: 128 texts, or 32 samples of other data.
    """

    changes: ClassVar[Literal["storage"]] = "storage"

    revision: ClassVar[int] = 3

    sparsity: Annotated[float, Gt(0), Lt(1)] = 0.5
    pattern: Literal["unstructured", "2:4", "4:8"] = "unstructured"
    samples: Annotated[int | None, Ge(1)] = None

    def compress(self, model: Model, family: Family) -> Model:
        """Prune in place.

        Raises:
            Unsupported: There is no layer to prune, the pattern fits no layer or contradicts the sparsity, or there is
                no data for trained weights.
        """
        make_plain(model)
        keep, group = (0, 1) if self.pattern == "unstructured" else (int(number) for number in self.pattern.split(":"))
        if keep and self.sparsity != keep / group:
            raise Unsupported(f"{self.pattern} has a sparsity of {keep / group}, not {self.sparsity}: remove sparsity")
        layers = pruning.inner(model.module)
        fitting = [layer for layer in layers if layer.weight.shape[1] % group == 0]
        if not fitting:
            condition = f" whose inputs are a multiple of {group}" if keep else ""
            raise Unsupported(f"there is no linear or convolution layer to prune{condition}")
        reached = []
        for layer, squares in _input_squares(model, family, fitting, self.samples).items():
            weight = pruning.by_input(layer.weight.data)
            norms = pruning.by_input(squares).sqrt().repeat_interleave(len(weight) // len(squares), 0)
            scores = (weight.abs() * norms).flatten(1)
            size = scores.shape[1]
            mask = pruning.largest(scores, keep or size - int(size * self.sparsity), group if keep else size)
            mask = mask.view(weight.shape)
            if bool(weight[~mask].any()):
                reached.append(layer.weight)
            weight.masked_fill_(~mask, 0)
        if not reached:
            raise Unsupported("all weights that would be pruned are zero already")
        note(model, reached)
        model.cautions.append(DENSE_ZEROS.of())
        model.facts["layers"] = f"{len(reached)} of {len(layers)} layers pruned"
        return model

    def save(self, model: Model, family: Family, folder: Path) -> None:
        """Write the weights; N:M patterns as a mask and the kept values."""
        if self.pattern == "unstructured":
            save_weights(model.module, folder)
        else:
            compact.save_compact(model.module, folder)

    def load(self, model: Model, family: Family, folder: Path) -> Model:
        """Load the weights with their zeros."""
        compact.load_compact(model.module, folder)
        return model

    def publish(self, saved: Path, family: Family, portable: Callable[[], Model], folder: Path) -> Published:
        """Write the float weights with their zeros (see `Method.publish`)."""
        return compact.publish_dense(saved, family, portable, folder)

    def native_flavor(self, saved: Path, family: Family) -> NativeFlavor:
        """Return the flavor of the float weights, if they are saved as such (see `Method.native_flavor`)."""
        return compact.native_flavor_of_dense(saved, family)


def _input_squares(model: Model, family: Family, layers: list[Any], samples: int | None) -> dict[Any, Any]:
    """Return the sum of squared inputs of each weight of one output (in each group): [groups, ...]."""
    squares: dict[Any, Any] = {}

    def see(layer: Any, inputs: Any, output: Any) -> None:
        squares[layer] = squares.get(layer, 0) + _squares(layer, inputs[0].float().square())

    pruning.observe(model, family, layers, samples, see)
    return squares


def _squares(layer: Any, squared: Any) -> Any:
    """Sum squared inputs over samples and positions: [1, in] for linear layers, else [groups, in / groups, ...]."""
    import torch

    if isinstance(layer, torch.nn.Linear):
        return squared.reshape(-1, squared.shape[-1]).sum(0, keepdim=True)
    filters = torch.zeros(layer.groups, *layer.weight.shape[1:], requires_grad=True)
    with torch.enable_grad():  # the gradient of a filter for the sum of the outputs is the sum of its weights' inputs
        layer._conv_forward(squared, filters, None).sum().backward()
    return filters.grad
