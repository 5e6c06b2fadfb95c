"""Exports any module as one graph, by calling it on batches of two sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mlflow_compress.errors import Unsupported
from mlflow_compress.networks import module_calls, value_trees
from mlflow_compress.networks.export_graphs import graph
from mlflow_compress.networks.exported_modules import CallForm, fixed_of, form_of
from mlflow_compress.networks.module_calls import Arguments
from mlflow_compress.sockets import Graph

_FEW, _MORE = 2, 3  # samples


@dataclass(frozen=True)
class _Probe:
    """One call of a module.

    Attributes:
        given: its arguments.
        inputs: tensors among the arguments.
        outputs: tensors in the output.
        form: form of arguments and output.
    """

    given: Arguments
    inputs: list[Any]
    outputs: list[Any]
    form: CallForm


def graph_of(
    module: Any, batch: Callable[[int, int], Arguments], batch_size: int, names: Mapping[str, Any] | None = None
) -> tuple[Graph, CallForm]:
    """Make a graph from a module's input tensors to `output`, or to `output_0`, `output_1` and so on.

    An axis is `batch` if its length is the number of samples. Numbers and texts among the arguments are constants.

    Args:
        module: the module.
        batch: returns the arguments of one call, for a number of samples and a seed.
        batch_size: number of samples if the module does not take two and three.
        names: definitions in the user's file, by name, to recognise the classes of outputs.

    Returns:
        The graph, and the form of its arguments and output.

    Raises:
        Unsupported: the module takes or returns no tensors, or other values in its output depend on its inputs.
    """
    samples = None
    try:
        probe = _probe(module, batch(_FEW, 0), names)
        larger = _probe(module, batch(_MORE, 0), names)
        pairs = zip((*probe.inputs, *probe.outputs), (*larger.inputs, *larger.outputs), strict=True)
        axes = [_batch_axes(few.shape, many.shape) for few, many in pairs]
        if probe.form != larger.form:
            raise ValueError(larger.form)  # a constant among its arguments depends on the number of samples
    except Unsupported:
        raise
    except Exception:  # the module supports one batch size only
        probe = _probe(module, batch(batch_size, 0), names)
        axes = [{} for _ in (*probe.inputs, *probe.outputs)]
        larger = _probe(module, batch(batch_size, 1), names)
        samples = batch_size
    if probe.form.output != larger.form.output:
        raise Unsupported(
            "the module returns values that are not tensors and depend on its inputs: a graph would freeze them"
        )
    return _graph(module, probe, axes), replace(probe.form, samples=samples)


def fixed_graph_of(module: Any, arguments: Arguments) -> tuple[Graph, CallForm]:
    """Make a graph as `graph_of` does, but from one call, for inputs of exactly these shapes.

    Raises:
        Unsupported: see `graph_of`.
    """
    probe = _probe(module, arguments, None)
    return _graph(module, probe, [{} for _ in (*probe.inputs, *probe.outputs)]), probe.form


def _graph(module: Any, probe: _Probe, axes: Sequence[Mapping[int, str]]) -> Graph:
    arguments = _input_names(probe.given, module)
    outputs = ["output"] if len(probe.outputs) == 1 else [f"output_{index}" for index in range(len(probe.outputs))]
    dynamic = {name: changing for name, changing in zip((*arguments, *outputs), axes, strict=True) if changing}
    inputs = dict(zip(arguments, probe.inputs, strict=True))
    return graph(_caller(probe.given), inputs, outputs, dynamic, module=module)


def _probe(module: Any, arguments: Arguments, names: Mapping[str, Any] | None) -> _Probe:
    import torch

    inputs = value_trees.tensors(arguments)
    if not inputs:
        raise Unsupported("the module takes no tensor: a graph requires at least one")
    fixed = fixed_of(arguments)
    with torch.no_grad():
        output = module_calls.called(module, arguments)
    outputs = value_trees.tensors(output)
    if not outputs:
        raise Unsupported(f"the module returns no tensor but a {type(output).__name__}: a graph returns tensors")
    form = CallForm(
        form_of(output, names),
        fixed,
        passing="by name" if isinstance(arguments, dict) else "by position",
        names=list(module_calls.named(arguments, module)),
    )
    return _Probe(arguments, inputs, outputs, form)


def _caller(original: Arguments) -> Callable[..., tuple[Any, ...]]:
    """Return a function that calls a module on the same arguments with other tensors."""
    import torch

    placeholder = object()
    template = value_trees.mapped(lambda leaf: placeholder if isinstance(leaf, torch.Tensor) else leaf, original)

    def call(parts: Any, *tensors: Any) -> tuple[Any, ...]:
        waiting = iter(tensors)
        arguments = value_trees.mapped(lambda leaf: next(waiting) if leaf is placeholder else leaf, template)
        return tuple(value_trees.tensors(module_calls.called(parts.module, arguments)))

    return call


def _input_names(arguments: Arguments, module: Any) -> list[str]:
    """Return names for the tensors among arguments: the module's own names with the path to each tensor."""
    import torch

    paths = value_trees.named_leaves(module_calls.named(arguments, module))
    names = ["_".join(map(str, path)) for path, leaf in paths if isinstance(leaf, torch.Tensor)]
    is_clear = len(set(names)) == len(names) and all(_is_clear(name) for name in names)
    return names if is_clear else [f"input_{index}" for index in range(len(names))]


def _is_clear(name: str) -> bool:
    return name.isidentifier() and not name.startswith("output")


def _batch_axes(few: Sequence[int], many: Sequence[int]) -> dict[int, str]:
    """Return the axes with length 2 for two samples and 3 for three.

    Raises:
        ValueError: another axis changed.
    """
    changed = {axis: pair for axis, pair in enumerate(zip(few, many, strict=True)) if len(set(pair)) > 1}
    if any(pair != (_FEW, _MORE) for pair in changed.values()):
        raise ValueError(changed)
    return dict.fromkeys(changed, "batch")
