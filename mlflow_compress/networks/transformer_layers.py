"""Stacks of equal layers in transformers models: finding them, dropping layers, taking heads and neurons out of them.

A stack is the list of layers of an encoder or a decoder. What is changed in one is written into the model's config,
from which the family builds the model again: the number of layers and of feed-forward neurons in transformers' own
fields, the number of heads too where the config has the size of a head in a field of its own (LLaMA), else in
`kept_heads`, a field of ours that `narrow` reads: heads of queries and of keys by the stack's name.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow_compress.errors import Unsupported
from mlflow_compress.sockets import Model

_KEPT_HEADS = "kept_heads"
_NEURONS = ("intermediate_size", "hidden_dim", "ffn_dim")
# the config's field with the number of layers, by the part that they are of; the second of T5
_COUNTS = {
    "": ("num_hidden_layers",),
    "encoder": ("encoder_layers", "num_layers"),
    "decoder": ("decoder_layers", "num_decoder_layers"),
}
# query, key, value and output, seen from the module that holds them all
_ATTENTIONS = (
    ("q_lin", "k_lin", "v_lin", "out_lin"),  # DistilBERT
    ("self.query", "self.key", "self.value", "output.dense"),  # BERT, RoBERTa, ELECTRA
    ("q_proj", "k_proj", "v_proj", "o_proj"),  # LLaMA, Mistral, Qwen
    ("q_proj", "k_proj", "v_proj", "out_proj"),  # Whisper, BART
)
# what makes the neurons, and what reads them
_FEED_FORWARDS = (
    (("lin1",), "lin2"),
    (("intermediate.dense",), "output.dense"),
    (("gate_proj", "up_proj"), "down_proj"),
    (("fc1",), "fc2"),
)


@dataclass(frozen=True)
class Stack:
    """A list of equal layers.

    Attributes:
        name: its name in the module: `model.encoder.layers`.
        part: `encoder` or `decoder` of a model that has both, else empty.
        count: the config's field with the number of layers.
    """

    name: str
    part: str
    count: str

    def layers(self, model: Model) -> Any:
        """Give the layers, a `torch.nn.ModuleList`."""
        return model.module.get_submodule(self.name)


def stacks(model: Model) -> list[Stack]:
    """Find the stacks of a transformers model.

    Raises:
        Unsupported: it is none, or has none whose length is in its config.
    """
    from torch import nn

    config = model.config
    if not model.is_transformer:
        raise Unsupported("this is no transformers model: it has no stack of equal layers to take something from")
    found: list[Stack] = []
    for name, each in model.module.named_modules():
        is_inside = any(name.startswith(f"{stack.name}.") for stack in found)
        if isinstance(each, nn.ModuleList) and not is_inside:
            part = _part(config, name)
            count = next((count for count in _COUNTS[part] if getattr(config, count, None) == len(each)), None)
            if count is not None:
                found.append(Stack(name, part, count))
    if not found:
        raise Unsupported(f"no stack of layers is known in a {type(model.module).__name__}")
    return found


def _part(config: Any, name: str) -> str:
    if not config.is_encoder_decoder:
        return ""
    return next((part for part in ("encoder", "decoder") if part in name.split(".")), "")


def spaced(count: int, kept: int) -> list[int]:
    """Give `kept` of `count` indices as far apart as can be, the first and the last among them.

    Of 12 layers, 6 are those that DistilBERT took over from BERT: 0, 2, 4, 7, 9, 11.
    """
    return [round(index * (count - 1) / max(kept - 1, 1)) for index in range(kept)]


def share(count: int, amount: float) -> int:
    """Give how many are left of `count` when about this share is removed.

    It is at least one, and of two numbers that are equally near the greater one.
    """
    return max(1, count - math.ceil(amount * count - 0.5))


def thinned(model: Model, keep: float, part: str = "") -> Model:
    """Copy a model with a share of its layers, spaced evenly; the copy's parameters can be trained.

    Args:
        model: the original, which stays as it is.
        keep: share of the layers of each stack that is kept.
        part: thin only the `encoder` or the `decoder`; empty: all stacks.

    Raises:
        Unsupported: no layer would go.
    """
    module, config = copy.deepcopy((model.module, model.config))
    thin = dataclasses.replace(model, module=module, config=config)
    dropped = 0
    for stack in stacks(thin):
        count = len(stack.layers(thin))
        left = share(count, 1 - keep)
        if stack.part.startswith(part) and left < count:
            keep_layers(thin, stack, spaced(count, left))
            dropped += count - left
    if not dropped:
        raise Unsupported(f"there are too few layers to drop some and keep {keep:g} of them")
    thin.module.requires_grad_(True)
    return thin


def keep_layers(model: Model, stack: Stack, kept: Sequence[int]) -> None:
    """Drop all layers of a stack but those with the given indices, and count anew."""
    from torch import nn

    layers = stack.layers(model)
    left = nn.ModuleList(layers[index] for index in kept)
    for index, layer in enumerate(left):
        for each in layer.modules():
            if "layer_idx" in vars(each):  # its place in the cache of keys and values
                vars(each)["layer_idx"] = index
    _hand_over_bias(layers[0], left[0])
    parent, _, name = stack.name.rpartition(".")
    setattr(model.module.get_submodule(parent), name, left)
    for config in _configs(model):
        for key, value in list(vars(config).items()):
            if isinstance(value, list) and len(value) == len(layers) and "layer" in key:  # `layer_types`, one for each
                setattr(config, key, [value[index] for index in kept])
        setattr(config, stack.count, len(left))
    _forget_alignment(model, stack)


def _hand_over_bias(first: Any, other: Any) -> None:
    """Give the bias of relative positions, which T5's first layer holds for all, to the layer that is first now."""
    for own, new in zip(first.modules(), other.modules(), strict=False):
        if getattr(own, "has_relative_attention_bias", False):
            new.relative_attention_bias, new.has_relative_attention_bias = own.relative_attention_bias, True


