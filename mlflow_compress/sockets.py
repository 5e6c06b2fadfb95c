"""The four sockets that take plugins: `Family`, `Method`, `Metric`, `Renderer`.

A plugin is one class in one file. The file's name is the plugin's name, and the class, a dataclass, declares its
options as typed fields. Heavy libraries are imported inside the verbs, so that listing plugins costs nothing.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from mlflow_compress.errors import Unsupported
from mlflow_compress.model import Evaluation, LayerSizes, Model
from mlflow_compress.records import LAST_RANK, CautionKind, Comparison, MetricFacts, Scale

__all__ = [
    "RANDOM_CALIBRATION", "AdditiveMetric", "Continuation", "Evaluation", "Family", "Graph", "LayerSizes", "Mark",
    "Method", "Metric", "Model", "NativeFlavor", "PooledMetric", "Published", "Renderer", "Sample", "State",
]  # fmt: skip

RANDOM_CALIBRATION = CautionKind(
    "random_calibration",
    short={"en": "calibrated on random inputs", "ru": "калибровка на случайных входах"},
    message={
        "en": "the method was calibrated on random inputs, not on data",
        "ru": "метод калиброван на случайных входах, а не на данных",
    },
    advice={
        "en": "Size and latency are right, its answers are not: give data with a training part, or "
        "data=SOURCE:calibration=OTHER, or fewer samples to score (limit=N), so that some are left over.",
        "ru": "Размер и время верны, ответы нет: дайте данные с обучающей частью, или data=SOURCE:calibration=OTHER, "
        "или меньше примеров для оценки (limit=N), чтобы часть осталась.",
    },
)

Mark = Callable[[str], None]
State = Literal["float", "half", "packed", "runtime"]


@dataclass(frozen=True)
class Graph:
    """A part of a model as a pure function of tensors, for methods that export it to another runtime.

    Attributes:
        module: a `torch.nn.Module` that takes the inputs by position and gives a tuple of tensors.
        inputs: example tensors by name, in order.
        outputs: the names of what it gives, in order.
        dynamic: axes whose length may change, by input's or output's name: `{"input_ids": {0: "batch", 1: "tokens"}}`.
    """

    module: Any
    inputs: Mapping[str, Any]
    outputs: tuple[str, ...]
    dynamic: Mapping[str, Mapping[int, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Continuation:
    """Tokens that a model generated, and how they score twice: as they were generated, and all in one pass.

    Attributes:
        tokens: the new tokens [batch, tokens].
        logits: the raw logits that each was chosen by, through the cache [batch, tokens, vocabulary], float32.
        at_once: the logits of the same tokens from one pass without a cache, of the same shape.
    """

    tokens: Any
    logits: Any
    at_once: Any


@dataclass(frozen=True)
class Sample:
    """One labelled sample: `inputs` as `Family.predict` takes it, `reference` as its metrics take it."""

    inputs: Any
    reference: Any


@dataclass(frozen=True)
class Published:
    """How a folder that was written for other programs is loaded.

    Attributes:
        code: Python that loads it, in one line, with `FOLDER` for the folder itself.
        needs: the distributions that the line imports.
        note: what else who loads it must know, a sentence; empty: nothing.
    """

    code: str
    needs: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class NativeFlavor:
    """How a flavor of MLflow itself (`mlflow.onnx.load_model`) loads a saved model, from its files where they lie.

    Attributes:
        name: MLflow's name of the flavor (`onnx`).
        settings: what the file MLmodel says of it, with `FOLDER` in a text for the model folder.
        copies: the names in the model folder of small files that the flavor reads from another folder, by that folder:
            a path from where MLmodel is.
    """

    name: str
    settings: Mapping[str, Any]
    copies: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass
class Family(ABC):
    """A kind of model: how to load it, what one call of it is, what it predicts.

    The fields of the subclass are the family's options.

    Attributes:
        dtype: the precision of the original's weights: `native` as its checkpoint is, or the one that is named. `auto`
            is what `auto_dtype` says.
        auto_dtype: `native` or `float32`.
        revision: raised when the same options load another model than before, so that a sweep measures it anew.
        timed: one sentence: what is inside the timed region of `run`.
        metrics: names of the metrics that score this family.
        gives: what its answers are, as `Metric.takes` names it; empty where the model decides.
        needs: the distributions it imports, for the requirements of a logged model.
        imports: the modules that it imports sooner or later, so that their memory is not taken for the model's.
        takes_rows: whether an input is a row of a table: a mapping of columns to values.
        flexible_axes: the axes of the array that `example` gives whose length may be another.
        call_options: the options that change what one timed call does, though its input is the same. Latencies under
            different ones are not divided. None: any of them may.
        calibrates_on: what to give so that there are inputs to calibrate and train on, for a sentence.
        has_random_weights: whether `load` gives a model with `weights=random`.
        runs_users_code: whether its models are Python code of the user's: it is tried before anything is measured.
    """

    timed: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]] = ()
    gives: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ("torch",)
    imports: ClassVar[tuple[str, ...]] = ("torch",)
    takes_rows: ClassVar[bool] = False
    flexible_axes: ClassVar[tuple[int, ...]] = ()
    call_options: ClassVar[tuple[str, ...] | None] = None
    calibrates_on: ClassVar[str] = (
        "data with a training part (a folder train/, a split train), or data=SOURCE:calibration=OTHER, or limit=N with "
        "fewer samples to score than there are: what is left over is never scored"
    )
    has_random_weights: ClassVar[bool] = True
    runs_users_code: ClassVar[bool] = False
    auto_dtype: ClassVar[Literal["native", "float32"]] = "native"
    revision: ClassVar[int] = 1

    dtype: Literal["auto", "native", "float32", "bfloat16", "float16"] = field(default="auto", kw_only=True)

    @property
    def precision(self) -> str:
        """Return in which precision the original is wanted: `native`, or the name of a floating-point type."""
        return self.auto_dtype if self.dtype == "auto" else self.dtype

    @abstractmethod
    def load(self, source: str, weights: str, folder: Path, seed: int) -> Model:
        """Load the original model, on the CPU, ready for inference.

        Its precision is `precision`, where the family can load it so; else it is cast afterwards.

        Args:
            source: a hub id, a file's name, a file of Python code: as the recipe says.
            weights: `auto`, `pretrained`, `random`, or a local path.
            folder: what relative paths start from.
            seed: of random weights.

        Raises:
            WeightsError: the weights can't be had, or are not this model's.
        """

    def weights_bytes(self, source: str, weights: str, folder: Path) -> int | None:
        """Return how many bytes of memory the original's weights will take, without reading them; None: not known.

        Args:
            source: as `load` takes it.
            weights: as `load` takes it.
            folder: as `load` takes it.
        """
        return None

    def code(self, source: str, weights: str, folder: Path) -> str:
        """Say what code of somebody's own `load` would run, which only a user who trusts it may ask for; empty: none.

        Args:
            source: as `load` takes it.
            weights: as `load` takes it.
            folder: as `load` takes it.
        """
        return ""

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

    def forward(self, model: Model, batch: Any) -> Any:
        """Make one plain forward pass on a batch, with gradients if torch records them: no decoding, no caches.

        Methods calibrate and train through it, and outputs of variants are compared in it.

        Returns:
            Raw output as of `run`; of models that decode, the logits [batch, tokens, vocabulary] at given tokens.
        """
        return self.run(model, batch, lambda stage: None)

    def parts(self, model: Model, output: Any) -> list[tuple[Any, float]]:
        """Return the parts of what `forward` gave, which are compared with another model's each by itself.

        Returns:
            Tensors, or what holds some, each with the least norm that a difference is divided by: smaller ones are
            taken for nothing.
        """
        if isinstance(output, Mapping):
            output = list(output.values())
        return [(part, 0.0) for part in output] if isinstance(output, (list, tuple)) else [(output, 0.0)]

    def classes(self, model: Model) -> int:
        """Return the length of `forward`'s last axis where that holds logits of classes, else 0."""
        return 0

    def outputs_are_scores(self, model: Model) -> bool:
        """Return whether `forward` gives scores of classes (logits) on the last axis, for methods that train on them.

        All outputs of transformers are taken for such, and those whose number of classes is known.
        """
        return model.is_transformer or self.classes(model) > 0

    def scores(self, model: Model, output: Any) -> Any:
        """Return the tensors of what `forward` gave that hold scores, where `outputs_are_scores` says so."""
        return output

    def calibration(self, model: Model, count: int, seed: int, size: int = 1) -> list[Any]:
        """Return `count` batches of `size` samples, as `batch` gives them, for methods that calibrate or train.

        They are never what quality is scored on. A family without data gives random inputs, and says so in the model's
        cautions.
        """
        model.cautions.append(RANDOM_CALIBRATION.of())
        return [self.batch(model, size, seed + 1 + index) for index in range(count)]

    def refuses(self, model: Model) -> str:
        """Return why no method can change this model; empty where some may."""
        return ""

    def student(self, model: Model, keep: float) -> Model:
        """Make a smaller model of the same kind, with what can be taken over from this one, to be trained.

        Args:
            model: the teacher, in float32 on the CPU.
            keep: share of the teacher's layers, or of its width, that the student has, 0 to 1.

        Raises:
            Unsupported: this family knows no smaller model.
        """
        raise Unsupported("this family does not say what a smaller model of its kind is")

    def graphs(self, model: Model) -> Mapping[str, Graph]:
        """Return the model as graphs, by name, for methods that export it.

        Raises:
            Unsupported: this family can't be exported.
        """
        raise Unsupported("this family does not say how it is exported")

    def attach(self, model: Model, calls: Mapping[str, Callable[..., tuple[Any, ...]]]) -> Model:
        """Put exported graphs in the module's place, so that `run`, `forward` and `predict` go through them.

        Args:
            model: the model, whose module is None.
            calls: what runs each graph: takes tensors by position, gives a tuple of tensors.
        """
        raise Unsupported("this family does not say how exported graphs are run")

    def around(self, model: Model, size: int, seed: int) -> Mapping[str, Callable[[], object]]:
        """Return the stages outside the timed region, by name, to be timed apart (`preprocess`, `postprocess`)."""
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

    def generate(self, model: Model, batch: Any, new_tokens: int) -> Continuation | None:
        """Generate from a batch on the path that `run` and `predict` take; None: this family generates nothing.

        What a decoder generates is checked with it: before and after it is saved, and against one pass without a cache.

        Args:
            model: the model.
            batch: as `batch` and `calibration` return it.
            new_tokens: how many tokens, whatever the text says; no more than a timed call makes.
        """
        return None

    def answers(self, model: Model, inputs: Sequence[Any]) -> list[Any]:
        """Return the predictions as the family's metrics take them: those of `predict`, unless quality differs.

        Of a language model, for one, it is how likely a text is to it, and not what it makes of it.
        """
        return self.predict(model, inputs)

    def example(self, model: Model) -> list[Any]:
        """Return one small input as `predict` takes it, a text or an array, for users of the logged model; or none."""
        return []

    def metrics_for(self, model: Model) -> tuple[str, ...]:
        """Return the names of the metrics that score this model, where nobody names any."""
        return self.metrics

    def kinds(self, model: Model) -> tuple[str, ...]:
        """Say what the answers are, as `Metric.takes` names it, where that depends on the model; empty: anything."""
        return self.gives

    @abstractmethod
    def save(self, model: Model, folder: Path) -> None:
        """Write all that `restore` needs beside the weights (config, tokenizer, code) into an empty folder."""

    @abstractmethod
    def restore(self, folder: Path) -> Model:
        """Build the model that `save` described. Its weights are filled in afterwards."""

    def publish(self, saved: Path, folder: Path) -> Published:
        """Write a saved model whose weights alone were changed as others load it. No code of the model's is run.

        Args:
            saved: the model folder, as `save` and the weights' writer left it.
            folder: an empty one.

        Raises:
            Unsupported: no other program loads such a model.
        """
        raise Unsupported("this family does not say how others load its models")

    def native_flavor(self, saved: Path) -> NativeFlavor:
        """Say which flavor of MLflow loads a saved model whose weights alone were changed. Nothing is loaded here.

        Args:
            saved: the model folder, as `save` and the weights' writer left it.

        Raises:
            Unsupported: none does from the files that are there, or only by running code.
        """
        raise Unsupported("MLflow has no flavor that loads models of this family from such files")

    def restore_assets(self, folder: Path) -> Model:
        """Return the same without the module (None), for a method that brings a module of its own."""
        model = self.restore(folder)
        model.module = None
        return model


