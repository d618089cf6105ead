"""The page of a retraining: verdict first, every name as text, nothing loaded from elsewhere."""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from densecl import paths
from densecl.errors import RetryLater
from pipelines.gate.gate import judge_candidate
from pipelines.outcome.page import write_page
from pipelines.schemas import (
    Anchor,
    Champion,
    ClassShare,
    DatasetDrift,
    ReferenceDrift,
    RetrainingRecord,
    SourceChanges,
)
from tests.conftest import WNIDS, draw_set
from tests.page_checks import faults
from tests.pipelines.factories import small_params, write_nothing, write_side

HOSTILE = "<script>alert('x')</script>\"><img src=//e.com/x onerror=alert(1)>"
REJECTED = RetrainingRecord(
    started="2026-11-02T03:00:00+01:00",
    seconds=660,
    outcome="rejected",
    said=f"refused: {HOSTILE}",
    version="3",
    champion="2",
    zenml_run=HOSTILE,
)


class Seen(HTMLParser):
    """What a browser would load, run and show of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.handlers: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [
            v
            for k, v in attrs
            if v and k in ("src", "href", "xlink:href", "action", "srcset", "data")
        ]
        self.handlers += [k for k, _ in attrs if k.startswith("on")]

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] != ["style"]:
            self.words.append(data)


def changes_of(**values: object) -> SourceChanges:
    given = {
        "dataset": "imagenet-train",
        "images": 120,
        "before": 100,
        "new": 22,
        "removed": 2,
        "changed": 1,
        "classes_new": (HOSTILE,),
        "classes_removed": (),
        "psi": {"class": 0.4, "brightness": 0.02, "width": 0.12},
        "chance": {"class": 0.1, "brightness": 0.1, "width": 0.2},
        "mix": (ClassShare(wnid=HOSTILE, before=0, now=30),),
        "evidence": (f"{WNIDS[0]}/image_0_0.JPEG", f"{HOSTILE}/1.jpg"),
    }
    same = DatasetDrift(
        dataset="imagenet",
        images=50,
        before=50,
        new=0,
        removed=0,
        changed=0,
        classes_new=(),
        classes_removed=(),
        psi={"class": 0.0},
        evidence=(),
    )
    return SourceChanges(
        sets=(DatasetDrift.model_validate(given | values), same),
        params=(f"network.model_name: a -> {HOSTILE}",),
    )


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Cells of a candidate that falls on sketch and has none on imagenet-r; some images."""
    draw_set(tmp_path / "images", 1)
    right = np.arange(1000) % 3 > 0
    for name in ("imagenet", "sketch", "imagenet-r"):
        write_side(tmp_path, name, paths.CHAMPION, right)
        write_side(
            tmp_path, name, "dense", right & (np.arange(1000) > (100 if name == "sketch" else 0))
        )
    write_nothing(tmp_path, "imagenet-r", "dense", HOSTILE)
    return tmp_path


def page(place: Path, *, version: str | None = "2", **more: object) -> tuple[str, Seen]:
    params = small_params(("imagenet", "sketch", "imagenet-r"))
    verdict = judge_candidate(params, Champion(version=version), place)
    given = {
        "history": [REJECTED],
        "roots": {"imagenet-train": place / "images"},
        "root": place,
    }
    record = REJECTED.model_copy(update={"said": verdict.said, "version": "4"})
    write_page(changes_of(), verdict, record, **(given | more))
    text = (place / paths.RETRAINING_PAGE).read_text(encoding="utf-8")
    return text, Seen(text)


def test_a_store_that_cannot_be_reached_costs_the_pictures_only(place, monkeypatch):
    with_pictures, _ = page(place)

    def fail(*_: object) -> None:
        raise RetryLater("s3://bucket: the store cannot be reached")

    monkeypatch.setattr("pipelines.outcome.page.make_thumbnail", fail)
    without, seen = page(place)
    assert with_pictures.count("data:image/jpeg") > without.count("data:image/jpeg") == 0
    assert "Earlier retrainings" in seen.text


