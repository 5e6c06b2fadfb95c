"""The four sockets that take plugins: `Family`, `Method`, `Metric`, `Renderer`.

A plugin is one class in one file. The file's name is the plugin's name. The class is a dataclass whose typed fields are
the plugin's options. Heavy libraries are imported inside the methods, so that listing plugins is fast.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from mlflow_compress.errors import Unsupported
from mlflow_compress.model import Evaluation, LayerSizes, Model
from mlflow_compress.records import LAST_RANK, CautionKind, Comparison, MetricFacts, Part, Scale
from mlflow_compress.torch_devices import LABELS

__all__ = [
    "RANDOM_CALIBRATION", "AdditiveMetric", "Continuation", "Evaluation", "Family", "Graph", "Labelled", "LayerSizes",
    "Mark", "Method", "Metric", "Model", "NativeFlavor", "PooledMetric", "Published", "Renderer", "Sample", "State",
    "TextModel",
]  # fmt: skip

RANDOM_CALIBRATION = CautionKind(
    "random_calibration",
    short={"en": "calibrated on random inputs", "ru": "калибровка на случайных входах"},
    message={
        "en": "the method was calibrated on random inputs, not on data",
        "ru": "метод калиброван на случайных входах, а не на данных",
    },
    advice={
        "en": "Size and latency are correct, its answers are not: use data with a training part, or "
        "data=SOURCE:calibration=OTHER, or score fewer samples (limit=N), so that some are left for calibration.",
        "ru": "Размер и время верны, ответы нет: дайте данные с обучающей частью, или data=SOURCE:calibration=OTHER, "
        "или меньше примеров для оценки (limit=N), чтобы часть осталась для калибровки.",
    },
)

Mark = Callable[[str], None]


class Reporter(Protocol):
    """Receives the progress of a long measurement."""

    def stage(self, name: str) -> None:
        """Report that a stage begins."""

    def progress(self, done: int, total: int | None, seconds_left: float | None) -> None:
        """Report the progress of the stage."""


State = Literal["float", "half", "packed", "runtime"]


@dataclass(frozen=True)
class Graph:
    """A part of a model as a pure function of tensors, for methods that export it to another runtime.

    Attributes:
        module: A `torch.nn.Module` that takes the inputs by position and returns a tuple of tensors.
        inputs: Example tensors by name, in order.
        outputs: Names of the outputs, in order.
        dynamic: Axes of variable length, by name of the input or output: `{"input_ids": {0: "batch", 1: "tokens"}}`.
        is_unordered: Whether the entries on the second axis of outputs have no fixed order, like the objects that a
            detector finds: rounding may exchange them. They are compared after sorting (see `value_trees.in_order`).
    """

    module: Any
    inputs: Mapping[str, Any]
    outputs: tuple[str, ...]
    dynamic: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    is_unordered: bool = False


@dataclass(frozen=True)
class Continuation:
    """Tokens that a model generated, with their logits from generation and from a single pass.

    Attributes:
        tokens: The new tokens [batch, tokens].
        logits: The raw logits that each token was chosen from, with the cache [batch, tokens, vocabulary], float32.
        at_once: The logits of the same tokens from one pass without a cache, of the same shape.
    """

    tokens: Any
    logits: Any
    at_once: Any


@dataclass(frozen=True)
class Sample:
    """One labelled sample: `inputs` for `Family.predict`, `reference` for its metrics."""

    inputs: Any
    reference: Any


@dataclass(frozen=True)
class TextModel:
    """A language model as functions of tokens, for programs that ask it their own questions.

    Attributes:
        tokenizer: The tokenizer, of transformers.
        logits: Takes token ids [batch, tokens], int64 on the CPU; returns logits [batch, tokens, vocabulary].
        proceed: Takes token ids of a prompt, the maximum number of new tokens, and texts. Returns the greedy
            continuation, which ends soon after it contains one of the texts.
        vocabulary: Size of the vocabulary.
        longest: Maximum number of tokens at once; None: unknown.
    """

    tokenizer: Any
    logits: Callable[[Any], Any]
    proceed: Callable[[Sequence[int], int, Sequence[str]], str]
    vocabulary: int
    longest: int | None


@dataclass(frozen=True)
class Labelled:
    """A batch of labelled samples to train on.

    Attributes:
        batch: Inputs for `Family.forward`.
        targets: Their labels, in the form that `Family.forward_labelled` takes.
    """

    batch: Any
    targets: Any


@dataclass(frozen=True)
class Published:
    """How to load a folder that was exported for other programs.

    Attributes:
        code: One line of Python that loads it, with `FOLDER` for the folder.
        needs: Distributions that the line imports.
        note: A sentence with further instructions; empty if there are none.
    """

    code: str
    needs: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class NativeFlavor:
    """How a flavor of MLflow itself (`mlflow.onnx.load_model`) loads a saved model from its files in place.

    Attributes:
        name: MLflow's name of the flavor (`onnx`).
        settings: Its entry in the file MLmodel, with `FOLDER` in a text for the model folder.
        copies: Names of small files in the model folder that the flavor reads from another folder, by that folder,
            relative to MLmodel.
    """

    name: str
    settings: Mapping[str, Any]
    copies: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass
class Family(ABC):
    """A kind of model: how to load it, what one call is, and what it predicts.

    The fields of the subclass are the family's options.

    Attributes:
        dtype: Precision of the original's weights: `native` is that of its checkpoint; `auto` is that of `auto_dtype`.
        auto_dtype: `native` or `float32`.
        revision: Increased when the same options load a different model than before, so that sweeps measure it again.
        timed: One sentence that says what is inside the timed region of `run`. Runs with different sentences are not
            compared, so change it only when the timed region changes.
        metrics: Names of the metrics that score this family.
        gives: Kind of its answers, as in `Metric.takes`; empty if it depends on the model.
        needs: Distributions it imports, for the requirements of a logged model.
        imports: Modules that it imports at some time, so that their memory is not counted as the model's.
        takes_rows: Whether an input is a row of a table: a mapping of columns to values.
        flexible_axes: Axes of variable length in the array that `example` returns.
        call_options: Options that change the timed call for the same input. Latencies with different values are not
            divided. None: any option may change it.
        calibrates_on: The data that calibration and training need, as part of a message.
        has_random_weights: Whether `load` supports `weights=random`.
        runs_users_code: Whether its models are Python code of the user, which is tried before anything is measured.
        is_remote: Whether its models run in another process, so that their size, memory and energy can't be measured,
            and they can't be logged.
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
        "data with a training part (a folder train/, a split train), or data=SOURCE:calibration=OTHER, or limit=N, "
        "which leaves samples that are not scored"
    )
    has_random_weights: ClassVar[bool] = True
    runs_users_code: ClassVar[bool] = False
    is_remote: ClassVar[bool] = False
    auto_dtype: ClassVar[Literal["native", "float32"]] = "native"
    revision: ClassVar[int] = 1

    dtype: Literal["auto", "native", "float32", "bfloat16", "float16"] = field(default="auto", kw_only=True)

    @property
    def precision(self) -> str:
        """Return the precision of the original: `native`, or the name of a floating-point type."""
        return self.auto_dtype if self.dtype == "auto" else self.dtype

    @abstractmethod
    def load(self, source: str, weights: str, folder: Path, seed: int) -> Model:
        """Load the original model, on the CPU, ready for inference.

        Load it in `precision` if the family can; otherwise it is cast afterwards.

        Args:
            source: Source in the recipe: a hub id, a file name, or a file of Python code.
            weights: `auto`, `pretrained`, `random`, or a local path.
            folder: Base folder of relative paths.
            seed: Seed for random weights.

        Raises:
            WeightsError: The weights are not available, or do not fit this model.
        """

    def weights_bytes(self, source: str, weights: str, folder: Path) -> int | None:
        """Return the memory in bytes that the original's weights will need, without reading them; None if unknown.

        Args:
            source: See `load`.
            weights: See `load`.
            folder: See `load`.
        """
        return None

    def code(self, source: str, weights: str, folder: Path) -> str:
        """Return a description of custom code that `load` would run, which the user must trust; empty if there is none.

        Args:
            source: See `load`.
            weights: See `load`.
            folder: See `load`.
        """
        return ""

    @classmethod
    def require_loggable(cls, source: str) -> None:
        """Check that a source contains no secret, before anything is logged.

        Raises:
            RecipeError: It does. The message does not repeat it.
        """
        return

    @abstractmethod
    def batch(self, model: Model, size: int, seed: int) -> Any:
        """Return the input of one timed call: `size` samples, on the model's device and in its dtype."""

    @abstractmethod
    def run(self, model: Model, batch: Any, mark: Mark) -> Any:
        """Make the timed call.

        Call `mark(stage)` at the end of each stage; the stage's time starts at the previous mark.

        Returns:
            The raw output: a tensor, or a (nested) sequence or mapping of tensors.
        """

    def forward(self, model: Model, batch: Any) -> Any:
        """Make one plain forward pass on a batch, with gradients if torch records them: no decoding, no caches.

        Methods use it to calibrate and train, and the outputs of variants are compared with it.

        Returns:
            Raw output, see `run`; for models that decode, the logits [batch, tokens, vocabulary] for given tokens.
        """
        return self.run(model, batch, lambda stage: None)

    def parts(self, model: Model, output: Any) -> list[tuple[Any, float]]:
        """Return the parts of a `forward` output, which are compared with another model's separately.

        Returns:
            Tensors, or containers of tensors, each with the smallest norm that a difference is divided by.
        """
        if isinstance(output, Mapping):
            output = list(output.values())
        return [(part, 0.0) for part in output] if isinstance(output, (list, tuple)) else [(output, 0.0)]

    def classes(self, model: Model) -> int:
        """Return the length of `forward`'s last axis if it contains class logits, otherwise 0."""
        return 0

    def outputs_are_scores(self, model: Model) -> bool:
        """Return whether `forward` returns class scores (logits) on the last axis, for methods that train on them.

        This is assumed for all transformers models, and for models with a known number of classes.
        """
        return model.is_transformer or self.classes(model) > 0

    def scores(self, model: Model, output: Any) -> Any:
        """Return the tensors with scores in a `forward` output, if `outputs_are_scores` is true."""
        return output

    def calibration(self, model: Model, count: int, seed: int, size: int = 1) -> list[Any]:
        """Return `count` batches of `size` samples (see `batch`) for methods that calibrate or train.

        They are never samples that quality is scored on. A family without data returns random inputs, and adds a
        caution to the model.
        """
        model.cautions.append(RANDOM_CALIBRATION.of())
        return [self.batch(model, size, seed + 1 + index) for index in range(count)]

    def labelled(self, model: Model, count: int, seed: int, size: int = 1) -> list[Labelled]:
        """Return `count` batches of `size` labelled samples for methods that train on labels.

        They are never samples that quality is scored on. For random weights without data, the labels are the model's
        own answers to random inputs, so that size and latency can be measured.

        Raises:
            Unsupported: The family does not train on labels, or there are no labelled samples besides the scored ones.
        """
        if model.weights != "random":
            learns = type(self).labelled is not Family.labelled
            missing = f"there are no labelled samples to train on: provide {self.calibrates_on}"
            raise Unsupported(missing if learns else "this family does not train on labels")
        batches = self.calibration(model, count, seed, size)
        return [Labelled(batch, self._own_answers(model, batch)) for batch in batches]

    def _own_answers(self, model: Model, batch: Any) -> Any:
        import torch

        with torch.no_grad():
            scores = self.scores(model, self.forward(model, batch)) if self.outputs_are_scores(model) else None
        if not isinstance(scores, torch.Tensor):
            raise Unsupported("the model has no scores of classes: it can't be trained on labels without data")
        return scores.argmax(-1)

    def forward_labelled(self, model: Model, labelled: Labelled) -> tuple[Any, Any]:
        """Make one forward pass on a labelled batch, with gradients.

        Returns:
            The raw output, see `forward`, and the loss on the labels, a scalar: by default the cross-entropy of the
            class scores and the numbers of the classes; targets of -100 do not count.
        """
        from torch.nn import functional

        output = self.forward(model, labelled.batch)
        scores = self.scores(model, output)
        return output, functional.cross_entropy(scores.flatten(0, -2), labelled.targets.flatten())

    def token_lists(self, model: Model, most: int) -> list[list[int]]:
        """Return the tokens of all texts that quality is not scored on, for methods that prune the vocabulary.

        Args:
            model: The model.
            most: Maximum number of samples to read.

        Returns:
            The token ids of each text, as the model reads and writes it, not cut; empty if there are no such texts.

        Raises:
            Unsupported: The family reads no text.
        """
        raise Unsupported("this family reads no text: it has no vocabulary to prune")

    def imitation_loss(self, model: Model, output: Any, target: Any) -> Any:
        """Return the loss of a student's `forward` output on the teacher's, a scalar.

        None: the methods' own loss, see `compression.imitation`.
        """
        return None

    def refuses(self, model: Model) -> str:
        """Return why no method can change this model; empty if methods can."""
        return ""

    def student(self, model: Model, keep: float) -> Model:
        """Return a smaller model of the same kind to train, initialised from this one where possible.

        Args:
            model: The teacher, in float32 on the CPU.
            keep: Share of the teacher's layers, or of its width, that the student has, 0 to 1.

        Raises:
            Unsupported: This family has no smaller models.
        """
        raise Unsupported("this family does not define a smaller model: name one with student=NAME")

    def named_student(self, model: Model, source: str, weights: str, seed: int) -> Model:
        """Load another model of this family to train it as a student of this one, with the same classes.

        Args:
            model: The teacher.
            source: The student's source, see `load`.
            weights: `pretrained` or `random`.
            seed: Seed for weights that the student's source does not have.

        Raises:
            Unsupported: It can't learn from this teacher.
            WeightsError: See `load`.
        """
        return self.load(source, weights, model.folder, seed)

    def graphs(self, model: Model) -> Mapping[str, Graph]:
        """Return the model as graphs, by name, for methods that export it.

        Raises:
            Unsupported: This family can't be exported.
        """
        raise Unsupported("this family does not support export")

    def attach(self, model: Model, calls: Mapping[str, Callable[..., tuple[Any, ...]]]) -> Model:
        """Replace the module by exported graphs, so that `run`, `forward` and `predict` use them.

        Args:
            model: The model, whose module is None.
            calls: Functions that run the graphs: they take tensors by position and return a tuple of tensors.
        """
        raise Unsupported("this family can't run exported graphs")

    def around(self, model: Model, size: int, seed: int) -> Mapping[str, Callable[[], object]]:
        """Return the stages outside the timed region by name, to be timed separately (`preprocess`, `postprocess`)."""
        return {}

    def rates(self, latency_ms: float, stages_ms: Mapping[str, float], size: int) -> Mapping[str, float]:
        """Return further rates of the family (tokens per second, real-time factor), computed from medians.

        Args:
            latency_ms: Median of the timed call.
            stages_ms: Median of each of its stages.
            size: Samples in the batch.

        Returns:
            Numbers by metric name without the device: `tokens_per_s`.
        """
        return {}

    def scored_rates(self, inputs: Sequence[Any], seconds: float) -> Mapping[str, float]:
        """Return further rates of the family over the scored samples, from the time that their answers took.

        Args:
            inputs: The inputs of the samples.
            seconds: Time of all answers together, with reading and preparing the inputs.

        Returns:
            Numbers by metric name without the device: `real_time_factor_scored`.
        """
        return {}

    def under_load(self, model: Model, seed: int, reporter: Reporter, folder: Path) -> Part | None:
        """Measure a remote model that serves several callers at the same time; None if this is not requested.

        Args:
            model: The model.
            seed: Seed of the inputs, and of the moments at which they arrive.
            reporter: Receives the progress.
            folder: Folder for a table.
        """
        return None

    def samples(self, model: Model, data: str, folder: Path, limit: int | None, seed: int) -> Sequence[Sample]:
        """Return the labelled samples that quality is scored on, held out from all training and calibration.

        Raises:
            RecipeError: This family can't read the data.
        """
        from mlflow_compress.errors import RecipeError

        raise RecipeError(f"This family can't score {data!r} yet. Set data=none to measure without quality.")

    @abstractmethod
    def predict(self, model: Model, inputs: Sequence[Any]) -> list[Any]:
        """Return one prediction for each plain Python input, in the form that a user of the model expects."""

    def generate(self, model: Model, batch: Any, new_tokens: int) -> Continuation | None:
        """Generate from a batch in the same way as `run` and `predict`; None if this family does not generate.

        It is used to check a decoder: before and after saving, and against one pass without a cache.

        Args:
            model: The model.
            batch: A batch from `batch` or `calibration`.
            new_tokens: Number of tokens, regardless of end tokens; at most as many as in a timed call.
        """
        return None

    def answers(self, model: Model, inputs: Sequence[Any]) -> list[Any]:
        """Return the predictions for the family's metrics: those of `predict`, unless quality needs others.

        For example, a language model is scored by the likelihood of a text, not by its continuation.
        """
        return self.predict(model, inputs)

    def text_model(self, model: Model) -> TextModel:
        """Return the model as functions of tokens, for metrics that take `requests`.

        Raises:
            Unsupported: This family has no likelihood of a given continuation.
        """
        raise Unsupported("this family does not predict how a text continues")

    def example(self, model: Model) -> list[Any]:
        """Return one small input for `predict`, a text or an array, for users of the logged model; or an empty list."""
        return []

    def metrics_for(self, model: Model) -> tuple[str, ...]:
        """Return the names of the default metrics of this model."""
        return self.metrics

    def kinds(self, model: Model) -> tuple[str, ...]:
        """Return the kind of the answers, as in `Metric.takes`, if it depends on the model; empty: anything."""
        return self.gives

    @abstractmethod
    def save(self, model: Model, folder: Path) -> None:
        """Write everything that `restore` needs besides the weights (config, tokenizer, code) into an empty folder."""

    @abstractmethod
    def restore(self, folder: Path) -> Model:
        """Build the model that `save` described, without its weights, which are loaded afterwards."""

    def publish(self, saved: Path, folder: Path) -> Published:
        """Export a saved model of which only the weights were changed, for other programs. Do not run the model's code.

        Args:
            saved: The model folder with the output of `save` and the weights.
            folder: An empty folder.

        Raises:
            Unsupported: No other program can load such a model.
        """
        raise Unsupported("this family can't export its models for other programs")

    def native_flavor(self, saved: Path) -> NativeFlavor:
        """Return the MLflow flavor that can load a saved model of which only the weights were changed. Load nothing.

        Args:
            saved: The model folder with the output of `save` and the weights.

        Raises:
            Unsupported: No flavor can load these files without running code.
        """
        raise Unsupported("MLflow has no flavor that loads models of this family from such files")

    def restore_assets(self, folder: Path) -> Model:
        """Return the restored model without its module (None), for a method that provides its own module."""
        model = self.restore(folder)
        model.module = None
        return model


