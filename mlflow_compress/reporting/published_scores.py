"""What runs record about published scores of the original: verdicts, and the footnotes about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mlflow_compress import words
from mlflow_compress.records import PUBLISHED, PublishedVerdict
from mlflow_compress.reporting.footnotes import Note
from mlflow_compress.reporting.metric_facts import GROUP, Known
from mlflow_compress.reporting.table_text import label, number

DIFFERS, APART, SAME = "differs", "not comparable", "as published"
_TAG = f"compress.{PUBLISHED}"
_KINDS = {DIFFERS: "published_differs", APART: "published_apart", SAME: "published_same"}


def recorded(texts: Mapping[str, str], prefix: str = _TAG) -> dict[str, PublishedVerdict]:
    """Return the verdicts that a run's tags record, by metric name; leave out unreadable ones.

    Args:
        texts: The tags, or the facts of a result.
        prefix: The prefix of their names; `PUBLISHED` for the facts of a result.
    """
    verdicts = {
        f"{GROUP}/{key[len(prefix) :]}": PublishedVerdict.from_text(text)
        for key, text in sorted(texts.items())
        if key.startswith(prefix)
    }
    return {name: verdict for name, verdict in verdicts.items() if verdict is not None}


def worst(verdicts: Iterable[PublishedVerdict]) -> str:
    """Return the worst verdict: one that differs, else one that is not comparable; empty if there is none."""
    names = {verdict.verdict for verdict in verdicts}
    return next((name for name in _KINDS if name in names), "")


def notes(verdicts: Mapping[str, PublishedVerdict], metrics: Known, language: str) -> list[Note]:
    """Return the footnotes about the verdicts on one original."""
    return [
        Note(_KINDS[verdict.verdict], details=(_details(name, verdict, metrics, language),))
        for name, verdict in verdicts.items()
    ]


def _details(name: str, verdict: PublishedVerdict, metrics: Known, language: str) -> str:
    texts = words.PUBLISHED_APART[verdict.reason] if verdict.reason else words.PUBLISHED
    return texts[language].format(
        metric=label(name, language, metrics, with_unit=False),
        own="" if verdict.own is None else number(verdict.own),
        published=number(verdict.published),
        source=verdict.source,
        data=verdict.data or words.footnote("unknown", language),
    )
