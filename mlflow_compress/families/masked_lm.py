"""Masked language models: BERT, RoBERTa, ModernBERT and similar models, through transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge

from mlflow_compress.data.datasets import draw, scored, unscored_texts
from mlflow_compress.errors import RecipeError
from mlflow_compress.model import SCORING
from mlflow_compress.networks import next_tokens
from mlflow_compress.networks.long_texts import note_cut
from mlflow_compress.networks.next_tokens import NextTokens, TextLikelihood
from mlflow_compress.networks.text_encoders import TextEncoder
from mlflow_compress.networks.text_inputs import longest, taken, vocabulary
from mlflow_compress.networks.transformers_models import Companions, companions, load_tokenizer, load_transformer
from mlflow_compress.sockets import Labelled, Model, Sample

_PREDICT_BATCH = 16
_ROLES = ("text",)
_NO_TARGET = -100  # of tokens that do not count in the loss
_SPREAD = 7  # every seventh token is masked: about the 15 % of the training
_MASKED = 0.15  # share of the tokens that are masked in training
_TEXT = "The pictures are beautiful, but the story is thin and the ending came as no surprise to anyone in the room. "


@dataclass
class MaskedLm(TextEncoder):
    """A transformers masked language model, scored by how well it predicts masked tokens.

    Every token of a text but the special ones is predicted once, with the tokens on both sides. `masking=spread` masks
    every seventh token at once, so that a text takes seven passes and 14 % of it is masked, about as in training.
    `masking=single` masks one token at a time, which is exact and slow. Their numbers can't be compared.

    Source: Salazar et al., Masked Language Model Scoring, arXiv 1910.14659, section 2.3 (`single`); Devlin et al.,
    BERT, arXiv 1810.04805, section 3.1 (15 % in training).

    Attributes:
        tokens: length of the timed input, in tokens.
        masking: which tokens are masked together in scoring: `spread` or `single`.
        calibration_tokens: maximum length of texts for calibration and training, in tokens.
        scored_tokens: maximum length of texts in predicting and scoring, in tokens; None: the model's maximum.
        architecture: for random weights, fields of the config, including `model_type`.
        trust: whether Python code beside a local model may build it (`auto_map` in its `config.json`).
        students: for random weights, the `architecture` of each model that distill:student names.
    """

    auto_class: ClassVar[str] = "AutoModelForMaskedLM"
    pipeline: ClassVar[str] = "fill-mask"
    logits_axes: ClassVar[Mapping[int, str]] = {0: "batch", 1: "tokens"}
    metrics: ClassVar[tuple[str, ...]] = ("pseudo_perplexity", "masked_accuracy", "bits_per_byte")
    gives: ClassVar[tuple[str, ...]] = ("likelihoods",)

    masking: Literal["spread", "single"] = "spread"
    scored_tokens: Annotated[int, Ge(3)] | None = None
    calibration_tokens: Annotated[int, Ge(1)] = 128
    architecture: dict[str, Any] = field(default_factory=dict)

    def load(self, source: str, weights: str, folder: Path, seed: int) -> Model:
        """Load the model and its tokenizer (see `Family.load`).

        Raises:
            RecipeError: the tokenizer has no mask.
        """
        origin = self.origin(source, weights, folder)
        model = load_transformer(self.auto_class, source, origin, self.architecture, seed, self.precision)
        model.family_data = Companions(tokenizer=load_tokenizer(origin), code=origin.code)
        if companions(model).tokenizer.mask_token_id is None and origin.kind != "random":
            raise RecipeError(f"The tokenizer of {source} has no mask token: it is not a masked language model.")
        self.settle(model)
        return model

    def classes(self, model: Model) -> int:
        """Return the number of tokens in the vocabulary."""
        return vocabulary(model)

    def classes_to_teach(self, model: Model) -> Mapping[int, str]:
        """Return nothing: the classes are the tokens."""
        return {}

    def around(self, model: Model, size: int, seed: int) -> Mapping[str, Callable[[], object]]:
        """Time the tokenizer on `size` texts of at least the timed length."""
        texts = [_TEXT * (self.tokens // 16 + 1)] * size
        return {"preprocess": lambda: self._ids(model, texts, self.tokens)}

    def samples(self, model: Model, data: str, folder: Path, limit: int | None, seed: int) -> Sequence[Sample]:
        """Read texts.

        Raises:
            RecipeError: the data can't be read (see `datasets.read`).
        """
        texts = [str(row.values["text"]) for row in scored(model, data, folder, _ROLES, limit, seed)]
        note_cut(model, texts, self._limit(model))
        masks = "one token at a time is masked" if self.masking == "single" else f"every {_SPREAD}th token is masked"
        limit_text = f", texts of at most {tokens} tokens" if (tokens := self._limit(model)) else ""
        model.facts[SCORING] = f"each token is predicted once, {masks}{limit_text}"
        return [Sample(text, text) for text in texts]

    def calibration(self, model: Model, count: int, seed: int, size: int = 1) -> list[Any]:
        """Draw texts that are not scored, with 15 % of their tokens masked; without any, see `Family.calibration`."""
        return [labelled.batch for labelled in self._drawn(model, count, seed, size)] or TextEncoder.calibration(
            replace(self, tokens=self._training_tokens(model)), model, count, seed, size
        )

    def labelled(self, model: Model, count: int, seed: int, size: int = 1) -> list[Labelled]:
        """Draw texts as for `calibration`; the targets are the tokens behind the masks (see `Family.labelled`)."""
        return self._drawn(model, count, seed, size) or super().labelled(model, count, seed, size)

    def _drawn(self, model: Model, count: int, seed: int, size: int) -> list[Labelled]:
        import torch

        texts = [str(text) for text in draw(model, _ROLES, count * size, seed)]
        generator = torch.Generator().manual_seed(seed)
        batches = []
        for start in range(0, len(texts), size):
            lists = self._ids(model, texts[start : start + size], self._training_tokens(model))
            batch = _padded(model, lists)
            ids, is_plain = batch["input_ids"], torch.zeros_like(batch["input_ids"], dtype=torch.bool)
            is_left = companions(model).tokenizer.padding_side == "left"
            for index, text_ids in enumerate(lists):
                shift = ids.shape[1] - len(text_ids) if is_left else 0
                is_plain[index, [shift + place for place in self._plain_places(model, text_ids)]] = True
            is_masked = is_plain & (torch.rand(ids.shape, generator=generator) < _MASKED).to(ids.device)
            if not is_masked.any() and is_plain.any():  # a few short texts: without a mask there is nothing to learn
                is_masked[tuple(is_plain.nonzero()[0].tolist())] = True
            targets = ids.masked_fill(~is_masked, _NO_TARGET)
            batch["input_ids"] = ids.masked_fill(is_masked, _mask_of(model))
            batches.append(Labelled(batch, targets))
        return batches

    def token_lists(self, model: Model, most: int) -> list[list[int]]:
        """Return the tokens of all texts that are not scored (see `Family.token_lists`)."""
        texts = [str(row["text"]) for row in unscored_texts(model, _ROLES, 1, most)]
        return self._ids(model, texts, None) if texts else []

    def predict(self, model: Model, inputs: Sequence[Any]) -> list[str]:
        """Return each text with its masks (`[MASK]`, or that of the tokenizer) replaced by the likeliest tokens."""
        import torch

        tokenizer, mask = companions(model).tokenizer, _mask_of(model)
        filled = []
        with torch.inference_mode():
            for text in inputs:
                (ids,) = self._ids(model, [str(text)], self._limit(model))
                best = self._logits(model, [ids])[0].argmax(-1).tolist()
                tokens = [best[place] if token == mask else token for place, token in enumerate(ids)]
                filled.append(tokenizer.decode(tokens, skip_special_tokens=True).strip())
        return filled

    def answers(self, model: Model, inputs: Sequence[Any]) -> list[TextLikelihood]:
        """Return the likelihood of each text where its tokens are masked.

        Returns:
            For each text `nll`, the negative log-likelihood in nats summed over its predicted `tokens`; how many of
            them are `right`; and its length in `words` (separated by white space) and in `bytes` of UTF-8. A text that
            is cut counts as far as it is read.
        """
        import torch

        with torch.inference_mode():
            return [self._answer(model, str(text)) for text in inputs]

    def _answer(self, model: Model, text: str) -> TextLikelihood:
        import torch

        (ids,) = self._ids(model, [text], self._limit(model))
        (whole,) = self._ids(model, [text], None)
        if len(whole) > len(ids):
            text = companions(model).tokenizer.decode(ids, skip_special_tokens=True)
        places = self._plain_places(model, ids)
        loss, right = 0.0, 0
        parts: list[NextTokens] = []
        compared = next_tokens.MOST_COMPARED if next_tokens.ASKED in model.asked else 0
        for groups in _chunks(self._groups(places), _PREDICT_BATCH):
            masked = [[_mask_of(model) if place in group else token for place, token in enumerate(ids)]
                      for group in map(set, groups)]  # fmt: skip
            scores = self._logits(model, masked).float().log_softmax(-1)
            rows = torch.tensor([row for row, group in enumerate(groups) for _ in group])
            columns = torch.tensor([place for group in groups for place in group])
            true = torch.tensor([ids[place] for group in groups for place in group], device=scores.device)
            predicted = scores[rows, columns]
            loss -= float(predicted.gather(1, true.unsqueeze(1)).sum())
            right += int((predicted.argmax(-1) == true).sum())
            parts.append(NextTokens.of(predicted, true, compared))
        size = len(text.encode()) if places else 0
        numbers = {"nll": loss, "tokens": len(places), "right": right, "words": len(text.split()), "bytes": size}
        return TextLikelihood(numbers, NextTokens.joined(parts))

    def _groups(self, places: Sequence[int]) -> list[list[int]]:
        """Return the tokens that are masked together."""
        step = 1 if self.masking == "single" else _SPREAD
        if step == 1:
            return [[place] for place in places]
        return [group for first in range(step) if (group := list(places[first::step]))]

    def _plain_places(self, model: Model, ids: Sequence[int]) -> list[int]:
        """Return the places of the tokens that are not special."""
        special = set(companions(model).tokenizer.all_special_ids)
        return [place for place, token in enumerate(ids) if token not in special]

    def _logits(self, model: Model, lists: Sequence[Sequence[int]]) -> Any:
        return model.module(**taken(model.module, _padded(model, lists)))["logits"]

    def _ids(self, model: Model, texts: Sequence[str], tokens: int | None) -> list[list[int]]:
        """Return the token ids of each text, cut to a number of tokens."""
        encoded = companions(model).tokenizer(
            list(texts), truncation=tokens is not None, max_length=tokens, verbose=False
        )
        return [list(ids) for ids in encoded["input_ids"]]

    def _limit(self, model: Model) -> int | None:
        return self.scored_tokens or longest(model)

    def _training_tokens(self, model: Model) -> int:
        return min(self.calibration_tokens, longest(model) or self.calibration_tokens)

    def example(self, model: Model) -> list[Any]:
        """Return a text with a mask."""
        mask = companions(model).tokenizer.mask_token
        return [f"The weather is {mask} today."] if mask else []


def _mask_of(model: Model) -> int:
    """Return the number of the mask token; for random weights, whose tokenizer has none, that of the unknown token."""
    tokenizer = companions(model).tokenizer
    return int(tokenizer.unk_token_id if tokenizer.mask_token_id is None else tokenizer.mask_token_id)


def _padded(model: Model, lists: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Return token ids and attention mask [texts, tokens], padded to the longest."""
    batch = companions(model).tokenizer.pad({"input_ids": [list(ids) for ids in lists]}, return_tensors="pt")
    return {name: batch[name].to(model.device) for name in ("input_ids", "attention_mask")}


def _chunks(groups: Sequence[list[int]], size: int) -> Iterator[Sequence[list[int]]]:
    for start in range(0, len(groups), size):
        yield groups[start : start + size]
