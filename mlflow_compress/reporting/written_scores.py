"""Reads the scores of a cell as people write them: `1.34% CER 3.83% WER`, `BLEU on CPU: 35.2; BLEU on GPU: 35.1`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal

from mlflow_compress.reporting import metric_facts
from mlflow_compress.reporting.table_headings import Heading, Score, spellings
from mlflow_compress.reporting.written_units import Unreadable, number, to_float

_PIECE = re.compile(
    r"(?P<N>[-+]?(?:\d+(?:[.,]\d+)*|[.,]\d+)(?:e[-+]?\d+)?\s*%?"
    r"(?:\s*(?:±|\+\s*/?\s*-)\s*[\d.,]*\d\s*%?)?)"
    r"|(?P<D>(?:\b(?:on|на|for)\s+)?(?<![^\W_])\(?(?P<device>cpu|gpu|cuda|цпу?|гпу)\)?(?![^\W_]))"
    r"|(?P<S>[;\n]|,(?!\d)|\band\b|\bи\b)"
    r"|(?P<B>[:=]|\bis\b)|(?P<X>\([^()]*\))|(?P<W>\s+)",
    re.IGNORECASE,
)


@dataclass
class _Piece:
    """One score of a cell, as it is put together."""

    figures: str
    score: Score | None = None
    device: str = ""


def read_scores(text: str, heading: Heading, known: Mapping[str, str]) -> tuple[dict[str, float], list[str]]:
    """Read the scores of a quality cell: metrics, and remarks.

    Args:
        text: the cell.
        heading: of its column.
        known: the headers of the columns that metrics were read from already.

    Raises:
        Unreadable: it says no score, or one that could mean two things.
    """
    remarks: list[str] = []
    metrics: dict[str, float] = {}
    reasons: list[str] = []
    devices: dict[str, str] = {}
    for piece in _pieces(text, heading, remarks):
        assert piece.score is not None
        name, device = piece.score.metric, piece.device or heading.device
        try:
            value, said = _scored(piece.figures, piece.score, heading.is_percent)
        except Unreadable as error:
            reasons.append(str(error))
            continue
        if name in metrics or name in known:
            if not device or devices.get(name) == device or f"{name}_{device}" in {**metrics, **known}:
                raise Unreadable(f"two numbers for {name}")
            remarks.append(f"two numbers for {name}: that of {device.upper()} is stored as {name}_{device}")
            name = f"{name}_{device}"
        metrics[name], devices[name] = value, device
        remarks += said
    if not metrics:
        raise Unreadable("; ".join(reasons) or "it names no score")
    return metrics, [*remarks, *(f"not stored: {reason}" for reason in reasons)]


def _pieces(text: str, heading: Heading, remarks: list[str]) -> Iterator[_Piece]:
    """Part a quality cell into its scores."""
    last: _Piece | None = None
    for clause in _clauses(text, remarks):
        order = "".join(kind for kind, _ in clause)
        count = order.count("N")
        if not count:
            raise Unreadable("a name without a number")
        groups: list[list[tuple[str, str]]]
        if count == 1:
            groups = [clause]
        elif re.fullmatch(r"(MD?ND?)+|(ND?MD?)+|(ND)+", order):
            first = order[0]
            starts = [at for at, kind in enumerate(order) if kind == first]
            groups = [clause[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]
        else:
            raise Unreadable("several numbers, and it is not clear what each is")
        for group in groups:
            found = dict(group)
            if len(found) < len(group):
                raise Unreadable("several names for one number")
            known = spellings()
            match = known.pattern.fullmatch(found["M"]) if "M" in found else None
            piece = _Piece(found["N"], known.score(match) if match else None, found.get("D", ""))
            if piece.score is None:
                piece.score = _implied(piece, last, heading)
            last = piece
            yield piece


def _implied(piece: _Piece, last: _Piece | None, heading: Heading) -> Score:
    """Say what score a number is that has no name beside it: the one before on another device, or the header's."""
    if last is not None and piece.device and last.device and piece.device != last.device:
        assert last.score is not None
        return last.score
    if len(heading.scores) == 1 and last is None:
        return heading.scores[0]
    if not heading.scores:
        raise Unreadable(f"{piece.figures.strip()!r} is a score without a name")
    if len(heading.scores) == 1:
        raise Unreadable(f"two numbers for {heading.scores[0].metric}")
    raise Unreadable(f"{piece.figures.strip()!r} has no name, and the header names several scores")


def _clauses(text: str, remarks: list[str]) -> Iterator[list[tuple[str, str]]]:
    """Return the parts between separators, each as names (M), numbers (N) and devices (D)."""
    clause: list[tuple[str, str]] = []
    scores = spellings().pattern
    at = 0
    while at < len(text):
        match = scores.match(text, at) or _PIECE.match(text, at)
        if match is None:
            rest = re.match(r"[^\s,;]+", text[at:])
            raise Unreadable(f"{rest[0] if rest else text[at]!r} is not understood")
        at = match.end()
        kind = "M" if match.re is scores else str(match.lastgroup if match.lastgroup != "device" else "D")
        if kind == "D":
            clause.append((kind, "gpu" if match["device"].casefold() in ("gpu", "cuda", "гпу") else "cpu"))
        elif kind == "S":
            if clause:
                yield clause
            clause = []
        elif kind == "X":
            remarks.append(f"“{match.group()}” is kept in the cell's text only")
        elif kind not in "BW":
            clause.append((kind, match.group()))
    if clause:
        yield clause


def _scored(figures: str, what: Score, is_percent: bool) -> tuple[float, list[str]]:
    """Bring a score to the scale that ours have."""
    remarks = []
    head, *spread = re.split(r"±|\+\s*/?\s*-", figures)
    if spread:
        remarks.append(f"the spread ±{spread[0].strip()} is kept in the cell's text only")
    percent = "%" in figures or is_percent
    value = number(head.replace("%", "").strip())
    said = figures.strip()
    name = what.metric
    if value < 0:
        raise Unreadable(f"{said} is impossible: no score is below 0")
    scale = metric_facts.of(name, {}).scale if what.is_known else None
    if scale is None:
        remarks += [] if what.is_known else [f"no score of this tool: stored as {name}"]
        value = value / 100 if percent else value
    elif scale == "hundred":
        if 0 < value <= 1 and not percent:
            raise Unreadable(f"{said} may be {name} of 1 or of 100")
        if value > 100:
            raise Unreadable(f"{said} is impossible: {name} goes to 100")
    elif scale == "unbounded":
        if percent:
            raise Unreadable(f"{said}: {name} is no share")
    else:
        value, more = _share(value, said, name, percent, can_be_more=scale == "error_rate")
        remarks += more
        if what.is_rest:
            remarks.append(f"it is 1 less the error rate: {1 - value:f} is stored as {name}")
            value = 1 - value
    return to_float(value), remarks


def _share(value: Decimal, said: str, name: str, percent: bool, can_be_more: bool) -> tuple[Decimal, list[str]]:
    """Bring a share, or an error rate, which can be more than 1, to parts of 1."""
    if percent:
        value /= 100
    elif value > 1 and can_be_more:
        raise Unreadable(f"{said} may be {name} as a share or in per cent")
    if value <= 1 or can_be_more:
        return value, []
    if not percent and value <= 100:
        return value / 100, ["taken as per cent, since a share is at most 1"]
    raise Unreadable(f"{said} is impossible: {name} is at most 1")
