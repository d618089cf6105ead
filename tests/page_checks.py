"""What is wrong with a page: as HTML, and as Chromium shows it on a desk and on a phone, light and
dark.
"""

import shutil
from itertools import product
from pathlib import Path

import html5lib
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

CHROMIUM = next(
    (
        found
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (found := shutil.which(name))
    ),
    "",
)
OPEN = "document.querySelectorAll('details').forEach(d => d.open = true)"
# Each tells what it finds wrong at this width in px and in this colour scheme.
CHECKS = {
    "as wide as": """([width]) => [document.documentElement.clientWidth, document.documentElement.scrollWidth]
        .filter(found => found !== width)""",
    "past the edge": """() => [...document.querySelectorAll('body *')].filter(e => !e.closest('.wide') &&
        e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(e => e.outerHTML.slice(0, 80))""",
    "text on text": """() => [...document.querySelectorAll('svg')].flatMap(svg => {
        const found = [];
        const boxes = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]).filter(([, b]) => b.width);
        boxes.forEach(([one, a], i) => boxes.slice(i + 1).forEach(([two, b]) => {
            const across = Math.min(a.right, b.right) - Math.max(a.left, b.left), up = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
            if (across > 1 && up > 0.3 * Math.min(a.height, b.height)) found.push(one + ' / ' + two);
        }));
        return found.map(pair => svg.ariaLabel?.slice(0, 40) + ': ' + pair);
    })""",
    "id given twice": """() => [...document.querySelectorAll('[id]')].map(e => e.id)
        .filter((id, i, all) => all.indexOf(id) < i)""",
    "no picture": """() => Promise.all([...document.images].map(i => {
        i.loading = 'eager';
        return i.decode().then(() => '', () => i.alt || 'without alt');
    })).then(all => all.filter(Boolean))""",
    "not the scheme's paper": """([, dark]) => {
        const paper = getComputedStyle(document.body).backgroundColor, [red, green, blue] = paper.match(/\\d+/g).map(Number);
        return (red + green + blue < 200) === dark ? [] : [paper];
    }""",
}


def faults(browser: Browser, path: Path) -> list[str]:
    """Empty where the page is HTML, fits, complains of nothing, asks for nothing, and axe finds no
    barrier.
    """
    parser = html5lib.HTMLParser()
    parser.parse(path.read_text(encoding="utf-8"))
    found = [f"line {line}: {code}" for (line, _), code, _ in parser.errors]
    for width, dark in product((1280, 390), (False, True)):
        scheme = "dark" if dark else "light"
        for what, each in _seen(browser, path.resolve().as_uri(), width, dark):
            found.append(f"{width} px, {scheme}: {what} {each}")
    return found


def _seen(browser: Browser, address: str, width: int, dark: bool) -> list[tuple[str, object]]:
    """What is wrong in a tab of its own, with every part of the page open."""
    phone = width < 500
    page = browser.new_page(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if dark else "light",
        is_mobile=phone,
        device_scale_factor=2 if phone else 1,
    )
    told: list[str] = []
    page.on("console", lambda said: told.append(said.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda asked: told.append(asked.url))
    page.goto(address)
    page.evaluate(OPEN)
    found = [
        (what, each)
        for what, check in CHECKS.items()
        for each in page.evaluate(check, [width, dark])
    ]
    told.remove(address)
    found += [("said or asked for", each) for each in told]
    for rule in Axe().run(page).response["violations"]:
        found += [
            (f"axe, {rule['impact']}, {rule['id']}:", node["target"]) for node in rule["nodes"]
        ]
    page.close()
    return found
