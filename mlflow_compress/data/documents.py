"""WikiText as its articles: it is published as lines, and each article begins with its title.

Source: lm-evaluation-harness's task `wikitext`, which scores whole articles.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def documents(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Cut lines into documents at titles (` = Title = `), which belong to the document that they begin.

    Yields:
        The number of the first line, from 0, and the text of each document that is not blank.
    """
    start, document = 0, list[str]()
    for number, line in enumerate(lines):
        if _is_title(line):
            if any(part.strip() for part in document):
                yield start, "\n".join(document)
            start, document = number, []
        document.append(line)
    if any(part.strip() for part in document):
        yield start, "\n".join(document)


def _is_title(line: str) -> bool:
    """Return whether a line is the title of an article; headings within it have more equals signs."""
    text = line.replace("= = =", "===").replace("= =", "==").strip()
    return text.startswith("= ") and text.endswith(" =")
