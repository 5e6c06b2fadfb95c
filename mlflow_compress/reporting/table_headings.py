# ruff: noqa: RUF001  (Russian words are not typing mistakes)
"""Recognises the columns of a hand-made table by their headers, in Russian or English."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from mlflow_compress import registry
from mlflow_compress.errors import CompressError
from mlflow_compress.reporting.written_circumstances import hardware_in, several_inputs
from mlflow_compress.reporting.written_units import ONE, Unit, Unreadable, unit
from mlflow_compress.sockets import Metric

Kind = Literal["team", "model", "method", "size", "time", "ram", "vram", "quality", "unknown"]

_ORIGINALS = re.compile(
    r"originals?|(the )?(original|base|full|uncompressed|unquantized|vanilla)( model)?|baseline( model)?|"
    r"оригинал(ьная|ьный)?( модель)?|исходн(ая|ый)( модель)?|базов(ая|ый)( модель)?|полная( модель)?|"
    r"без (сжатия|оптимизаци[ийя]|квантизации|изменений)|несжатая( модель)?|"
    r"(without|no) (compression|optimi[sz]ations?|quanti[sz]ation)",
    re.IGNORECASE,
)
_CALLED = re.compile(r"original|baseline|оригинал|исходная( модель)?|базовая( модель)?", re.IGNORECASE)
_AS_IT_IS = re.compile(r"\b((fp|float|f)[ -]?32|full precision|pytorch|torch|полная точность)\b", re.IGNORECASE)
_CHANGED = re.compile(
    r"quant|квант|prun|прун|distil|дистил|\b(u?int|nf|w)\d|\bb?(fp|float|f)[ -]?(8|16)|half|onnx|openvino|tensorrt|"
    r"\btrt|script|compil|cluster|кластер|spars|разреж|gptq|awq|lora|student|студент|ученик",
    re.IGNORECASE,
)
_NAMES: dict[Kind, str] = {
    "team": r"teams?|(название )?команд[аы]",
    "model": r"(the )?models?( name)?|((название|имя) )?модел[ьи]",
    "method": r"((compression|optimi[sz]ation) )?methods?|compression|optimi[sz]ation|technique|variant|"
    r"метод(ы|( (сжатия|оптимизации))?)|способ( (сжатия|оптимизации))?|оптимизация|вариант|техника",
}
_QUANTITIES: tuple[tuple[Kind, str], ...] = (
    ("vram", r"\bvram\b|видеопамят|\b(gpu|гпу|cuda)[ -]?(memory|mem|памят)|(memory|памят\w*)\W{0,2}(gpu|гпу)\b"),
    ("ram", r"\bram\b|\bозу\b|памят|memory"),
    ("size", r"размер|\bsize\b|\bвес(а|ов)?\b|weights?\b|на диске|on disk|\bgzip\b|\.gz\b|архив"),
    ("time", r"врем[яе]|\btime\b|latency|задержк|латентност|инференс|inference|скорост|speed|throughput|пропускн|"
     r"\b(ms|мс|fps)\b|tokens?\b|токен"),
)  # fmt: skip
# Words that turn the quantity beside them into another one.
_ANOTHER = re.compile(
    r"ускорени|speed-?up|ratio|отношени|сжати|compression|уменьшени|reduction|[δ∆]|дельт|изменени|прирост|раз\b|gain|"
    r"drop|diff|разниц|экономи|\bvs\b|\bstd\b|отклонени|train|обучени|load|загрузк|compil|компиляц|convert|конверт|"
    r"export|экспорт|\bp9\d|batch|батч|dataset|датасет|выборк|image|изображени|\binput|вход|vocab|слова?р|hidden|"
    r"param|параметр",
)
_OF_ONE = re.compile(
    rf"(?:/|\bper\b|\bна\b|\bв\b) ?(?:{ONE}|tok|tokens?|токен\w*)\b|batch(?: size)? ?[:=]? ?1\b", re.IGNORECASE
)
_PACKED = re.compile(r"\bgz(?:ip)?\b|\bzip\b", re.IGNORECASE)
_OTHERWISE_PACKED = re.compile(
    r"архив|archive|\b(?:7z|rar|xz|bz2|zst|tar)\b|compressed|сжат(?:ый|ая|ого|ом|ой)\b", re.IGNORECASE
)
_FILE = re.compile(r"диск|disk|файл|\bfile|checkpoint|чекпоинт")
_DEVICES = {"cpu": re.compile(r"\bcpu\b|\bцпу?\b"), "gpu": re.compile(r"\bgpu\b|\bгпу?\b|\bcuda\b|\bmps\b|\bxpu\b")}
_NO_SCORE = re.compile(r"(?:fp|bf|int|uint|tf|nf|w)\d|cpu|gpu|cuda|mps|xpu|v?ram|oom", re.IGNORECASE)
_QUALITY = re.compile(r"качеств|quality|метрик|\bmetrics?\b|\bscores?\b")

_LESS = r"(?P<less>1\s*[-–−]\s*)?"
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
        metric: the name of the metric here.
        is_rest: whether the number is 1 minus the metric (`1 - WER`).
        is_known: whether this tool has the metric.
    """

    metric: str
    is_rest: bool = False
    is_known: bool = True


