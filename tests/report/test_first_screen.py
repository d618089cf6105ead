"""Every number of the page's first screen, counted again from the Parquet files by other code than
the report's.

Nothing here imports densecl.analysis: shares, Wilson's interval, Newcombe's and the paired ones are
written out.
"""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student_t

Z = 1.959964
MODES = ("dense", "global", "none")
PAIRS = (("dense", "none"), ("global", "none"), ("dense", "global"))
SHIFTED = ("imagenet-a", "imagenet-r", "imagenet-v2", "sketch")  # stylized has no cell of global


class FirstScreen(HTMLParser):
    """The heading, and the rows of a table as lists of texts, small print included."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__()
        self.skipped = number  # tables before it
        self.place: list[str] = []
        self.heading, self.rows, self.stars = "", [], []
        self.done = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table" and self.skipped:
            self.skipped -= 1
            return
        if tag in ("h1", "table", "tr", "td", "th", "small", "details"):
            self.place.append(tag)
        if self.done or "table" not in self.place:
            return
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append([])
        if tag == "small":
            self.rows[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if self.place and self.place[-1] == tag:
            self.place.pop()
        self.done = self.done or (tag == "table" and bool(self.rows))

    def handle_data(self, data: str) -> None:
        if "h1" in self.place:
            self.heading += data
        inside = self.rows and self.rows[-1] and not self.done and "details" not in self.place
        if inside and ("td" in self.place or "th" in self.place) and data.strip():
            self.rows[-1][-1].append(data.strip())


def read_table(root: Path, number: int) -> tuple[str, dict[str, list[list[str]]]]:
    """The heading, and by label the entries of a table's rows."""
    found = FirstScreen((root / "reports/report.html").read_text(encoding="utf-8"), number)
    rows = {
        row[0][0]: [[text for text in entry if text] for entry in row[1:]] for row in found.rows[2:]
    }
    return found.heading, rows


def screen(root: Path) -> tuple[str, dict[str, list[list[str]]]]:
    """The heading, and by set the entries of its row: top-1 and drop of each mode around the
    differences. The claims are the first table, the datasets the second.
    """
    return read_table(root, 1)


def number(text: str) -> float:
    return float(text.replace("−", "-").replace("+", ""))


def ends(text: str) -> tuple[float, float]:
    low, high = re.fullmatch(r"([+−]?[\d.]+)(?: to |–)([+−]?[\d.]+)", text).groups()
    return number(low), number(high)


def read(root: Path, dataset: str, mode: str, control: bool = False) -> np.ndarray:
    """Whether the model is right on each image, in the order of image_id."""
    rows = pd.read_parquet(
        root / f"reports/predictions/{mode}-0/{dataset}{'.control' if control else ''}.parquet"
    )
    rows = rows.sort_values("image_id")
    return (rows["label"] == rows["prediction"]).to_numpy(float)


def wilson(right: np.ndarray) -> tuple[float, float]:
    n, p = len(right), right.mean()
    middle, half = p + Z**2 / (2 * n), Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return (middle - half) / (1 + Z**2 / n), (middle + half) / (1 + Z**2 / n)


def error(gap: np.ndarray) -> float:
    """Standard error of a paired difference, with one image more for either side."""
    n, up, down = len(gap), (gap > 0).sum(), (gap < 0).sum()
    return math.sqrt(up + down + 2 - (n - 2) * gap.mean() ** 2) / (n + 2)


def p_shown(entry: list[str]) -> tuple[float, bool]:
    text = next(part for part in entry if part.startswith("p "))
    return float(text.split()[-1]), "<" in text


def shown_p_is(entry: list[str], p: float, tolerance: float = 6e-4) -> bool:
    found, below = p_shown(entry)
    return p < found + tolerance if below else abs(p - found) <= tolerance


@pytest.fixture(scope="module")
def page(single: tuple[Path, str]) -> tuple[Path, str, dict[str, list[list[str]]]]:
    return single[0], *screen(single[0])


