"""A user's own samples: read from several forms, and batched into arguments like those of `batch()`."""

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
_PART = "input_"  # name of an input of several, with its number


def named(inputs: Any) -> dict[str, Any]:
    """Return the parts of a sample with several inputs by name: `input_0`, `input_1` for a tuple.

    Empty if it has one input, or a part that is neither an array nor a number.
    """
    if isinstance(inputs, tuple):
        inputs = {f"{_PART}{position}": part for position, part in enumerate(inputs)}
    if not isinstance(inputs, Mapping) or not all(
        hasattr(part, "shape") or type(part) in (int, float) for part in inputs.values()
    ):
        return {}
    return {str(name): part for name, part in inputs.items()}


def unnamed(sample: Any) -> Any:
    """Return a sample that `named` wrote as a tuple again; any other one unchanged."""
    if isinstance(sample, Mapping) and list(sample) == [f"{_PART}{position}" for position in range(len(sample))]:
        return tuple(sample.values())
    return sample


def read(samples: Any, origin: str) -> list[Sample]:
    """Return the samples in a list, a generator, or a torch Dataset of pairs (input, reference) or mappings.

    Args:
        samples: output of a user's `samples()`.
        origin: name of its origin for messages.

    Raises:
        RecipeError: it contains something else.
    """
    import torch

    if isinstance(samples, torch.utils.data.DataLoader):
        samples = samples.dataset  # the loader gives batches
    if not isinstance(samples, Iterable) and hasattr(samples, "__getitem__") and hasattr(samples, "__len__"):
        samples = [samples[index] for index in range(len(samples))]
    if not isinstance(samples, Iterable) or isinstance(samples, (str, Mapping, torch.Tensor)):
        raise RecipeError(f"{origin} returned a {type(samples).__name__}: return a list of pairs (input, reference).")
    return [_sample(sample, f"{origin}, sample {index + 1}") for index, sample in enumerate(samples)]


def _sample(sample: Any, origin: str) -> Sample:
    if isinstance(sample, Mapping):
        references = [name for name in _REFERENCES if name in sample]
        if len(references) != 1:
            raise RecipeError(
                f"{origin} has the keys {', '.join(map(str, sample))}: it must have one of {', '.join(_REFERENCES)}."
            )
        inputs = {name: value for name, value in sample.items() if name != references[0]}
        is_one = len(inputs) == 1 and next(iter(inputs)) in _INPUTS
        return Sample(next(iter(inputs.values())) if is_one else inputs, _reference(sample[references[0]]))
    if isinstance(sample, (tuple, list)) and len(sample) == 2:
        return Sample(sample[0], _reference(sample[1]))
    description = f"{len(sample)} values" if isinstance(sample, (tuple, list)) else f"a {type(sample).__name__}"
    raise RecipeError(
        f"{origin} is {description}: return a pair (input, reference), or ((one, other), reference) for several inputs."
    )


def _reference(reference: Any) -> Any:
    """Return a number for a tensor or array with one element, as metrics compare numbers."""
    if getattr(reference, "ndim", None) == 0 or (hasattr(reference, "numel") and reference.numel() == 1):
        return reference.item()
    return reference


