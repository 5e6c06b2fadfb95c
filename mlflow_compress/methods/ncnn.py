"""The model in ncnn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from mlflow_compress.compression.exporting import Call, ExportMethod, Values, counted, write_counts
from mlflow_compress.errors import Unsupported
from mlflow_compress.networks.stored_weights import Held
from mlflow_compress.sockets import Family, Graph, Model

_ONE_SIZE = "ncnn takes one input of one size, and this model's are several or of any length"


@dataclass
class Ncnn(ExportMethod):
    """ncnn on the CPU: a small runtime made for phones, for networks that take one input of one size.

    All layers, as the family's graphs hold them. Weights in `fp16` take half the bytes on disk; where the CPU has no
    float16 arithmetic, as on x86, they are turned back into float32 when they are loaded. Samples of a batch are run
    one after the other.

    Source: pnnx.convert of the traced graph, ncnn.Net.

    Attributes:
        precision: of the weights on disk.
    """

    needs: ClassVar[tuple[str, ...]] = ("ncnn", "pnnx")
    extra: ClassVar[str] = "ncnn"
    exporter: ClassVar[str] = "ncnn"
    loaded_by: ClassVar[str] = 'net = ncnn.Net(); net.load_param("*.param"); net.load_model("*.bin")'
    excludes: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("asr", "causal_lm", "seq2seq", "text_classification", "token_classification"), _ONE_SIZE
    )
    tolerance: ClassVar[float] = 0.02

    precision: Literal["fp32", "fp16"] = "fp32"

    def export(self, model: Model, family: Family, graphs: Mapping[str, Graph], folder: Path) -> Model:
        """Write `NAME.param`, `NAME.bin` and the number of parameters for each graph.

        Raises:
            Unsupported: a graph takes several inputs, inputs of more than one size, or inputs that are not in float32,
                it has no weights, or pnnx can't convert it.
        """
        import pnnx

        for name, graph in graphs.items():
            if len(graph.inputs) > 1 or any(set(axes) - {0} for axes in graph.dynamic.values()):
                raise Unsupported(_ONE_SIZE)
            dtype = str(next(iter(graph.inputs.values())).dtype).removeprefix("torch.")
            if dtype != "float32":
                raise Unsupported(f"ncnn takes inputs in float32, and this model's are in {dtype}")
            if not any(True for _ in graph.module.parameters()):
                raise Unsupported("the module has no parameters, and ncnn crashes on a graph without any")
            files = _outputs(folder, name)
            example = next(iter(graph.inputs.values()))[:1]
            fp16 = self.precision == "fp16"
            try:
                pnnx.export(graph.module, inputs=(example,), check_trace=False, fp16=fp16, **files)
            except FileNotFoundError as error:  # it looks for what its converter ought to have written
                raise Unsupported("pnnx converts it to nothing: it lacks an operator of the module") from error
            for word, file in files.items():
                if word not in ("ncnnparam", "ncnnbin"):
                    Path(file).unlink(missing_ok=True)
            write_counts(graph.module, folder / f"{name}.json")
        return model

    def open(self, name: str, buffers: Sequence[Values], model: Model, folder: Path) -> Call:
        """Load a network."""
        return _Network(folder, name)


class _Network:
    """An ncnn network. Takes and gives tensors, and copies both. It takes as many threads as torch has."""

    runtime = "ncnn"

    def __init__(self, folder: Path, name: str) -> None:
        import ncnn
        import torch

        self._net = ncnn.Net()
        self._net.opt.num_threads = torch.get_num_threads()
        self._file, self._counts = folder / f"{name}.bin", folder / f"{name}.json"
        if self._net.load_param(str(folder / f"{name}.param")) or self._net.load_model(str(self._file)):
            raise Unsupported("ncnn lacks a layer that the model has, or its files are not whole")

    def __call__(self, *inputs: Any) -> tuple[Any, ...]:
        """Run the graph on each sample."""
        import ncnn
        import torch

        outputs: list[list[Any]] = []
        for sample in inputs[0]:
            with self._net.create_extractor() as extractor:
                extractor.input(self._net.input_names()[0], ncnn.Mat(sample.contiguous().numpy()))
                outputs.append([extractor.extract(name)[1].numpy().copy() for name in self._net.output_names()])
        return tuple(torch.stack([torch.from_numpy(each) for each in column]) for column in zip(*outputs, strict=True))

    def held_weights(self) -> Iterator[Held]:
        """Return the file's bytes (see `stored_weights.held`)."""
        yield from counted(self._file, self._counts)


def _outputs(folder: Path, name: str) -> dict[str, str]:
    """Say where pnnx is to write each of its files: left to itself it takes the working folder."""
    suffixes = {"ncnnparam": "param", "ncnnbin": "bin", "ncnnpy": "ncnn.py"}
    suffixes |= {"ptpath": "pt", "pnnxparam": "pnnx.param", "pnnxbin": "pnnx.bin", "pnnxpy": "pnnx.py"}
    suffixes |= {"pnnxonnx": "pnnx.onnx"}
    return {word: str(folder / f"{name}.{suffix}") for word, suffix in suffixes.items()}