def influence(hidden: Sequence[Any]) -> list[float]:
    """Give how much each layer of a stack changes its input: 1 less the cosine between that and its output.

    Source: Block Influence, Men et al., ShortGPT, arXiv 2403.03853, equation 1.

    Args:
        hidden: the hidden states before, between and after the layers, as `watched` gives them.
    """
    from torch.nn.functional import cosine_similarity

    pairs = itertools.pairwise(hidden)
    return [1 - float(cosine_similarity(before, after, dim=-1).mean()) for before, after in pairs]


@contextlib.contextmanager
def watched(model: Model) -> Iterator[Mapping[str, list[Any]]]:
    """Watch the hidden states while the model runs.

    Yields:
        For each stack's name, what its first layer got and what each layer gave in the last forward pass: tensors
        [batch, tokens, width], one more than there are layers.
    """
    seen: dict[str, list[Any]] = {}
    handles = []

    def before(states: list[Any], args: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        states[:] = [args[0] if args else named["hidden_states"]]

    def after(states: list[Any], output: Any) -> None:
        states.append(output[0] if isinstance(output, tuple) else output)

    try:
        for stack in stacks(model):
            states = seen.setdefault(stack.name, [])
            layers = stack.layers(model)
            first = layers[0].register_forward_pre_hook(
                lambda layer, args, named, states=states: before(states, args, named), with_kwargs=True
            )
            handles.append(first)
            handles += [
                layer.register_forward_hook(lambda layer, args, output, states=states: after(states, output))
                for layer in layers
            ]
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def drop_heads(model: Model, amount: float, power: int) -> str:
    """Remove a share of the attention heads of each layer: those whose weights have the smallest norm.

    Where several query heads share a key and a value, they go together; where all of them share one, only query heads
    go.

    Args:
        model: the model, changed in place.
        amount: the share.
        power: 1 or 2: of the norm.

    Returns:
        What was done, in words; empty if nothing.
    """
    told = []
    for stack in stacks(model):
        attentions = [each for layer in stack.layers(model) for each in _attentions(layer)]
        count = min((each.units for each in attentions), default=1)
        if (left := share(count, amount)) == count:
            continue
        for each in attentions:
            each.keep(_greatest(each.importance(power), left))
        _write_heads(model, stack, attentions[0])
        unit = "heads" if attentions[0].heads == left else "groups of heads"
        told.append(f"{left} of {count} {unit} in each attention of {stack.name}")
    return ", ".join(told)


def drop_neurons(model: Model, amount: float, power: int) -> str:
    """Remove a share of the feed-forward neurons of each layer: those whose weights have the smallest norm.

    Args, returns: as of `drop_heads`.

    Raises:
        Unsupported: the config has no known field for their number.
    """
    told = []
    for stack in stacks(model):
        pairs = [each for layer in stack.layers(model) for each in _feed_forwards(layer)]
        count = min((output.in_features for _, output in pairs), default=1)
        if (left := share(count, amount)) == count:
            continue
        for inputs, output in pairs:
            weights = [(each.weight, 0) for each in inputs] + [(output.weight, 1)]
            kept = _greatest(_norms(weights, count, power), left)
            for each in inputs:
                _take(each, kept, 0)
            _take(output, kept, 1)
        _write_neurons(model, stack, count, left)
        told.append(f"{left} of {count} neurons in each layer of {stack.name}")
    return ", ".join(told)


def narrow(model: Model) -> None:
    """Take heads out of a model, filled or not, until it has as many as `drop_heads` wrote into its config."""
    kept_heads: Mapping[str, Sequence[int]] = getattr(model.config, _KEPT_HEADS, {})
    for name, (heads, keys) in kept_heads.items():
        for layer in model.module.get_submodule(name):
            for each in _attentions(layer):
                if keys < each.keys:
                    each.keep(range(keys))
                if heads < each.heads:
                    each.keep(range(heads))


@dataclass
class _Attention:
    """The projections of one attention. A unit is what is removed at once: heads that share a key, or one head."""

    owner: Any  # splits into heads
    query: Any
    key: Any
    value: Any
    output: Any

    @property
    def size(self) -> int:
        return int(getattr(self.owner, "head_dim", None) or self.owner.attention_head_size)

    @property
    def heads(self) -> int:
        return int(self.query.out_features) // self.size

    @property
    def keys(self) -> int:
        return int(self.key.out_features) // self.size

    @property
    def units(self) -> int:
        return self.keys if self.keys > 1 else self.heads

    def importance(self, power: int) -> Any:
        weights = [(self.query.weight, 0), (self.output.weight, 1)]
        if self.keys > 1:
            weights += [(self.key.weight, 0), (self.value.weight, 0)]
        return _norms(weights, self.units, power)

    def keep(self, units: Iterable[int]) -> None:
        """Keep these units, in the given order."""
        units = list(units)
        width = self.size * self.heads // self.units
        rows = [unit * width + index for unit in units for index in range(width)]
        if self.keys > 1:
            columns = [unit * self.size + index for unit in units for index in range(self.size)]
            _take(self.key, columns, 0)
            _take(self.value, columns, 0)
        _take(self.query, rows, 0)
        _take(self.output, rows, 1)
        counts = {
            **dict.fromkeys(("n_heads", "num_heads", "num_attention_heads"), self.heads),
            "num_key_value_heads": self.keys,
            "num_key_value_groups": self.heads // self.keys,
            "all_head_size": self.heads * self.size,
        }
        for name, number in counts.items():
            if hasattr(self.owner, name):
                setattr(self.owner, name, number)


def _attentions(layer: Any) -> Iterator[_Attention]:
    for each in layer.modules():
        for names in _ATTENTIONS:
            if (parts := _linears(each, names)) is not None:
                yield _Attention(each if "." not in names[0] else each.self, *parts)


def _feed_forwards(layer: Any) -> Iterator[tuple[list[Any], Any]]:
    for each in layer.modules():
        for inputs, output in _FEED_FORWARDS:
            if (parts := _linears(each, (*inputs, output))) is not None:
                yield parts[:-1], parts[-1]


def _linears(module: Any, names: Sequence[str]) -> list[Any] | None:
    """Give the linear layers of these names, or None when one of them is none."""
    from torch import nn

    parts = []
    for name in names:
        try:
            parts.append(module.get_submodule(name))
        except AttributeError:
            return None
    return parts if all(isinstance(part, nn.Linear) for part in parts) else None


def _norms(weights: Sequence[tuple[Any, int]], units: int, power: int) -> Any:
    """Give the norm, to its power, of all weights of each unit: [units].

    Args:
        weights: matrices, each with the axis along which the units lie.
        units: how many there are.
        power: of the norm.
    """
    return sum(
        weight.detach().transpose(0, axis).reshape(units, -1).abs().pow(power).sum(1) for weight, axis in weights
    )


def _greatest(values: Any, count: int) -> list[int]:
    """Give the indices of the greatest values, in rising order."""
    return sorted(values.topk(count).indices.tolist())


def _take(linear: Any, kept: Sequence[int], axis: int) -> None:
    """Keep these outputs (axis 0) or inputs (axis 1) of a linear layer."""
    import torch

    index = torch.tensor(kept, dtype=torch.int64, device=linear.weight.device)
    for parameter in (linear.weight, linear.bias if axis == 0 else None):
        if parameter is not None:
            parameter.data = parameter.detach().index_select(axis, index)
    linear.out_features, linear.in_features = linear.weight.shape


def _forget_alignment(model: Model, stack: Stack) -> None:
    """Drop what tells a recogniser when words were said: it names heads by their layer and number."""
    if stack.part == "decoder" and hasattr(model.module.generation_config, "alignment_heads"):
        model.module.generation_config.alignment_heads = None


def _write_heads(model: Model, stack: Stack, attention: _Attention) -> None:
    _forget_alignment(model, stack)
    for config in _configs(model):
        has_size = not stack.part and getattr(config, "head_dim", None) is not None
        if has_size and config.hidden_size % attention.heads == 0:  # else transformers refuses the config
            config.num_attention_heads, config.num_key_value_heads = attention.heads, attention.keys
        else:
            counts = {**getattr(config, _KEPT_HEADS, {}), stack.name: [attention.heads, attention.keys]}
            setattr(config, _KEPT_HEADS, counts)


def _write_neurons(model: Model, stack: Stack, before: int, after: int) -> None:
    names = (f"{stack.part}_ffn_dim",) if stack.part else _NEURONS
    for config in _configs(model):
        name = next((name for name in names if getattr(config, name, None) == before), None)
        if name is None:
            raise Unsupported(f"the config of a {type(model.module).__name__} has no known field for the neurons")
        setattr(config, name, after)


def _configs(model: Model) -> list[Any]:
    """Give every config object of the model, once."""
    from transformers import PreTrainedConfig

    held = [getattr(each, "config", None) for each in model.module.modules()]
    unique = {id(each): each for each in (model.config, *held) if isinstance(each, PreTrainedConfig)}
    return list(unique.values())
