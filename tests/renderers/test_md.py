from __future__ import annotations

import dataclasses
import itertools
import re
import unicodedata
from collections.abc import Callable, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from mlflow_compress.plain_text import visible
from mlflow_compress.records import Comparison, Failure, Row
from mlflow_compress.renderers.md import Markdown
from mlflow_compress.reporting.table_text import COLUMNS, headers

# CommonMark with HTML enabled, so that an injected tag would be parsed as one.
PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])

HOSTILE = [
    "a|b",
    "a\\|b\\",
    "`code`",
    "```",
    "line\nbreak\r\n\ttab",
    "<img src=x onerror=alert(1)>",
    "<!-- -->",
    "&lt;b&gt; &#124;",
    "[x](http://evil.example)",
    "![x](y)",
    "[1]: http://evil.example",
    "http://evil.example www.evil.example WWW.evil.example",
    "someone@mail.example @team @@ `@`",
    "  spaces  at both ends  ",
    "\u00a0no-break\u3000",
    "**bold** _em_ __x__ ~~gone~~ $x$",
    "# title",
    "- [ ] item",
    "1. item",
    "> quote",
    "    code",
    "---",
    ":---:",
    "Модель 🙂 日本語 e\u0301",
    "\u2028line\u2029",
    "\u202egnp.exe",
    "",
]
any_text = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(
        alphabet=st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\t\r|\\`*_[]()<>&~$@:/#!-. w")
    ),
)


def parsed(markdown: bytes) -> Sequence[Token]:
    return PARSER.parse(markdown.decode())


def plain(token: Token) -> str:
    """Return the text of an inline token, and check that it is only text."""
    assert token.children is not None
    assert {child.type for child in token.children} <= {"text", "code_inline"}
    return "".join(child.content for child in token.children)


def table(tokens: Sequence[Token]) -> list[list[str]]:
    """Return the table's cells, the header first."""
    rows: list[list[str]] = []
    for token, content in itertools.pairwise(tokens):
        if token.type == "tr_open":
            rows.append([])
        elif token.type in ("th_open", "td_open"):
            rows[-1].append(plain(content))
    return rows


def items(tokens: Sequence[Token]) -> list[str]:
    """Return the texts of all list items."""
    return [plain(tokens[index + 2]) for index, token in enumerate(tokens) if token.type == "list_item_open"]


@pytest.mark.parametrize("language", ["en", "ru"])
def test_golden(comparison: Comparison, golden: Callable[[str, bytes], None], language: str) -> None:
    golden(f"comparison.{language}.md", Markdown().render(dataclasses.replace(comparison, language=language)))


def test_structure(comparison: Comparison) -> None:
    tokens = parsed(Markdown().render(comparison))
    rows = table(tokens)
    assert rows[0] == list(headers(COLUMNS, "en"))
    assert len(rows) == 1 + len(comparison.rows)
    assert rows[2][2] == "fp16 [batch 16] [1]"
    assert rows[4][:3] == ["=SUM(A1)", "модель 🙂 [x](http://y)", "`prune` (by hand)"]
    assert items(tokens)[:2] == [f"[{number}] {note}" for number, note in enumerate(comparison.footnotes, 1)]


def test_what_methods_did_over_several_models_is_listed(comparison: Comparison) -> None:
    assert "<b>int8</b>: 2.40x faster (CPU), 0.27x size, accuracy -0.0020 (2 models), over 3 models" in items(
        parsed(Markdown().render(comparison))
    )
    one_summary = dataclasses.replace(comparison, summaries=comparison.summaries[:1])
    assert "Over all models" not in Markdown().render(one_summary).decode()


def test_columns_stand_in_line_in_a_terminal(comparison: Comparison) -> None:
    lines = Markdown().render(comparison).decode().splitlines()[: 2 + len(comparison.rows)]
    widths = {sum(1 + (unicodedata.east_asian_width(char) in "WF") for char in line) for line in lines}
    assert len(widths) == 1


def test_one_endless_name_does_not_widen_all_rows() -> None:
    rows = (Row("alpha", "x" * 500, "original"), Row("alpha", "y", "original"))
    lines = Markdown().render(Comparison(rows)).decode().splitlines()
    assert len(lines[3]) < 200 < len(lines[2])


def test_an_empty_comparison_is_a_table_without_rows() -> None:
    assert table(parsed(Markdown().render(Comparison(())))) == [list(headers(COLUMNS, "en"))]


def test_usual_names_stay_readable() -> None:
    row = Row("alpha", "google/vit-base-patch16-224", "prune_structured:amount=0.3+int8_dynamic")
    assert "prune_structured:amount=0.3+int8_dynamic |" in Markdown().render(Comparison((row,))).decode()


@example("a", "b", "c", "d")
@given(any_text, any_text, any_text, any_text)
def test_any_text_survives_and_is_never_more_than_text(team: str, model: str, method: str, reason: str) -> None:
    comparison = Comparison(
        rows=(Row(team, model, method, notes=(0,)), Row("last", "last", "last")),
        failures=(Failure(team, model, method, "failed", "gpu", reason, "run1"),),
        footnotes=(reason,),
        title=team,
    )
    markdown = Markdown().render(comparison)
    tokens = parsed(markdown)
    allowed = {"table", "thead", "tbody", "tr", "th", "td", "bullet_list", "list_item", "paragraph"}
    assert {token.type.removesuffix("_open").removesuffix("_close") for token in tokens} - {"inline"} <= allowed
    rows = table(tokens)
    team, model, method, reason = map(visible, (team, model, method, reason))
    assert rows[1][:3] == [team, model, f"{method} [1]" if method else "[1]"]
    assert rows[2][:3] == ["last", "last", "last"]
    note, failure = items(tokens)
    assert note == (f"[1] {reason}" if reason else "[1]")
    names = ", ".join(part for part in (team, model, method) if part)
    assert failure == f"failed (GPU): {names}: {reason or 'no reason was recorded'}"


@pytest.mark.parametrize("text", HOSTILE)
def test_github_finds_nothing_to_make_a_link_of(text: str) -> None:
    markdown = Markdown().render(Comparison((Row(text, text, text),))).decode()
    assert not re.search(r"(?<!\\)://|www\.|(?<!`)@+(?!`|@)", markdown, re.IGNORECASE)


@pytest.mark.parametrize(
    "control", ["\x00", "\x1b", "\x07", "\x0b", "\x85", "\x9b", "\u202e", "\u2028", "\u200b", "\ud800"]
)
def test_what_a_terminal_would_act_upon_is_replaced(control: str) -> None:
    markdown = Markdown().render(Comparison((Row(f"a{control}b", f"{control}a", f"a{control}"),)))
    assert table(parsed(markdown))[1][:3] == ["a\ufffdb", "\ufffda", "a\ufffd"]
