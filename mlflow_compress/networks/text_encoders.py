"""Text encoders that return scores of labels for a text or for each token: the common part of their families."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

from annotated_types import Ge

from mlflow_compress.networks.export_graphs import Attached, Calls, graph
from mlflow_compress.networks.text_inputs import (
    must_fit,
    note_positions,
    positions,
    require_pass,
    settle_start,
    taken,
    token_ids,
)
from mlflow_compress.networks.transformer_layers import thinned
from mlflow_compress.networks.transformers_models import TransformersFamily
from mlflow_compress.sockets import Graph, Mark, Model

SEGMENTS = "token_type_ids"  # transformers' name for the number of each token's text
TAKES_SEGMENTS = "takes_segments"  # our own field in the config: the input has pairs of texts


@dataclass
class TextEncoder(TransformersFamily):
    """A transformers model from token ids [batch, tokens] to logits.

    Attributes:
        logits_axes: axes of the logits whose length may change, as in `Graph`.
        tokens: length of the timed input, in tokens.
    """

    call_options: ClassVar[tuple[str, ...]] = ()
    timed: ClassVar[str] = "one forward pass on token ids [batch, tokens] on the device; tokenising is timed apart"
    logits_axes: ClassVar[Mapping[int, str]]

    tokens: Annotated[int, Ge(1)] = 128

    def settle(self, model: Model) -> None:
        """Prepare a newly loaded model, and run it once.

        Raises:
            RecipeError: it does not run on token ids alone.
        """
        note_positions(model.module, model.config)
        settle_start(model)
        short_family = replace(self, tokens=min(self.tokens, positions(model.config) or self.tokens))
        require_pass(
            model, lambda: short_family.run(model, short_family.batch(model, 1, 0), lambda stage: None), "token ids"
        )

    def batch(self, model: Model, size: int, seed: int) -> dict[str, Any]:
        """Make random token ids and a full attention mask, both [size, tokens], int64.

        If the data has pairs of texts that the model must tell apart, also the number of each token's text: the second
        half belongs to the second text.

        Raises:
            RecipeError: the model can't take this many tokens.
        """
        import torch

        must_fit(model, self.tokens, "tokens")
        ids = token_ids(model, size, self.tokens, seed)
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if getattr(model.config, TAKES_SEGMENTS, False):
            batch[SEGMENTS] = torch.zeros_like(ids)
            batch[SEGMENTS][:, self.tokens // 2 :] = 1
        return batch

    def run(self, model: Model, batch: Any, mark: Mark) -> Any:
        """Run the encoder, and return logits [batch, ..., labels]."""
        return model.module(**taken(model.module, batch))["logits"]

    def graphs(self, model: Model) -> Mapping[str, Graph]:
        """Return one graph, `model`: from the inputs of `batch` [batch, tokens] to `logits` (see `run`)."""
        inputs = self.batch(model, 2, 0)
        dynamic = {**{name: {0: "batch", 1: "tokens"} for name in inputs}, "logits": self.logits_axes}
        return {"model": graph(_logits, inputs, ["logits"], dynamic, encoder=model.module)}

    def attach(self, model: Model, calls: Calls) -> Model:
        """Replace the module by the exported encoder."""
        model.module = _Exported(calls)
        return model

    def student(self, model: Model, keep: float) -> Model:
        """Copy a share of the layers, evenly spaced (see `Family.student`)."""
        return thinned(model, keep)

    def classes(self, model: Model) -> int:
        """Return the number of labels."""
        return int(model.config.num_labels)

    def classes_to_teach(self, model: Model) -> Mapping[int, str]:
        """Return the labels by number."""
        return dict(model.config.id2label)


class _Exported(Attached):
    def __call__(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> dict[str, Any]:
        segments = () if token_type_ids is None else (token_type_ids,)
        return {"logits": self.calls["model"](input_ids, attention_mask, *segments)[0]}


def _logits(parts: Any, input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> tuple[Any, ...]:
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
    if token_type_ids is not None:
        inputs[SEGMENTS] = token_type_ids
    return (parts.encoder(**taken(parts.encoder, inputs))["logits"],)
