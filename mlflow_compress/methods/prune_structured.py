"""Whole channels, attention heads, neurons or layers removed: the model itself becomes smaller."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Lt

from mlflow_compress.compression import coverage, detectors
from mlflow_compress.compression.calibration import has_data
from mlflow_compress.compression.imitation import Lesson, caution_not_trained, imitate
from mlflow_compress.compression.layers import sharing
from mlflow_compress.errors import Unsupported, named_line
from mlflow_compress.networks import layer_widths, transformer_layers, value_trees
from mlflow_compress.networks.plain_layers import make_plain
from mlflow_compress.sockets import Family, LayerSizes, Method, Model, State

_STEPS = 300
_FEWEST_FOLLOWED, _FOLLOWED_PER_LAYER = 2000, 50  # more links in one group of channels mean a cycle
_CALIBRATION = 8  # inputs to measure the influence of layers on


@dataclass
class PruneStructured(Method):
    """Structured pruning: removes whole channels, attention heads, neurons or layers, the least important ones.

    `channels`: outputs of every convolution and linear layer with everything that depends on them, the same share of
    each; the model's own inputs and outputs stay (custom modules and detectors; in detectors the attention blocks stay
    too). `heads`, `neurons`: attention heads and feed-forward neurons of every layer of a transformers model;
    embeddings and hidden states keep their width. `layers`: whole layers of each stack. Removing half of the channels
    leaves about a quarter of the weights; removing half of the heads and neurons leaves half of the layers' weights.

    Without training afterwards the quality drops sharply. Therefore the pruned model is trained for some steps to
    reproduce the original's outputs on the family's calibration inputs; a step costs about as much as four forward
    passes of a batch.

    The method can't prune a module whose code contains widths as numbers (`view`, `split`, `chunk`).

    Source: channels: Fang et al., DepGraph, arXiv 2301.12900, torch_pruning's MagnitudePruner; norms: Li et al.,
    Pruning Filters, arXiv 1608.08710; layers: Men et al., ShortGPT, arXiv 2403.03853; training: Hinton et al., arXiv
    1503.02531.

    Attributes:
        amount: Share of the channels, heads, neurons or layers to remove.
        what: channels, heads, neurons, layers, or auto: heads and neurons of transformers, channels of others.
        norm: Norm of the weights that are removed together, which is their importance: l1 or l2. The importance of a
            layer is its change of the hidden state.
        steps: Training steps afterwards; None: 300 if the family has inputs to train on, else 0.
        batch_size: Inputs per step.
        learning_rate: Peak learning rate of Adam; None: 1e-4 for transformers, 2e-3 for others.
        loss: kl (class probabilities), mse (any outputs), or auto: kl if the outputs are known to be class scores.
        seed: Seed for the inputs and dropout.
    """

    changes: ClassVar[Literal["architecture"]] = "architecture"
    takes: ClassVar[tuple[State, ...]] = ("float",)
    revision: ClassVar[int] = 2
    needs: ClassVar[tuple[str, ...]] = ("torch-pruning",)
    extra: ClassVar[str] = "pruning"

    amount: Annotated[float, Gt(0), Lt(1)] = 0.5
    what: Literal["auto", "channels", "heads", "neurons", "layers"] = "auto"
    norm: Literal["l1", "l2"] = "l2"
    steps: Annotated[int | None, Ge(0)] = None
    batch_size: Annotated[int, Ge(1)] = 16
    learning_rate: Annotated[float | None, Gt(0)] = None
    loss: Literal["auto", "kl", "mse"] = "auto"
    seed: Annotated[int, Ge(0)] = 0

    def compress(self, model: Model, family: Family) -> Model:
        """Prune in place, and train the pruned model.

        Raises:
            Unsupported: The model has too little to remove, or its code does not allow it.
        """
        make_plain(model, turn=False)
        is_real = has_data(model, family)
        steps = (_STEPS if is_real else 0) if self.steps is None else self.steps
        teacher = dataclasses.replace(model, module=copy.deepcopy(model.module)) if steps else None
        parameters_before = _parameters(model)
        old = {name: (weight.shape, weight.numel()) for name, weight in model.module.named_parameters()}
        shapes = _shapes(model, family)
        target = self.what if self.what != "auto" else "heads and neurons" if model.is_transformer else "channels"
        if target == "layers":
            remaining = self._drop_layers(model, family)
        elif target == "channels":
            remaining = self._drop_channels(model, family)
        else:
            cuts = {"heads": layer_widths.drop_heads, "neurons": layer_widths.drop_neurons}
            remaining = ", ".join(
                part
                for name, drop in cuts.items()
                if name in target and (part := drop(model, self.amount, self._power))
            )
        if not remaining or (parameters_after := _parameters(model)) >= parameters_before:
            raise Unsupported(f"amount={self.amount:g} removes no {target}: there are none, or too few")
        if _shapes(model, family) != shapes:
            raise Unsupported("pruning would change the shape of the outputs")
        new = {name: weight.shape for name, weight in model.module.named_parameters()}
        reached = sum(size for name, (shape, size) in old.items() if new.get(name) != shape)
        coverage.record(model, reached, parameters_before)
        caution_not_trained(model, steps, is_real)
        model.facts["kept"] = f"{remaining}; {parameters_after:,} of {parameters_before:,} parameters"
        if teacher is not None:
            _want_gradients(model.module)
            lesson = Lesson(steps, self.batch_size, self.learning_rate, self.loss, seed=self.seed)
            for module in (model.module, teacher.module):
                detectors.forget_anchors(module)
            imitate(model, teacher, family, lesson)
            detectors.forget_anchors(model.module)
        return model

    @property
    def _power(self) -> int:
        return 1 if self.norm == "l1" else 2

    def _drop_layers(self, model: Model, family: Family) -> str:
        """Drop the layers of each stack that change the hidden state least; return a summary."""
        import torch

        sums: dict[str, Any] = {}
        batches = family.calibration(model, _CALIBRATION, self.seed)
        with torch.no_grad(), transformer_layers.watched(model) as states:
            for batch in batches:
                family.forward(model, batch)
                for name, hidden in states.items():
                    sums[name] = sums.get(name, 0) + torch.tensor(transformer_layers.influence(hidden))
        parts = []
        for stack in transformer_layers.stacks(model):
            influence = sums[stack.name]
            if (count := transformer_layers.share(len(influence), self.amount)) < len(influence):
                transformer_layers.keep_layers(model, stack, sorted(influence.topk(count).indices.tolist()))
                parts.append(f"{count} of {len(influence)} layers of {stack.name}")
        return ", ".join(parts)

    def _drop_channels(self, model: Model, family: Family) -> str:
        """Drop channels, and record the new sizes in the model's structure; return a summary."""
        import torch
        from torch_pruning.pruner import MagnitudePruner

        if model.is_transformer:
            raise Unsupported(
                "a transformers model is rebuilt from its config, which has no field for channels. For a transformer "
                "set what=heads, neurons or layers; take a convolutional network from torchvision or timm: "
                "source=torchvision:NAME"
            )
        module = model.module
        if detectors.is_halving(module) and not detectors.is_detector(module):
            raise Unsupported("only detectors of plain boxes are supported, not other tasks of ultralytics")
        sizes_before = _sizes(module)
        batch = family.batch(model, model.batch_size, self.seed)
        _want_gradients(module)  # torch_pruning follows the autograd graph
        try:
            with torch.enable_grad(), _without_cycles(module), _followed(model, family) as followed:
                outputs: list[Any] = []

                def forward(module: Any, inputs: Any) -> list[Any]:
                    outputs.extend(value_trees.tensors(followed.forward(module, inputs)))
                    return outputs

                pruner = MagnitudePruner(
                    module,
                    [batch] if detectors.is_detector(module) else batch,
                    lambda group: _importance(group, self._power),
                    pruning_ratio_dict=_ratios(module, self.amount),
                    ignored_layers=followed.fixed,
                    forward_fn=forward,
                )
                pruner.ignored_layers += _kept_whole(pruner, outputs, _tied(module))
                pruner.step()
        except Exception as error:
            raise Unsupported(f"its channels can't be followed: {named_line(error, most=200)}") from error
        module.requires_grad_(False)
        sizes_after = _sizes(module)
        changed: dict[str, LayerSizes] = {
            name: {**model.structure.get(name, {}), **sizes}
            for name, sizes in sizes_after.items()
            if sizes != sizes_before[name]
        }
        model.structure = {**model.structure, **changed}
        layers = [_channels(sizes_before[name]) for name in sizes_before if _channels(sizes_before[name])]
        fewer = sum(_channels(sizes_before[name]) != _channels(sizes_after[name]) for name in sizes_before)
        return f"fewer channels in {fewer} of {len(layers)} convolution and linear layers" if fewer else ""

    def rebuild(self, model: Model, family: Family) -> Model:
        """Restore the sizes of the layers: heads and neurons from the config, channels from the structure."""
        if model.is_transformer:
            layer_widths.narrow(model)
        for name, sizes in model.structure.items():
            _resize(model.module.get_submodule(name), sizes)
        return model


