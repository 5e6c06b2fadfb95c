"""Footnotes of a table: one for each kind of statement about rows, the most important first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mlflow_compress import words

CAUTION = "caution"
_WEIGHTS = ("random", "partly_random")
_RESULTS = (CAUTION, "contradiction", "not_believed", "published_differs")
_NOISE = ("one_launch", "two_launches", "few_of_original", "unknown_noise", "score_noise")
_MOST_DETAILS = 3
# Cautions about how quiet the machine was. All others are about the model or its scores, and come before these.
_ABOUT_TIMING = frozenset(
    {
        "busy_gpu",
        "busy_machine",
        "cpu_limit",
        "drift",
        "few_samples",
        "interference",
        "load_client",
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
    """One statement that a table must make about a row.

    Attributes:
        kind: a key of `words.FOOTNOTES`.
        about: what distinguishes two footnotes of one kind: a device, a team, or the text of a caution.
        details: what differs from row to row, such as names. A footnote lists the details of all its rows.
        code: the identifier of a caution.
    """

    kind: str
    about: str = ""
    details: tuple[str, ...] = ()
    code: str = ""

    @property
    def is_of_a_result(self) -> bool:
        """Whether it is a caution about the model or its scores, and not about how quiet the machine was."""
        return self.kind == CAUTION and self.code not in _ABOUT_TIMING


def numbered(notes: Iterable[Sequence[Note]], language: str) -> tuple[tuple[str, ...], list[tuple[int, ...]]]:
    """Merge the notes of all rows by kind, and sort them: weights, results, comparisons, noise.

    Args:
        notes: the notes of each row.
        language: `en` or `ru`.

    Returns:
        The footnotes, and for each row the indices of its footnotes.
    """
    rows = [[(note, (note.kind, note.about)) for note in row_notes] for row_notes in notes]
    merged: dict[tuple[str, str], dict[str, None]] = {}
    ranks: dict[tuple[str, str], int] = {}
    for note, key in (pair for row in rows for pair in row):
        merged.setdefault(key, {}).update(dict.fromkeys(note.details))
        ranks[key] = min(_rank(note), ranks.get(key, _rank(note)))
    keys = sorted(merged, key=lambda key: ranks[key])
    places = {key: index for index, key in enumerate(keys)}
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
    """Return the first three details, and how many more there are."""
    hidden = len(details) - _MOST_DETAILS
    and_more = [words.AND_MORE[language].format(count=hidden)] if hidden > 0 else []
    return "; ".join([*details[:_MOST_DETAILS], *and_more])
