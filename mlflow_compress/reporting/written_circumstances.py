# ruff: noqa: RUF001  (Russian words are not typing mistakes)
"""Finds the circumstances of a number in its header or cell: the hardware, and the number of inputs."""

from __future__ import annotations

import re

_HARDWARE = re.compile(
    r"tesla|nvidia|geforce|quadro|[rg]tx|radeon|\b(?:k80|[pvah]100|h200|p40|t4|l40?s?|a10g?|a\d{4})\b|\bintel\b|xeon|"
    r"\bcore i\d|\bamd\b|ryzen|epyc|apple|\bm[1-5]\b|snapdragon|colab|kaggle",
    re.IGNORECASE,
)
_PARTS = re.compile(r"[(),;]")
_DEVICE = re.compile(r"\b(?:cpu|gpu|cuda|mps|xpu|цпу?|гпу)\b[:\s]*", re.IGNORECASE)
_SEVERAL = re.compile(
    r"\b\d+\s*[x×х*]\s*\d+(?:[.,]\d+)?[ -]?(?:s|с|secs?|seconds?|сек\w*|min\w*|мин\w*|h|ч)\b|"
    r"\b(?:[2-9]|\d{2,})\s*(?:samples|examples|texts|images|files|audios|records|requests|inputs|sentences|"
    r"с[эе]мпл\w+|пример\w+|текст\w+|картин\w+|изображени\w+|файл\w+|запис\w+|запрос\w+|предложени\w+)|"
    r"\bbatch(?:[ _]?size)?\s*[:= ]\s*(?:[2-9]|\d{2,})\b|\bbs\s*[:=]?\s*(?:[2-9]|\d{2,})\b",
    re.IGNORECASE,
)
_MEAN = re.compile(
    r"\bmean\b|\baverage\b|\bavg\b|\bmedian\b|\bсредн|\bмедиан|\bper\b|\bна (?:один|одну)\b", re.IGNORECASE
)


def hardware_in(text: str) -> str:
    """Return the processor or GPU in a text (`GPU, Tesla T4, ms`); empty where there is none."""
    parts = [part.strip() for part in _PARTS.split(text) if _HARDWARE.search(part)]
    return _DEVICE.sub("", parts[0]).strip() if len(parts) == 1 else ""


def several_inputs(text: str) -> str:
    """Return the part of a text that makes a time one of several inputs (`20 x 30 s`); empty where it is for one.

    A mean over several inputs is the time for one.
    """
    match = _SEVERAL.search(text)
    return match.group() if match and not _MEAN.search(text) else ""