def test_accuracies_and_their_intervals(page) -> None:
    root, _, rows = page
    for dataset in ("imagenet", *SHIFTED):
        for mode, entry in zip(MODES, rows[dataset][:3], strict=True):
            right = read(root, dataset, mode)
            assert number(entry[0]) == pytest.approx(100 * right.mean(), abs=0.051)
            assert ends(entry[1]) == pytest.approx(
                [100 * limit for limit in wilson(right)], abs=0.051
            )
    assert rows["stylized"][1][0] == "missing"


def test_differences_of_datasets_are_plain_and_bear_no_verdict(page) -> None:
    root, _, rows = page
    for at, (first, second) in enumerate(PAIRS, start=3):
        for s in ("imagenet", *SHIFTED, "stylized"):
            if s == "stylized" and "global" in (first, second):
                continue
            gap, entry = read(root, s, first) - read(root, s, second), rows[s][at]
            assert (np.abs(gap) > 0).sum() >= 25  # fewer would have the exact test
            assert number(entry[0]) == pytest.approx(100 * gap.mean(), abs=0.051)
            half = Z * error(gap)
            limits = 100 * (gap.mean() - half), 100 * (gap.mean() + half)
            assert ends(entry[-1]) == pytest.approx(limits, abs=0.051)
            assert "★" not in entry


def mean_difference(root: Path, first: str, second: str) -> tuple[float, float]:
    """Of the shifted sets, with its standard error."""
    gaps = [read(root, s, first) - read(root, s, second) for s in SHIFTED]
    spread = math.sqrt(sum(error(g) ** 2 for g in gaps)) / len(gaps)
    return float(np.mean([g.mean() for g in gaps])), spread


def test_the_mean_has_the_first_screens_family_and_the_rest_that_of_the_tables(page) -> None:
    """Two pairs with dense and their two costs; 16 differences of datasets and global − none."""
    root, _, rows = page
    mean = rows["mean of shifted datasets"]
    for at, (first, second) in enumerate(PAIRS, start=3):
        tests = 4 if first == "dense" else 17
        value, spread = mean_difference(root, first, second)
        half = NormalDist().inv_cdf(1 - 0.05 / tests / 2) * spread
        p = min(1.0, tests * 2 * NormalDist().cdf(-abs(value) / spread))
        assert number(mean[at][0]) == pytest.approx(100 * value, abs=0.051)
        limits = 100 * (value - half), 100 * (value + half)
        assert ends(mean[at][-2]) == pytest.approx(limits, abs=0.051)
        assert shown_p_is(mean[at], p)
        assert ("★" in mean[at]) == (p < 0.05)
    for mode, entry in zip(MODES, mean[:3], strict=True):
        assert number(entry[0]) == pytest.approx(
            100 * np.mean([read(root, s, mode).mean() for s in SHIFTED]), abs=0.051
        )


def test_the_claims_say_what_their_intervals_say(page) -> None:
    root = page[0]
    _, claims = read_table(root, 0)
    assert list(claims) == [
        "Unaltered images (imagenet)",
        *("Occlusion", "Viewpoint", "Distribution shift", "Spatial tasks", "Cost"),
    ]
    plain = claims["Unaltered images (imagenet)"]
    for entry, other in zip(plain[:2], ("none", "global"), strict=True):
        gap = read(root, "imagenet", "dense") - read(root, "imagenet", other)
        half = Z * error(gap)
        assert number(entry[0]) == pytest.approx(100 * gap.mean(), abs=0.051)
        limits = 100 * (gap.mean() - half), 100 * (gap.mean() + half)
        assert ends(entry[1]) == pytest.approx(limits, abs=0.051)
    for entry, mode in zip(plain[2:], MODES, strict=True):
        right = read(root, "imagenet", mode)
        assert number(entry[0]) == pytest.approx(100 * right.mean(), abs=0.051)
    for at, second in enumerate(("none", "global")):
        value, spread = mean_difference(root, "dense", second)
        half = NormalDist().inv_cdf(1 - 0.05 / 4 / 2) * spread
        verdict, shown, limits, *_ = claims["Distribution shift"][at]
        assert number(shown) == pytest.approx(100 * value, abs=0.051)
        found = [number(end) for end in limits.strip("[]").split(", ")]
        assert found == pytest.approx([100 * (value - half), 100 * (value + half)], abs=0.051)
        expected = {(True, True): "better", (False, False): "worse"}
        signs = found[0] > 0, found[1] > 0
        assert verdict == expected.get(signs, "not distinguishable at this size")
        assert claims["Occlusion"][at][0] == "not measured"