@dataclass
class Method(ABC):
    """A way to compress a model. The fields of the subclass are its options.

    Attributes:
        changes: `weights` (values or dtype, which still fit the architecture), `architecture` (`rebuild` repeats the
            change on a model without weights), `storage` (the same, but the method writes and reads the weights
            itself), or `runtime` (the method saves and restores the module itself, and no torch module is built).
        takes: States of a model that it accepts: weights in `float` (32 bits) or `half` precision, `packed` into
            integers, or converted to the module of another `runtime`.
        gives: State of the compressed model; None: unchanged.
        needs: Distributions it imports beyond those of the package itself.
        extra: Extra of the package that installs them.
        install: Command that installs them, if an extra can't; empty: the extra does.
        devices: Devices that the compressed model runs on: `cpu`, `cuda`, `mps`, `xpu`.
        excludes: Families that it does not support, each with the reason.
        revision: Increased when the same options make a different model than before, or it runs on other kernels, so
            that sweeps measure it again.
    """

    changes: ClassVar[Literal["nothing", "weights", "architecture", "storage", "runtime"]]
    takes: ClassVar[tuple[State, ...]] = ("float", "half")
    gives: ClassVar[State | None] = None
    needs: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ""
    install: ClassVar[str] = ""
    devices: ClassVar[tuple[str, ...]] = tuple(LABELS)
    excludes: ClassVar[Mapping[str, str]] = {}
    revision: ClassVar[int] = 1

    @abstractmethod
    def compress(self, model: Model, family: Family) -> Model:
        """Compress the model, in place or not.

        Raises:
            Unsupported: The method does not apply, or would change nothing.
        """

    def rebuild(self, model: Model, family: Family) -> Model:
        """Repeat the structural changes of `compress` on a model without weights, so that the saved weights fit."""
        return model

    def save(self, model: Model, family: Family, folder: Path) -> None:
        """Write the weights, or the module of another runtime (only if `changes` is `storage` or `runtime`)."""
        raise NotImplementedError

    def load(self, model: Model, family: Family, folder: Path) -> Model:
        """Read the files of `save` (only if `changes` is `storage` or `runtime`).

        `storage`: fill `model.module`, rebuilt without weights, and leave it on the CPU. `runtime`: set the missing
        module of the model, on `model.device`.
        """
        raise NotImplementedError

    def publish(self, saved: Path, family: Family, portable: Callable[[], Model], folder: Path) -> Published:
        """Export a saved model for other programs: its float folder.

        A method for another runtime writes that runtime's files. A method with layers of this package overrides this to
        write a format that other programs know; otherwise it raises.

        Args:
            saved: The model folder.
            family: The model's family.
            portable: Builds the model with its weights as saved, not repacked for a machine.
            folder: An empty folder.

        Raises:
            Unsupported: No other program can load the model.
        """
        if self.changes in ("nothing", "weights"):
            return family.publish(saved, folder)
        raise Unsupported("its layers belong to this package, and no other program knows them")

    def native_flavor(self, saved: Path, family: Family) -> NativeFlavor:
        """Return the MLflow flavor that can load a saved model, besides this package's own. Load nothing.

        Args:
            saved: The model folder.
            family: The model's family.

        Raises:
            Unsupported: No flavor can load these files without running code.
        """
        if self.changes in ("nothing", "weights"):
            return family.native_flavor(saved)
        if self.changes == "runtime":
            raise Unsupported("MLflow has no flavor for this runtime")
        raise Unsupported("its layers are saved in a format of this package that no MLflow flavor knows")