@dataclass(frozen=True)
class Guide:
    """Shows the structure of a call's arguments by two batches.

    Attributes:
        one: arguments for one sample.
        two: arguments for two samples; the same as `one` if only one batch size is supported.
    """

    one: Arguments
    two: Arguments

    def arguments(self, inputs: Sequence[Any], at_once: int | None = None) -> list[Arguments]:
        """Batch the inputs of samples.

        Args:
            inputs: input of each sample; at least one.
            at_once: number of samples in a call; the last call repeats its last sample to fill up. None: any number.

        Returns:
            The arguments of one call, if a call takes any number and all have equal shapes; else of several calls.

        Raises:
            RecipeError: an input does not match the output of `batch()`.
        """
        try:
            return self._calls(inputs, at_once)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise RecipeError(
                f"A sample does not match the output of batch() ({named_line(error, 100)}): return the same structure "
                "for each sample in samples(), or define predict(module, inputs) in the model's file."
            ) from error

    def _calls(self, inputs: Sequence[Any], at_once: int | None) -> list[Arguments]:
        samples = [self._arguments(sample) for sample in inputs]
        try:
            if at_once is None:
                return [_stacked(self.one, self.two, samples)]
        except _Ragged:
            at_once = 1
        filled_up = [*samples, *samples[-1:] * (-len(samples) % at_once)]
        chunks = [filled_up[start : start + at_once] for start in range(0, len(filled_up), at_once)]
        return [_stacked(self.one, self.two, chunk) for chunk in chunks]

    def _arguments(self, sample: Any) -> Arguments:
        """Return the arguments of a sample; arguments that are equal in both batches come from there."""
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
        arguments = {name: parts.get(name, self.one[name]) for name in names}
        return arguments if isinstance(self.one, dict) else list(arguments.values())

    def _varies(self, name: Any) -> bool:
        """Return whether an argument has a tensor or a list whose length differs between one and two samples."""
        return bool(_shapes(self.one[name]) != _shapes(self.two[name]))


class _Ragged(Exception):  # noqa: N818  (not an error: the samples are then passed one by one)
    """Samples have different shapes."""


def _is_several(sample: Any) -> bool:
    return isinstance(sample, (tuple, list))


def _shapes(tree: Any) -> list[Any]:
    return [(path, tuple(getattr(leaf, "shape", ()))) for path, leaf in value_trees.named_leaves(tree)]


def _stacked(one: Any, two: Any, samples: Sequence[Any]) -> Any:
    """Combine samples, or the same part of each, as the two batches show.

    Raises:
        _Ragged: their tensors have different shapes.
        RecipeError: a value can't be a tensor although the batches have one there.
    """
    import torch

    if isinstance(one, torch.Tensor):
        return _stacked_tensors(one, two, samples)
    if isinstance(one, dict):
        return {name: _stacked(one[name], two[name], [sample[name] for sample in samples]) for name in one}
    if isinstance(one, list) and isinstance(two, list) and len(two) != len(one):  # one item for each sample
        return [_tensor(sample, one[0]) for sample in samples] if one else list(samples)
    if isinstance(one, (list, tuple)):
        stacked = [_stacked(parts[0], parts[1], parts[2:]) for parts in zip(one, two, *samples, strict=True)]
        return stacked if isinstance(one, list) else tuple(stacked)
    if value_trees.tensors(one):  # a dataclass, or another mapping
        return _stacked_trees(one, two, samples)
    return samples[0]


def _stacked_trees(one: Any, two: Any, samples: Sequence[Any]) -> Any:
    columns = list(zip(*map(value_trees.leaves, (one, two, *samples)), strict=True))
    stacked: Iterator[Any] = iter([_stacked(column[0], column[1], column[2:]) for column in columns])
    return value_trees.mapped(lambda leaf: next(stacked), one)


def _stacked_tensors(one: Any, two: Any, samples: Sequence[Any]) -> Any:
    import torch

    tensors = [_tensor(sample, one) for sample in samples]
    if len({tensor.shape for tensor in tensors}) > 1:
        raise _Ragged
    changed = [axis for axis, pair in enumerate(zip(one.shape, two.shape, strict=False)) if len(set(pair)) > 1]
    axis = changed[0] if changed else 0
    is_batch = bool(changed) and tensors[0].dim() == one.dim() and tensors[0].shape[axis] == 1
    return torch.cat(tensors, axis) if is_batch else torch.stack(tensors, axis)


def _tensor(sample: Any, example: Any) -> Any:
    """Convert a sample to a tensor; integers to floating point if the module takes floating point."""
    import torch

    try:
        tensor = torch.as_tensor(sample)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RecipeError(
            f"A sample's {type(sample).__name__} can't be converted to a tensor ({one_line(error, most=100)}): define "
            "predict(module, inputs) in the model's file."
        ) from error
    is_whole = not (tensor.is_floating_point() or tensor.is_complex())
    return tensor.to(example.dtype) if is_whole and getattr(example, "is_floating_point", bool)() else tensor
