"""A fast tokenizer of transformers, written into a GGUF file so that llama.cpp reads texts as it does.

Source: convert_hf_to_gguf.py of llama.cpp (the keys `tokenizer.ggml.*`, and the names of pre-tokenizers).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6  # llama.cpp's types of tokens
_NEVER = -1e6  # the score of what no merge makes
# What tells a pre-tokenizer: a part of its pattern in tokenizer.json, and what llama.cpp calls it
_PATTERNS = (
    (r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+", "llama-bpe"),
    (r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+", "qwen2"),
)


def write_tokenizer(writer: Any, tokenizer: Any, rows: int) -> str:
    """Write a tokenizer; where it can't be, a file for token ids alone.

    Args:
        writer: the file's.
        tokenizer: of transformers.
        rows: how many tokens the embeddings have.

    Returns:
        Why it is not in the file; empty where it is.
    """
    obstacle = _write(writer, tokenizer, rows)
    if obstacle:
        writer.add_tokenizer_model("no_vocab")
    return obstacle


def _write(writer: Any, tokenizer: Any, rows: int) -> str:
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    described = json.loads(backend.to_str()) if hasattr(backend, "to_str") else {}
    model = described.get("model") or {}
    if model.get("type") != "BPE":
        return f"it is {type(tokenizer).__name__}, and only byte pair encoding is supported"
    if len(tokenizer) > rows:
        return f"it has {len(tokenizer)} tokens, and the model has {rows}"
    is_spm = bool(model.get("byte_fallback"))
    before = "" if is_spm else _pre_tokenizer(described)
    if not is_spm and not before:
        return "llama.cpp has no known name for its pre-tokenizer"
    tokens, kinds = _tokens(described, rows, is_spm)
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]]
    writer.add_tokenizer_model("llama" if is_spm else "gpt2")
    writer.add_tokenizer_pre("default" if is_spm else before)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    if is_spm:
        writer.add_token_scores(_scores(tokens, kinds, merges))
        writer.add_add_space_prefix("▁" in json.dumps([described.get("normalizer")], ensure_ascii=False))
    else:
        writer.add_token_merges(merges)
    _write_special(writer, tokenizer)
    return ""


def _pre_tokenizer(described: Mapping[str, Any]) -> str:
    """Return llama.cpp's name for how texts are parted before pairs are merged; empty where it has none."""
    step = described.get("pre_tokenizer") or {}
    steps = step.get("pretokenizers", [step])
    kinds = [each.get("type") for each in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits"):
        return "smollm"
    if kinds == ["Split", "ByteLevel"]:
        pattern = (steps[0].get("pattern") or {}).get("Regex", "")
        return next((name for part, name in _PATTERNS if part in pattern), "")
    return ""


def _tokens(described: Mapping[str, Any], rows: int, is_spm: bool) -> tuple[list[str], list[int]]:
    """Return all tokens by their ids, and their types; ids without a token are unused."""
    named = {index: token for token, index in described["model"]["vocab"].items()}
    kinds = dict.fromkeys(named, _NORMAL)
    for each in described.get("added_tokens") or []:
        named[each["id"]] = each["content"]
        kinds[each["id"]] = _CONTROL if each["special"] else _USER
    unknown = described["model"].get("unk_token")
    for index, token in named.items():
        if is_spm and token == unknown:
            kinds[index] = _UNKNOWN
        elif is_spm and len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            kinds[index] = _BYTE
    tokens = [named.get(index, f"[PAD{index}]") for index in range(rows)]
    return tokens, [kinds.get(index, _UNUSED) for index in range(rows)]


def _scores(tokens: list[str], kinds: list[int], merges: list[str]) -> list[float]:
    """Return a score for each token, so that merging by the best score is merging by the order of merges."""
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        ranks.setdefault(pair.replace(" ", ""), rank)
    return [
        0.0 if kind != _NORMAL else -float(ranks[token]) if token in ranks else _NEVER
        for token, kind in zip(tokens, kinds, strict=True)
    ]


def _write_special(writer: Any, tokenizer: Any) -> None:
    for name in ("bos", "eos", "unk", "pad"):
        if (index := getattr(tokenizer, f"{name}_token_id", None)) is not None:
            getattr(writer, f"add_{name}_token_id")(index)
    probe = tokenizer("a")["input_ids"]
    writer.add_add_bos_token(bool(probe) and probe[0] == tokenizer.bos_token_id)
    writer.add_add_eos_token(len(probe) > 1 and probe[-1] == tokenizer.eos_token_id)
    if isinstance(template := getattr(tokenizer, "chat_template", None), str):
        writer.add_chat_template(template)