@dataclass
class Method(ABC):
    """A way to compress a model. The fields of the subclass are its options.

    Attributes:
        changes: `weights` (values or dtype: the architecture still holds them), `architecture` (`rebuild` redoes the
            change on an unfilled model), `storage` (the same, but the method writes and reads the weights itself), or
            `runtime` (the method saves and restores the module itself, and no torch module is built).
        takes: in which states it takes a model: weights in `float` (32 bits) or `half` precision, `packed` into
            integers, or turned into the module of another `runtime`.
        gives: in which state it leaves the model; None: as it was.
        needs: the distributions it imports beyond those of the package itself.
        extra: the package's extra that installs them.
        devices: where the compressed model runs: `cpu`, `cuda`.
        excludes: the families it can't serve, each with the reason.
        revision: raised when the same options make another model than before, or it runs on other kernels, so that a
            sweep measures it anew.
    """

    changes: ClassVar[Literal["nothing", "weights", "architecture", "storage", "runtime"]]
    takes: ClassVar[tuple[State, ...]] = ("float", "half")
    gives: ClassVar[State | None] = None
    needs: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ""
    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda")
    excludes: ClassVar[Mapping[str, str]] = {}
    revision: ClassVar[int] = 1

    @abstractmethod
    def compress(self, model: Model, family: Family) -> Model:
        """Compress the model, in place or not.

        Raises:
            Unsupported: it does not apply, or would change nothing.
        """

    def rebuild(self, model: Model, family: Family) -> Model:
        """Redo on an unfilled model what `compress` did to its structure, so that the saved weights fit."""
        return model

    def save(self, model: Model, family: Family, folder: Path) -> None:
        """Write the weights, or the module of another runtime (`changes` is `storage` or `runtime` only)."""
        raise NotImplementedError

    def load(self, model: Model, family: Family, folder: Path) -> Model:
        """Read back what `save` wrote (`changes` is `storage` or `runtime` only).

        `storage`: fill `model.module`, rebuilt and unfilled, and leave it on the CPU. `runtime`: put a module into the
        model, which has none, on `model.device`.
        """
        raise NotImplementedError

    def publish(self, saved: Path, family: Family, portable: Callable[[], Model], folder: Path) -> Published:
        """Write a saved model as others load it: its float folder.

        A method of another runtime writes the files of that one. A method whose layers only this package knows writes a
        format that others know instead, or keeps this, which refuses.

        Args:
            saved: the model folder.
            family: the model's.
            portable: builds the model with its weights as they were saved, repacked for no machine.
            folder: an empty one.

        Raises:
            Unsupported: no other program loads it.
        """
        if self.changes in ("nothing", "weights"):
            return family.publish(saved, folder)
        raise Unsupported("its layers are this package's own, and no other program knows them")

    def native_flavor(self, saved: Path, family: Family) -> NativeFlavor:
        """Say which flavor of MLflow loads a saved model, beside this package's. Nothing is loaded here.

        Args:
            saved: the model folder.
            family: the model's.

        Raises:
            Unsupported: none does from the files that are there, or only by running code.
        """
        if self.changes in ("nothing", "weights"):
            return family.native_flavor(saved)
        if self.changes == "runtime":
            raise Unsupported("MLflow has no flavor for this runtime")
        raise Unsupported("its layers are saved in a form of this package, which no flavor of MLflow knows")


