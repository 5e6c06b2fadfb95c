"""Methods and a metric that another distribution adds, some of them misbehaving."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge

from mlflow_compress.errors import Unsupported
from mlflow_compress.sockets import Family, Method, Metric, Model, State

NOT_A_METHOD = "a text"


@dataclass
class DropLast(Method):
    """The last layers of an `nn.Sequential` left out: an architecture that the saved weights alone can't tell.

    Attributes:
        count: how many layers.
    """

    changes: ClassVar[Literal["architecture"]] = "architecture"

    count: Annotated[int, Ge(1)] = 1

    def compress(self, model: Model, family: Family) -> Model:
        import torch

        if not isinstance(model.module, torch.nn.Sequential) or len(model.module) <= self.count:
            raise Unsupported("there are not enough layers in a row")
        return self.rebuild(model, family)

    def rebuild(self, model: Model, family: Family) -> Model:
        model.module = model.module[: -self.count]
        return model


@dataclass
class Traced(Method):
    """The module traced to TorchScript: a runtime that keeps and restores the module itself."""

    changes: ClassVar[Literal["runtime"]] = "runtime"
    gives: ClassVar[State] = "runtime"

    def compress(self, model: Model, family: Family) -> Model:
        import torch

        model.module = torch.jit.trace(model.module, tuple(family.batch(model, 2, 0)))
        return model

    def save(self, model: Model, family: Family, folder: Path) -> None:
        import torch

        torch.jit.save(model.module, folder / "traced.pt")

    def load(self, model: Model, family: Family, folder: Path) -> Model:
        import torch

        model.module = torch.jit.load(folder / "traced.pt")
        return model


@dataclass
class Crash(Method):
    """Whatever can go wrong.

    Attributes:
        kind: how it goes wrong.
        at: while compressing, or while restoring.
    """

    changes: ClassVar[Literal["architecture"]] = "architecture"

    kind: Literal["sigkill", "segfault", "raise", "hang", "nan", "memory", "skip", "exit", "drift"] = "raise"
    at: Literal["compress", "rebuild"] = "compress"

    def compress(self, model: Model, family: Family) -> Model:
        if self.at == "compress":
            self._crash(model)
        model.module.is_crashed = True  # something must change, or it is skipped before it is saved
        return model

    def rebuild(self, model: Model, family: Family) -> Model:
        if self.at == "rebuild":
            self._crash(model)
        return model

    def _crash(self, model: Model) -> None:
        sys.stderr.write(f"about to {self.kind}\n")
        if self.kind == "sigkill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.kind == "segfault":
            os.abort()
        elif self.kind == "raise":
            raise RuntimeError("the plugin gave up\non two lines")
        elif self.kind == "hang":
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            Path("child.pid").write_text(str(child.pid))
            time.sleep(600)
        elif self.kind == "nan":
            for parameter in model.module.parameters():
                parameter.data.fill_(float("nan"))
        elif self.kind == "memory":
            raise MemoryError("can't allocate 4 TiB")
        elif self.kind == "skip":
            raise Unsupported("it does not apply to this model")
        elif self.kind == "exit":
            os._exit(3)
        elif self.kind == "drift":
            model.module.register_forward_hook(lambda module, inputs, output: output * 1.5)


@dataclass
class Absent(Method):
    """What stands on a distribution that nobody has."""

    changes: ClassVar[Literal["weights"]] = "weights"
    needs: ClassVar[tuple[str, ...]] = ("torch", "a-distribution-that-nobody-has")
    extra: ClassVar[str] = "imaginary"

    def compress(self, model: Model, family: Family) -> Model:
        raise AssertionError


@dataclass
class Choosy(Method):
    """What does not serve models of one's own."""

    changes: ClassVar[Literal["weights"]] = "weights"
    excludes: ClassVar[Mapping[str, str]] = {"python": "it must know the layers' names"}

    def compress(self, model: Model, family: Family) -> Model:
        raise AssertionError


@dataclass
class HalfRight(Metric):
    """Always one half."""

    unit: ClassVar[str] = "ratio"
    greater_is_better: ClassVar[bool] = True

    def compute(self, references: Sequence[Any], predictions: Sequence[Any]) -> float:
        return 0.5
