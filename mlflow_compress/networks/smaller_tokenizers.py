"""Tokenizers with a part of their tokens, which get new numbers: a text of kept tokens is split as before.

WordPiece takes the longest token that fits, and Unigram the likeliest way to split a word: without tokens that a text
does not use, the choice is the same. Byte pair encoding also needs the tokens that it merges on the way to the kept
ones, so these are kept too.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mlflow_compress.errors import Unsupported

_FILE, _CONFIG = "tokenizer.json", "tokenizer_config.json"
_KINDS = ("WordPiece", "Unigram", "BPE", "WordLevel")
_CONTINUED = "##"  # WordPiece writes it before a part of a word
_BYTE = "<0x"  # Unigram and BPE write bytes as <0x41>


def closed(tokenizer: Any, needed: Iterable[int]) -> list[int]:
    """Return the numbers of the tokens that a smaller tokenizer must have, sorted.

    These are the needed ones, all special and added tokens, single bytes, the single characters of needed tokens, and
    what is merged on the way to them.

    Args:
        tokenizer: a tokenizer of transformers.
        needed: numbers of tokens.

    Raises:
        Unsupported: its tokens can't be listed.
    """
    state = _state(tokenizer)
    numbers = _numbers(state)
    names = {number: name for name, number in numbers.items()}
    kept = {number for number in needed if number in names}
    characters = {character for number in kept for character in names[number]}
    kept |= {number for name, number in numbers.items() if _is_basic(name, state, characters)}
    kept |= {int(token["id"]) for token in state["added_tokens"]}
    kept |= {int(number) for number in tokenizer.all_special_ids}
    unknown = state["model"].get("unk_token")
    if unknown in numbers:
        kept.add(numbers[unknown])
    if isinstance(state["model"].get("unk_id"), int):
        kept.add(state["model"]["unk_id"])
    return sorted(_with_parts(state, numbers, kept))


def smaller(tokenizer: Any, kept: list[int]) -> Any:
    """Return a tokenizer with these tokens only: the token `kept[i]` has the new number i.

    Args:
        tokenizer: a tokenizer of transformers.
        kept: numbers of tokens, from `closed`.

    Raises:
        Unsupported: transformers does not build it again with these numbers.
    """
    new = {old: number for number, old in enumerate(kept)}
    state = _state(tokenizer)
    old_numbers = _all_numbers(state)
    _renumber(state, new)
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer.save_pretrained(scratch)
        for path in Path(scratch).iterdir():
            if path.name not in (_FILE, _CONFIG, "special_tokens_map.json"):
                path.unlink()
        Path(scratch, _FILE).write_text(json.dumps(state, ensure_ascii=False), encoding="utf-8")
        config_path = Path(scratch, _CONFIG)
        config = json.loads(config_path.read_text(encoding="utf-8"))
        if isinstance(described := config.get("added_tokens_decoder"), dict):
            config["added_tokens_decoder"] = {
                str(new[int(number)]): token for number, token in described.items() if int(number) in new
            }
        config_path.write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
        rebuilt = type(tokenizer).from_pretrained(scratch, local_files_only=True)
    rebuilt.name_or_path = tokenizer.name_or_path
    vocabulary = rebuilt.get_vocab()
    expected = {name: new[number] for name, number in old_numbers.items() if number in new}
    if {name: vocabulary.get(name) for name in expected} != expected or len(vocabulary) != len(expected):
        raise Unsupported(f"a {type(tokenizer).__name__} can't be built again with a part of its tokens")
    return rebuilt


def _state(tokenizer: Any) -> dict[str, Any]:
    """Return the content of `tokenizer.json`.

    Raises:
        Unsupported: the tokenizer has none, or it is of another kind.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise Unsupported(
            f"a {type(tokenizer).__name__} has no list of tokens that can be shortened: only tokenizers of the library "
            "tokenizers (tokenizer.json) have one"
        )
    state: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    kind = state["model"].get("type")
    if kind not in _KINDS:
        raise Unsupported(f"tokenizers of the kind {kind} can't be shortened, only {', '.join(_KINDS)}")
    return state


def _numbers(state: Mapping[str, Any]) -> dict[str, int]:
    """Return the numbers of the tokens in the model's own vocabulary."""
    vocabulary = state["model"]["vocab"]
    if isinstance(vocabulary, dict):
        return {str(name): int(number) for name, number in vocabulary.items()}
    return {str(name): number for number, (name, _) in enumerate(vocabulary)}


def _all_numbers(state: Mapping[str, Any]) -> dict[str, int]:
    """Return the numbers of all tokens, with the added ones."""
    return {**_numbers(state), **{token["content"]: int(token["id"]) for token in state["added_tokens"]}}


def _is_basic(name: str, state: Mapping[str, Any], characters: set[str]) -> bool:
    """Return whether a token is a single byte or a single character that kept tokens contain."""
    if name.startswith(_BYTE):
        return True
    character = name.removeprefix(_CONTINUED)
    if len(character) != 1:
        return False
    is_of_bytes = state["model"]["type"] == "BPE"  # its alphabet stands for bytes in most models
    return is_of_bytes or character in characters


def _with_parts(state: Mapping[str, Any], numbers: Mapping[str, int], kept: set[int]) -> set[int]:
    """Add the tokens that are merged into the kept ones, directly or through others."""
    parts: dict[int, list[int]] = {}
    for left, right in _merges(state):
        if (whole := numbers.get(left + right)) is not None:
            parts.setdefault(whole, []).extend(numbers[part] for part in (left, right) if part in numbers)
    closed_set, waiting = set(kept), list(kept)
    while waiting:
        for part in parts.get(waiting.pop(), ()):
            if part not in closed_set:
                closed_set.add(part)
                waiting.append(part)
    return closed_set


def _merges(state: Mapping[str, Any]) -> list[tuple[str, str]]:
    merges = state["model"].get("merges") or []
    pairs = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in merges]
    return [(left, right) for left, right in pairs]


def _renumber(state: dict[str, Any], new: Mapping[int, int]) -> None:
    """Keep only the tokens with a new number, in place."""
    model = state["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {name: new[number] for name, number in model["vocab"].items() if number in new}
    else:
        model["vocab"] = [entry for number, entry in enumerate(model["vocab"]) if number in new]
    if model.get("merges"):
        vocabulary = model["vocab"]
        pairs = [pair for pair in _merges(state) if {*pair, "".join(pair)} <= vocabulary.keys()]
        model["merges"] = [list(pair) for pair in pairs]
    if isinstance(model.get("unk_id"), int):
        model["unk_id"] = new[model["unk_id"]]
    state["added_tokens"] = [{**token, "id": new[int(token["id"])]} for token in state["added_tokens"]]
    if isinstance(state.get("padding"), dict) and state["padding"].get("pad_id") in new:
        state["padding"]["pad_id"] = new[state["padding"]["pad_id"]]
    state["post_processor"] = _renumbered(state.get("post_processor"), new)


def _renumbered(part: Any, new: Mapping[int, int]) -> Any:
    """Return a post-processor with new numbers: `ids` of templates, and pairs of token and number (`cls`, `sep`)."""
    if isinstance(part, dict):
        return {
            key: [new[number] for number in value]
            if key == "ids"
            else [value[0], new[value[1]]]
            if key in ("cls", "sep") and isinstance(value, list)
            else _renumbered(value, new)
            for key, value in part.items()
        }
    if isinstance(part, list):
        return [_renumbered(inner, new) for inner in part]
    return part
