"""Token classifiers, for named entities: BERT, RoBERTa and similar models, through transformers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import Ge

from mlflow_compress.data.datasets import Row, draw, draw_labelled, scored, unscored_texts
from mlflow_compress.data.label_forms import new_label, whole_number
from mlflow_compress.data.labels import listed
from mlflow_compress.data.spec import parse
from mlflow_compress.errors import RecipeError
from mlflow_compress.networks.class_scores import best_classes
from mlflow_compress.networks.text_encoders import TextEncoder
from mlflow_compress.networks.text_inputs import longest, taken
from mlflow_compress.networks.transformers_models import Companions, companions, load_tokenizer, load_transformer
from mlflow_compress.records import CautionKind
from mlflow_compress.scoring.entities import are_entities
from mlflow_compress.sockets import Labelled, Model, Sample

WORD_TAGS = CautionKind(
    "word_tags",
    short={"en": "tags are not entities: scored word by word", "ru": "теги не сущности: оценка по словам"},
    message={
        "en": "none of the model's tags ({tags}) begins with B- or I-: they are not entities",
        "ru": "ни один тег модели ({tags}) не начинается с B- или I-: это не сущности",
    },
    advice={
        "en": "Its score is the share of words with the right tag (tag_accuracy), not the F1 of entities.",
        "ru": "Качество: доля слов с верным тегом (tag_accuracy), а не F1 сущностей.",
    },
)
_PREDICT_BATCH = 16
_ROLES = ("words", "tags")
_OUTSIDE = "O"
_NO_TARGET = -100  # of tokens that do not count in the loss
_PREFIXES = ("B-", "I-")
_SPACED = ("bloom", "deberta", "gpt2", "longformer", "roberta")  # their tokenizers need add_prefix_space
_TEXT = "The ferry left Tallinn for Helsinki at dawn with Anna Tamm and the choir of Saint Olaf on board"


@dataclass
class TokenClassification(TextEncoder):
    """A transformers token classifier; the tag of a word is that of its first token.

    Source: the choice of the token: transformers' example `run_ner.py`, following Devlin et al., BERT, arXiv
    1810.04805, section 5.3. They cut sentences that are too long; here such a sentence is tagged in halves, so that
    every word gets a tag.

    Attributes:
        tokens: length of the timed input, in tokens.
        calibration_tokens: maximum length of texts for calibration and training, in tokens.
        scored_tokens: maximum length of a sentence in predicting and scoring, in tokens, before it is halved; None:
            the model's maximum.
        architecture: for random weights, fields of the config, including `model_type`.
        trust: whether Python code beside a local model may build it (`auto_map` in its `config.json`).
        students: for random weights, the `architecture` of each model that distill:student names.
    """

    auto_class: ClassVar[str] = "AutoModelForTokenClassification"
    pipeline: ClassVar[str] = "token-classification"
    logits_axes: ClassVar[Mapping[int, str]] = {0: "batch", 1: "tokens"}
    metrics: ClassVar[tuple[str, ...]] = ("seqeval_f1", "seqeval_precision", "seqeval_recall")
    gives: ClassVar[tuple[str, ...]] = ("tags",)

    scored_tokens: Annotated[int, Ge(4)] | None = None
    calibration_tokens: Annotated[int, Ge(1)] = 128
    architecture: dict[str, Any] = field(default_factory=dict)

    def load(self, source: str, weights: str, folder: Path, seed: int) -> Model:
        """Load the classifier and its tokenizer (see `Family.load`)."""
        origin = self.origin(source, weights, folder)
        model = load_transformer(
            self.auto_class, source, origin, self.architecture, seed, self.precision, self.labels_of_teacher
        )
        is_spaced = model.config.model_type in _SPACED
        tokenizer = load_tokenizer(origin, **({"add_prefix_space": True} if is_spaced else {}))
        model.family_data = Companions(tokenizer=tokenizer, code=origin.code)
        self.settle(model)
        return model

    def around(self, model: Model, size: int, seed: int) -> Mapping[str, Callable[[], object]]:
        """Time the tokenizer on `size` sentences of at least the timed length."""
        words = (_TEXT.split() * self.tokens)[: self.tokens]
        return {"preprocess": lambda: [_encode(companions(model).tokenizer, words) for _ in range(size)]}

    def samples(self, model: Model, data: str, folder: Path, limit: int | None, seed: int) -> Sequence[Sample]:
        """Read sentences, as lists of words, and a tag for each word: O, B-TYPE or I-TYPE, or the model's numbers.

        Raises:
            RecipeError: the data can't be read (see `datasets.read`), the numbers of tags and words differ, or the
                model does not have a tag or its type.
        """
        names = dict(model.config.id2label)
        new_names = parse(data).labels
        rows = scored(model, data, folder, _ROLES, limit, seed)
        if not are_entities(names.values()):
            model.cautions.append(WORD_TAGS.of(tags=listed({name: name for name in names.values()})))
        return [Sample(_listed(row, "words"), _tags(row, names, new_names)) for row in rows]

    def metrics_for(self, model: Model) -> tuple[str, ...]:
        """Score entities; if the model's tags are not entities (parts of speech), score single words."""
        return self.metrics if are_entities(model.config.id2label.values()) else ("tag_accuracy",)

    def calibration(self, model: Model, count: int, seed: int, size: int = 1) -> list[Any]:
        """Draw sentences that are not scored, cut to `calibration_tokens`; without any, see `Family.calibration`."""
        tokens = min(self.calibration_tokens, longest(model) or self.calibration_tokens)
        sentences = draw(model, _ROLES, count * size, seed)
        if not sentences:
            return TextEncoder.calibration(replace(self, tokens=tokens), model, count, seed, size)
        tokenizer = companions(model).tokenizer
        ids = [_encode(tokenizer, _words(sentence))[0][:tokens] for sentence in sentences]
        return [_padded(model, ids[start : start + size]) for start in range(0, len(ids), size)]

    def labelled(self, model: Model, count: int, seed: int, size: int = 1) -> list[Labelled]:
        """Draw tagged sentences that are not scored, cut to `calibration_tokens` (see `Family.labelled`).

        The first token of a word has the number of its tag as target, all others have -100.
        """
        import torch

        rows = draw_labelled(model, _ROLES, 1, count * size, seed)
        if not rows:
            return super().labelled(model, count, seed, size)
        tokens = min(self.calibration_tokens, longest(model) or self.calibration_tokens)
        numbers = {name: number for number, name in model.config.id2label.items()}
        new_names = parse(model.evaluation.data).labels if model.evaluation is not None else {}
        batches = []
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            encoded = [_encode(companions(model).tokenizer, _listed(row, "words")) for row in part]
            batch = _padded(model, [ids[:tokens] for ids, _ in encoded])
            targets = torch.full_like(batch["input_ids"], _NO_TARGET)
            is_left = companions(model).tokenizer.padding_side == "left"
            for index, (row, (ids, first_tokens)) in enumerate(zip(part, encoded, strict=True)):
                shift = targets.shape[1] - min(len(ids), tokens) if is_left else 0
                for tag, first in zip(_tags(row, model.config.id2label, new_names), first_tokens, strict=True):
                    if first is not None and first < tokens and tag in numbers:
                        targets[index, first + shift] = numbers[tag]
            batches.append(Labelled(batch, targets))
        return batches

    def token_lists(self, model: Model, most: int) -> list[list[int]]:
        """Return the tokens of all sentences that are not scored (see `Family.token_lists`)."""
        rows = unscored_texts(model, _ROLES, 1, most)
        return [_encode(companions(model).tokenizer, _words(values["words"]))[0] for values in rows]

    def predict(self, model: Model, inputs: Sequence[Any]) -> list[list[str]]:
        """Return a tag for each word of each sentence: a list of words, or a text that is split at white space."""
        import torch

        names: Mapping[int, str] = model.config.id2label
        limit = self.scored_tokens or longest(model)
        parts = [
            (number, *part)
            for number, sentence in enumerate(inputs)
            for part in _parts(companions(model).tokenizer, _words(sentence), limit)
        ]
        tags: list[list[str]] = [[] for _ in inputs]
        with torch.inference_mode():
            for start in range(0, len(parts), _PREDICT_BATCH):
                chunk = parts[start : start + _PREDICT_BATCH]
                batch = _padded(model, [ids for _, ids, _ in chunk])
                best = best_classes(model.module(**taken(model.module, batch))["logits"]).tolist()
                for (number, _, first_tokens), row in zip(chunk, best, strict=True):
                    tags[number] += [_OUTSIDE if first is None else _tag(names, row[first]) for first in first_tokens]
        return tags

    def example(self, model: Model) -> list[Any]:
        """Return a sentence, which `predict` splits at white space."""
        return ["Ada Lovelace was born in London ."]


