"""Reads the scores of a cell as people write them: `1.34% CER 3.83% WER`, `BLEU on CPU: 35.2; BLEU on GPU: 35.1`.

A cell is split into clauses at line breaks, semicolons, slashes and commas. What is understood is read, and the rest is
reported. Numbers without names get those of the header, in its order, where their counts match.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from mlflow_compress import registry
from mlflow_compress.reporting import metric_facts
from mlflow_compress.reporting.table_headings import Heading, Score, spellings, unknown_score
from mlflow_compress.reporting.written_units import Unreadable, number, to_float

SHARE, PERCENT = "share", "percent"  # scales that a person can state

_PIECE = re.compile(
    r"(?P<N>[-+]?(?:\d+(?:[.,]\d+)*|[.,]\d+)(?:e[-+]?\d+)?\s*%?"
    r"(?:\s*(?:±|\+\s*/?\s*-)\s*[\d.,]*\d\s*%?)?)"
    r"|(?P<D>(?:\b(?:on|на|for)\s+)?(?<![^\W_])\(?(?P<device>cpu|gpu|cuda|mps|xpu|цпу?|гпу)\)?(?![^\W_]))"
    r"|(?P<Z>(?<![^\W_])n/a(?![^\W_])|[-\u2010-\u2015\u2212]+(?=\s*(?:[;/\n,]|\Z)))"
    r"|(?P<S>[;\n/]|,(?!\d)|\band\b|\bи\b)"
    r"|(?P<B>[:=]|\bis\b)|(?P<X>\([^()]*\))|(?P<W>[^\S\n]+)",
    re.IGNORECASE,
)
_NAMED = re.compile(r"(?P<name>[A-Za-z][\w@.-]*(?: [\w@.-]+)?)\s*[:=](?=\s*[-+.]?\d)")
_REST_OF_CLAUSE = re.compile(r"[^;\n]*")
_SET = re.compile(r"(?P<metric>[\w.]+)\s*=\s*(?P<scale>\w+)")


@dataclass(frozen=True)
class _Token:
    """A part of a clause: a name (M), a number (N), a device (D), or a gap (Z)."""

    kind: str
    text: str
    score: Score | None = None


_Clause = list[_Token]


@dataclass
class _Piece:
    """One score of a cell, while it is being put together."""

    figures: str
    score: Score | None = None
    device: str = ""


def scale_of(text: str) -> tuple[str, str]:
    """Read the scale that a person states for a metric: `bleu=share` is ("bleu", "share").

    Raises:
        ValueError: it is not METRIC=SCALE, or the metric is not a share.
    """
    match = _SET.fullmatch(text.strip())
    if match is None or match["scale"].casefold() not in (SHARE, PERCENT):
        raise ValueError(f"{text!r} is not METRIC={SHARE} or METRIC={PERCENT}")
    scale = match["scale"].casefold()
    metric = {name.casefold(): name for name in registry.names("metrics")}.get(match["metric"].casefold(), "")
    if not metric:
        raise ValueError(f"{text!r}: there is no metric {match['metric']!r}")
    if metric_facts.installed(metric).scale == "unbounded":
        raise ValueError(f"{text!r}: {metric} is not a share")
    return metric, scale


def read_scores(
    text: str, heading: Heading, known: Mapping[str, str], scales: Mapping[str, str]
) -> tuple[dict[str, float], list[str]]:
    """Read the scores of a quality cell, and return metrics and remarks.

    Args:
        text: the cell, in lines as a reader sees them.
        heading: the heading of its column.
        known: the headers of the columns that metrics were already read from.
        scales: how a metric's numbers without a per cent sign are meant, by metric name: `share` or `percent`.

    Raises:
        Unreadable: it has no score, or an ambiguous one.
    """
    remarks: list[str] = []
    metrics: dict[str, float] = {}
    devices: dict[str, str] = {}
    clauses, reasons = _clauses(text, remarks)
    for piece in _pieces(_in_order(clauses, heading, remarks), heading, is_whole=not reasons):
        assert piece.score is not None
        name, device = piece.score.metric, piece.device or heading.device
        try:
            value, new_remarks = _scored(piece.figures, piece.score, heading.is_percent, scales)
        except Unreadable as error:
            reasons.append(str(error))
            continue
        if name in metrics or name in known:
            if not device or devices.get(name) == device or f"{name}_{device}" in {**metrics, **known}:
                raise Unreadable(f"two numbers for {name}")
            remarks.append(f"two numbers for {name}: the one for {device.upper()} is stored as {name}_{device}")
            name = f"{name}_{device}"
        metrics[name], devices[name] = value, device
        remarks += new_remarks
    if not metrics:
        raise Unreadable("; ".join(reasons) or "it names no score")
    return metrics, [*remarks, *(f"not stored: {reason}" for reason in reasons)]


def _in_order(clauses: Sequence[_Clause], heading: Heading, remarks: list[str]) -> list[_Clause]:
    """Name numbers by their order: the order of the header's names, or of the names before or after the numbers."""
    kinds = [_kinds(clause) for clause in clauses]
    flat = [token for clause in clauses for token in clause]
    if len(clauses) == len(heading.scores) > 1 and set(kinds) <= {"N", "Z"}:
        with_names = [
            [replace(clause[0], kind="M", score=score), clause[0]]
            for clause, score in zip(clauses, heading.scores, strict=True)
            if clause[0].kind == "N"
        ]
        remarks.append(f"in the header's order: {', '.join(score.metric for score in heading.scores)}")
        return with_names
    order = "".join(kinds)
    half = len(order) // 2
    if half > 1 and order in ("M" * half + "N" * half, "N" * half + "M" * half):
        remarks.append("numbers and names are matched in their order")
        return [[first, second] for first, second in zip(flat[:half], flat[half:], strict=True)]
    return [[token for token in clause if token.kind != "Z"] for clause in clauses if set(_kinds(clause)) != {"Z"}]


