"""Graphs as ExecuTorch programs (`.pte`) for XNNPACK, run by ExecuTorch's runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mlflow_compress.compression.fixed_shapes import FixedCall, FixedShapes, fixed
from mlflow_compress.errors import Unsupported, one_line
from mlflow_compress.networks.stored_weights import Held
from mlflow_compress.sockets import Graph

TOLERANCE = 0.01  # maximum relative difference of the outputs for another runtime in float32

_ANNOTATION = "quantization_annotation"  # key in a node's `meta`
_LEAST_WEIGHTS = 64  # of a layer; a layer with fewer belongs to the decoding of a detector
_LAYERS = (
    *("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "convolution"),
    *("linear", "matmul", "bmm", "addmm"),
)


def write(graph: Graph, path: Path, change: Callable[[Any, tuple[Any, ...]], Any] | None = None) -> str:
    """Export a graph and lower it to XNNPACK, and write its shapes to a file beside it.

    Source: executorch.exir.to_edge_transform_and_lower, XnnpackPartitioner.

    Args:
        graph: Graph.
        path: File to write.
        change: Returns the exported module to lower instead, for example a quantised one.

    Returns:
        The share of the operators that XNNPACK runs, in words; ExecuTorch's portable kernels run the others.

    Raises:
        Unsupported: The runtime lacks an operator.
    """
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    _register_int8_kernels()
    plain = fixed(graph)
    examples = tuple(plain.inputs.values())
    with torch.no_grad():
        module = plain.module
        if change is not None:
            module = change(torch.export.export(module, examples, strict=False).module(), examples)
        exported = torch.export.export(module, examples, strict=False)
        lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
        program = lowered.to_executorch()
    _require_kernels(program.executorch_program)
    path.write_bytes(program.buffer)
    FixedShapes.of(graph).write(path.with_suffix(".json"))
    return _delegated(lowered.exported_program().graph_module)


def _register_int8_kernels() -> None:
    """Register the kernels of int8 operators that XNNPACK does not take."""
    import executorch.kernels.quantized  # noqa: F401  (importing it registers them)


def _require_kernels(program: Any) -> None:
    """Check that the runtime has a kernel for every operator of a program: it would name none when it loads it.

    Raises:
        Unsupported: A kernel is missing.
    """
    from executorch.runtime import Runtime

    used = {
        f"{operator.name}.{operator.overload}" if operator.overload else operator.name
        for plan in program.execution_plan
        for operator in plan.operators
    }
    if missing := sorted(used - set(Runtime.get().operator_registry.operator_names)):
        raise Unsupported(f"ExecuTorch has no kernel for {', '.join(missing)}")


def _delegated(module: Any) -> str:
    """Describe how many operators of a lowered graph XNNPACK runs."""
    inside = [
        sum(node.op == "call_function" for node in lowered.original_module.graph.nodes)
        for name, lowered in module.named_children()
        if hasattr(lowered, "original_module")
    ]
    outside = [
        node
        for node in module.graph.nodes
        if node.op == "call_function" and "aten" in getattr(node.target, "__name__", "")
    ]
    total = sum(inside) + len(outside)
    return f"{sum(inside):,} of {total:,} operators by XNNPACK, in {len(inside)} parts"


class ExecutorchCall(FixedCall):
    """An ExecuTorch program on the CPU. It takes and returns tensors, and uses as many threads as torch.

    Args:
        path: File; its shapes are beside it.

    Raises:
        Unsupported: The runtime lacks an operator.
    """

    runtime = "executorch"

    def __init__(self, path: Path) -> None:
        from executorch.runtime import Runtime

        super().__init__(FixedShapes.read(path.with_suffix(".json")), self._execute)
        self._path = path
        _register_int8_kernels()
        _use_threads()
        self._program = Runtime.get().load_program(path)
        try:
            self._method = self._program.load_method("forward")
        except RuntimeError as error:
            raise Unsupported(f"ExecuTorch can't load the program: {one_line(error)}") from error

    def _execute(self, *inputs: Any) -> list[Any]:
        outputs = self._method.execute([tensor.contiguous() for tensor in inputs])
        return [output.clone() for output in outputs]  # the next call writes to the same memory

    def held_weights(self) -> Iterator[Held]:
        """Yield the file's bytes: the weights are packed for XNNPACK (see `stored_weights.held`)."""
        import torch

        content = torch.frombuffer(bytearray(self._path.read_bytes()), dtype=torch.uint8)
        yield Held(content, self.shapes.parameters, lambda: torch.ones(self.shapes.nonzero, dtype=torch.bool))