def _tag(names: Mapping[int, str], number: float) -> Any:
    """Return the tag with a number; NaN if the model's scores are not numbers."""
    return number if math.isnan(number) else names[int(number)]


def _words(sentence: Any) -> list[str]:
    return sentence.split() if isinstance(sentence, str) else [str(word) for word in sentence]


def _encode(tokenizer: Any, words: list[str]) -> tuple[list[int], list[int | None]]:
    """Return a sentence's token ids and the position of each word's first token; None for a word without tokens."""
    first_tokens: list[int | None] = [None] * len(words)
    if tokenizer.is_fast:
        encoded = tokenizer(words, is_split_into_words=True, verbose=False)
        for position, word in reversed(list(enumerate(encoded.word_ids()))):
            if word is not None:
                first_tokens[word] = position
        return list(encoded["input_ids"]), first_tokens
    pieces = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
    bare = [token for piece in pieces for token in piece]
    with_specials = tokenizer.build_inputs_with_special_tokens(bare)
    position = with_specials.index(bare[0]) if bare else 0
    for word, piece in enumerate(pieces):
        first_tokens[word] = position if piece else None
        position += len(piece)
    return with_specials, first_tokens


def _parts(tokenizer: Any, words: list[str], limit: int | None) -> list[tuple[list[int], list[int | None]]]:
    """Encode a sentence; halve it repeatedly while it has more tokens than the limit."""
    ids, first_tokens = _encode(tokenizer, words)
    if limit is None or len(ids) <= limit:
        return [(ids, first_tokens)]
    if len(words) == 1:
        return [(ids[:limit], first_tokens)]
    middle = len(words) // 2
    return [*_parts(tokenizer, words[:middle], limit), *_parts(tokenizer, words[middle:], limit)]


