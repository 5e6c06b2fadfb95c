"""Counts texts that are longer than a model can take, and are cut."""

from __future__ import annotations

from collections.abc import Sequence

from mlflow_compress.networks.transformers_models import companions
from mlflow_compress.records import CautionKind
from mlflow_compress.sockets import Model

CUT_TEXTS = CautionKind(
    "cut_texts",
    short={"en": "long texts were cut", "ru": "длинные тексты обрезаны"},
    message={
        "en": "{cut} of {all} texts are longer than {tokens} tokens; only their beginning is read",
        "ru": "текстов длиннее {tokens} токенов, из которых прочитано только начало: {cut} из {all}",
    },
    advice={
        "en": "All variants read the same part, so they can be compared; scores on whole texts may differ.",
        "ru": "Все варианты читают одну и ту же часть и сравнимы; на целых текстах качество может быть другим.",
    },
)
_AT_ONCE = 1000  # texts
_AROUND = 8  # tokens that a tokenizer may add to a text


def note_cut(model: Model, texts: Sequence[str], tokens: int | None) -> None:
    """Add a caution to a model about texts that are cut to this number of tokens; None: no text is cut."""
    if tokens is None:
        return
    # a token has at least one byte, except the special tokens around every text
    candidates = [text for text in texts if len(text.encode("utf-8", "replace")) >= tokens - _AROUND]
    tokenizer, cut = companions(model).tokenizer, 0
    for start in range(0, len(candidates), _AT_ONCE):
        ids = tokenizer(candidates[start : start + _AT_ONCE], truncation=False, verbose=False)["input_ids"]
        cut += sum(len(encoded) > tokens for encoded in ids)
    if cut:
        model.cautions.append(CUT_TEXTS.of(cut=cut, all=len(texts), tokens=tokens))
