"""Graphs for runtimes that take only the shapes that they were exported with: one sample, of one length."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mlflow_compress.errors import Unsupported, WeightsError
from mlflow_compress.sockets import Graph

NO_CACHE = "a key-value cache grows with each token, but the runtime takes only the lengths that it was exported with"

_BATCH = "batch"
_TORCH_TYPES = ("float32", "int64", "int32", "bool")


@dataclass(frozen=True)
class FixedShapes:
    """The shapes of an exported graph.

    Attributes:
        inputs: Shape of each input, in order.
        input_axes: Names of the axes of each input that could change before the export.
        output_axes: The same of each output.
        parameters: Number of parameters of its module.
        nonzero: Number of those that are not zero.
    """

    inputs: list[list[int]]
    input_axes: list[dict[int, str]]
    output_axes: list[dict[int, str]]
    parameters: int = 0
    nonzero: int = 0

    @classmethod
    def of(cls, graph: Graph) -> FixedShapes:
        """Return the shapes that `fixed` gives a graph."""
        axes = [dict(graph.dynamic.get(name, {})) for name in (*graph.inputs, *graph.outputs)]
        count, weights = len(graph.inputs), list(graph.module.parameters())
        return cls(
            [list(tensor.shape) for tensor in first_samples(graph)],
            axes[:count],
            axes[count:],
            sum(weight.numel() for weight in weights),
            sum(int(weight.count_nonzero()) for weight in weights),
        )

    def write(self, path: Path) -> None:
        """Write them to a file."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> FixedShapes:
        """Read them from a file.

        Raises:
            WeightsError: It is missing or broken.
        """
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                [[int(length) for length in shape] for shape in stored["inputs"]],
                _read_axes(stored["input_axes"]),
                _read_axes(stored["output_axes"]),
                int(stored["parameters"]),
                int(stored["nonzero"]),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise WeightsError(f"The shapes of an exported graph can't be read from {path}: {error}") from error


def first_samples(graph: Graph) -> tuple[Any, ...]:
    """Return the first sample of the graph's example inputs, as a batch of one."""
    examples = []
    for name, tensor in graph.inputs.items():
        axis = _axis(graph.dynamic.get(name, {}))
        examples.append(tensor if axis is None else tensor.narrow(axis, 0, 1).clone())
    return tuple(examples)


def fixed(graph: Graph) -> Graph:
    """Return the graph with inputs of one sample, and no axes that may change.

    Raises:
        Unsupported: An input has a type that the runtimes for phones do not take.
    """
    examples = first_samples(graph)
    for name, tensor in zip(graph.inputs, examples, strict=True):
        if (kind := str(tensor.dtype).removeprefix("torch.")) not in _TORCH_TYPES:
            raise Unsupported(f"the runtime takes no {kind} inputs, and {name} has this type")
    return replace(graph, inputs=dict(zip(graph.inputs, examples, strict=True)), dynamic={})


class FixedCall:
    """Runs a graph of fixed shapes on inputs of other sizes: one sample after the other.

    A shorter axis that could change before the export is filled with zeros at its end (token ids and their mask), and
    the outputs are cut to its length again.

    Args:
        shapes: Shapes of the graph.
        run: Runs the graph on one sample.
    """

    def __init__(self, shapes: FixedShapes, run: Callable[..., Sequence[Any]]) -> None:
        self.shapes = shapes
        self._run = run

    def __call__(self, *inputs: Any) -> tuple[Any, ...]:
        """Run the graph."""
        import torch

        lengths = self._lengths(inputs)
        outputs = [self._cut(self._run(*sample), lengths) for sample in self.samples(*inputs)]
        return tuple(
            parts[0] if (axis := _axis(axes)) is None else torch.cat(parts, dim=axis)
            for parts, axes in zip(zip(*outputs, strict=True), self.shapes.output_axes, strict=True)
        )

    def samples(self, *inputs: Any) -> Iterator[tuple[Any, ...]]:
        """Yield the inputs of each sample in the shapes of the graph; longer ones, for calibration, are cut."""
        axes = [_axis(names) for names in self.shapes.input_axes]
        pairs = list(zip(inputs, axes, strict=True))
        for index in range(max((tensor.shape[axis] for tensor, axis in pairs if axis is not None), default=1)):
            rows = (tensor if axis is None else tensor.narrow(axis, index, 1) for tensor, axis in pairs)
            yield tuple(self._fitted(row, position) for position, row in enumerate(rows))

    def _lengths(self, inputs: Sequence[Any]) -> dict[str, int]:
        """Return the lengths of the axes that may change, by name, without the batch.

        Raises:
            ValueError: One is longer than the exported one.
        """
        lengths: dict[str, int] = {}
        for tensor, axes, exported in zip(inputs, self.shapes.input_axes, self.shapes.inputs, strict=True):
            for axis, name in axes.items():
                if name != _BATCH:
                    lengths[name] = tensor.shape[axis]
                    if lengths[name] > exported[axis]:
                        raise ValueError(
                            f"the graph was exported for {exported[axis]} {name} and can't take {lengths[name]}: "
                            f"measure with a larger family option ({name})"
                        )
        return lengths

    def _fitted(self, row: Any, position: int) -> Any:
        from torch.nn import functional

        padding: list[int] = []
        for axis in reversed(range(row.dim())):
            is_variable = self.shapes.input_axes[position].get(axis, _BATCH) != _BATCH
            padding += [0, self.shapes.inputs[position][axis] - row.shape[axis] if is_variable else 0]
        return functional.pad(row, padding) if any(padding) else row  # a negative padding cuts

    def _cut(self, outputs: Sequence[Any], lengths: Mapping[str, int]) -> list[Any]:
        parts = []
        for output, axes in zip(outputs, self.shapes.output_axes, strict=True):
            part = output
            for axis, name in axes.items():
                if name in lengths:
                    part = part.narrow(axis, 0, lengths[name])
            parts.append(part)
        return parts


def _read_axes(stored: Any) -> list[dict[int, str]]:
    return [{int(axis): str(name) for axis, name in axes.items()} for axes in stored]


def _axis(axes: Mapping[int, str]) -> int | None:
    """Return the axis of the samples."""
    return next((axis for axis, name in axes.items() if name == _BATCH), None)
