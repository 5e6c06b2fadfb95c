"""Ready files of runtimes, opened by their suffix: ONNX, LiteRT, OpenVINO, torch.export, TorchScript, TensorRT."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_compress.compression.exporting import Call, quiet
from mlflow_compress.errors import CompressError, MachineLacks, Unsupported, WeightsError, one_line
from mlflow_compress.networks import torch_archives, value_trees
from mlflow_compress.networks.export_graphs import TorchCall
from mlflow_compress.networks.exported_program_scan import code_in_program
from mlflow_compress.networks.litert_module import LiteRt
from mlflow_compress.networks.onnx_files import names_of_weights, require_own_weights
from mlflow_compress.networks.stored_weights import Held, held, is_pointer
from mlflow_compress.networks.torchscript_scan import code_in_script
from mlflow_compress.version import installed

_LONGEST_CAUSE = 300
_UNBOUNDED = 2**31 - 1  # lengths from here on are not limited
_UNCHECKED = 2  # the smallest length that torch.export writes
_SCRIPT_TRACEBACK = "Traceback of TorchScript"  # where the file was made; the error is its last line
_ONNX_PREFIX = "[ONNXRuntimeError] : "
_ONNX_REASON = "Status Message: "  # the name of the node comes before it
_ZIPMAP = ": convert a model of scikit-learn with options={'zipmap': False}"
_OWN_PLACE = re.compile(r"\S*/\S+\.(?:cc|cpp|h):\d+(?:\s*:?\s*[\w:]+\([^)]*\))?")


@dataclass(frozen=True)
class Input:
    """An input of a file.

    Attributes:
        name: Its name.
        dtype: Name of its type, as numpy names it; empty: the file does not state it.
        shape: Lengths of its axes, None for a length that may change; None: the file does not state them.
        is_quantised: Whether its integers stand for floating-point numbers, which the file's call accepts too.
        samples: The fewest and the most samples in a call, if their number may change; None: any number.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None
    is_quantised: bool = False
    samples: tuple[int, int | None] = (1, None)


@dataclass(frozen=True)
class Opened:
    """An opened file.

    Attributes:
        call: Runs its graph: takes tensors in the order of `inputs`, and returns a tuple of tensors.
        inputs: Its inputs, in order.
        outputs: Names of its outputs, in order; empty if the file does not name them.
        moves: Moves the call to a device; None: it runs on the CPU only.
    """

    call: Call
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    moves: Callable[[str], object] | None = None


@dataclass(frozen=True)
class Format:
    """A format of files.

    Attributes:
        name: Its name for people.
        distribution: Distribution whose engine runs it.
        install: How to install the distribution.
        open: Opens a file; its arguments are the path and OpenVINO's precision.
        code: Describes code in a file that its reader would run; empty if there is none.
        loaded_by: Line of Python that loads a file, with `FILE` for its path.
        beside: Suffixes of the files beside it that belong to it; the name of each starts with the file's name, or
            with its stem.
    """

    name: str
    distribution: str
    install: str
    open: Callable[[Path, str], Opened]
    loaded_by: str
    code: Callable[[Path], str] = lambda path: ""
    beside: tuple[str, ...] = ()


def open_file(path: Path, precision: str = "default") -> Opened:
    """Open a file.

    Args:
        path: The file.
        precision: Precision in which OpenVINO computes: `f32`, or its choice for the CPU (`default`).

    Raises:
        MachineLacks: Its runtime is not installed, or requires a GPU.
        Unsupported: Its runtime lacks an operator, which the message names.
        WeightsError: The file is missing, is damaged, or was written for another version of the runtime.
    """
    kind = format_of(path)
    if not path.is_file():
        raise WeightsError(f"There is no file {path}.")
    if is_pointer(path):
        raise WeightsError(f"{path} is a Git LFS pointer, not the model: run git lfs pull.")
    if (version := installed(kind.distribution)) is None:
        raise MachineLacks(f"{path.name} runs in {kind.distribution}, which is not installed: {kind.install}")
    try:
        with quiet():
            return kind.open(path, precision)
    except (CompressError, Unsupported):
        raise
    except Exception as error:  # each runtime raises its own errors
        raise WeightsError(
            f"{kind.distribution} {version} can't load {path}: {cause(error, path)}. If another version wrote it: pip "
            f"install -U {kind.distribution}, or export the model again for this version."
        ) from error


