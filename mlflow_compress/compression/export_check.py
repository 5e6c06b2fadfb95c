"""Check that an exported graph matches the module on other inputs than the example that it was exported with.

Tracing records the operations for one example. A path that depends on values, or a length recorded as a constant, is
right for that example and wrong for others.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from mlflow_compress.error_causes import cause_line
from mlflow_compress.errors import Unsupported
from mlflow_compress.networks import value_trees
from mlflow_compress.networks.output_parts import farthest
from mlflow_compress.networks.stored_weights import flat
from mlflow_compress.sockets import Graph

_SEED = 20
_MOST_SECONDS = 10.0  # no further inputs are tried after this
_MOST_OTHERS = 0.02  # share of integers in an output that may differ: the order of equal scores is arbitrary
_ANOTHER_SIZE = 3
_MANY = 4  # from this number of distinct integers they are ids, not a mask
_MOST_ROUNDED = 0.5  # larger relative differences are not the rounding of a runtime in float16 or int8
_FARTHER = 3  # factor of the tolerance: unusual values are rounded more


def require_alike(graph: Graph, call: Callable[..., tuple[Any, ...]], tolerance: float) -> None:
    """Check an exported graph on other values, and on a batch of another size if its batch size is dynamic.

    A module that draws random numbers, or keeps state between calls, can't be compared in this way and passes.

    Args:
        graph: Exported graph.
        call: Function that runs the export.
        tolerance: Maximum relative difference between an output and the module's output on the examples.

    Raises:
        Unsupported: The outputs differ, or the export fails.
    """
    started, tolerance = time.monotonic(), _FARTHER * tolerance
    examples = tuple(graph.inputs.values())
    for condition, inputs in _others(graph):
        expected = _steady(graph, inputs)
        if expected is not None:
            actual = _run(call, inputs, condition)
            if len(actual) != len(expected):
                raise Unsupported(f"{condition} the exported graph gives {len(actual)} outputs, not {len(expected)}")
            if graph.is_unordered:
                actual, expected = (tuple(map(value_trees.in_order, outputs)) for outputs in (actual, expected))
            moved = _moved(actual, expected, tolerance)
            if not moved <= tolerance and _holds_nan(expected) and not _holds_nan(_steady(graph, examples) or ()):
                moved = _moved(*_at_numbers(actual, expected), tolerance)  # the module does not support such inputs
            if not moved <= tolerance:
                by = f"by {moved:.0%}" if math.isfinite(moved) else "in its shape, or in values that are not finite"
                rounded = ", or its runtime rounds more here" if moved < _MOST_ROUNDED else ""
                raise Unsupported(
                    f"{condition} the exported graph differs from the module {by}: it contains only the path that the "
                    f"module took for the example{rounded}"
                )
        if time.monotonic() - started > _MOST_SECONDS:
            return


def _others(graph: Graph) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield other inputs than the graph's examples, each with a description."""
    import torch

    examples = tuple(graph.inputs.values())
    generator = torch.Generator().manual_seed(_SEED)
    yield "for other values", tuple(_negated(tensor) for tensor in examples)
    for size, integers in ((1.0, _reordered), (1.0, _of_lower_half), (10.0, _of_upper_half)):
        yield "for other values", tuple(_drawn(tensor, size, integers, generator) for tensor in examples)
    if any(_are_ids_above_0(tensor) for tensor in examples):
        yield "for other values", tuple(_ending_in_0(tensor) for tensor in examples)
    axes = [_batch_axis(graph.dynamic.get(name, {})) for name in graph.inputs]
    if any(axis is not None for axis in axes):
        pairs = zip(examples, axes, strict=True)
        yield f"for a batch of {_ANOTHER_SIZE}", tuple(_resized(tensor, axis) for tensor, axis in pairs)


def _batch_axis(axes: Mapping[int, str]) -> int | None:
    return next((axis for axis, name in axes.items() if name == "batch"), None)


def _negated(tensor: Any) -> Any:
    """Negate floating-point numbers; reverse the order of others (token ids)."""
    return -tensor if tensor.is_floating_point() or tensor.is_complex() else tensor.flip(-1) if tensor.dim() else tensor


def _drawn(tensor: Any, size: float, integers: Callable[[Any, Any], Any], generator: Any) -> Any:
    """Draw numbers with the tensor's mean and deviation, times a size; integers with the given function."""
    import torch

    if not (tensor.numel() and (tensor.dim() or tensor.is_floating_point())):
        return tensor
    if tensor.is_complex():
        return _reordered(tensor, generator)
    if not tensor.is_floating_point():
        return integers(tensor, generator)
    noise = torch.randn(tensor.shape, generator=generator).to(tensor.device, tensor.dtype)
    return size * (noise * tensor.std(correction=0) + tensor.mean())


def _reordered(tensor: Any, generator: Any) -> Any:
    """Permute the last axis, in the same way for each row."""
    import torch

    return tensor[..., torch.randperm(tensor.shape[-1], generator=generator).to(tensor.device)]


