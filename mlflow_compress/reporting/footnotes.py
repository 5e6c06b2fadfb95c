"""Footnotes of a table: one for each kind of thing that rows must say, the one that matters most first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mlflow_compress import words

CAUTION = "caution"
_WEIGHTS = ("random", "partly_random")
_RESULTS = (CAUTION, "contradiction", "not_believed")
_NOISE = ("one_launch", "two_launches", "few_of_original", "unknown_noise", "score_noise")
_MOST_DETAILS = 3
# Cautions about how quiet the machine was. All others are about what was made or scored, and come before these.
_ABOUT_TIMING = frozenset(
    {
        "busy_gpu",
        "busy_machine",
        "cpu_limit",
        "drift",
        "few_samples",
        "interference",
        "lost_launches",
        "not_in_turns",
        "not_settled",
        "notebook",
        "oversubscribed",
        "page_faults",
        "slow_clock",
        "swapping",
        "throttled",
        "unstable",
    }
)


@dataclass(frozen=True)
class Note:
    """What a table must say of one row.

    Attributes:
        kind: a key of `words.FOOTNOTES`.
        about: what tells two footnotes of one kind apart: a device, a team, or what a caution says.
        details: what differs from row to row, such as names. A footnote lists those of all its rows.
        code: of a caution.
    """

    kind: str
    about: str = ""
    details: tuple[str, ...] = ()
    code: str = ""

    @property
    def is_of_a_result(self) -> bool:
        """Whether it is a caution about what was made or scored, and not about how quiet the machine was."""
        return self.kind == CAUTION and self.code not in _ABOUT_TIMING


def numbered(notes: Iterable[Sequence[Note]], language: str) -> tuple[tuple[str, ...], list[tuple[int, ...]]]:
    """Merge the notes of all rows by kind, and put them in order: weights, results, comparisons, noise.

    Args:
        notes: of each row.
        language: `en` or `ru`.

    Returns:
        The footnotes, and of each row the indices of its own.
    """
    rows = [[(note, (note.kind, note.about)) for note in several] for several in notes]
    merged: dict[tuple[str, str], dict[str, None]] = {}
    ranks: dict[tuple[str, str], int] = {}
    for note, key in (pair for row in rows for pair in row):
        merged.setdefault(key, {}).update(dict.fromkeys(note.details))
        ranks[key] = min(_rank(note), ranks.get(key, _rank(note)))
    keys = sorted(merged, key=lambda key: ranks[key])
    places = {key: at for at, key in enumerate(keys)}
    sentences = tuple(
        words.footnote(kind, language, about=about, details=listed(list(merged[kind, about]), language))
        for kind, about in keys
    )
    return sentences, [tuple(sorted({places[key] for _, key in row})) for row in rows]


def _rank(note: Note) -> int:
    if note.kind in _WEIGHTS:
        return _WEIGHTS.index(note.kind)
    if note.kind in _NOISE or note.code in _ABOUT_TIMING:
        return 4
    return 2 if note.kind in _RESULTS else 3


def listed(details: Sequence[str], language: str) -> str:
    """Name the first three, and say how many more there are."""
    more = len(details) - _MOST_DETAILS
    rest = [words.AND_MORE[language].format(count=more)] if more > 0 else []
    return "; ".join([*details[:_MOST_DETAILS], *rest])
