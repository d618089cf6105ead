"""The page as a browser shows it, on a desk and on a phone, light and dark."""

from __future__ import annotations

from pathlib import Path

import pytest

from densecl import layout
from tests.reporting.browser import CHROMIUM, Browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not CHROMIUM, reason="no chromium, chromium-browser or google-chrome on the PATH: no page is opened"
    ),
]

WIDE = """[...document.querySelectorAll('body *')].filter(e => !e.closest('.wide') &&
  e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(e => e.tagName + '.' + e.className)"""
OVERLAPS = """(() => {
  const found = [];
  for (const svg of document.querySelectorAll('figure svg')) {
    const boxes = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]).filter(([, b]) => b.width);
    boxes.forEach(([one, a], i) => boxes.slice(i + 1).forEach(([two, b]) => {
      const across = Math.min(a.right, b.right) - Math.max(a.left, b.left), up = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (across > 1 && up > 0.3 * Math.min(a.height, b.height)) found.push(svg.getAttribute('aria-label').slice(0, 40) + ': ' + one + ' / ' + two);
    }));
  }
  return found;
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory):
    with Browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture(scope="module")
def page(single) -> Path:
    return single[0] / layout.REPORT_PAGE


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_overflows_fails_or_is_fetched(browser, page, width, dark):
    browser.open(page, width, dark, phone=width < 500)
    browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.run("document.documentElement.clientWidth") == width
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run(WIDE) == []
    assert browser.run(OVERLAPS) == []
    told = [
        e
        for e in browser.events
        if e.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
    ]
    assert told == []
    asked = [e["params"]["request"]["url"] for e in browser.events if e.get("method") == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith("data:")] == [page.resolve().as_uri()]
    browser.run("document.querySelectorAll('img').forEach(i => i.loading = 'eager')")
    assert browser.run("Promise.all([...document.images].map(i => i.decode())).then(() => document.images.length)") > 30
    paper = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) < 200) == dark


def column(browser: Browser, at: int) -> list[str]:
    return browser.run(
        f"[...document.querySelector('table.sorts').tBodies[0].rows].map(r => r.cells[{at}].firstChild.textContent.trim())"
    )


def click(browser: Browser, at: int) -> str | None:
    head = f"[...document.querySelector('table.sorts').tHead.rows].at(-1).cells[{at}]"
    browser.run(f"{head}.querySelector('button').click()")
    return browser.run(f"{head}.getAttribute('aria-sort')")


def test_tables_sort_down_up_and_back(browser, page):
    browser.open(page, 1280, False)
    assert browser.run("[...document.querySelectorAll('table')].every(t => t.querySelector('thead button'))")
    names, values = column(browser, 0), [float(v) for v in column(browser, 1)]
    assert names[-1] == "mean of shifted sets"
    assert click(browser, 1) == "descending"
    assert [float(v) for v in column(browser, 1)[:-1]] == sorted(values[:-1], reverse=True)
    assert column(browser, 0)[-1] == "mean of shifted sets"
    assert click(browser, 1) == "ascending"
    assert [float(v) for v in column(browser, 1)[:-1]] == sorted(values[:-1])
    assert click(browser, 1) is None
    assert column(browser, 0) == names
    assert click(browser, 0) == "ascending"
    assert column(browser, 0)[:-1] == sorted(names[:-1])
    assert click(browser, 5) == "descending"  # global − none: negative numbers, and a cell without a value
    shown = column(browser, 5)
    assert shown[-2] == "missing"
    numbers = [float(v.replace("−", "-")) for v in shown[:-2]]
    assert numbers == sorted(numbers, reverse=True)
    assert min(numbers) < 0 < max(numbers)
    assert [click(browser, 7), click(browser, 7)] == [
        "descending",
        "ascending",
    ]  # drop: the control has none, which is no 0
    assert column(browser, 7)[-2:] == ["–", "–"]


def test_without_scripts_the_page_says_the_same(browser, page):
    browser.open(page, 1280, False)
    with_script = browser.run("document.body.innerText")
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(page, 1280, False)
    browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert browser.run("document.querySelectorAll('thead button').length") == 0
    assert with_script.split() == browser.run("document.body.innerText").split()


def test_on_paper_every_set_is_open(browser, page):
    browser.open(page, 1280, False)
    browser.call("Emulation.setEmulatedMedia", media="print")
    heights = browser.run("[...document.querySelectorAll('details.set')].map(d => d.getBoundingClientRect().height)")
    browser.call("Emulation.setEmulatedMedia", media="")
    assert len(heights) == 6
    assert min(heights) > 400
