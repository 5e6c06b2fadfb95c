"""Text classifiers: BERT, DistilBERT, RoBERTa and similar models, through transformers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import Ge

from mlflow_compress.data.datasets import draw_labelled, draw_rows, scored, unscored_texts
from mlflow_compress.data.labels import labels_of
from mlflow_compress.errors import RecipeError
from mlflow_compress.networks.class_scores import Ranking, rankings
from mlflow_compress.networks.export_graphs import Attached
from mlflow_compress.networks.long_texts import note_cut
from mlflow_compress.networks.text_encoders import SEGMENTS, TAKES_SEGMENTS, TextEncoder
from mlflow_compress.networks.text_inputs import fill_up, longest, settle_padding, taken
from mlflow_compress.networks.transformers_models import Companions, companions, load_tokenizer, load_transformer
from mlflow_compress.sockets import Labelled, Model, Sample

_PREDICT_BATCH = 16
_ROLES = ("text", "pair", "label")  # the second text is optional
_TEXTS = 2  # roles of the input
_TEXT = "The pictures are beautiful, but the story is thin and the ending came as no surprise to anyone in the room. "


@dataclass
class TextClassification(TextEncoder):
    """A transformers sequence classifier of texts, or of pairs of texts as in GLUE.

    Attributes:
        tokens: length of the timed input, in tokens.
        calibration_tokens: maximum length of texts for calibration and training, in tokens.
        scored_tokens: maximum length of texts in predicting and scoring, in tokens; None: the model's maximum.
        architecture: for random weights, fields of the config, including `model_type`.
        trust: whether Python code beside a local model may build it (`auto_map` in its `config.json`).
        students: for random weights, the `architecture` of each model that distill:student names.
    """

    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    pipeline: ClassVar[str] = "text-classification"
    logits_axes: ClassVar[Mapping[int, str]] = {0: "batch"}
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "precision", "recall", "f1")
    gives: ClassVar[tuple[str, ...]] = ("labels", "scores")

    scored_tokens: Annotated[int, Ge(1)] | None = None
    calibration_tokens: Annotated[int, Ge(1)] = 128
    architecture: dict[str, Any] = field(default_factory=dict)

    def load(self, source: str, weights: str, folder: Path, seed: int) -> Model:
        """Load the classifier and its tokenizer (see `Family.load`)."""
        origin = self.origin(source, weights, folder)
        model = load_transformer(
            self.auto_class, source, origin, self.architecture, seed, self.precision, self.labels_of_teacher
        )
        model.family_data = Companions(tokenizer=load_tokenizer(origin), code=origin.code)
        settle_padding(model)
        self.settle(model)
        return model

    def batch(self, model: Model, size: int, seed: int) -> dict[str, Any]:
        """Create random texts (see `TextEncoder.batch`).

        Classifiers with a decoder, such as BART's, read their scores at the end token: each text has one, at its end.
        """
        batch = super().batch(model, size, seed)
        end = getattr(model.config, "eos_token_id", None)
        if getattr(model.config, "is_encoder_decoder", False) and isinstance(end, int):
            batch["input_ids"][batch["input_ids"] == end] = end - 1 if end else end + 1
            batch["input_ids"][:, -1] = end
        return batch

    def around(self, model: Model, size: int, seed: int) -> Mapping[str, Callable[[], object]]:
        """Time the tokenizer on `size` texts of at least the timed length."""
        texts = [_TEXT * (self.tokens // 16 + 1)] * size
        return {"preprocess": lambda: self._encode(model, texts, self.tokens)}

    def samples(self, model: Model, data: str, folder: Path, limit: int | None, seed: int) -> Sequence[Sample]:
        """Read texts, or pairs of texts, and their labels, which are names or numbers of the model's labels.

        Raises:
            RecipeError: the data can't be read (see `datasets.read`), or the model does not have a label.
        """
        rows = scored(model, data, folder, _ROLES, limit, seed)
        labels = labels_of(rows, model.config.id2label)
        inputs = [_input(row.values) for row in rows]
        if any(isinstance(item, list) for item in inputs) and _has_segments(model):
            setattr(model.config, TAKES_SEGMENTS, True)
        note_cut(model, [" ".join(_texts(item)) for item in inputs], self.scored_tokens or longest(model))
        return [Sample(item, label) for item, label in zip(inputs, labels, strict=True)]

    def calibration(self, model: Model, count: int, seed: int, size: int = 1) -> list[Any]:
        """Draw texts that are not scored, cut to `calibration_tokens`; without any, see `Family.calibration`."""
        tokens = min(self.calibration_tokens, longest(model) or self.calibration_tokens)
        inputs = [_input(values) for values in draw_rows(model, _ROLES, _TEXTS, count * size, seed)]
        if not inputs:
            return TextEncoder.calibration(replace(self, tokens=tokens), model, count, seed, size)
        parts = [inputs[start : start + size] for start in range(0, len(inputs), size)]
        return [dict(self._encode(model, part, tokens).to(model.device)) for part in parts]

    def labelled(self, model: Model, count: int, seed: int, size: int = 1) -> list[Labelled]:
        """Draw labelled texts that are not scored, cut to `calibration_tokens` (see `Family.labelled`)."""
        import torch

        rows = draw_labelled(model, _ROLES, _TEXTS, count * size, seed)
        if not rows:
            return super().labelled(model, count, seed, size)
        tokens = min(self.calibration_tokens, longest(model) or self.calibration_tokens)
        numbers = {name: number for number, name in model.config.id2label.items()}
        labels = [numbers[label] for label in labels_of(rows, model.config.id2label)]
        batches = []
        for start in range(0, len(rows), size):
            inputs = [_input(row.values) for row in rows[start : start + size]]
            targets = torch.tensor(labels[start : start + size], device=model.device)
            batches.append(Labelled(dict(self._encode(model, inputs, tokens).to(model.device)), targets))
        return batches

    def token_lists(self, model: Model, most: int) -> list[list[int]]:
        """Return the tokens of all texts that are not scored (see `Family.token_lists`)."""
        texts = [text for values in unscored_texts(model, _ROLES, _TEXTS, most) for text in _texts(_input(values))]
        return list(companions(model).tokenizer(texts, verbose=False)["input_ids"]) if texts else []

    def predict(self, model: Model, inputs: Sequence[Any]) -> list[str]:
        """Return the label's name for each text, or for each pair of texts: a list of two."""
        return [answer[0] for answer in self.answers(model, inputs)]

    def answers(self, model: Model, inputs: Sequence[Any]) -> list[Ranking]:
        """Return the label's name for each text or pair of texts, with the scores of all labels."""
        import torch

        names: Mapping[int, str] = model.config.id2label
        predictions: list[Ranking] = []
        with torch.inference_mode():
            for start in range(0, len(inputs), _PREDICT_BATCH):
                chunk = inputs[start : start + _PREDICT_BATCH]
                for _, alike in itertools.groupby(chunk, key=lambda item: len(_texts(item))):
                    encoded = self._encode(model, list(alike), self.scored_tokens or longest(model))
                    logits = model.module(**taken(model.module, encoded.to(model.device)))["logits"]
                    labels = tuple(names.get(index, f"LABEL_{index}") for index in range(logits.shape[-1]))
                    predictions += rankings(logits, labels)
        return predictions

    def _encode(self, model: Model, inputs: Sequence[Any], tokens: int | None) -> Any:
        """Return the tensors of texts, or of pairs of texts, cut to `tokens`; None: not cut."""
        encoded = companions(model).tokenizer(
            *map(list, zip(*map(_texts, inputs), strict=True)),
            return_tensors="pt",
            padding=True,
            truncation=tokens is not None,
            max_length=tokens,
            return_token_type_ids=_with_segments(model, inputs),
            return_attention_mask=True,
        )
        return fill_up(model, encoded)

    def example(self, model: Model) -> list[Any]:
        """Return a text."""
        return ["A film that stays with you."]


