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

_ONE_SIZE = "ncnn takes one input of one size, but this model takes several inputs or inputs of any length"


@dataclass
class Ncnn(ExportMethod):
    """ncnn on the CPU: a small runtime for phones, for networks that take one input of one size.

    All layers of the family's graphs. Weights in `fp16` take half the bytes on disk; if the CPU has no float16
    arithmetic, as on x86, they are converted to float32 when they are loaded. Samples of a batch run one after the
    other.

    Source: pnnx.convert of the traced graph, ncnn.Net.

    Attributes:
        precision: Precision of the weights on disk.
    """

    needs: ClassVar[tuple[str, ...]] = ("ncnn", "pnnx")
    extra: ClassVar[str] = "ncnn"
    exporter: ClassVar[str] = "ncnn"
    loaded_by: ClassVar[str] = 'net = ncnn.Net(); net.load_param("*.param"); net.load_model("*.bin")'
    excludes: ClassVar[Mapping[str, str]] = dict.fromkeys(
        (
            *("asr", "asr_ctc", "causal_lm", "masked_lm", "seq2seq", "text_classification", "text_embedding"),
            *("token_classification", "zero_shot_image_classification"),
        ),
        _ONE_SIZE,
    )
    tolerance: ClassVar[float] = 0.02

    precision: Literal["fp32", "fp16"] = "fp32"

    def export(self, model: Model, family: Family, graphs: Mapping[str, Graph], folder: Path) -> Model:
        """Write `NAME.param`, `NAME.bin` and the number of parameters for each graph.

        Raises:
            Unsupported: A graph takes several inputs, inputs of more than one size, or inputs that are not float32,
                has no weights, or can't be converted by pnnx.
        """
        import pnnx

        for name, graph in graphs.items():
            if len(graph.inputs) > 1 or any(set(axes) - {0} for axes in graph.dynamic.values()):
                raise Unsupported(_ONE_SIZE)
            dtype = str(next(iter(graph.inputs.values())).dtype).removeprefix("torch.")
            if dtype != "float32":
                raise Unsupported(f"ncnn takes float32 inputs, but this model's inputs are {dtype}")
            if not any(True for _ in graph.module.parameters()):
                raise Unsupported("the module has no parameters, and ncnn crashes on a graph without parameters")
            files = _outputs(folder, name)
            example = next(iter(graph.inputs.values()))[:1]
            fp16 = self.precision == "fp16"
            try:
                pnnx.export(graph.module, inputs=(example,), check_trace=False, fp16=fp16, **files)
            except FileNotFoundError as error:  # raised when its converter wrote no output
                raise Unsupported("pnnx wrote no files: it does not support an operator of the module") from error
            for argument, file in files.items():
                if argument not in ("ncnnparam", "ncnnbin"):
                    Path(file).unlink(missing_ok=True)
            write_counts(graph.module, folder / f"{name}.json")
        return model

    def open(self, name: str, buffers: Sequence[Values], model: Model, folder: Path) -> Call:
        """Load a network."""
        return _Network(folder, name)


class _Network:
    """An ncnn network. It takes and gives tensors, copies both, and uses as many threads as torch."""

    runtime = "ncnn"

    def __init__(self, folder: Path, name: str) -> None:
        import ncnn
        import torch

        self._net = ncnn.Net()
        self._net.opt.num_threads = torch.get_num_threads()
        self._file, self._counts = folder / f"{name}.bin", folder / f"{name}.json"
        if self._net.load_param(str(folder / f"{name}.param")) or self._net.load_model(str(self._file)):
            raise Unsupported("ncnn does not support a layer of the model, or its files are incomplete")

    def __call__(self, *inputs: Any) -> tuple[Any, ...]:
        """Run the graph on each sample."""
        import ncnn
        import torch

        outputs: list[list[Any]] = []
        for sample in inputs[0]:
            with self._net.create_extractor() as extractor:
                extractor.input(self._net.input_names()[0], ncnn.Mat(sample.contiguous().numpy()))
                outputs.append([extractor.extract(name)[1].numpy().copy() for name in self._net.output_names()])
        by_output = zip(*outputs, strict=True)
        return tuple(torch.stack([torch.from_numpy(array) for array in arrays]) for arrays in by_output)

    def held_weights(self) -> Iterator[Held]:
        """Yield the file's bytes (see `stored_weights.held`)."""
        yield from counted(self._file, self._counts)


def _outputs(folder: Path, name: str) -> dict[str, str]:
    """Return the path of each file that pnnx writes: by default it writes into the working directory."""
    suffixes = {"ncnnparam": "param", "ncnnbin": "bin", "ncnnpy": "ncnn.py"}
    suffixes |= {"ptpath": "pt", "pnnxparam": "pnnx.param", "pnnxbin": "pnnx.bin", "pnnxpy": "pnnx.py"}
    suffixes |= {"pnnxonnx": "pnnx.onnx"}
    return {argument: str(folder / f"{name}.{suffix}") for argument, suffix in suffixes.items()}
