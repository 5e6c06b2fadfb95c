"""`describe`: describe one timed call in one line. Two latencies may be divided only if their lines are equal."""

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
    """Return a digest of the timed call and its inputs, with a description: `3f2a91bc: input [1, 8] float`.

    Args:
        timed: The family's sentence on what is inside the timed region. It is only in the digest, because
            `compress.timed` already contains it.
        options: Options that change the call, by name.
        batch: Input of the timed call.
    """
    words = [*(f"{name}={value}" for name, value in sorted(options.items())), *_inputs(batch)]
    text = ", ".join(words) or "no inputs"
    digest = hashlib.sha256(f"{timed}\n{text}".encode()).hexdigest()[:_DIGEST_CHARACTERS]
    return f"{digest}: {text if len(text) <= _MOST_CHARACTERS else f'{text[: _MOST_CHARACTERS - 1]}…'}"


def options_of(family: Family) -> dict[str, object]:
    """Return the options of a family that change its timed call, also default values; all if it does not say which.

    The precision of the original is left out: it belongs to the variant, like the work of a method. An option that is
    `auto` is left out: then the model decides.
    """
    names = family.call_options
    return {
        name: value
        for name, value in vars(family).items()
        if name != "dtype" and value != "auto" and (names is None or name in names)
    }


def _inputs(batch: object) -> Iterator[str]:
    """Yield the shape and number type of each input; consecutive equal inputs are counted."""
    described = [_described(path, leaf) for path, leaf in value_trees.named_leaves(batch) if leaf is not None]
    for text, equal in itertools.groupby(described):
        count = len(list(equal))
        yield f"{count} x {text}" if count > 1 else text


def _described(path: value_trees.Path, leaf: Any) -> str:
    """Describe an input, with the name of its field."""
    name = next((key for key in reversed(path) if isinstance(key, str)), "")
    if hasattr(leaf, "shape"):
        return f"{name} [{', '.join(map(str, leaf.shape))}] {_numbers(getattr(leaf, 'dtype', 'table'))}".strip()
    if isinstance(leaf, str):
        return f"{name} text of {len(leaf)} characters".strip()
    return f"{name} {type(leaf).__name__}".strip()


def _numbers(dtype: object) -> str:
    """Return the name of a dtype. All floating-point types are `float`: the precision belongs to the variant."""
    name = str(dtype).removeprefix("torch.")
    return "float" if "float" in name else name
