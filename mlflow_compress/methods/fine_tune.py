"""Further training on labels, to recover what pruning lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt

from mlflow_compress.compression import detectors
from mlflow_compress.compression.calibration import has_data
from mlflow_compress.compression.coverage import STORED_ONLY
from mlflow_compress.compression.label_training import Course, learn_labels
from mlflow_compress.errors import Unsupported
from mlflow_compress.networks.plain_layers import make_plain
from mlflow_compress.sockets import Family, Method, Model, State

_STEPS, _RANDOM_STEPS = 300, 3


@dataclass
class FineTune(Method):
    """Fine-tuning on labels, usually after pruning: `prune_magnitude:amount=0.5+fine_tune`.

    All weights are trained on the labelled samples that quality is not scored on (a training split, or what `limit`
    leaves). Weights of matrices and filters that are zero stay zero, so that pruning is kept. Samples are not
    augmented. Alone, it trains the original further: the row shows what the same training gives without compression.

    A step costs about as much as three forward passes of a batch and runs on the GPU if there is one. For random
    weights the labels are the model's own answers to random inputs: only size and latency are meaningful.

    Source: Han et al., Learning both Weights and Connections for Efficient Neural Networks, arXiv 1506.02626, section
    3: the remaining weights are trained after pruning.

    Attributes:
        steps: Training steps; None: 300, or 3 for random weights.
        batch_size: Samples per step.
        learning_rate: Peak learning rate of Adam; None: 5e-5 for transformers, 5e-4 for others.
        seed: Seed for the samples and dropout.
    """

    changes: ClassVar[Literal["weights"]] = "weights"
    takes: ClassVar[tuple[State, ...]] = ("float",)

    steps: Annotated[int | None, Ge(1)] = None
    batch_size: Annotated[int, Ge(1)] = 16
    learning_rate: Annotated[float | None, Gt(0)] = None
    seed: Annotated[int, Ge(0)] = 0

    def compress(self, model: Model, family: Family) -> Model:
        """Train in place.

        Raises:
            Unsupported: The family does not train on labels, or there are no labelled samples besides the scored ones.
        """
        from torch import nn

        if not isinstance(model.module, nn.Module) or not any(
            weight.is_floating_point() for weight in model.module.parameters()
        ):
            raise Unsupported("the model has no weights that can be trained")
        if any(caution.code == STORED_ONLY.code for caution in model.cautions):
            raise Unsupported("training would separate the weights that share a value: put fine_tune before cluster")
        make_plain(model)
        steps = (_STEPS if has_data(model, family) else _RANDOM_STEPS) if self.steps is None else self.steps
        detectors.forget_anchors(model.module)
        learn_labels(model, family, Course(steps, self.batch_size, self.learning_rate, self.seed))
        detectors.forget_anchors(model.module)
        return model
