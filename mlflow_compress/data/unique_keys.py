"""Pairs from a file as a mapping in which no key has two values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def mapping_of(pairs: Iterable[tuple[Any, Any]], kind: str = "label") -> dict[Any, Any]:
    """Return pairs as a mapping; equal pairs count once.

    Args:
        pairs: keys and values.
        kind: what the keys are, for the message.

    Raises:
        ValueError: a key has two different values.
    """
    values: dict[Any, Any] = {}
    for key, value in pairs:
        if (other := values.setdefault(key, value)) != value:
            raise ValueError(f"the {kind} {key!r:.60} stands for both {other!r:.60} and {value!r:.60}")
    return values
