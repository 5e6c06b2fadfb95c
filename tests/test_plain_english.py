"""Texts for people are in plain, modern technical English: words that the project does not use do not come back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
READ_BY_PEOPLE = (
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/**/*.md"),
    *ROOT.glob("benchmarks/**/*.py"),
    *ROOT.glob("mlflow_compress/**/*.py"),
    *ROOT.glob("mlflow_compress/**/*.js"),
    *ROOT.glob("mlflow_compress/**/*.html"),
    *ROOT.glob("recipes/*.yaml"),
)
INSTEAD = {
    r'"""Gives?\b': "Return ...",
    r"(?<!there )\bis no (?:model|chain|number|method|recipe|file|folder|name|drop|metric|option)\b": "is not a ...",
    r"\bmend(?:s|ed|ing)?\b": "repair, fix",
    r"\bbears\b": "has",
    r"\banew\b": "again",
    r"\bstands? on (?:\d|few|\{)": "is based on",
    r"\bof one's own\b": "custom, your own",
    r"\brefused in (?:a sentence|words)\b": "rejected with a message",
    r"\b(?:lest|thereby|therein|whereof|nought)\b": "simpler words",
}


@pytest.mark.parametrize("pattern", INSTEAD)
def test_old_words_do_not_come_back(pattern: str) -> None:
    hits = [
        f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]}"
        for path in READ_BY_PEOPLE
        for text in [path.read_text(encoding="utf-8")]
        for match in re.finditer(pattern, text, re.IGNORECASE)
    ]
    assert hits == [], f"instead: {INSTEAD[pattern]}"