def _use_threads() -> None:
    """Set ExecuTorch's number of threads to that of torch."""
    import torch
    from executorch.extension.pybindings import portable_lib

    reset = getattr(portable_lib, "_unsafe_reset_threadpool", None)
    if reset is not None:
        reset(torch.get_num_threads())


class Int8:
    """Quantises an exported module to int8 for XNNPACK: `write` takes it as `change`.

    Operators after the last layers stay in float: a detector decodes its boxes there, which int8 would ruin.

    Source: executorch.backends.xnnpack.quantizer.XNNPACKQuantizer, torchao.quantization.pt2e.

    Attributes:
        samples: Inputs to calibrate on; none for dynamic ranges.
        is_dynamic: Whether ranges of activations are found at each call.
        integers: Number of weights in int8, after the call.
    """

    def __init__(self, samples: Sequence[tuple[Any, ...]], *, is_dynamic: bool) -> None:
        self.samples, self.is_dynamic = samples, is_dynamic
        self.integers = 0

    def __call__(self, module: Any, examples: tuple[Any, ...]) -> Any:
        """Return the quantised module."""
        import torch
        from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
            XNNPACKQuantizer,
            get_symmetric_quantization_config,
        )
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

        has_integers = any(not tensor.is_floating_point() for tensor in examples)

        class Quantizer(XNNPACKQuantizer):  # type: ignore[misc]
            """Leaves the operators after the last layers in float."""

            def transform_for_annotation(self, model: Any) -> Any:
                # it turns numbers into float tensors, also those that are added to indices
                return model if has_integers else super().transform_for_annotation(model)

            def annotate(self, model: Any) -> Any:
                annotated = super().annotate(model)
                for node in _final_nodes(annotated):
                    if not _ends_a_layer(node):
                        node.meta.pop(_ANNOTATION, None)
                return annotated

        quantizer = Quantizer()
        quantizer.set_global(get_symmetric_quantization_config(is_per_channel=True, is_dynamic=self.is_dynamic))
        prepared = prepare_pt2e(module, quantizer)
        for sample in self.samples or [examples]:
            prepared(*sample)
        converted = convert_pt2e(prepared)
        tensors = (*converted.parameters(), *converted.buffers())
        self.integers = sum(tensor.numel() for tensor in tensors if tensor.dtype == torch.int8)
        return converted


def _final_nodes(module: Any) -> list[Any]:
    """Return the nodes of an exported module that no layer depends on, without the layers themselves, in order."""
    sizes = {name: tensor.numel() for name, tensor in (*module.named_parameters(), *module.named_buffers())}
    before_layers: set[Any] = set()
    final = []
    for node in reversed(module.graph.nodes):
        weights = [sizes.get(str(source.target), 0) for source in node.all_input_nodes if source.op == "get_attr"]
        is_layer = _name(node) in _LAYERS and max(weights, default=0) >= _LEAST_WEIGHTS
        if is_layer or node in before_layers:
            before_layers.update(node.all_input_nodes)
        elif node.op == "call_function":
            final.append(node)
    return final[::-1]


def _ends_a_layer(node: Any) -> bool:
    """Return whether XNNPACK computes a node together with its layer, as the ReLU after a convolution.

    The scale of the layer's outputs is then stated at this node: without it the layer's results are wrong.
    """
    before = (source.meta.get(_ANNOTATION) for source in node.all_input_nodes if source.op == "call_function")
    return any(annotation is not None and annotation.output_qspec is None for annotation in before)


def _name(node: Any) -> str:
    """Return the name of a node's operator without its overload: `conv2d`."""
    return str(getattr(node.target, "_opname", getattr(node.target, "__name__", node.target))).partition(".")[0]
