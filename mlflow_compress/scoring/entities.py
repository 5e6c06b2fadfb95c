"""Entities in tagged text, counted by seqeval."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.records import Scale
from mlflow_compress.sockets import AdditiveMetric

_OUTSIDE = "O"
_MARKS = ("B-", "I-", "E-", "S-", "L-", "U-")  # prefixes of entity tags in IOB, IOBES and BILOU


def are_entities(tags: Iterable[Any]) -> bool:
    """Return whether any tag marks a part of an entity, like `B-PER`, and not a part of speech."""
    return any(str(tag).startswith(_MARKS) for tag in tags)


def tag_pairs(references: Sequence[Any], predictions: Sequence[Any]) -> Iterator[tuple[list[Any], list[Any]]]:
    """Yield the true tags and the predicted ones of each sample.

    Raises:
        ValueError: a sample does not have one tag of each kind for each word.
    """
    for index, (reference, prediction) in enumerate(zip(references, predictions, strict=True)):
        if isinstance(reference, str) or isinstance(prediction, str) or len(reference) != len(prediction):
            raise ValueError(f"sample {index} must have one tag of each kind for each word")
        yield list(reference), list(prediction)


@dataclass
class EntityCounts(AdditiveMetric):
    """Counts of entities over all samples and types (micro average), in seqeval's default mode, that of conlleval.

    An entity is correct if its type and both ends are. A ratio with denominator 0 is 0, as in seqeval.

    Source: seqeval's get_entities; Tjong Kim Sang and De Meulder, Introduction to the CoNLL-2003 shared task, 2003.
    """

    unit: ClassVar[str] = "ratio"
    scale: ClassVar[Scale | None] = "share"
    greater_is_better: ClassVar[bool] = True
    takes = "tags"

    def statistics(self, references: Sequence[Any], predictions: Sequence[Any]) -> Any:
        """Count correct, predicted and true entities of each sample.

        Raises:
            ValueError: there are tags, but none marks a part of an entity.
        """
        import numpy as np
        from seqeval.metrics.sequence_labeling import get_entities

        counts = []
        pairs = list(tag_pairs(references, predictions))
        tags = {str(tag) for pair in pairs for side in pair for tag in side} - {_OUTSIDE}
        if tags and not are_entities(tags):
            examples = ", ".join(sorted(tags)[:5])
            raise ValueError(f"the tags ({examples}) are not entities: none begins with B- or I-. Use tag_accuracy")
        for reference, prediction in pairs:
            true, predicted = set(get_entities(reference)), set(get_entities(prediction))
            counts.append((len(true & predicted), len(predicted), len(true)))
        return np.array(counts, dtype=np.float64)
