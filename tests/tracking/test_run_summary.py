from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from mlflow_compress.plain_text import HIDDEN, plain
from mlflow_compress.records import Caution, Result, Variant
from mlflow_compress.tracking import run_summary

HOSTILE = [
    "<script>alert(1)</script>",
    "[click](http://evil)",
    "![picture](http://evil/x.png)",
    "**bold** _slanted_ `code` ~~gone~~",
    "# title",
    "a | b\n| - | - |\n| c | d |",
    "```\ncode",
    "x\n\n* list",
    "1. one",
    "title\n=====",
    "http://evil.example",
    "<http://evil.example>",
    "&lt;b&gt; &copy;",
    "\\*",
    "@someone #1",
    "\x1b[31mred\x1b[0m",
    "\u202eright to left",
    "bell\x07 and \x00\x9b",
    "$x^2$",
]


def result(name: str, **changes: object) -> Result:
    variant = Variant(name, name, name, "python", "model.py", batch_size=4)
    fields: dict[str, object] = {
        "measurements": {"size/weights_mib": 96.668, "size/params": 25340992.0, f"quality/{name}": 0.5},
        "reason": name,
        "facts": {"timed": name},
        "environment": {"cpu_model": name, "threads": "2"},
        "cautions": (Caution("code", name, name),),
        **changes,
    }
    return Result(variant, "failed", **fields)  # type: ignore[arg-type]


PLAIN = Result(
    Variant("yolo11n", "fp16", "alpha", "yolo", "yolo11n.pt", batch_size=2),
    "ok",
    measurements={
        "size/weights_mib": 4.98,
        "size/params": 2616248.0,
        "cpu/latency_p50_ms": 43.123456,
        "cpu/latency_p50_low_ms": 42.9,
        "cpu/latency_p50_high_ms": 43.5,
        "cpu/latency_p90_ms": 50.0,
        "cpu/latency_mean_ms": 44.0,
        "quality/accuracy": 0.9712,
        "quality/samples": 450.0,
    },
    cautions=(Caution("busy_machine", "others were busy", "Close them."),),
    environment={"cpu_model": "Xeon", "threads": "2", "gpu_model": "T4"},
    facts={"timed": "one call"},
)


def test_the_weights_that_a_method_reached_are_shown_with_the_numbers() -> None:
    reached = dataclasses.replace(PLAIN, facts={"timed": "one call", "reached": "reached 96 of 64,322 weights"})
    assert run_summary.text(reached).splitlines()[-2:] == [
        "  the method                  reached 96 of 64,322 weights",
        "  ! others were busy. Close them.",
    ]
    html = MarkdownIt("commonmark").enable("table").render(run_summary.markdown(reached))
    assert "<p>The method reached 96 of 64,322 weights.</p>" in html


@pytest.mark.parametrize(("launches", "expected"), [(1.0, "43.50), 1 launch"), (5.0, "43.50), 5 launches")])
def test_a_time_says_on_how_many_launches_it_stands(launches: float, expected: str) -> None:
    launched = dataclasses.replace(PLAIN, measurements={**PLAIN.measurements, "cpu/launches": launches})
    assert dict(run_summary.facts(launched))["CPU inference time, median"].endswith(expected)


def test_a_result_in_words_for_a_terminal() -> None:
    assert run_summary.text(PLAIN).splitlines() == [
        "yolo11n, fp16 [batch 2]: ok",
        "  weights                     4.980 MB",
        "  parameters                  2,616,248",
        "  CPU inference time, median  43.12 ms (95 %: 42.90 to 43.50)",
        "  CPU inference time, p90     50.00 ms",
        "  accuracy                    0.9712",
        "  scored samples              450",
        "  ! others were busy. Close them.",
    ]


def test_an_interval_of_equal_samples_is_not_shown() -> None:
    difference = {f"quality/accuracy_difference{end}": 0.0 for end in ("", "_low", "_high")}
    text = run_summary.text(dataclasses.replace(PLAIN, measurements=difference))
    assert text.splitlines()[1].split() == ["accuracy,", "difference", "from", "the", "original", "0"]


def test_the_score_that_decides_comes_first_with_its_difference() -> None:
    scores = ("map50", "map50_difference", "samples", "map50_95", "map50_95_difference")
    measured = {f"quality/{name}": 0.5 for name in scores}
    scored = dataclasses.replace(PLAIN, measurements=measured, facts={})
    difference = "difference from the original"
    assert [name for name, _ in run_summary.facts(scored)] == [
        "mAP50-95", f"mAP50-95, {difference}", "mAP50", f"mAP50, {difference}", "scored samples"
    ]  # fmt: skip


def test_an_interval_of_calls_is_marked_as_such() -> None:
    p90 = {"cpu/latency_p90_low_ms": 49.0, "cpu/latency_p90_high_ms": 52.0}
    rows = dict(run_summary.facts(dataclasses.replace(PLAIN, measurements={**PLAIN.measurements, **p90})))
    assert rows["CPU inference time, p90"] == "50.00 ms (95 %, of these calls: 49.00 to 52.00)"
    assert rows["CPU inference time, median"] == "43.12 ms (95 %: 42.90 to 43.50)"


