"""Chains of methods: `parse_chain` reads `prune_magnitude:amount=0.5,scope=global+int8_dynamic`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError
from mlflow_compress.plain_text import plain
from mlflow_compress.planning.recipe_parts import LONGEST_NAME, listed, require_few
from mlflow_compress.records import Scalar, Step
from mlflow_compress.sockets import State
from mlflow_compress.untrusted_yaml import shown
from mlflow_compress.words import ORIGINAL, ORIGINAL_METHOD

_STEP = re.compile(r"\s*(?P<name>[A-Za-z_]\w*)\s*(?::(?P<options>.*))?", re.DOTALL)
_STATES: Mapping[State, str] = {
    "float": "float32 weights",
    "half": "half-precision weights",
    "packed": "packed weights",
    "runtime": "a module of another runtime",
}
_ORIGINAL_NAME = re.compile(  # names that readers understand as the original, in all languages of the table
    rf"\s*(?:{'|'.join(re.escape(name) for name in (ORIGINAL, *ORIGINAL_METHOD.values()))})(?!\w)", re.IGNORECASE
)
_LINK = re.compile(r"\+(?=\s*[A-Za-z_])")  # not the plus of 1e+3
_MOST_STEPS, _MOST_CHARACTERS = 16, 2000  # per chain
Named = tuple[str, tuple[Step, ...]]  # the chain's name in tables, and the chain


def parse_chain(text: str) -> tuple[Step, ...]:
    """Parse a chain of methods: `prune_magnitude:amount=0.5,scope=global+int8_dynamic`.

    Raises:
        UnknownName: a method or option is unknown.
        RecipeError: the text is not a chain, a value has the wrong type or is out of range, or a method can't follow
            the one before it.
    """
    if len(text) > _MOST_CHARACTERS:
        raise RecipeError(f"A chain of methods has at most {_MOST_CHARACTERS:,} characters, not {len(text):,}.")
    parts = _LINK.split(text)
    if len(parts) > _MOST_STEPS:
        raise RecipeError(f"A chain has at most {_MOST_STEPS} methods, not {len(parts)}: {shown(text)}.")
    steps = tuple(_step(part, text) for part in parts)
    state: State = "float"
    for previous, step in zip((None, *steps), steps, strict=False):
        method = registry.find("methods", step.method)
        if previous is not None and state not in method.takes:
            raise RecipeError(
                f"{step.method} can't follow {previous.method}, which leaves {_STATES[state]}: {step.method} takes "
                f"{' or '.join(_STATES[accepted] for accepted in method.takes)}."
            )
        state = method.gives or state
    return steps


def named_chains(path: Path, what: str, data: Any) -> tuple[Named, ...]:
    """Read a recipe's list of method chains; each is text, or has a name and a method.

    Raises:
        RecipeError: it is not such a list, an entry is not a chain, or two chains have the same name.
        UnknownName: a method or option is unknown.
    """
    entries = listed(path, what, data)
    require_few(len(entries), str(path))
    chains: dict[str, tuple[Step, ...]] = {}
    for name, chain in (pairs := tuple(_named_chain(path, entry) for entry in entries)):
        if (first_chain := chains.setdefault(name, chain)) != chain:
            raise RecipeError(
                f"{path}: two variants have the name {shown(name)}, {shown(chain_name(first_chain))} and "
                f"{shown(chain_name(chain))}, and would share one row. Give one of them another name."
            )
    return pairs


def chain_name(chain: Sequence[Step]) -> str:
    """Return a chain's name in tables: its text without blanks."""
    return "+".join(str(step) for step in chain)


def _named_chain(path: Path, entry: Any) -> Named:
    if isinstance(entry, str):
        chain = parse_chain(entry)
        return chain_name(chain), chain
    if isinstance(entry, Mapping) and set(entry) == {"name", "method"}:
        name = str(entry["name"])
        if len(name) > LONGEST_NAME:
            raise RecipeError(f"{path}: a variant's name can have {LONGEST_NAME} characters, not {len(name):,}.")
        chain = parse_chain(str(entry["method"]))
        if _ORIGINAL_NAME.match(name) and chain != (Step(ORIGINAL),):
            raise RecipeError(
                f"{path}: {shown(name)} is {chain_name(chain)}, so it can't be named like the original. Give it "
                "another name."
            )
        return name, chain
    raise RecipeError(f"{path}: a variant must be a method chain, or have a name and a method, not {shown(entry)}.")


def _step(part: str, chain: str) -> Step:
    match = _STEP.fullmatch(part)
    if match is None:
        raise RecipeError(
            f"{shown(chain)} is not a valid method chain. An example: prune_magnitude:amount=0.5+int8_dynamic"
        )
    name, pairs = match["name"], match["options"]
    options: dict[str, Scalar] = {}
    for pair in pairs.split(",") if pairs else []:
        key, equals, value = pair.partition("=")
        if not equals:
            raise RecipeError(f"{shown(chain)}: {shown(pair)} is not an option; write {name}:key=value")
        if key.strip() in options:
            raise RecipeError(f"{shown(chain)}: {plain(key, LONGEST_NAME)} is given twice")
        options[key.strip()] = value.strip()
    return Step(name, registry.check("methods", name, options))