def _want_gradients(module: Any) -> None:
    """Require gradients for all parameters except integers, which can't have them."""
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.is_floating_point() or parameter.is_complex())


def _parameters(model: Model) -> int:
    return sum(weight.numel() for weight in model.module.parameters())


def _shapes(model: Model, family: Family) -> list[Any]:
    """Return the shapes of all output tensors of one forward pass.

    Raises:
        Unsupported: The forward pass fails.
    """
    import torch

    try:
        with torch.no_grad():
            outputs = family.forward(model, family.batch(model, model.batch_size, 0))
    except Exception as error:
        raise Unsupported(f"the pruned model can't run: {named_line(error, most=200)}") from error
    return [tensor.shape for tensor in value_trees.tensors(outputs)]


@contextlib.contextmanager
def _without_cycles(module: Any) -> Iterator[None]:
    """Stop torch_pruning on a cycle of channel dependencies, as in circular padding: it would never end."""
    import torch_pruning.dependency.graph as dependency_graph

    max_visits = max(_FEWEST_FOLLOWED, _FOLLOWED_PER_LAYER * sum(1 for _ in module.modules()))

    class Bounded(dependency_graph.Group):  # type: ignore[misc]
        def add_dep(self, dep: Any, idxs: Any) -> None:
            if len(self) >= max_visits:
                raise RuntimeError("their dependencies form a cycle, as with circular padding")
            super().add_dep(dep, idxs)

    plain = dependency_graph.Group
    dependency_graph.Group = Bounded
    try:
        yield
    finally:
        dependency_graph.Group = plain