def cause(error: Exception, path: Path) -> str:
    """Return a runtime's message without the path, and without places in the runtime's own code."""
    message = str(error).strip()
    if _SCRIPT_TRACEBACK in message:
        message = message.splitlines()[-1].removeprefix("RuntimeError: ")
    text = one_line(message, most=None).replace(str(path), path.name).rpartition(_ONNX_REASON)[2]
    text = _OWN_PLACE.sub(" ", text.removeprefix(_ONNX_PREFIX)).strip(" :.")
    return f"...{text[-_LONGEST_CAUSE:]}" if len(text) > _LONGEST_CAUSE else text or type(error).__name__


def format_of(path: Path) -> Format:
    """Return the format of a file by its suffix.

    Raises:
        WeightsError: No runtime is known for it.
    """
    if (kind := FORMATS.get(path.suffix.lower())) is None:
        raise WeightsError(f"{path} has no suffix of a ready file: {', '.join(FORMATS)}.")
    return kind


def files_of(path: Path) -> list[Path]:
    """Return a file and the files beside it that belong to it."""
    kind = format_of(path)
    names = [f"{stem}{suffix}" for stem in (path.name, path.stem) for suffix in kind.beside]
    files = [path, *(path.parent / name for name in names)]
    if path.suffix == ".onnx":
        files += [path.parent / name for name in names_of_weights(path)]
    return list(dict.fromkeys(file for file in files if file.is_file()))


def _onnx(path: Path, precision: str) -> Opened:
    from mlflow_compress.compression.onnx_graphs import Session

    require_own_weights(path)
    session = Session(path, ())
    for kind, ports in (("input", session.inputs), ("output", session.outputs)):
        for port in ports:
            if port.type not in _ONNX_TYPES:
                raise Unsupported(
                    f"its {kind} {port.name} is a {port.type}, not a tensor of numbers"
                    f"{_ZIPMAP if port.type.startswith('seq(map(') else ''}"
                )
    inputs = tuple(Input(port.name, _ONNX_TYPES[port.type], _lengths(port.shape)) for port in session.inputs)
    return Opened(session, inputs, tuple(port.name for port in session.outputs))


def _openvino(path: Path, precision: str) -> Opened:
    from mlflow_compress.compression.openvino_graphs import Compiled

    if not path.with_suffix(".bin").is_file():
        raise WeightsError(f"There is no {path.stem}.bin beside {path}: OpenVINO keeps the weights in it.")
    compiled = Compiled(path, (), precision)
    inputs = [
        Input(
            _name_of(port, f"input_{index}"),
            port.get_element_type().to_dtype().name,
            tuple(None if length.is_dynamic else length.get_length() for length in port.get_partial_shape()),
            samples=_bounds(port.get_partial_shape()),
        )
        for index, port in enumerate(compiled.inputs)
    ]
    outputs = tuple(_name_of(port, f"output_{index}") for index, port in enumerate(compiled.outputs))
    return Opened(compiled, tuple(inputs), outputs)


def _bounds(shape: Any) -> tuple[int, int | None]:
    """Return the fewest and the most samples that a shape of OpenVINO allows."""
    if shape.rank.is_dynamic or not len(shape):
        return 1, None
    most = shape[0].get_max_length()
    return max(1, shape[0].get_min_length()), most if 0 < most < _UNBOUNDED else None


