"""A decoder's graph in OpenVINO whose key-value cache is the state of an inference request."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mlflow_compress.compression.exporting import Call, Values, array
from mlflow_compress.compression.openvino_graphs import Compiled, held_constants, settings
from mlflow_compress.errors import WorkerError
from mlflow_compress.networks import kept_places
from mlflow_compress.networks.stored_weights import Held

_PAST, _PRESENT, _ROWS = "past_", "present_", "beam_idx"
_MOST_TEXTS = 4  # interleaved calls of `generate`: each keeps a past


def opened(path: Path, buffers: Sequence[Values], precision: str) -> Call:
    """Compile a file for the CPU; a graph that takes a past keeps it between calls.

    Args:
        path: File (.xml).
        buffers: Constants that are not weights (see `has_weights`).
        precision: `f32`, or OpenVINO's choice for the CPU (`default`).
    """
    import openvino

    graph = openvino.Core().read_model(str(path))
    inputs = {port.get_any_name(): port.get_partial_shape() for port in graph.inputs}
    outputs = {port.get_any_name() for port in graph.outputs}
    past = [name for name in inputs if name.startswith(_PAST)]
    keeps = past and all(name.replace(_PAST, _PRESENT, 1) in outputs and len(inputs[name]) == 4 for name in past)
    return Stateful(path, buffers, precision) if keeps else Compiled(path, buffers, precision)


class Stateful:
    """A decoder's intermediate representation, compiled for the CPU, whose past stays in the runtime between tokens.

    The file holds a stateless graph of `openvino_graphs.write`; opening it makes the past a state. The keys and values
    of the past are gathered by the input `beam_idx` [batch], so that beams may be reordered.

    Each generated text has its own request with its state until its cache is dropped.

    Source: openvino._offline_transformations.apply_make_stateful_transformation; the graph has the form of
    optimum-intel, which OpenVINO fuses with attention.

    Args:
        path: File (.xml).
        buffers: Constants that are not weights (see `has_weights`).
        precision: `f32`, or OpenVINO's choice for the CPU (`default`).
    """

    runtime = "openvino"

    def __init__(self, path: Path, buffers: Sequence[Values], precision: str) -> None:
        import openvino
        import torch

        core = openvino.Core()
        graph = core.read_model(str(path))
        names = [port.get_any_name() for port in graph.inputs]
        self._past = [name for name in names if name.startswith(_PAST)]
        self._first = names.index(self._past[0])  # number of inputs before the past
        _keep_past(graph, self._past)
        options = settings(precision)
        if precision == "f32":
            options["KV_CACHE_PRECISION"] = "f32"
        self._compiled = core.compile_model(graph, "CPU", options)
        self._texts: list[_Text] = []
        self.dtype = torch.float32
        self.path, self.buffers = path, buffers

    def __call__(self, *inputs: Any) -> tuple[Any, ...]:
        """Run the graph as in the file, with the past as inputs and outputs."""
        import openvino
        import torch

        request = self._compiled.create_infer_request()
        past_end = self._first + len(self._past)
        before, past, after = inputs[: self._first], inputs[self._first : past_end], inputs[past_end:]
        states = _states(request, self._past)
        for name, tensor in zip(self._past, past, strict=True):
            states[name].state = openvino.Tensor(array(tensor))
        logits = _infer(request, before, torch.arange(len(past[0])), after)
        return logits, *(torch.from_numpy(states[name].state.data.copy()).float() for name in self._past)

    def advance(self, cache: Any, before: Sequence[Any], after: Sequence[Any]) -> Any:
        """Compute the tokens that follow a cache's text (see `exported_decoders.Decoder`).

        Raises:
            WorkerError: The state of that text is gone.
        """
        import torch

        batch, tokens = before[0].shape
        if past := cache.get_seq_length():
            text = self._of(cache)
            rows = text.cut(cache, self._past)
        else:
            text, rows = self._begin(cache), torch.arange(batch)
        logits = _infer(text.request, before, rows, after)
        text.tokens = past + tokens
        kept_places.write(cache, len(self._past) // 2, batch, text.tokens)
        return logits

    def _of(self, cache: Any) -> _Text:
        """Return the text that a cache belongs to."""
        for text in self._texts:
            if text.cache() is cache:
                return text
        raise WorkerError(
            f"OpenVINO no longer holds the past keys and values of this text: it keeps those of the last {_MOST_TEXTS} "
            "calls, and none of another model. Generate the text from its beginning."
        )

    def _begin(self, cache: Any) -> _Text:
        """Return a text with an empty state: reuse that of a dropped cache, else make a new one, else the oldest."""
        idle = [text for text in self._texts if (cache_of_text := text.cache()) is None or cache_of_text is cache]
        if not idle and len(self._texts) == _MOST_TEXTS:
            idle = self._texts[:1]
        if idle:
            self._texts.remove(idle[0])
        text = idle[0] if idle else _Text(self._compiled.create_infer_request(), weakref.ref(cache))
        text.request.reset_state()
        text.cache = weakref.ref(cache)
        self._texts.append(text)
        return text

    def held_weights(self) -> Iterator[Held]:
        """Yield every constant of the file that holds weights (see `openvino_graphs.held_constants`)."""
        yield from held_constants(self.path, self.buffers)


@dataclasses.dataclass(eq=False)
class _Text:
    """State of one call of `generate`: its request, the cache that it belongs to, and its number of tokens."""

    request: Any
    cache: weakref.ref[Any]
    tokens: int = 0

    def cut(self, cache: Any, names: Sequence[str]) -> Any:
        """Drop tokens that the cache no longer holds; return the rows of the state to continue with [texts]."""
        import openvino

        rows, positions = kept_places.read(cache)
        if len(positions) != self.tokens:
            for state in _states(self.request, names).values():
                state.state = openvino.Tensor(state.state.data[:, :, positions.numpy()].copy())
        return rows


def _keep_past(graph: Any, past: Sequence[str]) -> None:
    """Make the past of a graph its state, gathered by `beam_idx` and initially empty."""
    import numpy as np
    from openvino import opset13
    from openvino._offline_transformations import apply_make_stateful_transformation

    rows = opset13.parameter([-1], np.int64, name=_ROWS)
    rows.output(0).get_tensor().set_names({_ROWS})
    shapes = {}
    for port in graph.inputs:
        if (name := port.get_any_name()) in past:
            shapes[name] = port.get_partial_shape()
            readers = port.get_target_inputs()
            gathered = opset13.gather(port, rows, opset13.constant(0))
            for reader in readers:
                reader.replace_source_output(gathered.output(0))
    graph.add_parameters([rows])
    graph.validate_nodes_and_infer_types()
    apply_make_stateful_transformation(graph, {name: name.replace(_PAST, _PRESENT, 1) for name in past})
    texts = opset13.gather(opset13.shape_of(graph.input(0), "i64"), opset13.constant([0]), opset13.constant(0))
    for node in graph.get_ops():
        if node.get_type_name() == "ReadValue":
            _, heads, _, width = node.get_output_partial_shape(0)
            lengths = (heads.get_length(), 0, width.get_length())
            sizes = [opset13.constant(np.array([length], np.int64)) for length in lengths]
            kind = node.get_output_element_type(0)
            shape = opset13.concat([texts, *sizes], 0)
            node.set_arguments([opset13.broadcast(opset13.constant(0.0, kind), shape)])
    graph.validate_nodes_and_infer_types()


def _states(request: Any, names: Sequence[str]) -> dict[str, Any]:
    """Return the states of a request by the names of the past."""
    states = {state.name.partition(_PRESENT)[0]: state for state in request.query_state()}
    return {name: states[name] for name in names}


def _infer(request: Any, before: Sequence[Any], rows: Any, after: Sequence[Any]) -> Any:
    """Run a graph and return its logits."""
    import torch

    request.infer([*map(array, before), *map(array, after), array(rows)], share_inputs=True)
    request._inputs_data = None  # it would keep the inputs alive
    return torch.from_numpy(request.get_output_tensor(0).data.copy())
