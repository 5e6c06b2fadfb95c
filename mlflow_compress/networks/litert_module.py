"""A LiteRT (TensorFlow Lite) file, run by `ai-edge-litert` on the CPU: tensors in, tensors out."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_compress.errors import MachineLacks, Unsupported, WeightsError, first_line, one_line
from mlflow_compress.networks.stored_weights import Held
from mlflow_compress.version import installed

DISTRIBUTION = "ai-edge-litert"
INSTALL = 'pip install "mlflow-compress[litert]"'
MAGIC = b"TFL3"  # bytes 4 to 8 of a file
HoldsWeights = Callable[[Any, float], bool]
_NUMBER = re.compile(r"(\d+)")
_UNKNOWN_OPERATOR = re.compile(
    r"Encountered unresolved custom op: (?P<custom>[\w:]+)|\((?P<flex>Flex\w+)\) failed to prepare"
    r"|Didn't find op for builtin opcode '(?P<builtin>\w+)'"
)
_FEW_BITS: Mapping[str, int] = {"INT4": 4, "UINT4": 4, "INT2": 2}
_DTYPES: Mapping[str, str] = {  # of weights; other types are indices, texts and handles
    "FLOAT32": "float32",
    "FLOAT16": "float16",
    "FLOAT64": "float64",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT16": "int16",
    "INT32": "int32",
}


@dataclass(frozen=True)
class Port:
    """An input or output of a file.

    Attributes:
        name: Its name in the file's signature; without a signature, the name of its tensor.
        index: Index of its tensor.
        shape: Lengths of its axes; -1 for a length that may change.
        dtype: Name of its type, as numpy names it.
        scale: Scale of its integers; 0: it is not quantised.
        zero: Integer that stands for 0.
    """

    name: str
    index: int
    shape: tuple[int, ...]
    dtype: str
    scale: float = 0.0
    zero: int = 0


class LiteRt:
    """A LiteRT file with XNNPACK, LiteRT's default on CPUs, and as many threads as torch.

    Inputs and outputs are in the order of their names (`args_0`, `args_1`). Floating-point tensors for a quantised
    input are quantised with its scale, and integers from a quantised output are returned as floating point.

    Args:
        path: File (.tflite).
        holds_weights: See `held_constants`.

    Raises:
        MachineLacks: ai-edge-litert is not installed.
        Unsupported: The file has an operator that this LiteRT does not run, which the message names.
        WeightsError: It is not a LiteRT file, is damaged, or was made for a newer version.
    """

    runtime = DISTRIBUTION

    def __init__(self, path: Path, holds_weights: HoldsWeights = lambda constant, step: True) -> None:
        import torch

        self.path, self._holds_weights = path, holds_weights
        interpreter = _require_litert()
        _require_magic(path)
        try:
            self._interpreter = interpreter(model_path=str(path), num_threads=torch.get_num_threads())
            self._interpreter.allocate_tensors()
        except Exception as error:  # RuntimeError and ValueError, with LiteRT's own message
            raise _reason(path, error) from error
        self.inputs, self.outputs = _ports(self._interpreter)
        self._lengths = {port.index: tuple(port.shape) for port in self.inputs}

    @property
    def dtype(self) -> Any:
        """The floating-point type of the inputs."""
        import torch

        return torch.float16 if any(port.dtype == "float16" for port in self.inputs) else torch.float32

    def __call__(self, *inputs: Any) -> tuple[Any, ...]:
        """Run the graph."""
        import torch

        arrays = [_fitting(tensor, port) for tensor, port in zip(inputs, self.inputs, strict=True)]
        self._resize(arrays)
        for port, values in zip(self.inputs, arrays, strict=True):
            self._interpreter.set_tensor(port.index, values)
        self._interpreter.invoke()
        outputs = [self._interpreter.get_tensor(port.index) for port in self.outputs]
        return tuple(
            torch.from_numpy(_as_float(values, port)) for values, port in zip(outputs, self.outputs, strict=True)
        )

    def _resize(self, arrays: Sequence[Any]) -> None:
        """Allocate memory for inputs of other shapes than those of the last call."""
        is_changed = False
        for port, values in zip(self.inputs, arrays, strict=True):
            if self._lengths[port.index] != values.shape:
                self._interpreter.resize_tensor_input(port.index, list(values.shape), strict=-1 in port.shape)
                self._lengths[port.index] = values.shape
                is_changed = True
        if is_changed:
            self._interpreter.allocate_tensors()

    def held_weights(self) -> Iterator[Held]:
        """Yield every constant of the file that holds weights (see `stored_weights.held`).

        Constants of one element, and integers that are not quantised values, belong to the arithmetic. Biases of a
        quantised layer are integers of 32 bits.
        """
        yield from held_constants(self.path, self._holds_weights)


def held_constants(path: Path, holds_weights: HoldsWeights = lambda constant, step: True) -> Iterator[Held]:
    """Yield every constant of a LiteRT file that holds weights; two integers of 4 bits share a byte.

    Args:
        path: File (.tflite).
        holds_weights: Whether a constant holds weights: its numbers, and the step between them if it is quantised with
            one scale.
    """
    import numpy as np
    import torch

    content = path.read_bytes()
    model = _schema().Model.GetRootAs(content, 0)
    kinds = {value: name for name, value in vars(_schema().TensorType).items() if isinstance(value, int)}
    seen_buffers: set[int] = set()
    for graph in (model.Subgraphs(index) for index in range(model.SubgraphsLength())):
        for tensor in (graph.Tensors(index) for index in range(graph.TensorsLength())):
            kind, buffer = kinds.get(tensor.Type(), ""), tensor.Buffer()
            stored = _stored(model.Buffers(buffer), content)
            if not len(stored) or buffer in seen_buffers:
                continue
            seen_buffers.add(buffer)
            count = math.prod(int(length) for length in tensor.ShapeAsNumpy()) if tensor.ShapeLength() else 1
            is_quantised = bool(tensor.Quantization() is not None and tensor.Quantization().ScaleLength())
            if count == 1:
                continue
            if kind in _FEW_BITS:
                packed = torch.from_numpy(np.array(stored))
                yield Held(packed, count, functools.partial(_unpacked, packed, _FEW_BITS[kind], count))
            elif kind in ("FLOAT16", "FLOAT32", "FLOAT64"):
                constant = np.array(stored).view(_DTYPES[kind])
                if holds_weights(constant, 0.0):
                    yield Held(torch.from_numpy(constant), count)
            elif kind in _DTYPES and is_quantised:
                integers = np.array(stored).view(_DTYPES[kind])
                quantisation = tensor.Quantization()
                scale = float(quantisation.Scale(0))
                zero = int(quantisation.ZeroPoint(0)) if quantisation.ZeroPointLength() else 0
                if quantisation.ScaleLength() > 1 or holds_weights((integers.astype(np.float64) - zero) * scale, scale):
                    yield Held(torch.from_numpy(integers), count)
            elif kind == "BFLOAT16":
                yield Held(torch.from_numpy(np.array(stored).view(np.int16)).view(torch.bfloat16), count)


def operators(path: Path) -> list[str]:
    """Return the names of the operators in a LiteRT file, each once, in order."""
    schema = _schema()
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    codes = [model.OperatorCodes(index) for index in range(model.OperatorCodesLength())]
    # files of older versions hold the code in a field of 8 bits
    numbers = [max(code.BuiltinCode(), code.DeprecatedBuiltinCode()) for code in codes]
    return [
        (code.CustomCode() or b"").decode() or names.get(number, str(number))
        for code, number in zip(codes, numbers, strict=True)
    ]


def _require_litert() -> Any:
    """Return LiteRT's interpreter.

    Raises:
        MachineLacks: it is not installed, or can't be loaded here.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except (ImportError, OSError) as error:
        raise MachineLacks(f"{DISTRIBUTION} can't be loaded ({one_line(error)}): {INSTALL}") from error
    return Interpreter


