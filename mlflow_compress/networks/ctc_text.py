"""Texts of models with connectionist temporal classification (CTC), and their tokenizers.

Source: best path decoding, Graves et al., Connectionist temporal classification, ICML 2006, section 3.2.
"""

from __future__ import annotations

import inspect
import itertools
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "|")  # as in Wav2Vec2's tokenizers; | stands between words
_LETTERS = "etaonihsrdlumwcfgypbvk'xjqz"


def text_of(tokenizer: Any, frames: Sequence[int], blank: int) -> str:
    """Return the text that the best token of each frame means: repeated tokens count once, and blanks are dropped.

    Args:
        tokenizer: the model's tokenizer.
        frames: token ids.
        blank: id of the blank token.
    """
    tokens = [token for token, _ in itertools.groupby(frames) if token != blank]
    knows_ctc = "group_tokens" in inspect.signature(type(tokenizer)._decode).parameters
    options = {"group_tokens": False} if knows_ctc else {}  # it would make one of two equal letters
    return str(tokenizer.decode(tokens, skip_special_tokens=True, **options)).strip()


def tokenizer_of_letters(size: int, blank: int) -> Any:
    """Make a tokenizer for random weights: the special tokens of Wav2Vec2, letters, and numbers for all other ids.

    Args:
        size: number of tokens.
        blank: id of the blank token.
    """
    from transformers import Wav2Vec2CTCTokenizer

    names = [*_SPECIAL, *_LETTERS][:size]
    names += [f"<{number}>" for number in range(len(names), size)]
    names[0], names[blank] = names[blank], names[0]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "vocab.json")
        file.write_text(json.dumps({name: number for number, name in enumerate(names)}), encoding="utf-8")
        return Wav2Vec2CTCTokenizer(str(file))