def _of_lower_half(tensor: Any, generator: Any) -> Any:
    return _redrawn(tensor, generator, is_upper=False)


def _of_upper_half(tensor: Any, generator: Any) -> Any:
    return _redrawn(tensor, generator, is_upper=True)


def _redrawn(tensor: Any, generator: Any, *, is_upper: bool) -> Any:
    """Draw integers from the lower or upper half of the tensor's values, or from all values of a mask.

    A constant row is kept only if the tensor has such a row: a mask that hides a whole row makes NaN.
    """
    import torch

    if _are_places(tensor):
        return _reordered(tensor, generator)
    values = tensor.flatten()
    distinct = values.unique()
    if len(distinct) >= _MANY:
        middle = distinct[len(distinct) // 2]
        values = values[values >= middle if is_upper else values < middle]
    samples = values[torch.randint(len(values), tensor.shape, generator=generator).to(tensor.device)]
    if len(distinct) >= _MANY:
        return samples
    uniform = tensor[(tensor == tensor[..., :1]).all(-1)][..., 0].unique()
    is_new = (samples == samples[..., :1]).all(-1) & ~(samples[..., :1] == uniform).any(-1)
    return torch.where(is_new[..., None], tensor, samples)


def _are_places(tensor: Any) -> bool:
    """Return whether integers are positions or offsets: a range with each value once, or increasing rows."""
    distinct = tensor.unique()
    is_range = len(distinct) == tensor.numel() == int(distinct[-1]) - int(distinct[0]) + 1
    steps = tensor[..., 1:] > tensor[..., :-1]
    return is_range or bool(steps.numel() and steps.all())


def _are_ids_above_0(tensor: Any) -> bool:
    if tensor.is_floating_point() or tensor.is_complex() or not tensor.numel() or not tensor.dim():
        return False
    return int(tensor.min()) > 0 and len(tensor.unique()) >= _MANY and not _are_places(tensor)


def _ending_in_0(tensor: Any) -> Any:
    """Put 0, the usual padding, at the end of each row of ids that does not contain it."""
    if not _are_ids_above_0(tensor):
        return tensor
    ending = tensor.clone()
    ending[..., -1] = 0
    return ending


def _resized(tensor: Any, axis: int | None) -> Any:
    """Repeat or drop samples to get three of them, in another order."""
    import torch

    if axis is None:
        return tensor
    return tensor.index_select(axis, (torch.arange(_ANOTHER_SIZE, device=tensor.device) + 1) % tensor.shape[axis])


def _steady(graph: Graph, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Return the module's outputs; None if it does not accept the inputs or its outputs vary."""
    import torch

    try:
        with torch.no_grad():
            outputs = graph.module(*_copied(inputs))
            repeated = graph.module(*_copied(inputs))
    except Exception:  # a module may raise anything on unusual inputs
        return None
    is_steady = all(
        torch.equal(torch.nan_to_num(one), torch.nan_to_num(two)) for one, two in zip(outputs, repeated, strict=True)
    )
    return outputs if is_steady else None


def _run(call: Callable[..., tuple[Any, ...]], inputs: tuple[Any, ...], condition: str) -> tuple[Any, ...]:
    import torch

    try:
        with torch.no_grad():
            return call(*_copied(inputs))
    except Exception as error:
        raise Unsupported(
            f"{condition} the exported graph fails where the module does not: {cause_line(error)}"
        ) from error


def _copied(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Copy the inputs: a module may write into them."""
    return tuple(tensor.clone() for tensor in inputs)


def _moved(actual: Iterable[Any], expected: Iterable[Any], tolerance: float) -> float:
    """Return the largest difference of an output from the module's."""
    return max((_apart(one, two, tolerance) for one, two in zip(actual, expected, strict=True)), default=0.0)


def _holds_nan(outputs: Iterable[Any]) -> bool:
    return any(bool(output.isnan().any()) for output in outputs)


def _at_numbers(actual: Iterable[Any], expected: Iterable[Any]) -> tuple[list[Any], list[Any]]:
    """Drop the elements where the module gives NaN, for outputs of the same shape."""
    pairs = []
    for one, two in zip(actual, expected, strict=True):
        is_number = ~two.isnan()
        pairs.append((one[is_number.to(one.device)], two[is_number]) if one.shape == two.shape else (one, two))
    return [one for one, _ in pairs], [two for _, two in pairs]


def _apart(actual: Any, expected: Any, tolerance: float) -> float:
    """Return the difference of an output from the module's; infinite if NaN or infinities are at other places."""
    if actual.shape != expected.shape:
        return float("inf")
    if not (expected.is_floating_point() or expected.is_complex()):
        different = float((actual.cpu() != expected.cpu()).float().mean()) if expected.numel() else 0.0
        return different if different > max(tolerance, _MOST_OTHERS) else 0.0
    return farthest([flat(actual)], [flat(expected)], [0.0]) if expected.numel() else 0.0