def _tied(module: Any) -> set[Any]:
    """Return the layers that share a weight: pruned separately, each would get its own, and the model would grow."""
    return {layer for layers in sharing(module) if len(layers) > 1 for layer in layers}


@contextlib.contextmanager
def _followed(model: Model, family: Family) -> Iterator[detectors.Separated]:
    """Prepare a module so that its channels can be followed."""
    if detectors.is_detector(model.module):
        with detectors.separated(model.module) as separated:
            yield separated
    else:
        yield detectors.Separated(lambda _, batch: family.forward(model, batch), [])


def _ratios(module: Any, amount: float) -> dict[Any, float]:
    """Return the pruning ratio of each layer, half a channel less because torch_pruning rounds up."""
    from torch import nn

    ratios = {}
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd):
            width = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
            groups = getattr(layer, "groups", 1)
            if not width:
                continue
            width = width if groups == width else width // groups  # each group loses the same number
            ratios[layer] = 1 - (transformer_layers.share(width, amount) + 0.5) / width
    return ratios


def _importance(group: Any, power: int) -> Any:
    """Return the sum of |w|^power over all weights of each channel of a group: [channels].

    torch_pruning's own importance has a wrong number of channels if a flattening follows a depthwise convolution.
    """
    import torch
    from torch import nn

    total = torch.zeros(len(group[0].idxs))
    for item in group:
        layer = item.dep.target.module
        if (weight := getattr(layer, "weight", None)) is None or None in item.root_idxs:
            continue
        is_transposed = getattr(layer, "transposed", False) or isinstance(layer, nn.Embedding)
        axis = int(is_transposed == item.dep.handler.__name__.endswith("out_channels")) if weight.dim() > 1 else 0
        norms = weight.detach().float().abs().pow(power).movedim(axis, 0).reshape(weight.shape[axis], -1).sum(1)
        norms = norms.repeat(1 + max(item.idxs) // len(norms))  # grouped convolutions number all inputs
        total.scatter_add_(0, torch.tensor(item.root_idxs), norms[item.idxs])
    return total


def _kept_whole(pruner: Any, outputs: list[Any], tied: set[Any]) -> list[Any]:
    """Return the layers whose channels belong to the model's outputs or to a shared weight."""
    ends = {tensor.grad_fn for tensor in outputs if tensor.grad_fn is not None}
    graph = pruner.DG
    layers = []
    for group in graph.get_all_groups(root_module_types=pruner.root_module_types):
        producers = [dep.target for dep, _ in group if graph.is_out_channel_pruning_fn(dep.handler)]
        if any(node.grad_fn in ends for node in producers) or any(dep.target.module in tied for dep, _ in group):
            layers += [node.module for node in producers]
    return layers


def _sizes(module: Any) -> dict[str, LayerSizes]:
    """Return the sizes of each submodule by name: integers, tuples of integers, and shapes of tensors."""
    return {
        name: {
            "numbers": {key: value for key, value in vars(layer).items() if _is_number(value)},
            "parameters": {key: list(value.shape) for key, value in layer.named_parameters(recurse=False)},
            "buffers": {key: list(value.shape) for key, value in layer.named_buffers(recurse=False)},
        }
        for name, layer in module.named_modules()
    }


def _is_number(value: Any) -> bool:
    return type(value) is int or (type(value) is tuple and all(type(item) is int for item in value))


def _channels(sizes: LayerSizes) -> int:
    return int(sizes["numbers"].get("out_channels") or sizes["numbers"].get("out_features") or 0)


def _resize(module: Any, sizes: LayerSizes) -> None:
    """Set the sizes of a module, with empty tensors."""
    import torch
    from torch import nn

    for key, value in sizes["numbers"].items():
        setattr(module, key, tuple(value) if isinstance(value, list) else value)
    for key, shape in sizes["parameters"].items():
        setattr(module, key, nn.Parameter(torch.empty(shape), requires_grad=False))
    for key, shape in sizes["buffers"].items():
        if list(getattr(module, key).shape) != shape:
            setattr(module, key, torch.empty(shape))
