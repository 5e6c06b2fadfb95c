"""Removes tokens from a transformers model: their rows in embeddings and heads, and their numbers in the configs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlflow_compress.errors import Unsupported
from mlflow_compress.networks.text_inputs import USABLE_POSITIONS
from mlflow_compress.networks.transformer_layers import configs_of
from mlflow_compress.networks.transformers_models import companions
from mlflow_compress.sockets import Model

_SIZE = "vocab_size"
_SUFFIXES = ("_token_id", "_token_ids", "suppress_tokens", "bad_words_ids")  # config fields with numbers of tokens
_POSITIONS = "position"  # in the name of an embedding of positions


def named_in_configs(model: Model) -> set[int]:
    """Return the numbers of tokens that the model's configs name."""
    numbers: set[int] = set()
    for config in _configs(model):
        for _, value in _token_fields(config):
            numbers |= {number for number in _flat(value) if number >= 0}
    return numbers


def keep_rows(model: Model, size: int, kept: Sequence[int]) -> None:
    """Keep only the rows of these tokens, in this order, and update the configs; the token `kept[i]` becomes i.

    Args:
        model: the model, changed in place.
        size: size of its vocabulary.
        kept: old numbers of tokens.

    Raises:
        Unsupported: it has no embedding of this size, or counts positions from a padding token that would move.
    """
    import torch

    new = {old: number for number, old in enumerate(kept)}
    pad = getattr(model.config, "pad_token_id", None)
    if getattr(model.config, USABLE_POSITIONS, None) is not None and isinstance(pad, int) and new.get(pad) != pad:
        raise Unsupported(f"its positions are counted from the padding token {pad}, whose number would change")
    index = torch.tensor(list(kept), device=next(model.module.parameters()).device)
    done: dict[int, Any] = {}  # tied weights stay tied
    changed = 0
    for layer, name, axis in list(_tensors(model, size)):
        old = getattr(layer, name)
        if id(old) not in done:
            rows = old.detach().index_select(axis, index).contiguous()
            done[id(old)] = torch.nn.Parameter(rows, old.requires_grad) if isinstance(old, torch.nn.Parameter) else rows
        setattr(layer, name, done[id(old)])
        changed += isinstance(layer, torch.nn.Embedding)
    if not changed:
        raise Unsupported(f"a {type(model.module).__name__} has no embedding of its {size:,} tokens")
    for layer in model.module.modules():
        if isinstance(layer, torch.nn.Embedding) and len(layer.weight) == len(kept) != layer.num_embeddings:
            layer.num_embeddings = len(kept)
            layer.padding_idx = None if layer.padding_idx is None else new.get(layer.padding_idx)
        elif isinstance(layer, torch.nn.Linear) and len(layer.weight) == len(kept) != layer.out_features:
            layer.out_features = len(kept)
    for config in _configs(model):
        if getattr(config, _SIZE, None) == size:
            setattr(config, _SIZE, len(kept))
        for field, value in _token_fields(config):
            setattr(config, field, _renumbered(value, new))


def _tensors(model: Model, size: int) -> Iterator[tuple[Any, str, int]]:
    """Yield each tensor with a row for each token: its layer, its name there, and the axis of the tokens."""
    import torch

    for path, layer in model.module.named_modules():
        if isinstance(layer, torch.nn.Embedding):
            if layer.num_embeddings == size and _POSITIONS not in path.rpartition(".")[2]:
                yield layer, "weight", 0
        elif isinstance(layer, torch.nn.Linear):
            if layer.out_features == size:
                yield layer, "weight", 0
                if layer.bias is not None:
                    yield layer, "bias", 0
        else:  # `bias` of a head for masked tokens, `final_logits_bias` of BART
            for name, tensor in (*layer._parameters.items(), *layer._buffers.items()):
                if tensor is not None and name.endswith("bias") and tensor.shape[-1:] == (size,):
                    yield layer, name, tensor.dim() - 1


def _configs(model: Model) -> list[Any]:
    """Return all configs of a model, with that of its generation."""
    inner = [getattr(config, "text_config", None) for config in configs_of(model)]
    generation = [companions(model).generation, getattr(model.module, "generation_config", None)]
    unique = {id(config): config for config in (*configs_of(model), *inner, *generation) if config is not None}
    return list(unique.values())


def _token_fields(config: Any) -> list[tuple[str, Any]]:
    """Return the fields of a config that hold numbers of tokens."""
    fields = [(name, value) for name, value in vars(config).items() if name.endswith(_SUFFIXES)]
    return [(name, value) for name, value in fields if any(True for _ in _flat(value))]


def _flat(value: Any) -> Iterator[int]:
    if isinstance(value, bool):
        return
    if isinstance(value, int):
        yield value
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _flat(inner)


def _renumbered(value: Any, new: Mapping[int, int]) -> Any:
    if isinstance(value, (list, tuple)):
        return [_renumbered(inner, new) for inner in value]
    return new.get(value, value) if isinstance(value, int) else value
