"""`MarkdownPage`: the links, anchors and code of a page, with line numbers."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

_ID = re.compile(r"""<[^>]*\b(?:id|name)=["']([^"']+)["']""")
_SOURCE = re.compile(r"""<(?:img|a)\b[^>]*\b(?:src|href)=["']([^"']+)["']""")
_OBJECT = re.compile(r"^::: ([\w.]+)", re.MULTILINE)  # a directive of mkdocstrings
_NOT_IN_SLUGS = re.compile(r"[^\w\- ]")
_COMMENT = re.compile(r"<!--\s*(.*?)\s*-->", re.DOTALL)


@dataclass(frozen=True)
class Snippet:
    """A piece of a page.

    Attributes:
        text: code, or the target of a link.
        line: its line, from 1.
        language: for a fenced block, the first word after the fence.
        comment: for a fenced block, the HTML comment directly before it.
    """

    text: str
    line: int
    language: str = ""
    comment: str = ""


@dataclass(frozen=True)
class MarkdownPage:
    """A page of Markdown.

    Attributes:
        path: its path, relative to the repository.
        text: its Markdown.
    """

    path: Path
    text: str

    @functools.cached_property
    def _tokens(self) -> list[Token]:
        return MarkdownIt("commonmark").enable("table").parse(self.text)

    @functools.cached_property
    def links(self) -> list[Snippet]:
        """The targets of all links and images."""
        names = {"link_open": "href", "image": "src"}
        targets = [
            Snippet(str(child.attrs[names[child.type]]), line)
            for child, line in self._children()
            if child.type in names
        ]
        html = [(token, _line(token)) for token in self._tokens if token.type == "html_block"]
        html += [(child, line) for child, line in self._children() if child.type == "html_inline"]
        return [*targets, *(Snippet(target, line) for token, line in html for target in _SOURCE.findall(token.content))]

    @functools.cached_property
    def code_spans(self) -> list[Snippet]:
        """All code spans."""
        return [Snippet(child.content, line) for child, line in self._children() if child.type == "code_inline"]

    @functools.cached_property
    def fences(self) -> list[Snippet]:
        """All fenced blocks."""
        blocks, comment = [], ""
        for token in self._tokens:
            if token.type == "fence":
                language = (token.info.split() or [""])[0]
                blocks.append(Snippet(token.content, _line(token), language, comment))
            match = _COMMENT.fullmatch(token.content.strip()) if token.type == "html_block" else None
            comment = match[1] if match else ""
        return blocks

    @functools.cached_property
    def anchors(self) -> set[str]:
        """All valid targets of `#...`: headings, as a forge and the site name them, and HTML ids."""
        counts: dict[str, int] = {}
        for previous, token in zip(self._tokens, self._tokens[1:], strict=False):
            if previous.type == "heading_open":
                slug = _slug(token)
                counts[slug] = counts.get(slug, -1) + 1
        numbered = {f"{slug}-{number}" for slug, count in counts.items() for number in range(1, count + 1)}
        return {*counts, *numbered, *_ID.findall(self.text), *_OBJECT.findall(self.text)}

    def _children(self) -> Iterator[tuple[Token, int]]:
        """Yield the inline tokens of all lines, with their line numbers."""
        for token in self._tokens:
            line = _line(token)
            for child in token.children or ():
                yield child, line
                if child.type in ("softbreak", "hardbreak"):
                    line += 1


def _line(token: Token) -> int:
    return token.map[0] + 1 if token.map else 1


def _slug(heading: Token) -> str:
    text = "".join(child.content for child in heading.children or () if child.type in ("text", "code_inline"))
    return _NOT_IN_SLUGS.sub("", text.strip().lower()).replace(" ", "-")