@dataclass
class Metric(ABC):
    """A number for quality.

    The class carries all that others must know of the number: it is logged with each run, so no other file lists names
    of metrics.

    Attributes:
        unit: `ratio`, `percent`, ...; empty where it has none.
        greater_is_better: its direction, as in MLflow.
        label: its name for people, by language (`en`, `ru`); without one its name in recipes stands.
        scale: `share` (0 to 1), `hundred` (0 to 100), `error_rate` (errors per unit, 0 is perfect, above 1 is
            possible) or `unbounded`: how much a loss in it is, as a part, follows from that. None: it does not say.
        rank: which metric stands for a model's quality when several were measured: the smallest. The package's own are
            below 1000.
        spelling: how people write it in tables that are imported, a regular expression, whatever the case; without one
            its name and its labels are known.
        takes: what references and predictions are: `labels` (a prediction is a label, or labels ranked best first),
            `texts`, `tags` (a list of them for each sample), `likelihoods` (a prediction maps `nll`, in nats, `tokens`,
            `words` and `bytes` to their sums over the text), `boxes` (maps `boxes` [[x1, y1, x2, y2], ...], `labels`
            and, of predictions, `scores`), or `anything`.
    """

    unit: ClassVar[str]
    greater_is_better: ClassVar[bool]
    label: ClassVar[Mapping[str, str]] = {}
    scale: ClassVar[Scale | None] = None
    rank: ClassVar[int] = LAST_RANK
    spelling: ClassVar[str] = ""
    takes: ClassVar[Literal["labels", "texts", "tags", "likelihoods", "boxes", "anything"]] = "anything"

    @classmethod
    def class_facts(cls) -> MetricFacts:
        """Return what the class says of its number. An option of the same name (`label`) is not a fact."""
        options = {each.name for each in fields(cls)}
        is_labelled = "label" not in options and isinstance(cls.label, Mapping)  # 0.1 left the name to the class
        return MetricFacts(
            label=cls.label if is_labelled else {},
            scale=None if "scale" in options else cls.scale,
            greater_is_better=getattr(cls, "greater_is_better", None),
            rank=LAST_RANK if "rank" in options else cls.rank,
        )

    @property
    def facts(self) -> MetricFacts:
        """What is logged beside the number. Options that differ from their defaults stand in the label: `F1 micro`."""
        own = type(self).class_facts()
        given = [(each, getattr(self, each.name)) for each in fields(self) if each.init]
        words = [
            str(value) if isinstance(value, str) else f"{each.name}={value}"
            for each, value in given
            if each.default is not MISSING and value != each.default
        ]
        return replace(own, label={language: " ".join([text, *words]) for language, text in own.label.items()})

    @property
    def protocol(self) -> str:
        """What the number is, in a line that is kept beside it: what it counts, and its options."""
        about = (inspect.getdoc(type(self)) or "").partition("\n")[0].rstrip(".")
        options = ", ".join(f"{each.name}={getattr(self, each.name)}" for each in fields(self))
        return f"{about} ({options})" if options else about

    @abstractmethod
    def compute(self, references: Sequence[Any], predictions: Sequence[Any]) -> float:
        """Score all predictions at once.

        Raises:
            ValueError: there are none, not as many predictions as references, or they make no number.
        """


