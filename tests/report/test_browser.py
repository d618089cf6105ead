"""The page as a browser shows it, on a desk and on a phone, light and dark."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from densecl import paths
from densecl.artifacts import ReportPlan
from densecl.config.params import ReportParams
from densecl.report.render import write_report
from tests.page_checks import faults
from tests.report.probe_factory import PROBES, write_probes

pytestmark = pytest.mark.slow


@pytest.fixture
def report(single) -> Path:
    return single[0] / paths.REPORT_PAGE


@pytest.fixture
def page(browser: Browser, report: Path) -> Page:
    opened = browser.new_page()
    opened.goto(report.as_uri())
    return opened


def test_nothing_is_wrong_on_any_screen(browser, report, page):
    assert faults(browser, report) == []
    assert page.locator("img").count() > 30


def test_nothing_is_wrong_with_the_sections_of_probes(browser, tmp_path):
    write_probes(tmp_path, gains={("dense", "occlusion"): 0.08, ("dense", "viewpoint"): -0.06})
    plan = ReportPlan(
        modes=("dense", "global", "none"),
        seeds=(0,),
        datasets=(),
        protocols={},
        probes=PROBES,
        rendered=(),
        values=ReportParams(),
        params={},
    )
    write_report(plan, tmp_path)
    assert faults(browser, tmp_path / paths.REPORT_PAGE) == []
    page = browser.new_page()
    page.goto((tmp_path / paths.REPORT_PAGE).as_uri())
    assert page.locator(".claims tbody tr").count() == 5
    assert page.locator(".claims .better").count() == 2
    assert page.locator(".heats table").count() == 6
    assert page.locator(".segments img").count() == 4 * 5


def test_each_fault_is_reported(browser, tmp_path):
    (tmp_path / "page.html").write_text("""<!doctype html><html lang="en"><title>wrong</title>
        <body style="background: #777"><main><h1>wrong</h1><p id="a" style="width: 2000px; color: #888">wide</p><p id="a">again</p>
        <img alt="nothing" src="data:,"><img alt="far" src="http://127.0.0.1:9/far.png">
        <svg aria-label="two"><text y="20">one</text><text y="20">two</text></svg>
        <script>console.log("talks"); throw Error("thrown")</script></b></main></html>""")
    found = "\n".join(faults(browser, tmp_path / "page.html"))
    for told in (
        "line 5: unexpected-end-tag",
        "1280 px, light: as wide as 2",
        "390 px, dark: past the edge <p id",
        "text on text two: one / two",
        "id given twice a",
        "no picture nothing",
        "dark: not the scheme's paper rgb(119, 119, 119)",
        "said or asked for talks",
        "said or asked for thrown",
        "said or asked for http://127.0.0.1:9/far.png",
        "axe, serious, color-contrast: ['p",
    ):
        assert told in found


def column(page: Page, at: int) -> list[str]:
    return page.evaluate(
        f"[...document.querySelectorAll('table.sorts')[1].tBodies[0].rows].map(r => r.cells[{at}].firstChild.textContent.trim())"
    )


def click(page: Page, at: int) -> str | None:
    head = page.locator("table.sorts").nth(1).locator("thead tr").last.locator("th").nth(at)
    head.locator("button").click()
    return head.get_attribute("aria-sort")


def test_tables_sort_down_up_and_back(page):
    assert page.evaluate(
        "[...document.querySelectorAll('table')].every(t => t.querySelector('thead button'))"
    )
    names, values = column(page, 0), [float(v) for v in column(page, 1)]
    assert names[-1] == "mean of shifted datasets"
    assert click(page, 1) == "descending"
    assert [float(v) for v in column(page, 1)[:-1]] == sorted(values[:-1], reverse=True)
    assert column(page, 0)[-1] == "mean of shifted datasets"
    assert click(page, 1) == "ascending"
    assert [float(v) for v in column(page, 1)[:-1]] == sorted(values[:-1])
    assert click(page, 1) is None
    assert column(page, 0) == names
    assert click(page, 0) == "ascending"
    assert column(page, 0)[:-1] == sorted(names[:-1])
    assert (
        click(page, 5) == "descending"
    )  # global − none: negative numbers, and a cell without a value
    shown = column(page, 5)
    assert shown[-2] == "missing"
    numbers = [float(v.replace("−", "-")) for v in shown[:-2]]
    assert numbers == sorted(numbers, reverse=True)
    assert min(numbers) < 0 < max(numbers)
    # drop: the control has none, which is no 0
    assert [click(page, 7), click(page, 7)] == ["descending", "ascending"]
    assert column(page, 7)[-2:] == ["–", "–"]


def test_without_scripts_the_page_says_the_same(browser, report, page):
    without = browser.new_page(java_script_enabled=False)
    without.goto(report.as_uri())
    assert without.locator("thead button").count() == 0
    assert without.inner_text("body").split() == page.inner_text("body").split()


def test_on_paper_every_set_is_open(page):
    page.emulate_media(media="print")
    heights = page.evaluate(
        "[...document.querySelectorAll('details.set')].map(d => d.getBoundingClientRect().height)"
    )
    assert len(heights) == 6
    assert min(heights) > 400