@dataclass(frozen=True)
class Heading:
    """The content of a column.

    Attributes:
        text: the header's text.
        kind: the kind of content.
        metric: the metric of its numbers; empty where the cells name it.
        device: `cpu` or `gpu`; empty where the header names none.
        unit: the unit in the header; None where there is none.
        scores: the metrics in the header.
        is_percent: whether its numbers are per cent.
        reason: why nothing is read from it; empty where it is read.
        needs_unit: why a number without a unit is not read from it; empty where it is read.
        hardware: the hardware in the header; empty where there is none.
        several: the number of inputs of its times, as written; empty where it is one.
    """

    text: str
    kind: Kind
    metric: str = ""
    device: str = ""
    unit: Unit | None = None
    scores: tuple[Score, ...] = ()
    is_percent: bool = False
    reason: str = ""
    needs_unit: str = ""
    hardware: str = ""
    several: str = ""


@dataclass(frozen=True)
class Spellings:
    """The ways in which people write the installed metrics.

    Attributes:
        pattern: matches one metric, with `1 -` before it where the number is the rest.
        names: the metrics, by the pattern's groups.
    """

    pattern: re.Pattern[str]
    names: Mapping[str, str]

    def score(self, match: re.Match[str]) -> Score:
        """Return the metric that a match of the pattern names."""
        name = next(name for group, name in self.names.items() if match[group])
        return Score(f"quality/{name}", is_rest=bool(match["less"]))


def spellings() -> Spellings:
    """Return the ways in which people write the installed metrics; anything else is not a known score."""
    return _spellings(registry.names("metrics"))


@cache
def _spellings(metrics: Sequence[str]) -> Spellings:
    patterns = {name: spelling for name in metrics if (spelling := _spelling(name))}
    # Try longer names first: they may begin with another name.
    longest = sorted(patterns, key=lambda name: (" " not in patterns[name][:20], -len(patterns[name])))
    names = {f"metric_{number}": name for number, name in enumerate(longest)}
    choices = "|".join(f"(?P<{group}>{patterns[name]})" for group, name in names.items())
    pattern = re.compile(rf"(?<![^\W\d_]){_LESS}(?:{choices})(?![^\W_])", re.IGNORECASE)
    return Spellings(pattern, names)


def _spelling(name: str) -> str:
    """Return a metric's own pattern; where it has no usable one, its name and its labels."""
    try:
        metric: type[Metric] = registry.find("metrics", name)
        is_usable = not re.compile(metric.spelling).groups and not re.fullmatch(metric.spelling, "")
    except CompressError:  # a broken plugin of another distribution
        return ""
    except re.error:
        is_usable = False
    if is_usable:
        return metric.spelling
    return "|".join(re.escape(text) for text in (*metric.class_facts().label.values(), name))


def is_original(name: str) -> bool:
    """Return whether a method's name means that nothing was done: `Baseline`, `full model`, `FP32 (Baseline)`."""
    if is_plainly_original(name):
        return True
    bracketed = [text.strip() for text in re.findall(r"\(([^()]*)\)", name)]
    without_brackets = re.sub(r"\([^()]*\)", " ", name)
    if _CHANGED.search(name):
        return False
    bare = " ".join(_AS_IT_IS.sub(" ", without_brackets).split())
    return bool(_ORIGINALS.fullmatch(bare)) or any(_CALLED.fullmatch(text) for text in bracketed)


def is_plainly_original(name: str) -> bool:
    """Return whether a method's name means the original and nothing else."""
    return bool(_ORIGINALS.fullmatch(name.strip()))


def headings(texts: Sequence[str]) -> tuple[Heading, ...]:
    """Return the content of a table's columns.

    The first column of models is the column of models, and so on; numbers may have several columns.

    Args:
        texts: the headers as plain text.
    """
    columns: list[Heading] = []
    for text in texts:
        heading = _heading(text)
        if heading.kind in _NAMES and any(heading.kind == column.kind for column in columns):
            heading = Heading(text, "unknown", reason=f"another column already holds the {heading.kind}")
        columns.append(heading)
    return tuple(columns)


def is_comparison(columns: Sequence[Heading]) -> bool:
    """Return whether a table with these columns compares models: it names them, and has a known number."""
    return any(column.kind in ("model", "method") for column in columns) and any(
        column.kind not in (*_NAMES, "unknown") for column in columns
    )