@dataclass
class AdditiveMetric(Metric):
    """A metric that is a function of sums over samples, and so has a bootstrap interval and can be paired.

    Word error rate is one: edits over words, both summed over the utterances. Most are.

    Attributes:
        undefined: of which samples it is no number, and why, for a sentence.
    """

    undefined: ClassVar[str] = ""

    @abstractmethod
    def statistics(self, references: Sequence[Any], predictions: Sequence[Any]) -> Any:
        """Return the numbers of each sample that are to be summed: an array [samples, statistics] of float64."""

    @abstractmethod
    def reduce(self, sums: Any) -> float:
        """Make the metric from the sums over samples, an array [statistics]; NaN where they make no number."""

    def columns(self, references: Sequence[Any], predictions: Sequence[Any]) -> tuple[str, ...]:
        """Name the statistics where samples decide which there are (some of each class), so that runs can be paired.

        A run has 0 for what only the other has, and `reduce` takes the groups of columns in any order. Without names
        they are the same for all samples.
        """
        return ()

    def compute(self, references: Sequence[Any], predictions: Sequence[Any]) -> float:
        """Score all predictions at once (see `Metric.compute`)."""
        if not len(references) or len(references) != len(predictions):
            raise ValueError(f"{len(references)} references and {len(predictions)} predictions can't be scored")
        score = float(self.reduce(self.statistics(references, predictions).sum(axis=0)))
        if not math.isfinite(score):
            raise ValueError(no_number(type(self).__name__, self))
        return score


