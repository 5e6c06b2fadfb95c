"""Encoders that put one label on a text: BERT, DistilBERT, RoBERTa and their kin, through transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import Ge

from mlflow_compress.data.datasets import draw, scored
from mlflow_compress.data.labels import labels_of
from mlflow_compress.networks.export_graphs import Attached, Calls, graph
from mlflow_compress.networks.hub import (
    find_weights,
    load_tokenizer,
    load_transformer,
    longest,
    must_fit,
    restore_assets,
    restore_transformer,
    save_transformer,
)
from mlflow_compress.networks.transformer_layers import thinned
from mlflow_compress.sockets import Family, Graph, Mark, Model, Sample

_AUTO_CLASS = "AutoModelForSequenceClassification"
_PREDICT_BATCH = 16
_ROLES = ("text", "label")
_TEXT = "The pictures are beautiful, but the story is thin and the ending came as no surprise to anyone in the room. "


@dataclass
class TextClassification(Family):
    """A transformers sequence classifier.

    Attributes:
        tokens: length of the timed input, in tokens.
        scored_tokens: what texts are cut to in predicting and scoring, in tokens; None: what the model can take.
        architecture: the config's fields with `model_type`, for random weights.
    """

    timed: ClassVar[str] = "one forward pass on token ids [batch, tokens] on the device; tokenising is timed apart"
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "precision", "recall", "f1")
    gives: ClassVar[tuple[str, ...]] = ("labels",)
    needs: ClassVar[tuple[str, ...]] = ("torch", "transformers", "accelerate", "safetensors")
    imports: ClassVar[tuple[str, ...]] = ("torch", "transformers.modeling_utils", "accelerate", "safetensors.torch")

    tokens: Annotated[int, Ge(1)] = 128
    scored_tokens: Annotated[int, Ge(1)] | None = None
    architecture: dict[str, Any] = field(default_factory=dict)

    def load(self, source: str, weights: str, folder: Path, seed: int) -> Model:
        """Load the classifier and its tokenizer (see `Family.load`)."""
        origin = find_weights(source, weights, folder)
        model = load_transformer(_AUTO_CLASS, source, origin, self.architecture, seed)
        model.assets["tokenizer"] = load_tokenizer(origin)
        return model

    def batch(self, model: Model, size: int, seed: int) -> dict[str, Any]:
        """Make random token ids and a full attention mask, both [size, tokens], int64.

        Raises:
            RecipeError: the model can't take so many.
        """
        import torch

        must_fit(model, self.tokens, "tokens")
        generator = torch.Generator().manual_seed(seed)
        vocabulary = model.assets["config"].vocab_size
        ids = torch.randint(0, vocabulary, (size, self.tokens), generator=generator)
        return {"input_ids": ids.to(model.device), "attention_mask": torch.ones_like(ids).to(model.device)}

    def run(self, model: Model, batch: Any, mark: Mark) -> Any:
        """Run the classifier; gives logits [batch, labels]."""
        return model.module(**batch)["logits"]

    def graphs(self, model: Model) -> Mapping[str, Graph]:
        """Give one graph, `model`: `input_ids` and `attention_mask` [batch, tokens] to `logits` [batch, labels]."""
        inputs = self.batch(model, 2, 0)
        axes = {0: "batch", 1: "tokens"}
        dynamic = {**dict.fromkeys(inputs, axes), "logits": {0: "batch"}}
        return {"model": graph(_classify, inputs, ["logits"], dynamic, classifier=model.module)}

    def attach(self, model: Model, calls: Calls) -> Model:
        """Put the exported classifier in the module's place."""
        model.module = _Exported(calls)
        return model

    def student(self, model: Model, keep: float) -> Model:
        """Take over a share of the layers, spaced evenly (see `Family.student`)."""
        return thinned(model, keep)

    def classes(self, model: Model) -> int:
        """Give the number of labels."""
        return int(model.assets["config"].num_labels)

    def around(self, model: Model, size: int, seed: int) -> Mapping[str, Callable[[], object]]:
        """Time the tokenizer on as many texts of at least the timed length."""
        texts = [_TEXT * (self.tokens // 16 + 1)] * size
        return {"preprocess": lambda: self._encode(model, texts, self.tokens)}

    def samples(self, model: Model, data: str, folder: Path, limit: int | None, seed: int) -> Sequence[Sample]:
        """Read texts and their labels: those of the model, by their names or their numbers.

        Raises:
            RecipeError: the data can't be read (see `datasets.read`), or a label is none of the model's.
        """
        rows = scored(model, data, folder, _ROLES, limit, seed)
        labels = labels_of(rows, model.assets["config"].id2label)
        return [Sample(str(row.values["text"]), label) for row, label in zip(rows, labels, strict=True)]

    def calibration(self, model: Model, count: int, seed: int, size: int = 1) -> list[Any]:
        """Draw texts that quality is not scored on, cut to `tokens`; without any, see `Family.calibration`."""
        texts = draw(model, _ROLES, count * size, seed)
        if not texts:
            return super().calibration(model, count, seed, size)
        parts = [texts[start : start + size] for start in range(0, len(texts), size)]
        return [dict(self._encode(model, [str(text) for text in part], self.tokens).to(model.device)) for part in parts]

    def predict(self, model: Model, inputs: Sequence[Any]) -> list[str]:
        """Give the label's name for each text."""
        import torch

        labels: Mapping[int, str] = model.assets["config"].id2label
        found: list[str] = []
        with torch.inference_mode():
            for start in range(0, len(inputs), _PREDICT_BATCH):
                texts = [str(text) for text in inputs[start : start + _PREDICT_BATCH]]
                encoded = self._encode(model, texts, self.scored_tokens or longest(model))
                logits = model.module(**encoded.to(model.device))["logits"]
                found += [labels[index] for index in logits.argmax(-1).tolist()]
        return found

    def _encode(self, model: Model, texts: list[str], tokens: int | None) -> Any:
        return model.assets["tokenizer"](
            texts,
            return_tensors="pt",
            padding=True,
            truncation=tokens is not None,
            max_length=tokens,
            return_token_type_ids=False,
        )

    def example(self, model: Model) -> list[Any]:
        """Give a text."""
        return ["A film that stays with you."]

    def save(self, model: Model, folder: Path) -> None:
        """Write config and tokenizer."""
        save_transformer(model, folder, "tokenizer")

    def restore(self, folder: Path) -> Model:
        """Build the unfilled classifier and its tokenizer."""
        return restore_transformer(_AUTO_CLASS, self.restore_assets(folder))

    def restore_assets(self, folder: Path) -> Model:
        """Give config and tokenizer."""
        return restore_assets(folder, tokenizer="AutoTokenizer")


class _Exported(Attached):
    def __call__(self, input_ids: Any, attention_mask: Any) -> dict[str, Any]:
        return {"logits": self.calls["model"](input_ids, attention_mask)[0]}


def _classify(parts: Any, input_ids: Any, attention_mask: Any) -> tuple[Any, ...]:
    return (parts.classifier(input_ids=input_ids, attention_mask=attention_mask)["logits"],)
