"""Writing a fast tokenizer of transformers into a GGUF file, so that llama.cpp tokenizes in the same way.

Source: convert_hf_to_gguf.py of llama.cpp (the keys `tokenizer.ggml.*`, and the names of pre-tokenizers).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6  # llama.cpp's types of tokens
_NEVER = -1e6  # score of tokens that no merge makes
# Recognises a pre-tokenizer: a part of its pattern in tokenizer.json, and llama.cpp's name
_PATTERNS = (
    (r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+", "llama-bpe"),
    (r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+", "qwen2"),
)


def write_tokenizer(writer: Any, tokenizer: Any, rows: int) -> str:
    """Write a tokenizer; if it is not supported, mark the file as one for token ids only.

    Args:
        writer: Writer of the file.
        tokenizer: Tokenizer of transformers.
        rows: Rows of the embeddings.

    Returns:
        Why the tokenizer is not in the file; empty if it is.
    """
    obstacle = _write(writer, tokenizer, rows)
    if obstacle:
        writer.add_tokenizer_model("no_vocab")
    return obstacle


def _write(writer: Any, tokenizer: Any, rows: int) -> str:
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    description = json.loads(backend.to_str()) if hasattr(backend, "to_str") else {}
    model = description.get("model") or {}
    if model.get("type") != "BPE":
        return f"it is {type(tokenizer).__name__}, and only byte pair encoding is supported"
    if len(tokenizer) > rows:
        return f"it has {len(tokenizer)} tokens, and the model has {rows}"
    is_spm = bool(model.get("byte_fallback"))
    pre_tokenizer = "" if is_spm else _pre_tokenizer(description)
    if not is_spm and not pre_tokenizer:
        return "llama.cpp has no known name for its pre-tokenizer"
    tokens, kinds = _tokens(description, rows, is_spm)
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]]
    writer.add_tokenizer_model("llama" if is_spm else "gpt2")
    writer.add_tokenizer_pre("default" if is_spm else pre_tokenizer)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    if is_spm:
        writer.add_token_scores(_scores(tokens, kinds, merges))
        writer.add_add_space_prefix("▁" in json.dumps([description.get("normalizer")], ensure_ascii=False))
    else:
        writer.add_token_merges(merges)
    _write_special(writer, tokenizer)
    return ""


def _pre_tokenizer(description: Mapping[str, Any]) -> str:
    """Return llama.cpp's name for the pre-tokenizer; empty if it has none."""
    step = description.get("pre_tokenizer") or {}
    steps = step.get("pretokenizers", [step])
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits"):
        return "smollm"
    if kinds == ["Split", "ByteLevel"]:
        pattern = (steps[0].get("pattern") or {}).get("Regex", "")
        return next((name for part, name in _PATTERNS if part in pattern), "")
    return ""


def _tokens(description: Mapping[str, Any], rows: int, is_spm: bool) -> tuple[list[str], list[int]]:
    """Return all tokens by id, and their types; ids without a token are unused."""
    by_id = {index: token for token, index in description["model"]["vocab"].items()}
    kinds = dict.fromkeys(by_id, _NORMAL)
    for added in description.get("added_tokens") or []:
        by_id[added["id"]] = added["content"]
        kinds[added["id"]] = _CONTROL if added["special"] else _USER
    unknown = description["model"].get("unk_token")
    for index, token in by_id.items():
        if is_spm and token == unknown:
            kinds[index] = _UNKNOWN
        elif is_spm and len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            kinds[index] = _BYTE
    tokens = [by_id.get(index, f"[PAD{index}]") for index in range(rows)]
    return tokens, [kinds.get(index, _UNUSED) for index in range(rows)]


def _scores(tokens: list[str], kinds: list[int], merges: list[str]) -> list[float]:
    """Return a score per token such that merging by best score equals merging in the order of merges."""
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
