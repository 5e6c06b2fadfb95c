"""Tiny models with tokenizers of words, and a task that they can learn."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

GOOD, BAD = ("good", "fine", "great", "lovely", "bright"), ("bad", "dull", "poor", "awful", "dark")
OTHERS = ("the", "film", "was", "a", "very", "story", "and", "plot", "in", "all", "unused", "spare", "never", "seen")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
TINY_BERT = {
    "model_type": "bert",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}


def word_piece(words: Sequence[str] = (*GOOD, *BAD, *OTHERS)) -> Any:
    """Return BERT's tokenizer with these words, single letters and parts of words."""
    from transformers import BertTokenizer

    tokens = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), *words, "##ing", "##ly"]
    return BertTokenizer(vocab={token: number for number, token in enumerate(dict.fromkeys(tokens))})


def reviews(count: int, seed: int, words: Sequence[str] = OTHERS[:10]) -> list[tuple[str, str]]:
    """Make texts whose label is that of their only word with a meaning."""
    generator = random.Random(seed)
    rows = []
    for index in range(count):
        label, meanings = (("POSITIVE", GOOD), ("NEGATIVE", BAD))[index % 2]
        text = [generator.choice(words) for _ in range(5)]
        text.insert(generator.randrange(6), generator.choice(meanings))
        rows.append((" ".join(text), label))
    return rows


def write_rows(path: Path, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> Path:
    """Write rows as JSON lines."""
    lines = [json.dumps(dict(zip(names, row, strict=True))) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def labelled_folder(folder: Path, train: int = 160, test: int = 40) -> Path:
    """Write a folder with a training split and a test split of reviews."""
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "train.jsonl", ("text", "label"), reviews(train, 1))
    write_rows(folder / "test.jsonl", ("text", "label"), reviews(test, 2))
    return folder


def saved(folder: Path, kind: str = "AutoModelForSequenceClassification", seed: int = 0, **fields: Any) -> Path:
    """Save a tiny BERT with random weights and a tokenizer of words; return its folder."""
    import torch
    import transformers

    tokenizer = fields.pop("tokenizer", None) or word_piece()
    values = {**TINY_BERT, "vocab_size": len(tokenizer), **fields}
    config = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    torch.manual_seed(seed)
    getattr(transformers, kind).from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def labels() -> dict[str, Any]:
    """Return the config fields of the two labels of `reviews`."""
    return {"id2label": {0: "NEGATIVE", 1: "POSITIVE"}, "label2id": {"NEGATIVE": 0, "POSITIVE": 1}}
