"""Removes heads and neurons from the layers of transformers models, and writes their number into the config.

The family builds the model again from the config. The number of feed-forward neurons is in transformers' own fields.
The number of heads is too, if the config has a field for the size of a head (LLaMA); else it is in `kept_heads`, our
own field that `narrow` reads: the numbers of query heads and key heads by the stack's name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow_compress.errors import Unsupported
from mlflow_compress.networks.transformer_layers import Stack, configs_of, forget_alignment, share, stacks
from mlflow_compress.sockets import Model

_KEPT_HEADS = "kept_heads"
_NEURONS = ("intermediate_size", "hidden_dim", "ffn_dim")
# query, key, value and output, relative to the module that contains all four
_ATTENTIONS = (
    ("q_lin", "k_lin", "v_lin", "out_lin"),  # DistilBERT
    ("self.query", "self.key", "self.value", "output.dense"),  # BERT, RoBERTa, ELECTRA
    ("q_proj", "k_proj", "v_proj", "o_proj"),  # LLaMA, Mistral, Qwen
    ("q_proj", "k_proj", "v_proj", "out_proj"),  # Whisper, BART
)
# the layers that produce the neurons, and the layer that reads them
_FEED_FORWARDS = (
    (("lin1",), "lin2"),
    (("intermediate.dense",), "output.dense"),
    (("gate_proj", "up_proj"), "down_proj"),
    (("fc1",), "fc2"),
    (("intermediate_dense",), "output_dense"),  # Wav2Vec2, HuBERT
)


def drop_heads(model: Model, amount: float, power: int) -> str:
    """Remove a share of the attention heads of each layer: those whose weights have the smallest norm.

    Query heads that share a key and a value are removed together; if all of them share one, only query heads are
    removed.

    Args:
        model: the model, changed in place.
        amount: share to remove.
        power: power of the norm: 1 or 2.

    Returns:
        A description of what was kept; empty if nothing was removed.
    """
    changes = []
    for stack in stacks(model):
        attentions = [attention for layer in stack.layers(model) for attention in _attentions(layer)]
        count = min((attention.units for attention in attentions), default=1)
        if (left := share(count, amount)) == count:
            continue
        for attention in attentions:
            attention.keep(_greatest(attention.importance(power), left))
        _write_heads(model, stack, attentions[0])
        unit = "heads" if attentions[0].heads == left else "groups of heads"
        changes.append(f"{left} of {count} {unit} in each attention of {stack.name}")
    return ", ".join(changes)


def drop_neurons(model: Model, amount: float, power: int) -> str:
    """Remove a share of the feed-forward neurons of each layer: those whose weights have the smallest norm.

    For arguments and result see `drop_heads`.

    Raises:
        Unsupported: the config has no known field for their number.
    """
    changes = []
    for stack in stacks(model):
        pairs = [pair for layer in stack.layers(model) for pair in _feed_forwards(layer)]
        count = min((output.in_features for _, output in pairs), default=1)
        if (left := share(count, amount)) == count:
            continue
        for inputs, output in pairs:
            weights = [(linear.weight, 0) for linear in inputs] + [(output.weight, 1)]
            strongest = _greatest(_norms(weights, count, power), left)
            for linear in inputs:
                _take(linear, strongest, 0)
            _take(output, strongest, 1)
        _write_neurons(model, stack, count, left)
        changes.append(f"{left} of {count} neurons in each layer of {stack.name}")
    return ", ".join(changes)


def narrow(model: Model) -> None:
    """Remove heads from a model, filled or not, until it has the number that `drop_heads` wrote into its config."""
    kept_heads: Mapping[str, Sequence[int]] = getattr(model.config, _KEPT_HEADS, {})
    for name, (heads, keys) in kept_heads.items():
        for layer in model.module.get_submodule(name):
            for attention in _attentions(layer):
                if keys < attention.keys:
                    attention.keep(range(keys))
                if heads < attention.heads:
                    attention.keep(range(heads))


@dataclass
class _Attention:
    """The projections of one attention layer. A unit is removed as a whole: heads that share a key, or one head."""

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
    for module in layer.modules():
        for names in _ATTENTIONS:
            if (parts := _linears(module, names)) is not None:
                yield _Attention(module if "." not in names[0] else module.self, *parts)


def _feed_forwards(layer: Any) -> Iterator[tuple[list[Any], Any]]:
    for module in layer.modules():
        for inputs, output in _FEED_FORWARDS:
            if (parts := _linears(module, (*inputs, output))) is not None:
                yield parts[:-1], parts[-1]


def _linears(module: Any, names: Sequence[str]) -> list[Any] | None:
    """Return the linear layers with these names; None if one is missing or not linear."""
    from torch import nn

    parts = []
    for name in names:
        try:
            parts.append(module.get_submodule(name))
        except AttributeError:
            return None
    return parts if all(isinstance(part, nn.Linear) for part in parts) else None


def _norms(weights: Sequence[tuple[Any, int]], units: int, power: int) -> Any:
    """Return the norm, to its power, of all weights of each unit: [units].

    Args:
        weights: matrices, each with the axis of the units.
        units: number of units.
        power: power of the norm.
    """
    return sum(
        weight.detach().transpose(0, axis).reshape(units, -1).abs().pow(power).sum(1) for weight, axis in weights
    )


def _greatest(values: Any, count: int) -> list[int]:
    """Return the indices of the greatest values, in ascending order."""
    return sorted(values.topk(count).indices.tolist())


def _take(linear: Any, indices: Sequence[int], axis: int) -> None:
    """Keep these outputs (axis 0) or inputs (axis 1) of a linear layer."""
    import torch

    index = torch.tensor(indices, dtype=torch.int64, device=linear.weight.device)
    for parameter in (linear.weight, linear.bias if axis == 0 else None):
        if parameter is not None:
            parameter.data = parameter.detach().index_select(axis, index)
    linear.out_features, linear.in_features = linear.weight.shape


def _write_heads(model: Model, stack: Stack, attention: _Attention) -> None:
    forget_alignment(model, stack)
    for config in configs_of(model):
        has_size = not stack.part and getattr(config, "head_dim", None) is not None
        if has_size and config.hidden_size % attention.heads == 0:  # else transformers rejects the config
            config.num_attention_heads, config.num_key_value_heads = attention.heads, attention.keys
        else:
            counts = {**getattr(config, _KEPT_HEADS, {}), stack.name: [attention.heads, attention.keys]}
            setattr(config, _KEPT_HEADS, counts)


def _write_neurons(model: Model, stack: Stack, old_count: int, new_count: int) -> None:
    names = (f"{stack.part}_ffn_dim",) if stack.part else _NEURONS
    for config in configs_of(model):
        name = next((name for name in names if getattr(config, name, None) == old_count), None)
        if name is None:
            raise Unsupported(
                f"the config of a {type(model.module).__name__} has no known field for the number of neurons"
            )
        setattr(config, name, new_count)
