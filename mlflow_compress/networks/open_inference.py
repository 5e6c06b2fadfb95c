"""Requests in the open inference protocol (version 2) of Triton, KServe and MLServer.

Source: the protocol's specification, and Triton's extension for binary tensors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow_compress.errors import RecipeError

PATH = re.compile(r"(?P<server>.*?/v2)/models/[^/]+(?:/versions/[^/]+)?(?P<verb>/infer)?")
JSON_BYTES = "Inference-Header-Content-Length"  # the header of a request with binary tensors
BINARY = "binary_tensor_data"  # the name of the extension
_TEXT = "BYTES"
_NAMED: Mapping[str, str] = {"FP": "float", "BF": "bfloat", "INT": "int", "UINT": "uint"}
_TYPE = re.compile(r"(FP|BF|INT|UINT)(8|16|32|64)")


@dataclass(frozen=True)
class Port:
    """An input of a model: its name, its type, and the lengths of its axes, -1 for an open one."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    @property
    def is_text(self) -> bool:
        """Whether it takes texts."""
        return self.datatype == _TEXT

    def tensor_of(self, values: Sequence[Any]) -> dict[str, Any]:
        """Return the tensor of values for each sample: numbers, texts, or nested lists.

        Raises:
            RecipeError: They do not fit.
        """
        shape = _lengths(values if self.shape[:1] == (-1,) else values[0])
        shape += [1] * (len(self.shape) - len(shape))
        self._require(shape, len(values))
        return {"name": self.name, "shape": shape, "datatype": self.datatype, "data": _flat(values)}

    def random_tensor(self, size: int, length: int, generator: Any) -> tuple[list[int], Any]:
        """Return the shape and a tensor of random numbers from 0 to 1; integers are 1.

        Args:
            size: Number of samples.
            length: Length of open axes besides the first; 0: not known.
            generator: Source of the random numbers.

        Raises:
            RecipeError: It takes texts, has open axes, or takes another number of samples.
        """
        import torch

        if self.is_text:
            raise RecipeError(f"{self.name} takes texts: use data, or the option inputs, with texts.")
        shape = [size if axis == 0 and own == -1 else length if own == -1 else own
                 for axis, own in enumerate(self.shape)]  # fmt: skip
        if 0 in shape:
            raise RecipeError(f"{self.name} has open lengths, {list(self.shape)}: set them with -O length=N.")
        self._require(shape, size)
        dtype = self._dtype()
        if dtype.is_floating_point:
            return shape, torch.rand(shape, generator=generator).to(dtype)
        return shape, torch.ones(shape, dtype=dtype)

    def _require(self, shape: Sequence[int], size: int) -> None:
        """Check that a tensor of so many samples fits."""
        fits = len(shape) == len(self.shape) and all(
            own in (-1, length) for own, length in zip(self.shape, shape, strict=True)
        )
        if not fits or (size > 1 and self.shape[:1] != (-1,)):
            raise RecipeError(
                f"{self.name} takes the shape {list(self.shape)}; {size} samples of the inputs have {list(shape)}."
            )

    def _dtype(self) -> Any:
        """Return the type of torch: `float32` for `FP32`."""
        import torch

        match = _TYPE.fullmatch(self.datatype)
        dtype = "bool" if self.datatype == "BOOL" else f"{_NAMED[match[1]]}{match[2]}" if match else ""
        if not hasattr(torch, dtype):
            raise RecipeError(f"{self.name} has the type {self.datatype}, which the protocol or torch does not have.")
        return getattr(torch, dtype)


def ports_of(metadata: Any, name: str) -> list[Port]:
    """Return the inputs in the metadata of a model.

    Raises:
        RecipeError: It describes none.
    """
    try:
        described = [
            Port(str(port["name"]), str(port["datatype"]), tuple(map(int, port["shape"])))
            for port in metadata["inputs"]
        ]
    except (TypeError, KeyError, ValueError):
        described = []
    if not described:
        raise RecipeError(f"The metadata of {name} describes no inputs.")
    return described


def body_of(ports: Sequence[Port], inputs: Sequence[Any]) -> bytes:
    """Return a request for inputs: values of the only port, or mappings of the ports' names to values.

    Raises:
        RecipeError: An input does not fit.
    """
    if len(ports) > 1 and not all(isinstance(value, Mapping) for value in inputs):
        names = ", ".join(port.name for port in ports)
        raise RecipeError(f"The model takes {names}: an input must be a mapping of these names to values.")
    try:
        tensors = [
            port.tensor_of([value[port.name] if isinstance(value, Mapping) else value for value in inputs])
            for port in ports
        ]
    except KeyError as error:
        raise RecipeError(f"An input has no value for {error}.") from None
    return json.dumps({"inputs": tensors}).encode()


def random_body(ports: Iterable[Port], size: int, length: int, seed: int, is_binary: bool) -> tuple[bytes, int]:
    """Return a request of random tensors (see `Port.random_tensor`), and the length of its JSON part, 0 without others.

    Raises:
        RecipeError: See `Port.random_tensor`.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    described, tail = [], b""
    for port in ports:
        shape, tensor = port.random_tensor(size, length, generator)
        head = {"name": port.name, "shape": shape, "datatype": port.datatype}
        if is_binary:
            raw = tensor.view(torch.uint8).numpy().tobytes()
            described.append({**head, "parameters": {"binary_data_size": len(raw)}})
            tail += raw
        else:
            described.append({**head, "data": tensor.flatten().tolist()})
    if not is_binary:
        return json.dumps({"inputs": described}).encode(), 0
    start = json.dumps({"inputs": described, "parameters": {"binary_data_output": True}}).encode()
    return start + tail, len(start)


def _lengths(values: Any) -> list[int]:
    """Return the lengths of nested lists, of their first items."""
    return [len(values), *_lengths(values[0] if values else None)] if isinstance(values, (list, tuple)) else []


def _flat(value: Any) -> list[Any]:
    return [leaf for item in value for leaf in _flat(item)] if isinstance(value, (list, tuple)) else [value]