@dataclass
class Metric(ABC):
    """A number for quality.

    The class has all facts about the number. They are logged with each run, so no other file lists names of metrics.

    Attributes:
        unit: `ratio`, `percent`, ...; empty if it has none.
        greater_is_better: Its direction, as in MLflow.
        label: Its name for people, by language (`en`, `ru`); the default is its name in recipes.
        scale: `share` (0 to 1), `hundred` (0 to 100), `error_rate` (errors per unit, 0 is perfect, values above 1 are
            possible), `correlation` (-1 to 1, 0 is chance) or `unbounded`. It defines the size of a relative loss.
            None: unknown.
        rank: If several metrics were measured, the one with the smallest rank represents the model's quality. Those of
            this package are below 1000.
        spelling: Regular expression, ignoring case, for its name in imported tables. Default: its name and labels.
        takes: Kind of references and predictions: `labels` (a prediction is a label, or labels ranked best first),
            `scores` (a prediction maps each label to its probability), `texts`, `tags` (a list for each sample),
            `likelihoods` (a prediction maps `nll`, in nats, `tokens`, `words` and `bytes` to their sums over the text),
            `numbers`, `rankings` (a reference lists the relevant documents, a prediction the found ones, best first),
            `boxes` (maps `boxes` [[x1, y1, x2, y2], ...], `labels` and, for predictions, `scores`), `masks`,
            `keypoints` or `rotated_boxes` (maps these names to one entry for each object, with `labels` and, for
            predictions, `scores`), `pixels` (see `scoring.pixels`), `requests` (it asks the model its own questions:
            see `scoring.lm_eval_tasks`), or `anything`.
    """

    unit: ClassVar[str]
    greater_is_better: ClassVar[bool]
    label: ClassVar[Mapping[str, str]] = {}
    scale: ClassVar[Scale | None] = None
    rank: ClassVar[int] = LAST_RANK
    spelling: ClassVar[str] = ""
    takes: ClassVar[
        Literal[
            "labels", "scores", "texts", "tags", "likelihoods", "numbers", "rankings", "boxes", "masks", "keypoints",
            "rotated_boxes", "pixels", "requests", "anything",
        ]
    ] = "anything"  # fmt: skip

    @classmethod
    def class_facts(cls) -> MetricFacts:
        """Return the facts that the class declares. An option of the same name (`label`) is not a fact."""
        options = {option.name for option in fields(cls)}
        is_labelled = "label" not in options and isinstance(cls.label, Mapping)  # a class for 0.1 may use the name
        return MetricFacts(
            label=cls.label if is_labelled else {},
            scale=None if "scale" in options else cls.scale,
            greater_is_better=getattr(cls, "greater_is_better", None),
            rank=LAST_RANK if "rank" in options else cls.rank,
        )

    @property
    def facts(self) -> MetricFacts:
        """The facts logged with the number. Options that differ from their defaults are in the label: `F1 micro`."""
        facts = type(self).class_facts()
        values = [(option, getattr(self, option.name)) for option in fields(self) if option.init]
        words = [
            str(value) if isinstance(value, str) else f"{option.name}={value}"
            for option, value in values
            if option.default is not MISSING and value != option.default
        ]
        return replace(facts, label={language: " ".join([text, *words]) for language, text in facts.label.items()})

    @property
    def protocol(self) -> str:
        """One line that is logged with the number: the first line of the docstring, and the options.

        Scores with different lines are not compared, so change that docstring only when the number changes.
        """
        summary = (inspect.getdoc(type(self)) or "").partition("\n")[0].rstrip(".")
        options = ", ".join(f"{option.name}={getattr(self, option.name)}" for option in fields(self))
        return f"{summary} ({options})" if options else summary

    def require_scorable(self, references: Sequence[Any]) -> None:
        """Check, before anything is measured, that answers to these references can have a score.

        Raises:
            ValueError: No answers can, for example because a class that the metric is about does not occur.
        """

    @abstractmethod
    def compute(self, references: Sequence[Any], predictions: Sequence[Any]) -> float:
        """Score all predictions at once.

        Raises:
            ValueError: There are none, their number differs from the references, or the score is undefined.
        """


