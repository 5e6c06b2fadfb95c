"""Common facts of the dynamic int8 methods: states, devices and excluded families."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from mlflow_compress.sockets import Method, State


@dataclass
class DynamicInt8(Method):
    """A method that rounds weights beforehand and inputs at each call, for the CPU's int8 kernels."""

    changes: ClassVar[Literal["architecture"]] = "architecture"
    takes: ClassVar[tuple[State, ...]] = ("float",)
    gives: ClassVar[State] = "packed"
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    excludes: ClassVar[Mapping[str, str]] = {"yolo": "it is made of convolutions, which have no dynamic int8 kernels"}
