"""`describe`: what one timed call does, in a line: two latencies may be divided only where it is the same."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

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
    """Return the options of a family that change its timed call, given or not; all where it does not say which."""
    names = family.call_options
    return {name: value for name, value in vars(family).items() if names is None or name in names}


def _inputs(batch: object) -> Iterator[str]:
    """Say of each input its shape and what its numbers are; of equal ones in a row how many there are."""
    for described, alike in itertools.groupby(_each(batch, "")):
        count = len(list(alike))
        yield f"{count} x {described}" if count > 1 else described


def _each(batch: Any, name: str) -> Iterator[str]:
    if hasattr(batch, "shape"):
        yield f"{name} [{', '.join(map(str, batch.shape))}] {_numbers(getattr(batch, 'dtype', 'table'))}".strip()
    elif isinstance(batch, Mapping):
        for key, value in batch.items():
            yield from _each(value, str(key))
    elif isinstance(batch, (list, tuple)):
        for value in batch:
            yield from _each(value, name)
    elif isinstance(batch, str):
        yield f"{name} text of {len(batch)} characters".strip()
    elif batch is not None:
        yield f"{name} {type(batch).__name__}".strip()


def _numbers(dtype: object) -> str:
    """Name a type of numbers. Those with a fraction are all alike: in what precision they are is a variant's own."""
    name = str(dtype).removeprefix("torch.")
    return "float" if "float" in name else name
