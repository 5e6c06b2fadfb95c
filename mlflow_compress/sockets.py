"""The four sockets that take plugins: `Family`, `Method`, `Metric`, `Renderer`.

A plugin is one class in one file. The file's name is the plugin's name, and the class, a dataclass, declares its
options as typed fields. Heavy libraries are imported inside the verbs, so that listing plugins costs nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from mlflow_compress.records import Comparison

Mark = Callable[[str], None]


@dataclass
class Model:
    """A model in memory, on its way from loading to saving or measuring.

    Attributes:
        module: a `torch.nn.Module`, or what a method of another runtime puts in its place (it is called alike).
        assets: what the family needs beside the weights: config, tokenizer, feature extractor.
        weights: where the weights came from: `pretrained`, `random` or `local`.
        device: where the module is: `cpu` or `cuda`.
        caution: what the user must hear about how it was loaded; empty when there is nothing.
    """

    module: Any
    assets: dict[str, Any] = field(default_factory=dict)
    weights: Literal["pretrained", "random", "local"] = "random"
    device: str = "cpu"
    caution: str = ""


@dataclass(frozen=True)
class Sample:
    """One labelled sample: `inputs` as `Family.predict` takes it, `reference` as its metrics take it."""

    inputs: Any
    reference: Any


@dataclass
class Family(ABC):
    """A kind of model: how to load it, what one call of it is, what it predicts.

    The fields of the subclass are the family's options.

    Attributes:
        timed: one sentence: what is inside the timed region of `run`.
        metrics: names of the metrics that score this family.
        needs: the distributions it imports, for the requirements of a logged model.
        imports: the modules that it imports sooner or later, so that their memory is not taken for the model's.
    """

    timed: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ("torch",)
    imports: ClassVar[tuple[str, ...]] = ("torch",)

    @abstractmethod
    def load(self, source: str, weights: str, folder: Path, seed: int) -> Model:
        """Load the original model, on the CPU, in float32, ready for inference.

        Args:
            source: a hub id, a file's name, a file of Python code: as the recipe says.
            weights: `auto`, `pretrained`, `random`, or a local path.
            folder: what relative paths start from.
            seed: of random weights.

        Raises:
            WeightsError: the weights can't be had, or are not this model's.
        """

    @abstractmethod
    def batch(self, model: Model, size: int, seed: int) -> Any:
        """Make the input of one timed call: `size` samples, on the model's device and in its dtype."""

    @abstractmethod
    def run(self, model: Model, batch: Any, mark: Mark) -> Any:
        """Make the timed call.

        Call `mark(stage)` where a stage inside it ends; the time since the last mark is that stage's.

        Returns:
            The raw output: a tensor, or a (nested) sequence or mapping of tensors.
        """

    def around(self, model: Model, size: int, seed: int) -> Mapping[str, Callable[[], object]]:
        """Give the stages outside the timed region, by name, to be timed apart (`preprocess`, `postprocess`)."""
        return {}

    def rates(self, latency_ms: float, stages_ms: Mapping[str, float], size: int) -> Mapping[str, float]:
        """Derive the field's own rates (tokens per second, real-time factor) from medians.

        Args:
            latency_ms: median of the timed call.
            stages_ms: median of each stage of it.
            size: samples in the batch.

        Returns:
            Numbers by the metric's name without its device: `tokens_per_s`.
        """
        return {}

    def samples(self, model: Model, data: str, folder: Path, limit: int | None, seed: int) -> Sequence[Sample]:
        """Read the labelled samples that quality is scored on, held out from all training and calibration.

        Raises:
            RecipeError: this family reads no such data.
        """
        from mlflow_compress.errors import RecipeError

        raise RecipeError(f"This family cannot score {data!r} yet. Say data=none to measure without quality.")

    @abstractmethod
    def predict(self, model: Model, inputs: Sequence[Any]) -> list[Any]:
        """Predict for plain Python inputs, one prediction each, as a user of the model wants them."""

    @abstractmethod
    def save(self, model: Model, folder: Path) -> None:
        """Write all that `restore` needs beside the weights (config, tokenizer, code) into an empty folder."""

    @abstractmethod
    def restore(self, folder: Path) -> Model:
        """Build the model that `save` described. Its weights are filled in afterwards."""


@dataclass
class Method(ABC):
    """A way to compress a model. The fields of the subclass are its options.

    Attributes:
        changes: `weights` (values or dtype: the architecture still holds them), `architecture` (`rebuild` redoes the
            change on an unfilled model), or `runtime` (the method saves and restores the module itself).
        needs: what must be installed beyond the package itself, as `pip install` takes it.
        families: the families it applies to; empty for all.
    """

    changes: ClassVar[Literal["nothing", "weights", "architecture", "runtime"]]
    needs: ClassVar[tuple[str, ...]] = ()
    families: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def compress(self, model: Model, family: Family) -> Model:
        """Compress the model, in place or not.

        Raises:
            Unsupported: it does not apply, or would change nothing.
        """

    def rebuild(self, model: Model, family: Family) -> Model:
        """Redo on an unfilled model what `compress` did to its structure, so that the saved weights fit."""
        return model

    def save(self, model: Model, folder: Path) -> None:
        """Write the module of a runtime of its own into the folder (`changes = "runtime"` only)."""
        raise NotImplementedError

    def load(self, model: Model, folder: Path) -> Model:
        """Put the module that `save` wrote into the model, on `model.device` (`changes = "runtime"` only)."""
        raise NotImplementedError

    def check_device(self, device: str) -> None:
        """Refuse a device that the compressed model can't run on.

        Raises:
            Unsupported: it can't run there.
        """


@dataclass
class Metric(ABC):
    """A number for quality.

    Attributes:
        unit: `ratio`, `percent`, ...
        greater_is_better: its direction, as in MLflow.
    """

    unit: ClassVar[str]
    greater_is_better: ClassVar[bool]

    @abstractmethod
    def compute(self, references: Sequence[Any], predictions: Sequence[Any]) -> float:
        """Score all predictions at once.

        Raises:
            ValueError: there are none, or not as many predictions as references.
        """


@dataclass
class Renderer(ABC):
    """A form that a comparison is written in.

    Attributes:
        suffix: the file suffix that chooses it, with its dot.
    """

    suffix: ClassVar[str]

    @abstractmethod
    def render(self, comparison: Comparison) -> bytes:
        """Write the comparison out."""
