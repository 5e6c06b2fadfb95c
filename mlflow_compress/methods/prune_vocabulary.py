"""Tokens that the texts do not use removed from a text model: smaller embeddings, and a smaller head."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from mlflow_compress.compression import coverage
from mlflow_compress.errors import Unsupported
from mlflow_compress.networks import smaller_tokenizers, vocabulary_rows
from mlflow_compress.networks.text_inputs import vocabulary
from mlflow_compress.networks.transformers_models import companions
from mlflow_compress.records import CautionKind
from mlflow_compress.sockets import Family, Method, Model, NativeFlavor, Published

SMALLER_VOCABULARY = CautionKind(
    "smaller_vocabulary",
    short={
        "en": "knows only the tokens of the texts it was pruned with",
        "ru": "знает только токены текстов, по которым сокращён словарь",
    },
    message={
        "en": "the vocabulary has {kept:,} of {all:,} tokens, those of {texts:,} texts",
        "ru": "в словаре осталось токенов: {kept:,} из {all:,} — по текстам, которых {texts:,}",
    },
    advice={
        "en": "Other words are split into smaller parts or become unknown. Use texts like those of its later use.",
        "ru": "Другие слова делятся на более мелкие части или становятся неизвестными. Берите тексты, похожие на те, с "
        "которыми модель будет работать.",
    },
)


@dataclass
class PruneVocabulary(Method):
    """Vocabulary pruning: only the tokens that occur in texts keep their rows in the embeddings and the head.

    The texts are those that quality is not scored on: a training split, `calibration=SOURCE`, or what `limit` leaves.
    For seq2seq they are sources and targets. The tokenizer loses the same tokens, and the others get new numbers, so
    the result is an ordinary model of transformers. Special tokens, single bytes, and the single characters of kept
    tokens stay.

    A text of kept tokens is split as before, and the model gives it the same outputs: labels, tags and embeddings are
    exactly those of the original. The method checks this for the tokens of all texts. A language model's probabilities
    grow a little, since fewer tokens share them, and it can't generate the removed ones.

    The latency changes only where there is a head over the vocabulary: looking up an embedding costs the same.

    Source: Abdaoui et al., Load What You Need: Smaller Versions of Multilingual BERT, arXiv 2010.05609; Ushio et al.,
    An Efficient Multilingual Language Model Compression through Vocabulary Trimming, arXiv 2305.15020.

    Attributes:
        most: Maximum number of tokens from the texts, the most frequent ones; None: all. For random weights, which have
            no texts, it is the number of tokens that remain.
        samples: Maximum number of samples to read.
    """

    changes: ClassVar[Literal["architecture"]] = "architecture"
    excludes: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(
            ("image_classification", "object_detection", "python", "semantic_segmentation", "yolo"),
            "it has no vocabulary of tokens",
        ),
        "asr": "its texts are transcripts, and its tokens for languages and times must keep their numbers",
        "asr_ctc": "its tokens are the letters of its transcripts",
        "mlflow_model": "a logged model has its own tokenizer, which can't be changed",
        "zero_shot_image_classification": "its texts are the names of its classes, which may change at any time",
    }

    most: Annotated[int, Ge(1)] | None = None
    samples: Annotated[int, Ge(1)] = 100_000

    def compress(self, model: Model, family: Family) -> Model:
        """Prune in place.

        Raises:
            Unsupported: The model reads no text, there are no texts, no token would be removed, or its tokenizer can't
                be shortened.
        """
        if not model.is_transformer or not getattr(model.family_data, "tokenizer", None):
            raise Unsupported("the model has no tokenizer of transformers: it has no vocabulary to prune")
        size = vocabulary(model)
        old = {name: (weight.shape, weight.numel()) for name, weight in model.module.named_parameters()}
        if model.weights == "random":
            self._prune_random(model, size)
        else:
            self._prune(model, family, size)
        new = {name: weight.shape for name, weight in model.module.named_parameters()}
        reached = sum(size for name, (shape, size) in old.items() if new.get(name) != shape)
        coverage.record(model, reached, sum(size for _, size in old.values()))
        return model

    def _prune(self, model: Model, family: Family, size: int) -> None:
        lists = family.token_lists(model, self.samples)
        if not lists:
            raise Unsupported(
                f"there are no texts whose tokens should be kept: provide {family.calibrates_on}. To measure only size "
                "and latency, set weights=random and most=TOKENS"
            )
        tokenizer = companions(model).tokenizer
        counts = Counter(token for tokens in lists for token in tokens)
        needed = {token for token, _ in counts.most_common(self.most)} | vocabulary_rows.named_in_configs(model)
        kept = smaller_tokenizers.closed(tokenizer, needed)
        if len(kept) >= size:
            raise Unsupported(f"the texts use all {size:,} tokens: none can be removed")
        vocabulary_rows.keep_rows(model, size, kept)
        companions(model).tokenizer = smaller_tokenizers.smaller(tokenizer, kept)
        unchanged = _unchanged(lists, family.token_lists(model, self.samples), kept)
        if self.most is None and unchanged < len(lists):
            raise Unsupported(
                f"its tokenizer splits {len(lists) - unchanged:,} of {len(lists):,} texts in another way without the "
                "tokens that they do not use"
            )
        model.cautions.append(SMALLER_VOCABULARY.of(kept=len(kept), all=size, texts=len(lists)))
        share = "" if unchanged == len(lists) else f"; {unchanged:,} of these texts are split as before"
        model.facts["vocabulary"] = f"{len(kept):,} of {size:,} tokens, those of {len(lists):,} texts{share}"

    def _prune_random(self, model: Model, size: int) -> None:
        """Keep the first tokens: the tokenizer of random weights has no list of tokens, but bytes."""
        if self.most is None:
            raise Unsupported("random weights have no texts whose tokens could be kept: set most=TOKENS")
        least = 1 + max({len(companions(model).tokenizer) - 1, *vocabulary_rows.named_in_configs(model)})
        kept = max(self.most, least)
        if kept >= size:
            raise Unsupported(f"{kept:,} tokens must stay, and the vocabulary has {size:,}: none can be removed")
        vocabulary_rows.keep_rows(model, size, range(kept))
        model.facts["vocabulary"] = f"{kept:,} of {size:,} tokens"

    def rebuild(self, model: Model, family: Family) -> Model:
        """Return the model: its config has the size of the vocabulary, and its tokenizer is saved with it."""
        return model

    def publish(self, saved: Path, family: Family, portable: Callable[[], Model], folder: Path) -> Published:
        """Write an ordinary model of its family (see `Method.publish`)."""
        return family.publish(saved, folder)

    def native_flavor(self, saved: Path, family: Family) -> NativeFlavor:
        """Return the flavor of the family's ordinary models (see `Method.native_flavor`)."""
        return family.native_flavor(saved)


def _unchanged(before: Sequence[Sequence[int]], after: Sequence[Sequence[int]], kept: Sequence[int]) -> int:
    """Return how many texts have the same tokens, by their old numbers."""
    return sum(list(old) == [kept[number] for number in new] for old, new in zip(before, after, strict=True))
