"""Nested values as inputs and outputs of modules: the only traversal of batches and outputs, based on torch's pytree.

A tree is a leaf or a container of trees: a list, tuple, named tuple, any mapping, a dataclass, a `ModelOutput`, or any
other type registered with `torch.utils._pytree`. Everything else is a leaf: a tensor, an array, a number, a text, an
image, None.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Path = tuple[str | int, ...]  # keys, field names and indices, from outside to inside


def leaves(tree: Any) -> list[Any]:
    """Return all leaves of a tree, in order."""
    return [leaf for _, leaf in named_leaves(tree)]


def tensors(tree: Any) -> list[Any]:
    """Return all tensors of a tree, in order."""
    import torch

    return [leaf for leaf in leaves(tree) if isinstance(leaf, torch.Tensor)]


def named_leaves(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield all leaves of a tree, in order, each with its path: `("hidden", 0)`."""
    node = _opened(tree)
    if node is None:
        yield path, tree
        return
    for name, child in zip(node.names, node.children, strict=True):
        yield from named_leaves(child, (*path, name))


def mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    """Return a tree of the same structure with the function applied to each leaf."""
    node = _opened(tree)
    return function(tree) if node is None else node.rebuild([mapped(function, child) for child in node.children])


def placed(tree: Any, device: Any, dtype: Any = None) -> Any:
    """Return a tree with its tensors on a device, and its floating-point tensors in a dtype.

    Args:
        tree: the tree. Packed sequences are moved too; other leaves stay unchanged.
        device: device for the tensors.
        dtype: type for floating-point tensors; None: unchanged.
    """
    import torch

    def moved(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            return leaf.to(device, dtype if leaf.is_floating_point() else None)
        return leaf

    if isinstance(tree, torch.nn.utils.rnn.PackedSequence):  # its lengths stay on the CPU
        return tree.to(device, dtype) if tree.data.is_floating_point() else tree.to(device)
    node = _opened(tree)
    return moved(tree) if node is None else node.rebuild([placed(child, device, dtype) for child in node.children])


def counted_bytes(tree: Any) -> int:
    """Return the bytes of all tensors and arrays of a tree."""
    return sum(int(leaf.nbytes) for leaf in leaves(tree) if hasattr(leaf, "nbytes"))


def in_order(output: Any) -> Any:
    """Return a tensor [batch, entries, ...] whose numbers are sorted along the entries, each column by itself.

    It is the same for any order of the entries.
    """
    return output.sort(dim=1).values if output.dim() > 1 else output


def is_equal(one: Any, other: Any) -> bool:
    """Return whether two trees have the same names, shapes and values; NaN equals NaN."""
    first, second = list(named_leaves(one)), list(named_leaves(other))
    return [path for path, _ in first] == [path for path, _ in second] and all(
        _are_equal(leaf, twin) for (_, leaf), (_, twin) in zip(first, second, strict=True)
    )


@dataclasses.dataclass(frozen=True)
class _Node:
    """A tree with children.

    Attributes:
        names: names of its children: keys, field names, or indices.
        children: its children.
        rebuild: makes a tree of the same kind with other children.
    """

    names: Sequence[str | int]
    children: Sequence[Any]
    rebuild: Callable[[Sequence[Any]], Any]


def _opened(tree: Any) -> _Node | None:
    """Open a tree by one level; None for a leaf."""
    if isinstance(tree, (str, bytes, int, float)) or tree is None:
        return None
    if dataclasses.is_dataclass(tree) and not isinstance(tree, (Mapping, type)):
        return _opened_dataclass(tree)
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return _Node(tree._fields, tree, lambda children: type(tree)(*children))
    from torch.utils._pytree import tree_flatten, tree_unflatten

    children, spec = tree_flatten(tree, is_leaf=lambda node: node is not tree)
    if not (len(children) == 1 and children[0] is tree):
        names: Sequence[str | int] = list(tree) if isinstance(tree, Mapping) else range(len(children))
        return _Node(names, children, lambda replaced: tree_unflatten(replaced, spec))
    if isinstance(tree, Mapping):
        return _Node(list(tree), list(tree.values()), lambda replaced: _mapping_like(tree, replaced))
    if isinstance(tree, list):  # a custom list class, which torch does not know
        return _Node(range(len(tree)), tree, lambda replaced: _list_like(tree, replaced))
    return None


def _opened_dataclass(tree: Any) -> _Node:
    names = [field.name for field in dataclasses.fields(tree) if hasattr(tree, field.name)]

    def rebuild(children: Sequence[Any]) -> Any:
        replaced = copy.copy(tree)  # a new object might compute fields, or reject some
        for name, child in zip(names, children, strict=True):
            object.__setattr__(replaced, name, child)  # also works if frozen
        return replaced

    return _Node(names, [getattr(tree, name) for name in names], rebuild)


def _mapping_like(tree: Mapping[Any, Any], values: Sequence[Any]) -> Any:
    pairs = dict(zip(tree, values, strict=True))
    try:
        replaced = copy.copy(tree)
        replaced.update(pairs)  # type: ignore[attr-defined]  # if it is mutable
    except (AttributeError, TypeError):
        return pairs
    return replaced


def _list_like(tree: list[Any], values: Sequence[Any]) -> Any:
    replaced = copy.copy(tree)
    replaced[:] = values
    return replaced


def _are_equal(one: Any, other: Any) -> bool:
    import numpy as np
    import torch

    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        both_nan = (one != one) & (other != other) if one.shape == other.shape else torch.zeros(1, dtype=torch.bool)
        return one.shape == other.shape and bool(((one == other) | both_nan).all())
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.shape == other.shape and _are_equal_arrays(one, other)
    return type(one) is type(other) and bool(one == other or (one != one and other != other))


def _are_equal_arrays(one: Any, other: Any) -> bool:
    return bool(((one == other) | ((one != one) & (other != other))).all())