def _name_of(port: Any, default: str) -> str:
    names = sorted(port.get_names())
    return str(names[0]) if names else default


def _litert(path: Path, precision: str) -> Opened:
    call = LiteRt(path)
    inputs = tuple(Input(port.name, port.dtype, _lengths(port.shape), bool(port.scale)) for port in call.inputs)
    return Opened(call, inputs, tuple(port.name for port in call.outputs))


def _torch_export(path: Path, precision: str) -> Opened:
    import torch

    torch_archives.require(path, torch_archives.PROGRAM)
    call = _Program(torch.export.load(path))
    return Opened(call, call.inputs, (), call.to)


def _torchscript(path: Path, precision: str) -> Opened:
    import torch

    torch_archives.require(path, torch_archives.SCRIPT)
    module = torch.jit.load(str(path), map_location="cpu").eval()
    arguments = module.forward.schema.arguments[1:]
    inputs = tuple(Input(argument.name, "", None) for argument in arguments if not argument.has_default_value())
    call = _Script(module)
    return Opened(call, inputs, (), call.to)


def _tensorrt(path: Path, precision: str) -> Opened:
    import torch

    from mlflow_compress.compression.tensorrt_engine import Engine

    if not torch.cuda.is_available():
        raise MachineLacks("a TensorRT engine runs on an NVIDIA GPU only, and torch finds none")
    engine = Engine(path)
    inputs = tuple(Input(name, engine.dtype(name), _lengths(engine.shape(name))) for name in engine.inputs)
    return Opened(engine, inputs, tuple(engine.outputs), _require_gpu)


def _require_gpu(device: str) -> None:
    if not device.startswith("cuda"):
        raise Unsupported("a TensorRT engine runs on an NVIDIA GPU only")


class _Program(TorchCall):
    """A graph of `torch.export`. It takes the tensors among its arguments by position."""

    def __init__(self, program: Any) -> None:
        super().__init__(program.module())
        self._program = program
        shapes = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
        names = [name for name in program.graph_signature.user_inputs if name in shapes]
        self.inputs = tuple(_described(name, shapes[name], program.range_constraints) for name in names)

    def __call__(self, *inputs: Any) -> tuple[Any, ...]:
        """Run the graph."""
        from torch.utils._pytree import tree_unflatten

        positional, by_name = tree_unflatten(list(inputs), self._program.call_spec.in_spec)
        return tuple(value_trees.tensors(self.module(*positional, **by_name)))

    def to(self, device: str) -> None:
        """Move the graph to a device."""
        from torch.export.passes import move_to_device_pass

        self.module = move_to_device_pass(self._program, device).module()


def _described(name: str, value: Any, ranges: Mapping[Any, Any]) -> Input:
    """Describe an input of a graph of `torch.export` by the tensor that it was exported with.

    Args:
        name: Its name.
        value: The tensor.
        ranges: The range of each length that may change, by its symbol.

    Raises:
        Unsupported: it is not a tensor.
    """
    import torch

    if not isinstance(value, torch.Tensor):
        raise Unsupported(f"the graph takes {name}, which is not a tensor")
    shape = tuple(length if isinstance(length, int) else None for length in value.shape)
    limits = ranges.get(value.shape[0].node.expr) if shape and shape[0] is None else None
    return Input(name, str(value.dtype).removeprefix("torch."), shape, samples=_range(limits))


def _range(limits: Any) -> tuple[int, int | None]:
    """Return the fewest and the most samples of a range of torch. It writes 2 for 1, and does not check that limit."""
    if limits is None:
        return 1, None
    least = int(limits.lower) if limits.lower > _UNCHECKED else 1
    return least, int(limits.upper) if limits.upper < _UNBOUNDED else None