def test_the_verdict_comes_first_and_every_criterion_is_shown(place):
    text, seen = page(place)
    assert (
        re.search(r"<h1>([^<]*)</h1>", text)[1]
        == "Refused: dense, seed 0, is not promoted; version 2 stays champion."
    )
    order = [
        "Refused: dense",
        "sketch falls by",
        "Criteria",
        "What changed",
        "Earlier retrainings",
    ]
    assert sorted(order, key=seen.text.index) == order
    assert seen.text.count("failed") >= 2
    row = r"sketch fall: no sure fall below the bound failed −6\.\d −\d\.\d to −\d\.\d ≥ −2\.0 1,000 falls by 6\.\d points"
    assert re.search(row, seen.text)
    assert "the candidate has no evaluation: <script>" in seen.text
    assert seen.tags.count("svg") == 1
    assert "python -m pipelines lineage 4" in seen.text


def test_what_changed_is_shown(place):
    text, seen = page(place)
    assert "imagenet-train 120 100 22 2 1 1 –" in seen.text
    assert "class 0.40 large" in seen.text
    assert "width 0.12 Class" in seen.text.replace("height", "")  # not above chance: no word
    assert "0.0 % → 25.0 %" in seen.text
    assert text.count("<section") == 1  # the other set did not change
    assert text.count('src="data:image/jpeg') == 1
    shutil.rmtree(place / "images")
    text, seen = page(place)
    assert "data:image/jpeg" not in text
    assert f"For example {WNIDS[0]}/image_0_0.JPEG" in seen.text


def test_the_anchor_the_trials_and_the_drift_since_older_data_are_shown(place):
    params = small_params(("imagenet", "sketch"))
    for name in ("imagenet", "sketch"):
        write_side(place, name, paths.ANCHOR, np.arange(1000) % 2 > 0)
    champion = Champion(version="2", anchor=Anchor(version="1", origin="first champion"))
    verdict = judge_candidate(params, champion, place, validation="a", candidates=7)
    drift = ReferenceDrift(
        reference="first baseline",
        version="1",
        dataset=HOSTILE,
        images=2000,
        before=1500,
        classes_new=("n1", "n2"),
        classes_removed=(),
        psi={"class": 0.31, "brightness": 0.11},
        chance={"class": 0.1, "brightness": 0.2},
    )
    absent = drift.model_copy(update={"before": None, "psi": {}, "dataset": "sketch"})
    changes = changes_of().model_copy(update={"references": (drift, absent)})
    write_page(changes, verdict, REJECTED, root=place)
    text = (place / paths.RETRAINING_PAGE).read_text(encoding="utf-8")
    seen = Seen(text)
    assert re.search(
        r"imagenet anchor: against the anchor, low end above the bound (pass|fail)ed", seen.text
    )
    assert "the same against version 1, the anchor" in seen.text
    assert "7 candidates were tried on these validation images" in seen.text
    row = f"{HOSTILE} first baseline (version 1) 1,500 2,000 2 – 0.31 large 0.11 – – – –"
    assert row in seen.text
    assert "sketch first baseline (version 1) – 2,000" in seen.text
    assert "script" not in seen.tags


def test_hostile_names_are_text_and_nothing_is_loaded(place):
    text, seen = page(place)
    assert "script" not in seen.tags
    assert not seen.handlers
    assert HOSTILE in seen.text
    assert all(each.startswith(("data:", "#")) for each in seen.loads)
    assert "default-src 'none'" in text
    assert "http" not in re.sub(r'xmlns(:xlink)?="[^"]+"', "", text).replace("http-equiv", "")


@pytest.mark.slow
def test_nothing_is_wrong_in_a_browser(browser, place):
    write_nothing(place, "imagenet-r", "dense", "\x1b[2J" + 40 * "long")
    assert page(place)[1].tags.count("img") == 1
    assert faults(browser, place / paths.RETRAINING_PAGE) == []


def test_the_same_inputs_give_the_same_bytes(place):
    assert page(place)[0] == page(place)[0]


def test_links_lead_to_the_pages_that_are_there(place):
    for path in (paths.REPORT_PAGE, paths.MODEL_CARD):
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).touch()
    found = [each for each in page(place)[1].loads if not each.startswith(("data:", "#"))]
    assert found == ["report.html", "../models/card.md"]
    assert all((place / paths.RETRAINING_PAGE.parent / each).exists() for each in found)


def test_a_first_champion_is_shown_in_percent(place):
    _, seen = page(place, version=None)
    assert "Promoted: dense, seed 0, is the first champion." in seen.text
    assert "> 10.0" in seen.text
    assert "top-1 in %" in seen.text