@dataclass
class AdditiveMetric(Metric):
    """A metric that is a function of sums over samples, so that it has a bootstrap interval and can be paired.

    Most metrics are of this kind, for example word error rate: edits over words, both summed over the utterances.

    Attributes:
        undefined: For which samples it is undefined, and why, as part of a message.
    """

    undefined: ClassVar[str] = ""

    @abstractmethod
    def statistics(self, references: Sequence[Any], predictions: Sequence[Any]) -> Any:
        """Return the numbers of each sample that are summed: an array [samples, statistics] of float64."""

    @abstractmethod
    def reduce(self, sums: Any) -> float:
        """Return the metric for the sums over samples, an array [statistics]; NaN if it is undefined."""

    def columns(self, references: Sequence[Any], predictions: Sequence[Any]) -> tuple[str, ...]:
        """Return names of the statistics if they depend on the samples (some for each class), to pair runs.

        A run has 0 for statistics that only the other run has, and `reduce` accepts the groups of columns in any order.
        Without names, the statistics are the same for all samples.
        """
        return ()

    def compute(self, references: Sequence[Any], predictions: Sequence[Any]) -> float:
        """Score all predictions at once (see `Metric.compute`)."""
        if not len(references) or len(references) != len(predictions):
            raise ValueError(f"{len(references)} references and {len(predictions)} predictions can't be scored")
        score = float(self.reduce(self.statistics(references, predictions).sum(axis=0)))
        if not math.isfinite(score):
            raise ValueError(no_number(self))
        return score


