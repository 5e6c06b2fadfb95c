"""Detect references written in another style than the answers: in capitals, or without punctuation.

This is common in speech data: LibriSpeech's references are all capitals without punctuation, so that a perfect
transcript has a plain word error rate of 1.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from mlflow_compress.records import Caution, CautionKind
from mlflow_compress.sockets import Metric

WRITTEN_OTHERWISE = CautionKind(
    "written_otherwise",
    short={
        "en": "references and answers differ in case or punctuation",
        "ru": "эталоны и ответы различаются регистром или пунктуацией",
    },
    message={
        "en": "references have {references}, but answers have {answers}: metrics without normalization count this as "
        "errors",
        "ru": "в эталонах {references}, в ответах {answers}: ненормализованные метрики считают это ошибками",
    },
    advice={
        "en": "Use wer_normalized and cer_normalized, or write the references in the model's style.",
        "ru": "Смотрите на wer_normalized и cer_normalized или запишите эталоны так, как пишет модель.",
    },
)
_CASES: Mapping[str, Mapping[str, str]] = {
    "capital": {"en": "capital letters only", "ru": "только прописные буквы"},
    "small": {"en": "small letters only", "ru": "только строчные буквы"},
    "both": {"en": "capital and small letters", "ru": "прописные и строчные буквы"},
}
_PUNCTUATION: Mapping[bool, Mapping[str, str]] = {
    True: {"en": "punctuation", "ru": "есть знаки препинания"},
    False: {"en": "no punctuation", "ru": "нет знаков препинания"},
}
_MARKS = frozenset(".,!?;:…。，！？、")  # noqa: RUF001  (Chinese and Japanese ones)
_FEWEST_LETTERS = 20
_ALL, _NONE = 0.95, 0.001  # share of capitals among letters with a case
_MOST, _HARDLY = 0.5, 0.05  # share of texts with punctuation


def compared(metrics: Mapping[str, Metric], references: Sequence[Any], answers: Sequence[Any]) -> list[Caution]:
    """Compare the writing style of references and answers, if a metric takes texts."""
    is_text = any(metric.takes == "texts" for metric in metrics.values())
    if not is_text or not all(isinstance(text, str) for text in (*references, *answers)):
        return []
    differences: list[tuple[Mapping[str, str], Mapping[str, str]]] = []
    of_references, of_answers = _case(references), _case(answers)
    if of_references and of_answers and of_references != of_answers:
        differences.append((_CASES[of_references], _CASES[of_answers]))
    shares = _punctuated(references), _punctuated(answers)
    if max(shares) >= _MOST and min(shares) <= _HARDLY:
        differences.append((_PUNCTUATION[shares[0] > shares[1]], _PUNCTUATION[shares[1] > shares[0]]))
    if not differences:
        return []
    styles = [{language: _joined(language, [pair[side] for pair in differences]) for language in ("en", "ru")}
              for side in (0, 1)]  # fmt: skip
    return [WRITTEN_OTHERWISE.of(references=styles[0], answers=styles[1])]


def _case(texts: Sequence[str]) -> str:
    """Return which letters texts have; empty if too few letters have a case."""
    capitals = small_letters = 0
    for text in texts:
        capitals += sum(map(str.isupper, text))
        small_letters += sum(map(str.islower, text))
    if capitals + small_letters < _FEWEST_LETTERS:
        return ""
    share = capitals / (capitals + small_letters)
    return "capital" if share >= _ALL else "small" if share <= _NONE else "both"


def _punctuated(texts: Sequence[str]) -> float:
    """Return the share of non-empty texts that have punctuation between or after words."""
    non_empty = [unicodedata.normalize("NFC", text) for text in texts if text.strip()]
    return sum(not _MARKS.isdisjoint(text) for text in non_empty) / len(non_empty) if non_empty else 0.0


def _joined(language: str, parts: Sequence[Mapping[str, str]]) -> str:
    return {"en": " and ", "ru": " и "}[language].join(part[language] for part in parts)
