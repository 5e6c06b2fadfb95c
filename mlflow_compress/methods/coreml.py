"""The model in Core ML."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from mlflow_compress.compression.exporting import Call, ExportMethod, Values, array
from mlflow_compress.compression.fixed_shapes import NO_CACHE, FixedCall, FixedShapes, fixed
from mlflow_compress.errors import MachineLacks
from mlflow_compress.networks.stored_weights import Held
from mlflow_compress.sockets import Family, Graph, Model

_UNITS = {"cpu": "CPU_ONLY", "gpu": "CPU_AND_GPU", "neural_engine": "CPU_AND_NE", "all": "ALL"}
_ONLY_MACOS = "Core ML runs on macOS only, and this is {platform}: measure this row on a Mac"


@dataclass
class Coreml(ExportMethod):
    """Core ML on macOS: the runtime of Apple's devices, in float16 or float32.

    Other systems convert the model, save it and log its size; only a Mac can measure it.

    All layers of the family's graphs, as an ML program. A package takes one sample of one length: samples of a batch
    run one after the other, and shorter texts are filled with zeros. The row is the CPU's; `units` states where Core ML
    may run the model besides.

    Source: coremltools.convert of the graph from torch.export, coremltools.models.MLModel.

    Attributes:
        precision: Precision of the weights and the arithmetic.
        units: Processors that Core ML may use: the `cpu` alone, or also the `gpu`, the `neural_engine`, or `all`.
    """

    needs: ClassVar[tuple[str, ...]] = ("coremltools",)
    extra: ClassVar[str] = "coreml"
    exporter: ClassVar[str] = "Core ML"
    loaded_by: ClassVar[str] = 'coremltools.models.MLModel("*.mlpackage")'
    excludes: ClassVar[Mapping[str, str]] = dict.fromkeys(("asr", "causal_lm", "seq2seq"), NO_CACHE)

    precision: Literal["fp16", "fp32"] = "fp16"
    units: Literal["cpu", "gpu", "neural_engine", "all"] = "cpu"

    def elsewhere(self) -> str:
        """Return that this is not macOS (see `ExportMethod.elsewhere`)."""
        return "" if sys.platform == "darwin" else _ONLY_MACOS.format(platform=sys.platform)

    def export(self, model: Model, family: Family, graphs: Mapping[str, Graph], folder: Path) -> Model:
        """Write `NAME.mlpackage`, and its shapes, for each graph."""
        import coremltools

        for name, graph in graphs.items():
            plain = fixed(graph)
            package = coremltools.convert(
                _program(plain),
                outputs=[coremltools.TensorType(name=key) for key in plain.outputs],
                convert_to="mlprogram",
                compute_precision=getattr(coremltools.precision, f"FLOAT{self.precision.removeprefix('fp')}"),
                skip_model_load=True,
            )
            package.save(str(folder / f"{name}.mlpackage"))
            FixedShapes.of(graph).write(folder / f"{name}.json")
        return model

    def open(self, name: str, buffers: Sequence[Values], model: Model, folder: Path) -> Call:
        """Load a package, if this is macOS."""
        path = folder / f"{name}.mlpackage"
        return _PackageElsewhere(path, reason) if (reason := self.elsewhere()) else _Package(path, _UNITS[self.units])


class _PackageElsewhere(FixedCall):
    """A Core ML package on a machine that can't run it.

    Args:
        path: Package; its shapes are beside it.
        reason: Why it can't run here.
    """

    runtime = "coremltools"

    def __init__(self, path: Path, reason: str = "") -> None:
        super().__init__(FixedShapes.read(path.with_suffix(".json")), self._predict)
        self._path, self._reason = path, reason

    def _predict(self, *inputs: Any) -> list[Any]:
        raise MachineLacks(self._reason)

    def held_weights(self) -> Iterator[Held]:
        """Yield the bytes of the package's weight file (see `stored_weights.held`)."""
        import torch

        content = b"".join(path.read_bytes() for path in sorted(self._path.rglob("*.bin")))
        nonzero = self.shapes.nonzero
        tensor = torch.frombuffer(bytearray(content or b"\0"), dtype=torch.uint8)
        yield Held(tensor, self.shapes.parameters, lambda: torch.ones(nonzero, dtype=torch.bool))


class _Package(_PackageElsewhere):
    """A Core ML package. It takes and returns tensors, and copies both.

    Args:
        path: Package; its shapes are beside it.
        units: Core ML's name of the processors that it may use.
    """

    def __init__(self, path: Path, units: str) -> None:
        import coremltools

        super().__init__(path)
        self._model = coremltools.models.MLModel(str(path), compute_units=getattr(coremltools.ComputeUnit, units))
        description = self._model.get_spec().description
        self._inputs = [feature.name for feature in description.input]
        self._outputs = [feature.name for feature in description.output]

    def _predict(self, *inputs: Any) -> list[Any]:
        import torch

        feed = {name: array(tensor) for name, tensor in zip(self._inputs, inputs, strict=True)}
        outputs = self._model.predict(feed)
        return [torch.from_numpy(outputs[name]) for name in self._outputs]


def _program(graph: Graph) -> Any:
    """Export a graph to operators that coremltools converts."""
    import torch

    operators = torch.ops.aten
    with torch.no_grad():
        program = torch.export.export(graph.module, tuple(graph.inputs.values()), strict=False)
    program = program.run_decompositions(torch._decomp.get_decompositions([operators.new_ones]))
    for node in program.graph.nodes:
        if node.target is operators.__and__.Tensor and node.meta["val"].dtype == torch.bool:  # of attention masks
            node.target = operators.logical_and.default
    return program
