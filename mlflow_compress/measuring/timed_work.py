"""`describe`: what one timed call does, in a line: two latencies may be divided only where it is the same."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from mlflow_compress.networks import value_trees
from mlflow_compress.sockets import Family

_DIGEST_CHARACTERS = 8
_MOST_CHARACTERS = 500


def describe(timed: str, options: Mapping[str, object], batch: object) -> str:
    """Return a digest of what is timed and what it is given, and the same for people: `3f2a91bc: input [1, 8] float`.

    Args:
        timed: the family's sentence on what is inside the timed region. It is in the digest only: `compress.timed`
            holds it already.
        options: the options that change the call, by name.
        batch: the input of the call, as it is built where the call is timed.
    """
    words = [*(f"{name}={value}" for name, value in sorted(options.items())), *_inputs(batch)]
    text = ", ".join(words) or "no inputs"
    digest = hashlib.sha256(f"{timed}\n{text}".encode()).hexdigest()[:_DIGEST_CHARACTERS]
    return f"{digest}: {text if len(text) <= _MOST_CHARACTERS else f'{text[: _MOST_CHARACTERS - 1]}…'}"


def options_of(family: Family) -> dict[str, object]:
    """Return the options of a family that change its timed call, given or not; all where it does not say which.

    In which precision the original is loaded is the variant's own, as what a method does to it.
    """
    names = family.call_options
    return {name: value for name, value in vars(family).items() if name != "dtype" and (names is None or name in names)}


def _inputs(batch: object) -> Iterator[str]:
    """Say of each input its shape and what its numbers are; of equal ones in a row how many there are."""
    described = [_described(path, leaf) for path, leaf in value_trees.named_leaves(batch) if leaf is not None]
    for text, alike in itertools.groupby(described):
        count = len(list(alike))
        yield f"{count} x {text}" if count > 1 else text


def _described(path: value_trees.Path, leaf: Any) -> str:
    """Describe an input by the name of what holds it."""
    name = next((key for key in reversed(path) if isinstance(key, str)), "")
    if hasattr(leaf, "shape"):
        return f"{name} [{', '.join(map(str, leaf.shape))}] {_numbers(getattr(leaf, 'dtype', 'table'))}".strip()
    if isinstance(leaf, str):
        return f"{name} text of {len(leaf)} characters".strip()
    return f"{name} {type(leaf).__name__}".strip()


def _numbers(dtype: object) -> str:
    """Name a type of numbers. Those with a fraction are all alike: in what precision they are is a variant's own."""
    name = str(dtype).removeprefix("torch.")
    return "float" if "float" in name else name