def no_number(name: str, metric: Metric) -> str:
    """Say that a metric makes no finite number of samples, and why where it says so itself."""
    why = metric.undefined if isinstance(metric, AdditiveMetric) else ""
    return f"{name} of these samples is no finite number" + (f": {why}" if why else "")


@dataclass
class PooledMetric(Metric):
    """A metric of things of which each sample has any number: it is made anew of drawn samples, for its interval.

    Mean average precision is one: the boxes of all images are sorted together, and no sum over images gives it.

    Attributes:
        pool: the name of the table of things; metrics of one pool share it, and the summary of drawn samples.
    """

    pool: ClassVar[str]

    @abstractmethod
    def items(self, references: Sequence[Any], predictions: Sequence[Any]) -> Any:
        """Return all things: an array [items, numbers] of float64 that begins with the index of the item's sample.

        Each sample has one item at least.
        """

    @abstractmethod
    def summarizer(self, items: Any) -> Callable[[Any], Any]:
        """Return what summarises drawn samples, given how often each is drawn: integers [samples]."""

    @abstractmethod
    def pick(self, summary: Any) -> float:
        """Make the metric from a summary; NaN where it makes no number."""

    def compute(self, references: Sequence[Any], predictions: Sequence[Any]) -> float:
        """Score all predictions at once (see `Metric.compute`)."""
        import numpy as np

        if not len(references) or len(references) != len(predictions):
            raise ValueError(f"{len(references)} references and {len(predictions)} predictions can't be scored")
        summarize = self.summarizer(self.items(references, predictions))
        score = self.pick(summarize(np.ones(len(references), dtype=np.int64)))
        if not math.isfinite(score):
            raise ValueError(f"{type(self).__name__} of these samples is no finite number")
        return score


@dataclass
class Renderer(ABC):
    """A form that a comparison is written in.

    Attributes:
        suffix: the file suffix that chooses it, with its dot.
    """

    suffix: ClassVar[str]

    def check(self) -> None:
        """Complain about what writing would lack, before a server is asked for anything.

        Raises:
            CompressError: a library is not installed; the message says how to install it.
        """

    @abstractmethod
    def render(self, comparison: Comparison) -> bytes:
        """Write the comparison out."""
