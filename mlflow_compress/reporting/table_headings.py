# ruff: noqa: RUF001  (Russian words are no typing mistakes)
"""Tells what the columns of a hand-made table hold by what stands above them, in Russian or English."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mlflow_compress.reporting.written_units import Unit, Unreadable, unit

Kind = Literal["team", "model", "method", "size", "time", "ram", "vram", "quality", "unknown"]

ORIGINALS = re.compile(
    r"originals?|original model|baseline|оригинал(ьная)?( модель)?|исходная( модель)?|исходный|базовая( модель)?|"
    r"without compression|no compression|без сжатия",
    re.IGNORECASE,
)
TO_HUNDRED = {"quality/bleu", "quality/chrf"}  # scores from 0 to 100; all others that are shares go to 1
_NAMES: dict[Kind, str] = {
    "team": r"teams?|(название )?команд[аы]",
    "model": r"(the )?models?( name)?|((название|имя) )?модел[ьи]",
    "method": r"((compression|optimi[sz]ation) )?methods?|compression|optimi[sz]ation|technique|variant|"
    r"метод(ы|( (сжатия|оптимизации))?)|способ( (сжатия|оптимизации))?|оптимизация|вариант|техника",
}
_QUANTITIES: tuple[tuple[Kind, str], ...] = (
    ("vram", r"\bvram\b|видеопамят|\b(gpu|гпу|cuda)[ -]?(memory|mem|памят)|(memory|памят\w*)\W{0,2}(gpu|гпу)\b"),
    ("ram", r"\bram\b|\bозу\b|памят|memory"),
    ("size", r"размер|\bsize\b|\bвес(а|ов)?\b|weights?\b|на диске|on disk"),
    ("time", r"врем[яе]|\btime\b|latency|задержк|латентност|инференс|inference|скорост|speed|throughput|пропускн|"
     r"\b(ms|мс|fps)\b|tokens?\b|токен"),
)  # fmt: skip
# Words that make another quantity of what they stand beside.
_ANOTHER = re.compile(
    r"ускорени|speed-?up|ratio|отношени|сжати|compression|уменьшени|reduction|[δ∆]|дельт|изменени|прирост|раз\b|gain|"
    r"drop|diff|разниц|экономи|\bvs\b|\bstd\b|отклонени|train|обучени|load|загрузк|compil|компиляц|convert|конверт|"
    r"export|экспорт|\bp9\d|batch|батч|dataset|датасет|выборк|image|изображени|\binput|вход|vocab|слова?р|hidden|"
    r"param|параметр|per token|/ ?token|на токен",
)
_DEVICES = {"cpu": re.compile(r"\bcpu\b|\bцпу?\b"), "gpu": re.compile(r"\bgpu\b|\bгпу?\b|\bcuda\b")}
_QUALITY = re.compile(r"качеств|quality|метрик|\bmetrics?\b|\bscores?\b")

# How people write our metrics; what is not here is no score that we know.
_ALIASES = {
    "accuracy": r"accuracy|acc|точность|top[- ]?1(?: accuracy)?",
    "top5_accuracy": r"top[- ]?5(?: accuracy)?",
    "f1": r"(?:macro[- ])?f1(?:[- ]?(?:score|macro))?|f1-мера",
    "precision": r"precision",
    "recall": r"recall|полнота",
    "seqeval_f1": r"(?:entity|seqeval) f1",
    "seqeval_precision": r"(?:entity|seqeval) precision",
    "seqeval_recall": r"(?:entity|seqeval) recall",
    "box_precision": r"box precision",
    "box_recall": r"box recall",
    "map50": r"map(?:@0?[.,]50?|50|@50)",
    "map50_95": r"map(?:50[-–]95|@0?[.,]50?[:-]0?[.,]95|@50[:-]95)",
    "wer": r"wer",
    "cer": r"cer",
    "wer_normalized": r"normali[sz]ed wer",
    "cer_normalized": r"normali[sz]ed cer",
    "bleu": r"(?:sacre)?bleu",
    "chrf": r"chrf",
    "rouge1": r"rouge-?1",
    "rouge2": r"rouge-?2",
    "rougeL": r"rouge-?l",
    "perplexity": r"perplexity|ppl|перплексия",
    "word_perplexity": r"word perplexity",
    "bits_per_byte": r"bits per byte",
}
_LESS = r"(?P<less>1\s*[-–−]\s*)?"
SCORE = re.compile(
    rf"(?<![^\W\d_]){_LESS}(?:"
    + "|".join(
        f"(?P<{name}>{words})"
        # A longer name begins with another word: it is tried first.
        for name, words in sorted(_ALIASES.items(), key=lambda item: (" " not in item[1][:20], -len(item[1])))
    )
    + r")(?![^\W_])",
    re.IGNORECASE,
)
_SMALL_UNIT = re.compile(r"(?:^|[,(;])\s*([sсbб])\s*(?=[(),;/]|$)", re.IGNORECASE)
_UNITS = re.compile(
    r"[^\W\d_]+ ?(?:/|\bper\b|\bв\b|\bна\b) ?\w+|\b(?:[kmgt]i?b|[кмг]и?б|байт|bytes?|ns|us|[µμ]s|ms|нс|мкс|мс|"
    r"secs?|seconds?|сек\w*|min|мин|fps)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Score:
    """A quality metric that a text names.

    Attributes:
        metric: our name of it.
        is_rest: the number is 1 less the metric (`1 - WER`).
        is_known: whether it is a metric of this tool.
    """

    metric: str
    is_rest: bool = False
    is_known: bool = True


@dataclass(frozen=True)
class Heading:
    """What a column holds.

    Attributes:
        text: the header as it is.
        kind: what it is about.
        metric: the metric that its numbers are; empty where the cells say it themselves.
        device: `cpu` or `gpu`; empty where none is named.
        unit: None where none is named.
        scores: the metrics that it names.
        is_percent: whether its numbers are per cent.
        reason: why nothing is read from it; empty where something is.
    """

    text: str
    kind: Kind
    metric: str = ""
    device: str = ""
    unit: Unit | None = None
    scores: tuple[Score, ...] = ()
    is_percent: bool = False
    reason: str = ""


def headings(texts: Sequence[str]) -> tuple[Heading, ...]:
    """Tell what the columns of a table hold.

    The first column that names models is that of the models, and so on; numbers may have several columns.

    Args:
        texts: the headers, plain.
    """
    found: list[Heading] = []
    for text in texts:
        heading = _heading(text)
        if heading.kind in _NAMES and any(heading.kind == each.kind for each in found):
            heading = Heading(text, "unknown", reason=f"another column holds the {heading.kind} already")
        found.append(heading)
    return tuple(found)


def is_comparison(found: Sequence[Heading]) -> bool:
    """Say whether a table with these columns compares models: it names them, and holds a number of ours."""
    return any(each.kind in ("model", "method") for each in found) and any(
        each.kind not in (*_NAMES, "unknown") for each in found
    )


def score(match: re.Match[str]) -> Score:
    """Give the metric that a match of `SCORE` names."""
    name = next(name for name in _ALIASES if match[name])
    return Score(f"quality/{name}", is_rest=bool(match["less"]))


def _heading(text: str) -> Heading:
    words = " ".join(text.casefold().replace("ё", "е").split())
    for kind, pattern in _NAMES.items():
        if re.fullmatch(pattern, re.sub(r"\(.*", "", words).strip(" :")):
            return Heading(text, kind)
    devices = [device for device, pattern in _DEVICES.items() if pattern.search(words)]
    device = devices[0] if len(devices) == 1 else ""
    if _ANOTHER.search(words):
        return Heading(text, "unknown", reason="not a column that is known here")
    if _QUALITY.search(words) or SCORE.search(words):
        return Heading(text, "quality", device=device, scores=_scores(text), is_percent="%" in words)
    kind = next((kind for kind, pattern in _QUANTITIES if re.search(pattern, words)), "unknown")
    if kind == "unknown":
        return Heading(text, "unknown", reason="not a column that is known here")
    try:
        sign = _unit(text)
    except Unreadable as error:
        return Heading(text, "unknown", reason=str(error))
    if kind == "time" and not device:
        reason = "its header names both CPU and GPU" if devices else "its header names neither CPU nor GPU"
        return Heading(text, "unknown", unit=sign, reason=reason)
    metrics: dict[Kind, str] = {
        "size": "size/disk_mib" if re.search(r"диск|disk", words) else "size/weights_mib",
        "ram": "cpu/ram_peak_mib",
        "vram": "gpu/vram_peak_mib",
        "time": rate(device, sign) if sign and sign.kind in ("tokens", "samples") else f"{device}/latency_p50_ms",
    }
    return Heading(text, kind, metrics[kind], device, sign)


def rate(device: str, sign: Unit) -> str:
    """Give the metric of a rate: tokens or samples in one second are no latency."""
    return f"{device}/tokens_per_s" if sign.kind == "tokens" else f"{device}/throughput_per_s"


def _scores(text: str) -> tuple[Score, ...]:
    inside = " ".join(re.findall(r"\(([^()]*)\)", text))
    found = [*SCORE.finditer(inside)] or [*SCORE.finditer(re.sub(r"\([^()]*\)", " ", text))]
    unknown = inside.strip()
    is_acronym = re.fullmatch(r"[A-Za-z][\w@.-]*", unknown) and sum(map(str.isupper, unknown)) > 1
    if is_acronym and not SCORE.search(inside) and unknown.casefold() not in _DEVICES:
        return (Score(f"quality/{re.sub(r'[^0-9a-z]+', '_', unknown.casefold()).strip('_')}", is_known=False),)
    return tuple(dict.fromkeys(map(score, found)))


def _unit(header: str) -> Unit | None:
    """Find the unit in a header."""
    candidates = [match.group() for match in _UNITS.finditer(header)]
    candidates += [match[1] for match in _SMALL_UNIT.finditer(header)]
    return next((found for text in candidates if (found := unit(text))), None)