def _schema() -> Any:
    """Return the classes that read a file's flatbuffer."""
    from ai_edge_litert import schema_py_generated

    return schema_py_generated


def _require_magic(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise WeightsError(f"{path} can't be read: {error.strerror}.") from error
    if start[4:] != MAGIC:
        raise WeightsError(f"{path} is not a LiteRT (TensorFlow Lite) file.")


def _reason(path: Path, error: Exception) -> Exception:
    """Return the error to raise for a file that LiteRT does not open."""
    text = one_line(error, most=None)
    if (match := _UNKNOWN_OPERATOR.search(text)) is not None:
        operator = next(filter(None, match.groups()))
        return Unsupported(f"LiteRT {installed(DISTRIBUTION)} does not run the operator {operator} of {path.name}")
    return WeightsError(
        f"LiteRT {installed(DISTRIBUTION)} can't load {path}: {first_line(error)} If a newer version wrote it: pip "
        f"install -U {DISTRIBUTION}, or export the model again."
    )


def _ports(interpreter: Any) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Return inputs and outputs in the order of their names in the signature, or as they lie in the file."""
    signatures = interpreter.get_signature_list()
    if len(signatures) != 1:
        details = interpreter.get_input_details(), interpreter.get_output_details()
        inputs, outputs = (tuple(_port(detail["name"], detail) for detail in side) for side in details)
        return inputs, outputs
    runner = interpreter.get_signature_runner(next(iter(signatures)))
    named = runner.get_input_details(), runner.get_output_details()
    inputs, outputs = (tuple(_port(name, side[name]) for name in sorted(side, key=_natural)) for side in named)
    return inputs, outputs


def _port(name: str, detail: Mapping[str, Any]) -> Port:
    lengths = detail.get("shape_signature", ())
    shape = lengths if len(lengths) else detail["shape"]
    scale, zero = detail.get("quantization", (0.0, 0))
    return Port(
        name, int(detail["index"]), tuple(map(int, shape)), detail["dtype"]().dtype.name, float(scale), int(zero)
    )


def _natural(name: str) -> list[Any]:
    """Return a key that sorts `args_10` after `args_9`."""
    return [int(part) if part.isdecimal() else part for part in _NUMBER.split(name)]


def _fitting(tensor: Any, port: Port) -> Any:
    """Return a tensor as an array of the type of an input."""
    import numpy as np

    values = tensor.detach().cpu().contiguous().numpy()
    if port.scale and values.dtype.kind == "f" and not port.dtype.startswith("float"):
        limits = np.iinfo(port.dtype)
        values = np.clip(np.rint(values / port.scale) + port.zero, limits.min, limits.max)
    return values.astype(port.dtype, copy=False)


def _as_float(values: Any, port: Port) -> Any:
    """Return the numbers that the integers of a quantised output stand for; other outputs unchanged."""
    import numpy as np

    if not port.scale or values.dtype.kind == "f":
        return values
    return ((values.astype(np.float32) - port.zero) * port.scale).astype(np.float32)


def _stored(buffer: Any, content: bytes) -> Any:
    """Return the bytes of a buffer; those of large files lie behind the flatbuffer."""
    import numpy as np

    if buffer.DataLength():
        return buffer.DataAsNumpy()
    if buffer.Offset() > 1:
        return np.frombuffer(content, dtype=np.uint8, count=buffer.Size(), offset=buffer.Offset())
    return np.zeros(0, dtype=np.uint8)


def _unpacked(packed: Any, bits: int, count: int) -> Any:
    """Return the integers of few bits in an array of bytes, as far as they differ from 0: [count]."""
    import torch

    mask = (1 << bits) - 1
    return torch.stack([packed >> shift & mask for shift in range(0, 8, bits)], dim=-1).reshape(-1)[:count]
