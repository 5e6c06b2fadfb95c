"""A user's own samples: read in whatever form they come, and put together into arguments as `batch()` makes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow_compress.errors import RecipeError, named_line, one_line
from mlflow_compress.networks import value_trees
from mlflow_compress.networks.module_calls import Arguments
from mlflow_compress.sockets import Sample

_REFERENCES = ("reference", "label", "labels", "target", "y")
_INPUTS = ("inputs", "input")


def read(given: Any, origin: str) -> list[Sample]:
    """Return samples of a list, a generator, or a Dataset of torch: pairs (input, reference), or mappings.

    Args:
        given: what a user's `samples()` gave.
        origin: says where it comes from, in errors.

    Raises:
        RecipeError: it holds something else.
    """
    import torch

    if isinstance(given, torch.utils.data.DataLoader):
        given = given.dataset  # the loader gives batches
    if not isinstance(given, Iterable) and hasattr(given, "__getitem__") and hasattr(given, "__len__"):
        given = [given[index] for index in range(len(given))]
    if not isinstance(given, Iterable) or isinstance(given, (str, Mapping, torch.Tensor)):
        raise RecipeError(f"{origin} returned a {type(given).__name__}: return a list of pairs (input, reference).")
    return [_sample(one, f"{origin}, sample {index + 1}") for index, one in enumerate(given)]


def _sample(one: Any, origin: str) -> Sample:
    if isinstance(one, Mapping):
        references = [name for name in _REFERENCES if name in one]
        if len(references) != 1:
            raise RecipeError(
                f"{origin} has the keys {', '.join(map(str, one))}: it must have one of {', '.join(_REFERENCES)}."
            )
        rest = {name: value for name, value in one.items() if name != references[0]}
        is_one = len(rest) == 1 and next(iter(rest)) in _INPUTS
        return Sample(next(iter(rest.values())) if is_one else rest, _reference(one[references[0]]))
    if isinstance(one, (tuple, list)) and len(one) == 2:
        return Sample(one[0], _reference(one[1]))
    held = f"{len(one)} values" if isinstance(one, (tuple, list)) else f"a {type(one).__name__}"
    raise RecipeError(
        f"{origin} is {held}: return a pair (input, reference), or ((one, other), reference) for several inputs."
    )


def _reference(reference: Any) -> Any:
    """Return a number for a tensor or array of one, as metrics compare it."""
    if getattr(reference, "ndim", None) == 0 or (hasattr(reference, "numel") and reference.numel() == 1):
        return reference.item()
    return reference


@dataclass(frozen=True)
class Guide:
    """What the arguments of a call look like, by two batches.

    Attributes:
        one: the arguments for one sample.
        two: those for two samples; the same as `one` where it takes one batch size only.
    """

    one: Arguments
    two: Arguments

    def arguments(self, inputs: Sequence[Any], at_once: int | None = None) -> list[Arguments]:
        """Put the inputs of samples together.

        Args:
            inputs: of each sample; one at least.
            at_once: how many samples a call takes; the last is filled up with its last sample. None: any number.

        Returns:
            The arguments of one call, where a call takes any number and all have equal shapes; else of several.

        Raises:
            RecipeError: an input is none of what `batch()` gives.
        """
        try:
            return self._calls(inputs, at_once)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise RecipeError(
                f"A sample does not match the output of batch() ({named_line(error, 100)}): return the same structure "
                "for each sample in samples(), or define predict(module, inputs) in the model's file."
            ) from error

    def _calls(self, inputs: Sequence[Any], at_once: int | None) -> list[Arguments]:
        several = [self._arguments(each) for each in inputs]
        try:
            if at_once is None:
                return [_stacked(self.one, self.two, several)]
        except _Ragged:
            at_once = 1
        filled_up = [*several, *several[-1:] * (-len(several) % at_once)]
        chunks = [filled_up[start : start + at_once] for start in range(0, len(filled_up), at_once)]
        return [_stacked(self.one, self.two, chunk) for chunk in chunks]

    def _arguments(self, sample: Any) -> Arguments:
        """Give each argument its part of a sample; what is the same in both batches comes from there."""
        names: list[Any] = list(self.one) if isinstance(self.one, dict) else list(range(len(self.one)))
        varying = [name for name in names if self._varies(name)] or names
        parts: Mapping[Any, Any]
        if len(names) == 1 or (len(varying) == 1 and not (_is_several(sample) and len(sample) == len(names))):
            parts = sample if isinstance(sample, Mapping) and set(sample) == set(varying) else {varying[0]: sample}
        elif isinstance(sample, Mapping) and isinstance(self.one, dict):
            parts = sample
        elif _is_several(sample) and len(sample) in (len(names), len(varying)):
            parts = dict(zip(names if len(sample) == len(names) else varying, sample, strict=True))
        else:
            parts = {}
        if missing := [str(name) for name in varying if name not in parts]:
            raise RecipeError(
                f"The module takes {len(varying)} inputs, but a sample is a {type(sample).__name__} without "
                f"{', '.join(missing)}: return pairs ((one, other), reference) or a mapping of names to inputs in "
                "samples(), or define predict(module, inputs)."
            )
        whole = {name: parts.get(name, self.one[name]) for name in names}
        return whole if isinstance(self.one, dict) else list(whole.values())

    def _varies(self, name: Any) -> bool:
        """Return whether an argument has a tensor, or a list, that is longer for two samples than for one."""
        return bool(_shapes(self.one[name]) != _shapes(self.two[name]))


class _Ragged(Exception):  # noqa: N818  (they go one by one)
    """Samples have other shapes."""


def _is_several(sample: Any) -> bool:
    return isinstance(sample, (tuple, list))


def _shapes(tree: Any) -> list[Any]:
    return [(path, tuple(getattr(leaf, "shape", ()))) for path, leaf in value_trees.named_leaves(tree)]


def _stacked(one: Any, two: Any, samples: Sequence[Any]) -> Any:
    """Put samples, or the same part of each, together as two batches do it.

    Raises:
        _Ragged: their tensors have other shapes.
        RecipeError: one is no tensor where the batches hold one.
    """
    import torch

    if isinstance(one, torch.Tensor):
        return _stacked_tensors(one, two, samples)
    if isinstance(one, dict):
        return {name: _stacked(one[name], two[name], [sample[name] for sample in samples]) for name in one}
    if isinstance(one, list) and isinstance(two, list) and len(two) != len(one):  # of one for each sample
        return [_tensor(sample, one[0]) for sample in samples] if one else list(samples)
    if isinstance(one, (list, tuple)):
        inside = [_stacked(parts[0], parts[1], parts[2:]) for parts in zip(one, two, *samples, strict=True)]
        return inside if isinstance(one, list) else tuple(inside)
    if value_trees.tensors(one):  # a dataclass, or another mapping
        return _stacked_trees(one, two, samples)
    return samples[0]


def _stacked_trees(one: Any, two: Any, samples: Sequence[Any]) -> Any:
    columns = list(zip(*map(value_trees.leaves, (one, two, *samples)), strict=True))
    whole: Iterator[Any] = iter([_stacked(column[0], column[1], column[2:]) for column in columns])
    return value_trees.mapped(lambda leaf: next(whole), one)


def _stacked_tensors(one: Any, two: Any, samples: Sequence[Any]) -> Any:
    import torch

    tensors = [_tensor(sample, one) for sample in samples]
    if len({tensor.shape for tensor in tensors}) > 1:
        raise _Ragged
    changed = [axis for axis, pair in enumerate(zip(one.shape, two.shape, strict=False)) if len(set(pair)) > 1]
    axis = changed[0] if changed else 0
    is_batch = bool(changed) and tensors[0].dim() == one.dim() and tensors[0].shape[axis] == 1
    return torch.cat(tensors, axis) if is_batch else torch.stack(tensors, axis)


def _tensor(sample: Any, like: Any) -> Any:
    """Make a tensor of a sample; of whole numbers one with fractions, where the module takes such."""
    import torch

    try:
        tensor = torch.as_tensor(sample)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RecipeError(
            f"A sample's {type(sample).__name__} can't be converted to a tensor ({one_line(error, most=100)}): define "
            "predict(module, inputs) in the model's file."
        ) from error
    is_whole = not (tensor.is_floating_point() or tensor.is_complex())
    return tensor.to(like.dtype) if is_whole and getattr(like, "is_floating_point", bool)() else tensor
