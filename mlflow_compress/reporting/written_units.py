# ruff: noqa: RUF001  (Russian units are not typing mistakes)
"""Reads numbers with units as people write them: `1.33Gb`, `1671,0 мс`, `0.42+-0.0005 (tokens/sec)`.

MB, Mb, МБ and MiB are all 2^20 bytes, as in the course's table (its 96.66Mb are fp32 weights in 2^20 bytes); a KB is
1/1024 of that, a GB 1024 times. A time is for one sample, in any spelling (`s`, `сек/сэмпл`, `ms per image`).
Ambiguous text is not read.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

Kind = Literal["size", "time", "tokens", "samples"]

_SIZES = {"b": -2, "kb": -1, "mb": 0, "gb": 1, "tb": 2}
_SIZE_WORDS = {word: power for unit, power in _SIZES.items() for word in (unit, f"{unit[:-1]}ib")} | {
    "б": -2,
    "байт": -2,
    "bytes": -2,
    "кб": -1,
    "мб": 0,
    "гб": 1,
    "тб": 2,
    "киб": -1,
    "миб": 0,
    "гиб": 1,
}
_TIMES = (
    (r"ns|нс|nanosec(ond)?s?", Decimal("1e-6")),
    (r"us|[µμ]s|мкс|microsec(ond)?s?", Decimal("1e-3")),
    (r"ms|мс|msecs?|millisec(ond)?s?|миллисек(унд[аы]?)?", Decimal(1)),
    (r"s|с|secs?|seconds?|сек(унд[аыу]?)?", Decimal(1000)),
    (r"min|мин|minutes?|минут[аы]?", Decimal(60_000)),
)
_SECOND = re.compile(_TIMES[3][0])
_TOKENS = re.compile(r"tok|tokens?|токен(ов|а|ы)?")
ONE = (
    r"(?:samples?|с[эе]мпл|examples?|пример|texts?|текст|items?|im(?:a)?ge?|картинк[ау]|изображение|requests?|запрос|"
    r"sentence|предложение|file|файл|audio|аудио|call|вызов|iter(?:ation)?|it|inference|инференс|input|1)"
)
_ONE = re.compile(ONE)
_UNIT = re.compile(r"([^\W\d_]+)\.?(?:\s*(?:/|\bper\b|\bна\b|\bв\b)\s*(\w+)\.?)?", re.IGNORECASE)

_FIGURES = r"[-+]?(?:\d(?:[\d .,'’\u00a0\u2009\u202f\u2007]*\d)?|[.,]\d+)(?:e[-+]?\d+)?"
_SPREAD = r"(?:±|\+\s*/?\s*-)"
_WRITTEN = re.compile(
    rf"(?P<figures>{_FIGURES})\s*(?P<unit>[^\d±+]*?)\s*"
    rf"(?P<spread>{_SPREAD}\s*{_FIGURES}\s*)?(?P<other_unit>(?(spread)[^\d±]*))",
    re.IGNORECASE,
)
_BRACKETS = re.compile(r"\(([^()]*)\)")
_ABOUT = re.compile(r"(?:~|≈|∼|≃|около|примерно|прибл\.?|approx\.?|about|ca\.)\s*", re.IGNORECASE)
_BOUND = re.compile(r"[<>≤≥]|(?:до|от|менее|более|up to|over|under|at (?:least|most))\b", re.IGNORECASE)
_DASHES = "-\u2010\u2011\u2012\u2013\u2014\u2015\u2212"
_MISSING = {
    "", "n/a", "na", "n.a.", "none", "null", "нет", "н/д", "нет данных", "no data", "not supported", "unsupported",
    "не поддерживается", "not applicable", "не применимо", "неприменимо", "not measured", "не измерялось",
    "не измерено",
}  # fmt: skip
_THIN = "'’\u00a0\u2009\u202f\u2007"


class Unreadable(Exception):  # noqa: N818  (not an error: the cell is named, with this reason)
    """A text is not a number, or is ambiguous."""


@dataclass(frozen=True)
class Unit:
    """A unit.

    Attributes:
        kind: what is counted: `size` in MB, `time` in ms, `tokens` or `samples` per second.
        factor: the factor to the unit used here.
        text: the unit as written.
        is_inverse: whether it is the time for one (`sec/token`), stored as a rate: 1 divided by the product.
    """

    kind: Kind
    factor: Decimal
    text: str
    is_inverse: bool = False

    def ours(self, value: Decimal) -> Decimal:
        """Return a number in this unit as one in ours. The number must not be 0 where the unit is inverse."""
        return 1 / (value * self.factor) if self.is_inverse else value * self.factor

    def theirs(self, value: float) -> float:
        """Return a number in our unit as one in this unit."""
        return 1 / (value * float(self.factor)) if self.is_inverse else value / float(self.factor)

    def is_same(self, other: Unit) -> bool:
        """Return whether numbers in both units mean the same."""
        return (self.kind, self.factor, self.is_inverse) == (other.kind, other.factor, other.is_inverse)


@dataclass(frozen=True)
class Measure:
    """A number as written.

    Attributes:
        value: the number alone.
        unit: its unit; None where none was written.
        remarks: what was written but is not in the number.
        notes: text in brackets that is not a unit.
    """

    value: Decimal
    unit: Unit | None
    remarks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def is_missing(text: str) -> bool:
    """Return whether a text means that there is no number: `-`, `N/A`, `not supported`, `--Mb`."""
    bare = text.strip(" *_`.\u00a0").casefold()
    without_dash = bare.lstrip(_DASHES).strip()
    return (
        bare in _MISSING
        or not without_dash
        or (without_dash != bare and bare[0] in _DASHES and without_dash in _SIZE_WORDS | {"ms": 0})
    )


def unit(text: str) -> Unit | None:
    """Read a unit; return None for other text.

    Raises:
        Unreadable: it is a time, but not for one sample.
    """
    if text.casefold() == "fps":
        return Unit("samples", Decimal(1), text)
    match = _UNIT.fullmatch(text.strip(" ,;"))
    if match is None:
        return None
    numerator, denominator = (part.casefold() if part else "" for part in match.groups())
    if numerator in _SIZE_WORDS and not denominator:
        return Unit("size", Decimal(1024) ** _SIZE_WORDS[numerator], text)
    if denominator and _SECOND.fullmatch(denominator):
        if _TOKENS.fullmatch(numerator):
            return Unit("tokens", Decimal(1), text)
        return Unit("samples", Decimal(1), text) if _ONE.fullmatch(numerator) else None
    factor = next((factor for words, factor in _TIMES if re.fullmatch(words, numerator)), None)
    if factor is not None and denominator and _TOKENS.fullmatch(denominator):
        return Unit("tokens", factor / 1000, text, is_inverse=True)
    if factor is not None and denominator and not _ONE.fullmatch(denominator):
        raise Unreadable(f"“{text}” is not the time of one sample")
    return None if factor is None else Unit("time", factor, text)


def measure(text: str) -> Measure:
    """Read a number with its unit, spread and notes.

    Args:
        text: a cell's plain text.

    Raises:
        Unreadable: with the reason.
    """
    remarks: list[str] = []
    notes: list[str] = []
    units: list[Unit] = []
    for note in _BRACKETS.findall(text):
        if sign := unit(note):
            units.append(sign)
        else:
            notes.append(note.strip())
    number_text = _BRACKETS.sub(" ", text).strip()
    if prefix := _ABOUT.match(number_text):
        number_text = number_text[prefix.end() :]
        remarks.append("the table calls the number approximate")
    if _BOUND.match(number_text):
        raise Unreadable("a bound, not a value")
    match = _WRITTEN.fullmatch(number_text)
    if match is None:
        raise Unreadable("not a single number")
    value = number(match["figures"])
    if match["spread"]:
        remarks.append(f"the spread {match['spread'].strip()} is kept in the cell's text only")
    for part in (match["unit"], match["other_unit"]):
        units += _units(part or "")
    if any(not sign.is_same(units[0]) for sign in units):
        raise Unreadable(f"two units: {' and '.join(sign.text for sign in units)}")
    if len(units) > 1 and not match["spread"]:
        remarks.append("the unit is written twice")
    return Measure(value, units[0] if units else None, tuple(remarks), tuple(notes))


def _units(text: str) -> list[Unit]:
    text = text.strip()
    if not text:
        return []
    if whole_unit := unit(text):
        return [whole_unit]
    signs = [unit(word) for word in text.split()]
    if not signs or None in signs:
        raise Unreadable(f"“{text}” is not a known unit")
    return [sign for sign in signs if sign]


def number(text: str) -> Decimal:
    """Read a number alone: with a point or a comma, with or without thousands separators.

    Raises:
        Unreadable: it is not a number, or is ambiguous.
    """
    figures = text.strip()
    sign = "-" if figures.startswith("-") else ""
    figures, _, exponent = figures.lstrip("+-").casefold().partition("e")
    group = r"\d{1,3}"
    if re.fullmatch(r"\d+(\.\d+)?|\.\d+", figures):
        pass
    elif re.fullmatch(r"[1-9]\d{0,2},\d{3}", figures):
        raise Unreadable(f"“{text}” may be {figures.replace(',', '.')} or {figures.replace(',', '')}")
    elif re.fullmatch(r"\d*,\d+", figures):
        figures = figures.replace(",", ".")
    elif re.fullmatch(rf"{group}([{_THIN}]\d{{3}})+([.,]\d+)?", figures):
        figures = re.sub(f"[{_THIN}]", "", figures).replace(",", ".")
    elif re.fullmatch(rf"{group}(,\d{{3}})+\.\d+|{group}(,\d{{3}}){{2,}}", figures):
        figures = figures.replace(",", "")
    elif re.fullmatch(rf"{group}(\.\d{{3}})+,\d+|{group}(\.\d{{3}}){{2,}}", figures):
        figures = figures.replace(".", "").replace(",", ".")
    elif " " in figures:
        raise Unreadable(f"“{text}” may be one number or several")
    else:
        raise Unreadable(f"“{text}” is not a number")
    if len(figures) > 40 or len(exponent) > 3:
        raise Unreadable("the number is too large or has too many digits")
    return Decimal(f"{sign}{figures}e{exponent or 0}")


def to_float(value: Decimal) -> float:
    """Return a number in the form in which it is stored.

    Raises:
        Unreadable: it is too large.
    """
    stored = float(value)
    if not math.isfinite(stored):
        raise Unreadable("the number is too large")
    return stored