def _padded(model: Model, ids: Sequence[list[int]]) -> dict[str, Any]:
    """Return token ids and attention mask [sentences, tokens], padded to the longest."""
    batch = companions(model).tokenizer.pad({"input_ids": list(ids)}, return_tensors="pt")
    return {name: batch[name].to(model.device) for name in ("input_ids", "attention_mask")}


def _listed(row: Row, role: str) -> list[str]:
    value = row.values[role]
    if not isinstance(value, (str, list, tuple)):
        raise RecipeError(f"{row.where}: {role} must be a list, or text separated by blanks, not {value!r:.60}.")
    return _words(value)


def _tags(row: Row, names: Mapping[int, str], new_names: Mapping[str, str]) -> list[str]:
    """Return the tags of a row.

    Raises:
        RecipeError: the numbers of tags and words differ, or the model does not have a tag.
    """
    words, tags = _listed(row, "words"), _listed(row, "tags")
    if len(words) != len(tags):
        raise RecipeError(f"{row.where}: there are {len(words)} words but {len(tags)} tags.")
    by_number = {str(number): name for number, name in names.items()}
    by_name = {name: name for name in names.values()}
    types = {name[2:] for name in by_name if name.startswith(_PREFIXES)}
    models_tags = []
    for tag in tags:
        name = new_label(tag, new_names) or (tag if tag in by_name else by_number.get(whole_number(tag), tag))
        if name not in {*by_name, _OUTSIDE} and not (name.startswith(_PREFIXES) and name[2:] in types):
            raise RecipeError(
                f"{row.where}: the tag {tag!r} is not one of the model's: {listed(by_name)} (or their numbers). "
                f"Map yours to the model's: labels={tag}=TAG|..."
            )
        models_tags.append(name)
    return models_tags