def _input(values: Mapping[str, Any]) -> Any:
    """Return the input of a row: a text, or a list of two."""
    texts = [str(values[role]) for role in _ROLES[:_TEXTS] if role in values]
    return texts if len(texts) > 1 else texts[0]


def _texts(item: Any) -> tuple[str, ...]:
    """Return the one or two texts of an input."""
    return tuple(map(str, item)) if isinstance(item, (list, tuple)) else (str(item),)


def _with_segments(model: Model, inputs: Sequence[Any]) -> bool:
    """Return whether the model takes the number of each token's text.

    Raises:
        RecipeError: it must know it for these inputs, but was exported without this input.
    """
    if getattr(model.config, TAKES_SEGMENTS, False):
        return True
    if all(len(_texts(item)) == 1 for item in inputs) or not _has_segments(model):
        return False
    if isinstance(model.module, Attached):
        raise RecipeError(
            "This model was exported for single texts and can't tell the texts of a pair apart. Export it again with "
            "data=SOURCE that has pairs."
        )
    return True


def _has_segments(model: Model) -> bool:
    """Return whether a model has an embedding for the first and for the second text, as BERT does."""
    names = companions(model).tokenizer.model_input_names
    return SEGMENTS in names and (getattr(model.config, "type_vocab_size", 0) or 0) > 1
