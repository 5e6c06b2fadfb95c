"""A module of anybody's as one graph, made by calling it on batches of two sizes."""

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
        inputs: the tensors among them.
        outputs: the tensors of what it gave.
        form: of what it takes and gives.
    """

    given: Arguments
    inputs: list[Any]
    outputs: list[Any]
    form: CallForm


def graph_of(
    module: Any, batch: Callable[[int, int], Arguments], batch_size: int, names: Mapping[str, Any] | None = None
) -> tuple[Graph, CallForm]:
    """Make a graph from a module's tensors to `output`, or to `output_0`, `output_1` and so on.

    An axis is `batch` where its length is the number of samples. Numbers and texts among the arguments are constants.

    Args:
        module: the module.
        batch: gives the arguments of one call, for a number of samples and a seed.
        batch_size: how many samples to call it on where it does not take two and three.
        names: what a user's file defines, by name: the classes of outputs are known again by it.

    Returns:
        The graph, and the form of what stands in the module's place.

    Raises:
        Unsupported: it takes or gives no tensors, or what it gives depends on the values of its inputs.
    """
    samples = None
    try:
        probe = _probe(module, batch(_FEW, 0), names)
        other = _probe(module, batch(_MORE, 0), names)
        pairs = zip((*probe.inputs, *probe.outputs), (*other.inputs, *other.outputs), strict=True)
        axes = [_batch_axes(few.shape, more.shape) for few, more in pairs]
        if probe.form != other.form:
            raise ValueError(other.form)  # a number among its arguments is the number of samples
    except Unsupported:
        raise
    except Exception:  # it takes one batch size only
        probe = _probe(module, batch(batch_size, 0), names)
        axes = [{} for _ in (*probe.inputs, *probe.outputs)]
        other = _probe(module, batch(batch_size, 1), names)
        samples = batch_size
    if probe.form.output != other.form.output:
        raise Unsupported(
            "the module returns values that are not tensors and depend on its inputs: a graph would freeze them"
        )
    return _made(module, probe, axes), replace(probe.form, samples=samples)


def fixed_graph_of(module: Any, given: Arguments) -> tuple[Graph, CallForm]:
    """Make a graph as `graph_of` does, but from one call, for inputs of its shapes alone.

    Raises:
        Unsupported: as of `graph_of`.
    """
    probe = _probe(module, given, None)
    return _made(module, probe, [{} for _ in (*probe.inputs, *probe.outputs)]), probe.form


def _made(module: Any, probe: _Probe, axes: Sequence[Mapping[int, str]]) -> Graph:
    arguments = _input_names(probe.given, module)
    outputs = ["output"] if len(probe.outputs) == 1 else [f"output_{index}" for index in range(len(probe.outputs))]
    dynamic = {name: each for name, each in zip((*arguments, *outputs), axes, strict=True) if each}
    inputs = dict(zip(arguments, probe.inputs, strict=True))
    return graph(_caller(probe.given), inputs, outputs, dynamic, module=module)


def _probe(module: Any, given: Arguments, names: Mapping[str, Any] | None) -> _Probe:
    import torch

    inputs = value_trees.tensors(given)
    if not inputs:
        raise Unsupported("the module takes no tensor: a graph requires at least one")
    fixed = fixed_of(given)
    with torch.no_grad():
        output = module_calls.called(module, given)
    outputs = value_trees.tensors(output)
    if not outputs:
        raise Unsupported(f"the module returns no tensor but a {type(output).__name__}: a graph returns tensors")
    form = CallForm(
        form_of(output, names),
        fixed,
        passing="by name" if isinstance(given, dict) else "by position",
        names=list(module_calls.named(given, module)),
    )
    return _Probe(given, inputs, outputs, form)


def _caller(given: Arguments) -> Callable[..., tuple[Any, ...]]:
    """Return what calls the module that it is given with other tensors in the places of these."""
    import torch

    place = object()
    empty = value_trees.mapped(lambda leaf: place if isinstance(leaf, torch.Tensor) else leaf, given)

    def call(parts: Any, *tensors: Any) -> tuple[Any, ...]:
        waiting = iter(tensors)
        whole = value_trees.mapped(lambda leaf: next(waiting) if leaf is place else leaf, empty)
        return tuple(value_trees.tensors(module_calls.called(parts.module, whole)))

    return call


def _input_names(given: Arguments, module: Any) -> list[str]:
    """Name the tensors among arguments: by the module's own names, with the way to each."""
    import torch

    paths = value_trees.named_leaves(module_calls.named(given, module))
    names = ["_".join(map(str, path)) for path, leaf in paths if isinstance(leaf, torch.Tensor)]
    is_clear = len(set(names)) == len(names) and all(_is_clear(name) for name in names)
    return names if is_clear else [f"input_{index}" for index in range(len(names))]


def _is_clear(name: str) -> bool:
    return name.isidentifier() and not name.startswith("output")


def _batch_axes(few: Sequence[int], more: Sequence[int]) -> dict[int, str]:
    """Return the axes that were 2 long for two samples and 3 for three.

    Raises:
        ValueError: another axis has changed.
    """
    changed = {axis: pair for axis, pair in enumerate(zip(few, more, strict=True)) if len(set(pair)) > 1}
    if any(pair != (_FEW, _MORE) for pair in changed.values()):
        raise ValueError(changed)
    return dict.fromkeys(changed, "batch")
