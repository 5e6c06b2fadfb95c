"""Retrieval: the places of the relevant documents in a ranking."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any


def places(references: Sequence[Any], predictions: Sequence[Any]) -> Iterator[list[int | None]]:
    """Yield, for each query, the places of its relevant documents in the ranking, from 1; None: it is not in there.

    Args:
        references: the relevant documents of each query: a list, or a single one.
        predictions: the documents found for each query, best first.

    Raises:
        ValueError: a query has no relevant document, or a prediction is not a ranking.
    """
    for reference, ranking in zip(references, predictions, strict=True):
        relevant = list(reference) if isinstance(reference, (list, tuple)) else [reference]
        if not relevant:
            raise ValueError("a query has no relevant document")
        if not isinstance(ranking, (list, tuple)):
            raise ValueError(f"a prediction must be a list of documents, best first, not {ranking!r:.60}")
        place_of = {document: place for place, document in reversed(list(enumerate(ranking, 1)))}
        yield [place_of.get(document) for document in relevant]