def _kinds(clause: _Clause) -> str:
    return "".join(token.kind for token in clause)


def _pieces(clauses: Sequence[_Clause], heading: Heading, *, is_whole: bool) -> Iterator[_Piece]:
    """Split the clauses of a cell into its scores.

    Args:
        clauses: the clauses of the cell.
        heading: the heading of its column.
        is_whole: whether the whole cell was understood: only then may a number have no name.
    """
    previous: _Piece | None = None
    for clause in clauses:
        for group in _groups(clause):
            tokens = {token.kind: token for token in group}
            if len(tokens) < len(group):
                raise Unreadable("several names for one number")
            device = tokens["D"].text if "D" in tokens else ""
            piece = _Piece(tokens["N"].text, tokens["M"].score if "M" in tokens else None, device)
            if piece.score is None and not is_whole:
                raise Unreadable(f"{piece.figures.strip()!r} has no name, and the text beside it is not understood")
            if piece.score is None:
                piece.score = _implied(piece, previous, heading)
            previous = piece
            yield piece


def _groups(clause: _Clause) -> list[_Clause]:
    """Split a clause into one group for each of its numbers."""
    order = _kinds(clause)
    count = order.count("N")
    if not count:
        raise Unreadable("a name without a number")
    if count == 1:
        return [clause]
    if not re.fullmatch(r"(MD?ND?)+|(ND?MD?)+|(ND)+", order):
        raise Unreadable("several numbers, and it is not clear what each is")
    starts = [index for index, kind in enumerate(order) if kind == order[0]]
    return [clause[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]


def _implied(piece: _Piece, previous: _Piece | None, heading: Heading) -> Score:
    """Return the score of a number without a name: the previous score on another device, or the header's."""
    if previous is not None and piece.device and previous.device and piece.device != previous.device:
        assert previous.score is not None
        return previous.score
    if len(heading.scores) == 1 and previous is None:
        return heading.scores[0]
    if not heading.scores:
        raise Unreadable(f"{piece.figures.strip()!r} is a score without a name")
    if len(heading.scores) == 1:
        raise Unreadable(f"two numbers for {heading.scores[0].metric}")
    raise Unreadable(f"{piece.figures.strip()!r} has no name, and the header names several scores")


def _clauses(text: str, remarks: list[str]) -> tuple[list[_Clause], list[str]]:
    """Return the parts between separators, and why other parts are not understood: each of those ends with its line."""
    clauses: list[_Clause] = [[]]
    reasons: list[str] = []
    position = 0
    while position < len(text):
        match, token = _token(text, position)
        if match is None:
            word = re.match(r"[^\s,;]+", text[position:])
            reasons.append(f"{word[0] if word else text[position]!r} is not understood")
            clauses[-1] = []
            ending = _REST_OF_CLAUSE.match(text, position)
            position = max(ending.end() if ending else position, position + 1)
            continue
        position = match.end()
        if token is not None:
            clauses[-1].append(token)
        elif match.re is _PIECE and match.lastgroup == "S" and clauses[-1]:
            clauses.append([])
        elif match.re is _PIECE and match.lastgroup == "X":
            remarks.append(f"“{match.group()}” is kept in the cell's text only")
    return [clause for clause in clauses if clause], reasons


def _token(text: str, position: int) -> tuple[re.Match[str] | None, _Token | None]:
    """Return the token at a place of a cell: no match where it is not understood, no token for a separator."""
    metrics = spellings()
    if match := metrics.pattern.match(text, position):
        return match, _Token("M", match.group(), metrics.score(match))
    match = _PIECE.match(text, position)
    if match is None:
        match = _NAMED.match(text, position)
        score = unknown_score(match["name"]) if match else None
        return (match, _Token("M", match["name"], score)) if match and score else (None, None)
    if match["device"]:
        return match, _Token("D", "cpu" if match["device"].casefold() in ("cpu", "цп", "цпу") else "gpu")
    return match, next((_Token(kind, match[kind]) for kind in "NZ" if match[kind]), None)


def _scored(figures: str, written_score: Score, is_percent: bool, scales: Mapping[str, str]) -> tuple[float, list[str]]:
    """Convert a score to the scale used here, and return it with remarks."""
    remarks = []
    head, *spread = re.split(r"±|\+\s*/?\s*-", figures)
    if spread:
        remarks.append(f"the spread ±{spread[0].strip()} is kept in the cell's text only")
    percent = "%" in figures or is_percent
    value = number(head.replace("%", "").strip())
    number_text = figures.strip()
    name = written_score.metric
    if value < 0:
        raise Unreadable(f"{number_text} is impossible: a score can't be negative")
    scale_stated = "" if percent else scales.get(name.partition("/")[2], "")
    remarks += [f"read as {scale_stated}, as stated"] if scale_stated else []
    scale = metric_facts.of(name, {}).scale if written_score.is_known else None
    if scale is None:
        remarks += [] if written_score.is_known else [f"not a score of this tool: stored as {name}"]
        value = value / 100 if percent or scale_stated == PERCENT else value
    elif scale == "hundred":
        if 0 < value <= 1 and not percent and not scale_stated:
            raise Unreadable(f"{number_text} may be {name} on a scale of 1 or 100{_say_so(name)}")
        value = value * 100 if scale_stated == SHARE else value
        if value > 100:
            raise Unreadable(f"{number_text} is impossible: {name} is at most 100")
    elif scale == "unbounded":
        if percent:
            raise Unreadable(f"{number_text}: {name} is not a share")
    else:
        value, new_remarks = _share(
            value,
            number_text,
            name,
            percent or scale_stated == PERCENT,
            scale_stated,
            can_be_more=scale == "error_rate",
        )
        remarks += new_remarks
        if written_score.is_rest:
            remarks.append(f"it is 1 minus the error rate: {1 - value:f} is stored as {name}")
            value = 1 - value
    return to_float(value), remarks


def _share(
    value: Decimal, number_text: str, name: str, percent: bool, scale_stated: str, *, can_be_more: bool
) -> tuple[Decimal, list[str]]:
    """Convert a share, or an error rate (which may exceed 1), to a fraction of 1."""
    if percent:
        value /= 100
    elif value > 1 and can_be_more and not scale_stated:
        raise Unreadable(f"{number_text} may be {name} as a share or in per cent{_say_so(name)}")
    if value <= 1 or can_be_more:
        return value, []
    if not percent and not scale_stated and value <= 100:
        return value / 100, ["read as per cent, because a share is at most 1"]
    raise Unreadable(f"{number_text} is impossible: {name} is at most 1")


def _say_so(name: str) -> str:
    metric = name.partition("/")[2]
    return f": add --scale {metric}={SHARE} or --scale {metric}={PERCENT}"
