from __future__ import annotations

import base64
import dataclasses
import hashlib
import itertools
import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from mlflow_compress import words
from mlflow_compress.plain_text import visible
from mlflow_compress.records import Comparison, Failure, Row, Summary
from mlflow_compress.renderers.html import Html, _part, page_script
from mlflow_compress.reporting.hardware_names import short
from mlflow_compress.reporting.table_text import COLUMNS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = [
    "</script><script>document.title='seized'</script>",
    "<!--<script>",
    "--></td></table><img src=x onerror=\"document.title='seized'\">",
    "\"'><svg onload=\"document.title='seized'\">",
    "&lt;b&gt; &#124; &amp;",
    "javascript:alert(1)",
    "$title ${data} $$",
    "\\u003c/script> {shown}",
    "a\rb\n\tc",
    "\u2028\u202egnp",
    "Модель 🙂 日本語",
    "",
]
any_text = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\t\r<>&\"'/=!-$")),
)


class Page(HTMLParser):
    """The page as a browser parses it: its elements with their attributes, and the text of some of them."""

    def __init__(self, content: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[int] = []
        self.feed(content.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.texts.append((tag, ""))
        if tag not in ("meta", "link", "br", "img", "wbr"):
            self.open.append(len(self.texts) - 1)

    def handle_endtag(self, tag: str) -> None:
        assert self.texts[self.open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        for index in self.open:
            self.texts[index] = (self.texts[index][0], self.texts[index][1] + data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    def skeleton(self) -> list[tuple[str, list[str]]]:
        return [(tag, list(attributes)) for tag, attributes in self.elements if tag != "wbr"]

    def of(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]

    def rows(self) -> list[list[str]]:
        """Return the cells of the table's body."""
        body = self.elements.index(("tbody", {}))
        cells: list[list[str]] = []
        for tag, text in self.texts[body:]:
            if tag == "tr":
                cells.append([])
            elif tag in ("td", "th"):
                cells[-1].append(text)
        return cells

    def data(self) -> Any:
        return json.loads(self.of("script")[0])


def render(comparison: Comparison) -> Page:
    return Page(Html().render(comparison))


def filled(text: str, *, reason: str | None = None) -> Comparison:
    """Return a comparison that has a text in every place for text from outside."""
    values = {"size/weights_mib": 1.0, "quality/wer": 0.5}
    row = Row(text, text, text, values=values, notes=(0,), hardware=text, circumstances={"cpu": text}, by_hand=True)
    return Comparison(
        rows=(row, Row("last", "last", "last", links={"cpu": "https://mlflow.example/1"})),
        failures=(Failure(text, text, text, "failed", text, text if reason is None else reason, text),),
        footnotes=(text,),
        title=text,
        columns=("team", "model", "method", "hardware", "pareto", "size/weights_mib", "quality"),
        objectives=("size/weights_mib",),
        summaries=(Summary(text, 2, {"size/weights_mib": 0.5}),),
    )


@pytest.mark.parametrize("language", ["en", "ru"])
def test_golden(comparison: Comparison, golden: Callable[[str, bytes], None], language: str) -> None:
    page = Html().render(dataclasses.replace(comparison, language=language)).decode()
    page = page.replace(_part("page.css"), "/* style */").replace(page_script(), "// script")
    golden(f"comparison.{language}.html", re.sub(r"sha256-[\w+/=]+", "sha256", page).encode())


def test_the_table_is_there_without_a_script(comparison: Comparison) -> None:
    page = render(comparison)
    head = ["Team", "Model", "Method", "Quality", "Weights, MB", "CPU, ms", "GPU, ms", "RAM, MB", "VRAM, MB"]
    assert page.of("th")[: len(head)] == head, "the number that decides comes first"
    titles = [attributes.get("title") for tag, attributes in page.elements if tag == "th" and "scope" in attributes]
    assert titles[3:6] == [None, "Weight size", "CPU ms"]
    rows = page.rows()
    assert len(rows) == len(comparison.rows)
    assert rows[0][:5] == ["alpha", "yolo11l", "original", "0.7912 mAP50", "96.67"]
    assert rows[1][2:7] == ["fp16 [batch 16] [1]", "-", "48.35 (0.50x)", "-", "8.100 (0.66x)"]
    assert rows[2][3].startswith("0.04260 WER (+0.0031) 0.01530 CER (≈-0.00021) n=73")
    assert rows[3][:3] == ["=SUM(A1)", "модель 🙂 [x](http://y)", "`prune` (by hand)"]
    assert "caution: the machine was busy" in page.of("li")
    assert any(text.startswith("failed: Команда 2") for text in page.of("li"))


def test_nothing_is_loaded_and_only_its_own_script_may_run(comparison: Comparison) -> None:
    page = render(comparison)
    (policy,) = [
        attributes["content"]
        for _, attributes in page.elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        digest = base64.b64encode(hashlib.sha256(page.of(tag)[-1].encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}';" in policy
    assert not any(tag in ("img", "iframe", "object", "base") for tag, _ in page.elements)
    (icon,) = [attributes["href"] for tag, attributes in page.elements if tag == "link"]
    assert icon is not None
    assert icon.startswith("data:image/svg+xml,"), "else a browser asks the server for one"
    assert not any("src" in attributes or "style" in attributes for _, attributes in page.elements)
    assert "url(" not in page.of("style")[0]
    assert "@import" not in page.of("style")[0]


def test_a_link_leads_to_the_run_and_to_no_script(comparison: Comparison) -> None:
    row = Row("a", "b", "c", links={"cpu": "javascript:alert(1)", "gpu": 'HTTPS://x/"onclick="y'})
    for linked, links in ((comparison, [comparison.rows[0].links["cpu"]]), (Comparison((row,)), [row.links["gpu"]])):
        addresses = [
            attributes["href"] for tag, attributes in render(linked).elements if tag == "a" and "target" in attributes
        ]
        assert addresses == links


def test_cells_are_sorted_by_raw_values(comparison: Comparison) -> None:
    cells = [
        attributes
        for tag, attributes in render(comparison).elements
        if tag in ("td", "th") and "scope" not in attributes
    ]
    assert cells[3]["data-value"] == "96.66796875"
    (score,) = [cell for cell in cells if cell.get("data-group") == "quality/map50"]
    assert score["data-value"] == "0.7912"
    assert "data-missing" in [cell for cell in cells if cell.get("class") == "number"][6]


@pytest.mark.parametrize(
    ("ratio", "interval", "marked"),
    [(0.5, (0.4, 0.6), "better"), (1.5, (1.4, 1.6), "worse"), (0.9, (0.8, 1.1), ""), (1.002, (1.001, 1.003), "")],
)
def test_only_a_difference_that_shows_is_good_or_bad(ratio: float, interval: tuple[float, float], marked: str) -> None:
    name = "cpu/latency_p50_ms"
    row = Row("a", "b", "c", values={name: 1.0}, ratios={name: ratio}, ratio_intervals={name: interval})
    page = render(Comparison((row,), greater_is_better={name: False}))
    (part,) = [
        attributes
        for tag, attributes in page.elements
        if tag == "span" and (attributes.get("class") or "").startswith("against")
    ]
    assert (part["class"] or "").split() == ["against", *filter(None, [marked])]
    assert part["title"] == f"95\N{NO-BREAK SPACE}%: {interval[0]:.2f}x to {interval[1]:.2f}x"


def test_a_ratio_of_one_launch_is_neither_good_nor_bad_and_says_why() -> None:
    name = "cpu/latency_p50_ms"
    row = Row("a", "b", "c", values={name: 1.0}, ratios={name: 0.5})
    comparison = Comparison((row,), greater_is_better={name: False})
    page = render(comparison)
    assert [attributes["title"] for _, attributes in page.elements if attributes.get("class") == "against"] == [
        "noise unknown"
    ]
    (metric,) = page.data()["metrics"]
    assert metric["told_apart"] == {"0": None}


@pytest.mark.parametrize(
    ("ends", "titles"), [((-0.01, 0.02), ["95\xa0%: -0.010 to +0.020"]), ((0.0, 0.0), []), (None, ["noise unknown"])]
)
def test_an_interval_of_equal_samples_is_not_shown(ends: tuple[float, float] | None, titles: list[str]) -> None:
    name = "quality/accuracy_difference"
    values = {"quality/accuracy": 1.0, name: 0.0} | (
        {} if ends is None else {f"{name}_low": ends[0], f"{name}_high": ends[1]}
    )
    page = render(Comparison((Row("a", "b", "c", values=values),)))
    assert [
        attributes["title"]
        for _, attributes in page.elements
        if attributes.get("class") == "against" and "title" in attributes
    ] == titles


def test_columns_that_say_nothing_are_left_out_unless_somebody_chose_them() -> None:
    values = {"size/weights_mib": 1.0, "cpu/latency_p50_ms": 2.0}
    comparison = Comparison((Row("alpha", "yolo", "original", values), Row("alpha", "yolo", "int8", values)))
    page = render(comparison)
    assert page.of("thead") == ["\n\nMethod\nQuality\nWeights, MB\nCPU, ms\n\n"]
    assert "Rows: 2 · Team: alpha · Model: yolo · methods: 2" in page.of("p")
    with_columns = dataclasses.replace(comparison, columns=("team", "method", "gpu/latency_p50_ms"))
    assert render(with_columns).of("thead") == ["\n\nTeam\nMethod\nGPU, ms\n\n"]
    with_hardware = dataclasses.replace(comparison, columns=(*(column.key for column in COLUMNS), "hardware"))
    assert render(with_hardware).of("thead")[0].split("\n")[-3] == "Hardware"


def test_the_hardware_is_short_and_whole_where_one_points_at_it() -> None:
    full_name = "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz, 8 threads"
    page = render(Comparison((Row("a", "b", "c", hardware=full_name),), columns=("method", "hardware")))
    assert page.rows()[0][1] == "Xeon Platinum 8481C, 8 threads"
    assert full_name in [attributes.get("title") for _, attributes in page.elements]


def test_the_script_gets_all_that_it_draws(comparison: Comparison) -> None:
    data = render(comparison).data()
    assert [row["label"] for row in data["rows"]][1:] == ["fp16 [batch 16]", "<b>int8</b>", "`prune` (by hand)"]
    metrics = {metric["label"]: metric for metric in data["metrics"]}
    size = metrics["weights, MB"]
    assert (size["values"], size["relative"]) == ([96.668, 48.3496, None, None], [1.0, 0.50016, None, None])
    assert metrics["GPU inference time, median, ms"]["intervals"] == {"1": [0.61, 0.702]}
    assert metrics["WER"]["relative"] == [None, None, 0.0031, None]
    assert (metrics["mAP50"]["greater_is_better"], metrics["parameters"]["greater_is_better"]) == (True, None)
    labels = [data["metrics"][int(data["start"][axis])]["label"] for axis in "xy"]
    assert labels == ["weights, MB", "GPU inference time, median, ms"]


def test_what_is_no_number_is_missing() -> None:
    page = render(
        Comparison((Row("a", "b", "c", values={"cpu/latency_p50_ms": math.nan, "size/weights_mib": math.inf}),))
    )
    assert page.rows() == [["c", "-"]], "a column without a number is left out"
    assert page.data()["metrics"] == []


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours. Source: WCAG 2.2, relative luminance."""

    def luminance(colour: str) -> float:
        channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        parts = [channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4 for channel in channels]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1])
def test_texts_and_marks_stand_out_from_what_is_behind_them(theme: int) -> None:
    style = _part("page.css")
    colours = {name: pair[theme] for name, *pair in re.findall(r"--(\w+): light-dark\((#\w{6}), (#\w{6})\)", style)}
    behind = [colours[name] for name in ("paper", "card", "stripe")]
    behind += [pair[theme] for pair in re.findall(r"background: light-dark\((#\w{6}), (#\w{6})\)", style)]
    assert len(behind) == 5
    for name in ("ink", "soft", "accent", "good", "bad"):
        assert min(contrast(colours[name], background) for background in behind) >= 4.5, name
    for name in ("field", *(f"c{number}" for number in range(8))):
        assert contrast(colours[name], colours["card"]) >= 3, name


@pytest.mark.parametrize("comparison", [Comparison(()), Comparison((), language="ru", title="hw1")])
def test_an_empty_comparison_is_a_page_too(comparison: Comparison) -> None:
    assert render(comparison).rows() == []
    assert words.PAGE[comparison.language]["no_rows"] in render(comparison).of("p")


def test_the_script_has_all_words_that_it_says() -> None:
    texts = words.PAGE_SCRIPT["en"]
    used = set(re.findall(r"\bwords\.(\w+)", page_script()))
    assert used <= texts.keys()
    assert texts.keys() - used <= {"filters", "bars_title", "team", "model", "method", "hardware"}


@example("a")
@example("-")
@example("0®")
@given(any_text)
def test_any_text_survives_and_is_never_more_than_text(text: str) -> None:
    assume(not text.startswith("original"))  # our own method, whose row looks different
    page, plain = render(filled(text)), render(filled("plain"))
    hardware, text = visible(short(text)), visible(text)
    if text:
        assert page.skeleton() == plain.skeleton()
    assert page.of("script")[1] == plain.of("script")[1]
    assert page.rows()[0][:4] == [text, text, f"{text} (by hand) [1]", hardware or "-"]
    assert page.of("title") == [f"Comparison: {text}" if text else "Comparison"]
    assert f"{text}: 0.50x size, over 2 models" in page.of("li")
    assert text in page.of("li")
    (row, _) = page.data()["rows"]
    assert (row["team"], row["hardware"]) == (text, hardware)


@pytest.mark.parametrize("control", ["\x00", "\x1b", "\x0b", "\x85", "\u202e", "\u200b", "\ud800"])
def test_what_a_page_can_not_hold_is_replaced(control: str) -> None:
    page = render(filled(f"a{control}b"))
    assert page.rows()[0][0] == "a\ufffdb"
    assert page.data()["rows"][0]["team"] == "a\ufffdb"


def dumped(file: Path, folder: Path) -> str:
    """Return the page in Chromium after its script ran."""
    assert CHROMIUM is not None
    process = subprocess.run(
        [
            CHROMIUM,
            *["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"],
            *["--disable-component-update", "--disable-sync", "--virtual-time-budget=3000", "--dump-dom"],
            f"--user-data-dir={folder / 'profile'}",
            file.as_uri(),
        ],
        capture_output=True,
        timeout=120,
        check=True,
    )
    return process.stdout.decode()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize("times", [(0.0123, 0.0187), (0.002, 90_000.0)])
def test_in_a_browser_no_label_of_a_tick_covers_another(tmp_path: Path, times: tuple[float, float]) -> None:
    rows = [
        Row("a", "b", f"m{number}", {"cpu/latency_p50_ms": t, "size/weights_mib": t}) for number, t in enumerate(times)
    ]
    file = tmp_path / "page.html"
    file.write_bytes(Html().render(Comparison(tuple(rows))))
    dom = dumped(file, tmp_path)
    across = re.findall(r'<text x="([\d.]+)" y="[\d.]+" text-anchor="middle">([^<]+)<', dom)
    places, lengths = [float(position) for position, _ in across], [len(text) for _, text in across]
    assert len(across) >= 2
    for index in range(1, len(across)):
        assert places[index] - places[index - 1] > 7 * (lengths[index] + lengths[index - 1]) / 2
    upwards = [float(y) for y in re.findall(r'<text x="[\d.]+" y="([\d.]+)" text-anchor="end">[\d.e-]+<', dom)]
    assert len(upwards) >= 2
    assert all(abs(y - other) > 14 for y, other in itertools.pairwise(upwards))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_in_a_browser_the_charts_are_drawn_and_no_other_script_runs(tmp_path: Path) -> None:
    values = {"size/weights_mib": 1.0, "cpu/latency_p50_ms": 2.0}
    ratios = {"size/weights_mib": 0.5, "cpu/latency_p50_ms": 0.4}
    rows = tuple(
        Row(text, "".join(HOSTILE), text, values=values, ratios=ratios, links={"cpu": f"http://x/{text}"}, notes=(0,))
        for text in HOSTILE
    )
    failures = tuple(Failure(text, text, text, "failed", "", text, text) for text in HOSTILE)
    comparison = Comparison(rows, failures, (HOSTILE[2],), title="ours", greater_is_better=dict.fromkeys(values, False))
    page = Html().render(comparison)
    seized = b"<script>document.title='seized'</script></main>"
    file = tmp_path / "page.html"
    file.write_bytes(page.replace(b"</main>", seized))  # even an injected script
    dom = dumped(file, tmp_path)
    assert "<title>Comparison: ours</title>" in dom
    assert dom.count('class="point k0') + dom.count('class="point k1') >= 2
    assert len(re.findall(r'role="img"', dom)) == len(rows)
    assert dom.count('<li class="bar">') == len(rows)
    assert dom.count("<button") == len(re.findall(r"<th scope=\"col\"", dom)) + 3  # theme, all rows, and the list
    assert len(re.findall(r'aria-sort="none"', dom)) == len(re.findall(r"<th scope=\"col\"", dom))


def with_script(page: bytes, script: str) -> bytes:
    """Return the page with a script of the test that runs after the page's own."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest())
    allowed = page.replace(b"script-src '", b"script-src 'sha256-" + digest + b"' '", 1)
    return allowed.replace(b"</body>", f"<script>{script}</script></body>".encode())


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_in_a_browser_columns_sort_tooltips_list_covered_points_and_noise_is_neutral(tmp_path: Path) -> None:
    latency = "cpu/latency_p50_ms"
    values = {"size/weights_mib": 1.0, latency: 2.0}

    def row(method: str, ratio: float, low: float, high: float) -> Row:
        return Row("a", "m", method, values, {latency: ratio}, {latency: (low, high)}, notes=(0,))

    rows = (row("m10", 1.01, 0.9, 1.1), row("prune:amount=0.5+m9", 0.5, 0.4, 0.6), row("m9", 2.0, 1.9, 2.1))
    comparison = Comparison(rows, footnotes=("a footnote",), greater_is_better=dict.fromkeys(values, False))
    file = tmp_path / "page.html"
    file.write_bytes(
        with_script(
            Html().render(comparison),
            "document.querySelector('th.method button').click();"
            "document.querySelector('[role=img]').dispatchEvent(new Event('focus'));",
        )
    )
    dom = dumped(file, tmp_path)
    assert re.findall(r'<tr data-row="(\d)"', dom) == ["2", "0", "1"], "by the method, m9 before m10"
    (tip,) = re.findall(r'<div id="tip"[^>]*>(.*?)</div>', dom, re.DOTALL)
    assert len([line for line in tip.split("\n") if line in ("m10", "m9", "prune:amount=0.5+m9")]) == 3
    assert sorted(" ".join(classes.split()) for classes in re.findall(r'class="(fill [^"]*)"', dom)) == [
        "fill better", "fill noise", "fill worse"
    ]  # fmt: skip
    assert "<span>prune:<wbr>amount=0.5+<wbr>m9</span>" in dom
    assert 'title="a footnote"' in dom