def no_number(metric: Metric) -> str:
    """Return a message that a metric is undefined for some samples, with the reason if the metric has one."""
    why = metric.undefined if isinstance(metric, (AdditiveMetric, PooledMetric)) else ""
    return "it is not a finite number" + (f": {why}" if why else "")


@dataclass
class PooledMetric(Metric):
    """A metric of items, of which each sample has any number: its interval recomputes it for resampled samples.

    Mean average precision is an example: the boxes of all images are sorted together, so it is not a sum over images.

    Attributes:
        pool: Name of the table of items; metrics of one pool share it, and the summary of resampled samples.
        undefined: For which samples it is undefined, and why, as part of a message.
    """

    pool: ClassVar[str]
    undefined: ClassVar[str] = ""

    @abstractmethod
    def items(self, references: Sequence[Any], predictions: Sequence[Any]) -> Any:
        """Return all items: an array [items, numbers] of float64 whose first column is the index of the item's sample.

        Each sample has at least one item.
        """

    def item_names(self, references: Sequence[Any], predictions: Sequence[Any]) -> tuple[str, ...]:
        """Return names of the numbers of an item if they depend on the samples; `summarizer` takes them as well."""
        return ()

    @abstractmethod
    def summarizer(self, items: Any) -> Callable[[Any], Any]:
        """Return a function that summarises resampled samples. Its argument is how often each is drawn: [samples]."""

    @abstractmethod
    def pick(self, summary: Any) -> float:
        """Return the metric for a summary; NaN if it is undefined."""

    def compute(self, references: Sequence[Any], predictions: Sequence[Any]) -> float:
        """Score all predictions at once (see `Metric.compute`)."""
        import numpy as np

        if not len(references) or len(references) != len(predictions):
            raise ValueError(f"{len(references)} references and {len(predictions)} predictions can't be scored")
        names = self.item_names(references, predictions)
        summarize = self.summarizer(self.items(references, predictions), *([names] if names else []))
        score = self.pick(summarize(np.ones(len(references), dtype=np.int64)))
        if not math.isfinite(score):
            raise ValueError(no_number(self))
        return score


@dataclass
class Renderer(ABC):
    """A file format for comparisons.

    Attributes:
        suffix: File suffix of the format, with its dot.
    """

    suffix: ClassVar[str]

    def check(self) -> None:
        """Check that everything for writing is available, before a server is contacted.

        Raises:
            CompressError: A library is not installed; the message says how to install it.
        """

    @abstractmethod
    def render(self, comparison: Comparison) -> bytes:
        """Return the content of the file."""