def test_a_result_in_words_for_mlflow() -> None:
    html = MarkdownIt("commonmark").enable("table").render(run_summary.markdown(PLAIN))
    assert "<h2>yolo11n, fp16 [batch 2]: ok</h2>" in html
    assert html.count("<tr>") == 1 + 6
    assert "43.12 ms (95 %: 42.90 to 43.50)" in html
    assert "On Xeon, 2 threads, T4." in html
    assert "Timed: one call; batch 2." in html
    assert "<li>others were busy. Close them.</li>" in html


def test_a_failure_says_why_and_has_no_table() -> None:
    failed = Result(PLAIN.variant, "failed", reason="cpu: out of memory", environment={"cpu_model": "Xeon"})
    assert run_summary.text(failed) == "yolo11n, fp16 [batch 2]: failed (cpu: out of memory)"
    assert "<table>" not in MarkdownIt("commonmark").enable("table").render(run_summary.markdown(failed))


def assert_inert(name: str) -> None:
    """The note of a result with this name has the same structure as one with a harmless name."""
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])

    def structure(text: str) -> list[str]:
        tokens = parser.parse(run_summary.markdown(result(text)))
        inline = [child.type for token in tokens for child in token.children or []]
        return [token.type for token in tokens] + [kind for kind in inline if kind not in ("text", "text_special")]

    assert structure(name) == structure("harmless")


def printed(text: str) -> str:
    """Return what remains of a text on one line, ignoring blanks."""
    return plain(text).replace(" ", "")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_never_becomes_markup(name: str) -> None:
    assert_inert(name)
    parser = MarkdownIt("commonmark").enable("table")
    heading = parser.parse(run_summary.markdown(result(name)))[1]
    text = "".join(child.content for child in heading.children or [])
    assert printed(name) in printed(text)


any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
names = any_text | st.text("<>[]()*_`#|~\\!&\n\r -+=1.:$", max_size=20)


@settings(max_examples=100, deadline=None)
@given(names.filter(lambda name: any(char.isprintable() and not char.isspace() for char in name)))
def test_no_name_ever_becomes_markup(name: str) -> None:
    assert_inert(name)


@settings(max_examples=100, deadline=None)
@given(names | st.sampled_from(HOSTILE))
def test_no_name_ever_steers_the_terminal_or_adds_a_line(name: str) -> None:
    text = run_summary.text(result(name))
    assert not re.search(HIDDEN, text.replace("\n", ""))
    assert len(text.split("\n")) == len(run_summary.text(result("harmless")).split("\n"))
    assert not re.search(HIDDEN, run_summary.markdown(result(name)).replace("\n", ""))


def test_a_link_is_no_link_even_where_addresses_are_linked() -> None:
    assert not re.search(
        r"(?<!\\)[:.]//|www\.", run_summary.markdown(result("see http://evil.example or www.evil.example"))
    )


def test_a_runs_page_says_what_its_hidden_tags_say_and_nothing_twice() -> None:
    facts = {"reached": "reached 96 weights", "protocol.accuracy": "top 1 | exact", "metric.accuracy": '{"rank":1}'}
    with_facts = dataclasses.replace(
        PLAIN, facts={**PLAIN.facts, **facts}, environment={**PLAIN.environment, "torch": "2.14"}
    )
    page = run_summary.page(with_facts)
    assert page.startswith(run_summary.markdown(with_facts))
    html = MarkdownIt("commonmark").enable("table").render(page)
    cells = re.findall(r"<td[^>]*>(.*?)</td>", html)[-10:]
    assert cells == [
        "protocol.accuracy", "top 1 | exact",
        "cpu_model", "Xeon",
        "threads", "2",
        "gpu_model", "T4",
        "torch", "2.14",
    ]  # fmt: skip
    assert run_summary.page(dataclasses.replace(PLAIN, environment={}, facts={})) == run_summary.markdown(
        dataclasses.replace(PLAIN, environment={}, facts={})
    )


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_circumstance_never_becomes_markup(name: str) -> None:
    def tokens(text: str) -> list[str]:
        result = dataclasses.replace(PLAIN, environment={"torch": text}, facts={text: text})
        return [token.type for token in MarkdownIt("commonmark").enable("table").parse(run_summary.page(result))]

    assert tokens(name) == tokens("harmless")


def test_no_backslash_is_seen_in_mlflows_ui() -> None:
    """The UI's renderer removes a backslash only before these."""
    note = run_summary.markdown(result("Intel(R) Xeon @ 2.80GHz: a<b & c|d $5 > 4 ~ x"))
    assert set(re.findall(r"\\(.)", note)) <= set("\\`*_{}[]()>#+.!~=|-")