class _Script(TorchCall):
    """A TorchScript module."""

    def __call__(self, *inputs: Any) -> tuple[Any, ...]:
        """Run the graph."""
        return tuple(value_trees.tensors(self.module(*inputs)))

    def to(self, device: str) -> None:
        """Move the module to a device."""
        self.module.to(device)

    def held_weights(self) -> Iterator[Held]:
        """Yield every tensor with weights: parameters, or the constants of a frozen module."""
        import torch

        weights = list(held(self.module))
        if not weights:
            constants = [node.output() for node in self.module.graph.findAllNodes("prim::Constant")]
            tensors = [value.toIValue() for value in constants if value.type().kind() == "TensorType"]
            weights = [
                Held(tensor, tensor.numel())
                for tensor in tensors
                if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and tensor.numel() > 1
            ]
        yield from weights


def _lengths(shape: Any) -> tuple[int | None, ...]:
    """Return the lengths of axes; runtimes describe an open length by a text, by None, or by -1."""
    return tuple(length if isinstance(length, int) and length >= 0 else None for length in shape)


def random_input(port: Input, shape: tuple[int, ...], generator: Any) -> Any:
    """Return a tensor for an input: numbers from 0 to 1, or all integers of a quantised type; other integers are 1.

    An index of 1 exists in nearly every table, and a mask of 1 hides nothing.
    """
    import torch

    dtype = getattr(torch, port.dtype or "float32")
    if dtype.is_floating_point:
        return torch.rand(shape, generator=generator).to(dtype)
    if port.is_quantised:
        limits = torch.iinfo(dtype)
        numbers = torch.randint(limits.min, limits.max + 1, (math.prod(shape),), generator=generator)
        return numbers.reshape(shape).to(dtype)
    return torch.ones(shape, dtype=dtype)


def _in_archive(scan: Callable[[Path], str], content: str) -> Callable[[Path], str]:
    """Return a scan of torch's archives that reports a damaged file, or one of other content, instead of its code."""

    def code(path: Path) -> str:
        torch_archives.require(path, content)
        return scan(path)

    return code


def _code_in_engine(path: Path) -> str:
    return "compiled code for a GPU"


_ONNX_TYPES: Mapping[str, str] = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int16)": "int16",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}
TYPES = tuple(_ONNX_TYPES.values())  # of inputs
_EXTRA = 'pip install "mlflow-compress[{}]"'
_SCRIPT = Format(
    "TorchScript",
    "torch",
    "pip install torch",
    _torchscript,
    'import torch; torch.jit.load("FILE")',
    _in_archive(code_in_script, torch_archives.SCRIPT),
)
_ENGINE = Format(
    "TensorRT",
    "tensorrt",
    "pip install tensorrt",
    _tensorrt,
    'import tensorrt; tensorrt.Runtime(tensorrt.Logger()).deserialize_cuda_engine(open("FILE", "rb").read())',
    _code_in_engine,
)
FORMATS: Mapping[str, Format] = {
    ".onnx": Format(
        "ONNX",
        "onnxruntime",
        _EXTRA.format("onnx"),
        _onnx,
        'import onnxruntime; onnxruntime.InferenceSession("FILE")',
        beside=(".data",),
    ),
    ".tflite": Format(
        "LiteRT",
        "ai-edge-litert",
        _EXTRA.format("litert"),
        _litert,
        'import ai_edge_litert.interpreter; ai_edge_litert.interpreter.Interpreter("FILE")',
    ),
    ".xml": Format(
        "OpenVINO",
        "openvino",
        _EXTRA.format("openvino"),
        _openvino,
        'import openvino; openvino.compile_model("FILE")',
        beside=(".bin",),
    ),
    ".pt2": Format(
        "torch.export",
        "torch",
        "pip install torch",
        _torch_export,
        'import torch; torch.export.load("FILE").module()',
        _in_archive(code_in_program, torch_archives.PROGRAM),
    ),
    ".ts": _SCRIPT,
    ".torchscript": _SCRIPT,
    ".pt": _SCRIPT,
    ".engine": _ENGINE,
    ".plan": _ENGINE,
}
