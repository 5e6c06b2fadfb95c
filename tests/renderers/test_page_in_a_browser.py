"""The page, used as people do: by mouse and by keys, wide and narrow, in both languages, in a real Chromium."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlflow_compress.records import Comparison, Row
from mlflow_compress.renderers.html import Html

sync_api = pytest.importorskip("playwright.sync_api")

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.full, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")]

WIDE, NARROW = (1280, 900), (390, 844)
LATENCY, SIZE = "cpu/latency_p50_ms", "size/weights_mib"
VISIBLE = "tbody tr:not([hidden])"
Opened = Callable[..., "Page"]


def row(team: str, method: str, latency: float | None, size: float) -> Row:
    values = {SIZE: size} | ({} if latency is None else {LATENCY: latency})
    ratios = {} if method == "original" else {name: value / 40 for name, value in values.items()}
    return Row(team, "bert", method, values=values, ratios=ratios)


ROWS = (
    row("alpha", "original", 40.0, 40.0),
    row("alpha", "m10", 9.0, 20.0),
    row("alpha", "m9", 100.0, 10.0),
    row("beta", "original", None, 40.0),
    row("beta", "int8_dynamic", 20.0, 12.5),
)
COMPARISON = Comparison(ROWS, footnotes=("a footnote",), title="hw1", greater_is_better={LATENCY: False, SIZE: False})


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Opened]:
    """Open a comparison in a window; at the end, fail if its script failed or asked for anything."""
    errors: list[str] = []
    pages: list[Page] = []

    def open_page(size: tuple[int, int] = WIDE, comparison: Comparison = COMPARISON) -> Page:
        file = tmp_path / f"{len(pages)}.html"
        file.write_bytes(Html().render(comparison))
        page = browser.new_page(viewport={"width": size[0], "height": size[1]})
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text))
        page.on("request", lambda request: errors.extend([] if request.url == file.as_uri() else [request.url]))
        page.goto(file.as_uri())
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert [message for message in errors if not message.startswith("data:")] == []


def order(page: Page) -> list[str]:
    """Return the numbers of the rows that are seen, from top to bottom."""
    return [line.get_attribute("data-row") or "" for line in page.query_selector_all(VISIBLE)]


def test_a_click_sorts_a_second_one_turns_the_order_and_what_is_missing_stays_last(opened: Opened) -> None:
    page = opened()
    header = page.locator("thead th", has_text="CPU, ms")
    assert order(page) == ["0", "1", "2", "3", "4"]
    header.locator("button").click()
    assert (order(page), header.get_attribute("aria-sort")) == (["1", "4", "0", "2", "3"], "ascending")
    header.locator("button").click()
    assert (order(page), header.get_attribute("aria-sort")) == (["2", "0", "4", "1", "3"], "descending")
    page.locator("thead th.method button").click()
    assert header.get_attribute("aria-sort") == "none"
    assert order(page).index("2") < order(page).index("1"), "m9 comes before m10"


def test_filters_leave_rows_say_how_many_and_redraw_the_charts(opened: Opened) -> None:
    page = opened()
    points = page.locator("#scatter .point[role=img]")
    assert points.count() == 4, "a row without a latency has no point"
    page.locator("#choices select").first.select_option(label="beta")
    assert order(page) == ["3", "4"]
    assert "2" in page.locator("#count").inner_text()
    assert "5" in page.locator("#count").inner_text()
    page.wait_for_function("document.querySelectorAll('#scatter .point[role=img]').length === 1")
    page.get_by_role("searchbox").fill("  INT8 ")
    assert order(page) == ["4"]
    page.get_by_role("searchbox").fill("nothing has this name")
    assert order(page) == []
    page.locator("#choices button").click()
    assert order(page) == ["0", "1", "2", "3", "4"]
    assert page.locator("#count").inner_text() == ""


def test_all_of_it_works_without_a_mouse(opened: Opened) -> None:
    page = opened()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    button = page.locator("thead th.method button")
    button.focus()
    page.keyboard.press("Enter")
    assert page.locator("thead th.method").get_attribute("aria-sort") == "ascending"

    page.locator("#scatter .point[tabindex='0']").focus()
    names = []
    for _ in range(4):
        names.append(page.evaluate("document.activeElement.getAttribute('aria-label')"))
        assert page.locator("#tip").is_visible()
        page.keyboard.press("ArrowRight")
    assert len(set(names)) == 4, "each point can be reached and has a name of its own"
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()
    page.keyboard.press("Enter")
    assert page.locator("tbody tr.found").count() == 1
    assert page.locator("tbody tr.found").get_attribute("data-row") == "2", "the slowest point is the last"


@pytest.mark.parametrize("language", ["en", "ru"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_nothing_runs_out_of_the_window(opened: Opened, size: tuple[int, int], language: str) -> None:
    page = opened(size, dataclasses.replace(COMPARISON, language=language))
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert page.locator("#scatter svg").evaluate("svg => svg.getBoundingClientRect().right") <= size[0]
    top = "element => element.getBoundingClientRect().top"
    is_above = page.locator("#charts").evaluate(top) < page.locator("#table").evaluate(top)
    assert is_above is (size == WIDE), "on a telephone numbers come first"
    assert page.locator("#filters").evaluate("filters => filters.open") is (size == WIDE)
    assert page.locator("tbody tr").first.is_visible()


def test_the_theme_is_changed_by_its_button(opened: Opened) -> None:
    page = opened()
    page.locator("#theme").click()  # from the system's theme to light
    old_colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("#theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != old_colour