def test_the_cost_is_in_the_family_of_the_claims(page) -> None:
    """Student's interval of the logarithms, from the level of cost.json to that of the family."""
    root = page[0]
    _, claims = read_table(root, 0)
    cost = json.loads((root / "reports/cost.json").read_text())
    steps = {mode: cost["modes"][mode]["against_none"] for mode in MODES}

    def limits(mode: str, rate: float) -> tuple[float, float]:
        given, wanted = (
            student_t.isf(x / 2, cost["rounds"] - 1) for x in (1 - cost["confidence"], rate)
        )
        half = math.log(steps[mode]["high"] / steps[mode]["low"]) / 2 * wanted / given
        value = steps[mode]["value"]
        return value * math.exp(-half), value * math.exp(half)

    dense, (low, high) = limits("dense", 0.05 / 4 / 2), limits("global", 0.05 / 4 / 2)
    expected = (limits("dense", 0.05 / 4), (dense[0] / high, dense[1] / low))
    for entry, ratios in zip(claims["Cost"][:2], expected, strict=True):
        assert entry[0] == "worse"
        found = [number(end) for end in entry[2].strip("[]").split(", ")]
        assert found == [round(100 * (ratio - 1)) for ratio in ratios]


def test_drops_and_their_intervals(page) -> None:
    root, _, rows = page
    for dataset in SHIFTED:
        record = json.loads((root / f"reports/evaluation/none-0/{dataset}.json").read_text())
        own_file = record["control"]["predictions"].endswith(".control.parquet")
        for mode, entry in zip(MODES, rows[dataset][6:], strict=True):
            clean = (
                read(root, dataset, mode, control=True)
                if own_file
                else read(root, "imagenet", mode)
            )
            right = read(root, dataset, mode)
            (a, b), (c, d) = wilson(clean), wilson(right)
            drop = clean.mean() - right.mean()
            low = drop - math.hypot(clean.mean() - a, d - right.mean())
            high = drop + math.hypot(b - clean.mean(), right.mean() - c)
            assert number(entry[0]) == pytest.approx(100 * drop, abs=0.051)
            assert ends(entry[1]) == pytest.approx((100 * low, 100 * high), abs=0.051)


def test_the_heading_says_what_the_table_says_and_no_more(page) -> None:
    """It names a winner where the table has a verdict, with the same number."""
    root, heading, _ = page
    _, claims = read_table(root, 0)
    assert heading.startswith("One seed: no statement about the modes. Under distribution shift, ")
    sentence = heading.partition("shift, ")[2].partition(". ")[0] + "."
    assert sentence.startswith("dense-0 beats none-0 (")
    for at, second in enumerate(("none-0", "global-0")):
        verdict, points, *_ = claims["Distribution shift"][at]
        named = f"{second} ({points}" in sentence
        assert named == (verdict in ("better", "worse"))
        assert (f"cannot be told from {second}" in sentence) == (not named)
    extra = [claims["Cost"][at][1].strip("+ %time") for at in (0, 1)]
    cost = heading.partition("Dense cost ")[2]
    assert re.fullmatch(
        rf"{extra[0]} % \[\d+, \d+\] more time per training step than none and "
        rf"{extra[1]} % \[\d+, \d+\] more than global\.",
        cost,
    )