def _heading(text: str) -> Heading:
    words = " ".join(text.casefold().replace("ё", "е").split())
    for name, pattern in _NAMES.items():
        if re.fullmatch(pattern, re.sub(r"\(.*", "", words).strip(" :")):
            return Heading(text, name)
    devices = [device for device, pattern in _DEVICES.items() if pattern.search(words)]
    device = devices[0] if len(devices) == 1 else ""
    if _ANOTHER.search(_OF_ONE.sub(" ", words)):
        return Heading(text, "unknown", reason="an unknown column")
    quantities = [kind for kind, pattern in _QUANTITIES if re.search(pattern, words)]
    kind = quantities[0] if quantities else None
    try:
        sign = _unit(text)
    except Unreadable as error:
        return Heading(text, "unknown", reason=str(error))
    names_score = bool(_QUALITY.search(words) or spellings().pattern.search(words))
    without_brackets = re.sub(r"\([^()]*\)", " ", words)
    is_score_outside = bool(_QUALITY.search(without_brackets) or spellings().pattern.search(without_brackets))
    is_quantity = kind is not None and (_fits(sign, kind) or (not is_score_outside and _is_in(kind, without_brackets)))
    if names_score and not is_quantity:
        return Heading(text, "quality", device=device, scores=_scores(text), is_percent="%" in words)
    if kind is None:
        return Heading(text, "unknown", reason="an unknown column")
    doubt = "the header also names a score, and neither it nor the cell has a unit" if names_score and not sign else ""
    if kind == "time" and not device:
        reason = "the header names both CPU and GPU" if devices else "the header names neither CPU nor GPU"
        return Heading(text, "unknown", unit=sign, reason=reason)
    if kind == "size" and _OTHERWISE_PACKED.search(words) and not _PACKED.search(words):
        reason = "it may be the size of the compressed model, or of an archive other than gz"
        return Heading(text, "unknown", unit=sign, reason=reason)
    return Heading(
        text,
        kind,
        _metric(kind, device, sign, words),
        device,
        sign,
        needs_unit=doubt,
        hardware=hardware_in(text),
        several=several_inputs(text) if kind == "time" else "",
    )


def _fits(sign: Unit | None, kind: Kind) -> bool:
    """Return whether a unit fits a kind of column: then the column is of that kind, whatever else it names."""
    return sign is not None and (sign.kind == "size") == (kind in ("size", "ram", "vram"))


def _is_in(kind: Kind, words: str) -> bool:
    return any(kind == name and re.search(pattern, words) for name, pattern in _QUANTITIES)


def _metric(kind: Kind, device: str, sign: Unit | None, words: str) -> str:
    if kind == "size":
        return size_metric(words) or ("size/disk_mib" if _FILE.search(words) else "size/weights_mib")
    if kind == "time":
        is_rate = sign is not None and sign.kind in ("tokens", "samples")
        return rate(device, sign) if sign and is_rate else f"{device}/latency_p50_ms"
    return "gpu/vram_peak_mib" if kind == "vram" else "cpu/ram_peak_mib"


def size_metric(words: str) -> str:
    """Return the metric for the size of a compressed file, where a text names that; else an empty text."""
    return "size/disk_gzip_mib" if _PACKED.search(words) else ""


def rate(device: str, sign: Unit) -> str:
    """Return the metric of a rate: tokens or samples per second are not a latency."""
    return f"{device}/tokens_per_s" if sign.kind == "tokens" else f"{device}/throughput_per_s"


def _scores(text: str) -> tuple[Score, ...]:
    names = spellings()
    bracketed = " ".join(re.findall(r"\(([^()]*)\)", text))
    matches = [*names.pattern.finditer(bracketed)] or [*names.pattern.finditer(re.sub(r"\([^()]*\)", " ", text))]
    if not names.pattern.search(bracketed) and (score := unknown_score(bracketed.strip())):
        return (score,)
    return tuple(dict.fromkeys(map(names.score, matches)))


def unknown_score(text: str) -> Score | None:
    """Return a score in a text that this tool does not have: an acronym (`NISQA-AVG`), but not a precision."""
    is_acronym = re.fullmatch(r"[A-Za-z][\w@.-]*(?: [\w@.-]+)?", text) and sum(map(str.isupper, text)) > 1
    if not is_acronym or text.casefold() in _DEVICES or _NO_SCORE.match(text) or hardware_in(text):
        return None
    name = re.sub(r"[^0-9a-z]+", "_", text.casefold()).strip("_")
    return None if name in registry.names("metrics") else Score(f"quality/{name}", is_known=False)


def _unit(header: str) -> Unit | None:
    """Return the unit in a header; None where there is none."""
    candidates = [match.group() for match in _UNITS.finditer(header)]
    candidates += [match[1] for match in _SMALL_UNIT.finditer(header)]
    return next((sign for text in candidates if (sign := unit(text))), None)
