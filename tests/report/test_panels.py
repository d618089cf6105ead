"""The panels of the sets and the origin of the page: pictures, classes, mistakes, hashes; hostile
names stay text.
"""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from markdown_it import MarkdownIt

from densecl import paths
from densecl.analysis.comparison import compare_modes
from densecl.artifacts import ValidationResult, write_json
from densecl.config.params import TRAIN_SET
from densecl.report.formatting import build_bar
from densecl.report.provenance import build_artifact_table, describe_commit
from densecl.report.render import write_report
from densecl.report.sections.classes import build_class_table, read_class_names
from densecl.report.sections.confusion import build_confusion
from densecl.report.sections.dataset_sections import build_facts_table
from densecl.report.sections.gallery import ThumbnailLoader, build_examples, iter_changed_galleries
from tests.report.report_factory import CLASS, FILE, SETS, make, plant_classes, plant_images


class Strict(HTMLParser):
    """Elements must close in order, names of attributes must not repeat, and text is kept by
    element.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), (tag, attrs)
        self.found.append((tag, dict(attrs)))
        if tag not in {"meta", "link", "img", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, (tag, self.getpos())


@pytest.fixture(scope="module")
def compared(single):
    """The comparison of the shared report, as its own plan gives it."""
    root, _ = single
    return compare_modes(plan_of(root), root), root


def plan_of(root: Path):
    from densecl.artifacts import ReportPlan
    from densecl.config.params import ReportParams

    roots = {s: {"root": f"data/rendered/{s}"} for s in SETS}
    return ReportPlan(
        modes=("dense", "global", "none"),
        seeds=(0,),
        datasets=tuple(SETS),
        protocols={s: s for s in SETS},
        rendered=(),
        values=ReportParams(),
        params={"datasets": roots},
    )


def test_the_page_is_well_formed_and_hostile_names_are_text(single):
    text = (single[0] / paths.REPORT_PAGE).read_text(encoding="utf-8")
    page = Strict(text)
    assert not any(name.startswith("on") for _, given in page.found for name in given)
    sources = [given.get("src", "data:") for tag, given in page.found if tag == "img"]
    assert len(sources) > 30
    assert all(source.startswith("data:image/webp;base64,") for source in sources)
    shown = FILE.replace("\n", "\\n")
    titles = [given["title"] for tag, given in page.found if tag == "img"]
    assert (
        sum(shown in title for title in titles) > 10
    )  # unescaped by the parser: the name as it is, on one line
    alts = [given["alt"] for tag, given in page.found if tag == "img"]
    assert any(CLASS.replace("\n", "\\n") in alt for alt in alts)


def test_hostile_names_are_no_markup_in_the_pull_request_text(single):
    text = (single[0] / paths.REPORT_TEXT).read_text(encoding="utf-8")
    assert "onerror" in text  # a class of that name is in the tables
    ours = re.sub(r"</?(details|summary)>", "", text)
    assert not re.search(r"(?<!\\)<", ours)
    for line in ours.splitlines():
        if line.startswith("| "):
            assert not re.search(r"(?<!\\)[`*\[\]]", line), line


def test_the_pull_request_text_renders_as_tables_and_nothing_else(single):
    text = (single[0] / paths.REPORT_TEXT).read_text(encoding="utf-8")
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    tags = set(re.findall(r"</?([a-zA-Z0-9]+)", html))
    assert tags == {
        "h2",
        "h3",
        "p",
        "strong",
        "blockquote",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "details",
        "summary",
        "code",
    }
    assert html.count("<table>") > 20
    assert "<p>|" not in html


def test_images_come_from_folders_and_archives_and_a_missing_one_says_why(compared):
    found, root = compared
    names = read_class_names(root, synthetic=False)
    for dataset in ("sketch", "imagenet-a"):  # a folder, a .zip
        for gallery in (
            build_examples(found, dataset, names, ThumbnailLoader(found, root, dataset)),
            *iter_changed_galleries(found, dataset, names, ThumbnailLoader(found, root, dataset)),
        ):
            assert all(
                p.data_uri.startswith("data:image/webp") and not p.missing_reason
                for p in gallery.pictures
            )
    gallery = build_examples(found, "imagenet-r", names, ThumbnailLoader(found, root, "imagenet-r"))
    assert {p.missing_reason for p in gallery.pictures} == {
        "no file data/manifests/imagenet-r.parquet"
    }


@pytest.mark.slow
def test_a_root_that_is_gone_fails_no_report_and_learned_position_is_on_the_first_screen(tmp_path):
    plan = make(tmp_path, modes=("dense", "none"))
    plant_classes(tmp_path)
    plant_images(tmp_path, "sketch")
    shutil.rmtree(tmp_path / "data/rendered/sketch")
    path = tmp_path / paths.training_folder("dense", 0) / "history.csv"
    pd.read_csv(path).assign(**{"match/dense/moved0": 0.01, "match/identity/moved0": 0.02}).to_csv(
        path, index=False
    )
    write_report(plan, tmp_path)
    text = (tmp_path / paths.REPORT_PAGE).read_text(encoding="utf-8")
    assert "no picture: cannot be opened: no such file or directory" in text
    assert "Matching has learned position, not content" in text[: text.index("<main>")]


def test_most_changed_images_are_right_under_one_and_wrong_under_the_other(compared):
    found, root = compared
    rows = {
        m: pd.read_parquet(root / paths.predictions_file("sketch", m, 0)).set_index("image_id")
        for m in ("dense", "none")
    }
    for (ahead, behind), gallery in zip(
        (("dense", "none"), ("none", "dense")),
        iter_changed_galleries(found, "sketch", {}, ThumbnailLoader(found, root, "sketch")),
        strict=True,
    ):
        apart = rows[ahead]["correct"] & ~rows[behind]["correct"]
        assert f"{ahead} is right on {apart.sum():,} of {len(apart):,} images" in gallery.caption
        gain = (rows[ahead]["p_true"] - rows[behind]["p_true"])[apart].sort_values(ascending=False)
        assert [p.file.replace("\\n", "\n") for p in gallery.pictures] == list(gain.index[:6])
        for picture in gallery.pictures:
            row = {m: rows[m].loc[picture.file.replace("\\n", "\n")] for m in rows}
            said = dict(picture.lines)
            assert said[""] == f"class {row[ahead]['label']}"
            for mode in rows:
                assert (
                    said[mode]
                    == f"class {row[mode]['prediction']} {100 * row[mode]['confidence']:.0f} %"
                )


def test_classes_and_errors_are_recounted(compared):
    found, root = compared
    table, note = build_class_table(found, "imagenet-r", {})
    rows = {
        m: pd.read_parquet(root / paths.predictions_file("imagenet-r", m, 0))
        for m in ("dense", "none")
    }
    assert "No class is tested" in note
    for label, _, (images, dense, _, none, gap, _) in table.rows:
        own = {m: frame[frame["label"] == int(label.split()[1])] for m, frame in rows.items()}
        assert int(images.main.replace(",", "")) == len(own["dense"])
        assert float(dense.main) == pytest.approx(100 * own["dense"]["correct"].mean(), abs=0.051)
        assert float(none.main) == pytest.approx(100 * own["none"]["correct"].mean(), abs=0.051)
        assert float(gap.main.replace("−", "-")) == pytest.approx(
            100 * (own["dense"]["correct"].mean() - own["none"]["correct"].mean()), abs=0.051
        )
    seen = build_confusion(found, "imagenet-r", {})
    assert [m.mode for m in seen.matrices] == ["dense", "global", "none"]
    for label, _, (share, *_) in seen.top_errors.rows:
        true, answered = (int(part.split()[1]) for part in label.split(" → "))
        of_class = rows["dense"][rows["dense"]["label"] == true]
        assert float(share.main) == pytest.approx(
            100 * (of_class["prediction"] == answered).mean(), abs=0.51
        )


def test_of_many_classes_those_that_change_most_are_shown(tmp_path):
    plan = make(tmp_path, modes=("dense", "none"))
    for mode in ("dense", "none"):
        path = tmp_path / paths.predictions_file("imagenet", mode, 0)
        rows = pd.read_parquet(path)
        label = np.arange(len(rows)) % 96
        rows.assign(label=label, prediction=label + ~rows["correct"].to_numpy()).to_parquet(path)
    found = compare_modes(plan, tmp_path)
    table, note = build_class_table(found, "imagenet", {})
    assert len(table.rows) == 20
    assert note.startswith("The 20 of 96 classes that change most")
    assert build_confusion(found, "imagenet", {}).matrices == ()


def test_a_bar_points_to_the_mode_that_is_ahead():
    assert build_bar(0.5, "dense", "none") == (50, 75, "dense")
    assert build_bar(-1.0, "dense", "none") == (0, 50, "none")


def test_facts_come_from_manifest_and_verdict(compared):
    found, root = compared
    write_json(
        root / paths.validation_file("sketch"),
        ValidationResult(
            dataset="sketch",
            passed=True,
            images=1499,
            classes=5,
            absent=("n1",),
            excluded=("sketch/a",),
            failures=(),
            warnings=tuple(f"odd {i}\n<b>" for i in range(7)),
        ),
    )
    said = [
        (label, entries[0].main, entries[0].source)
        for label, _, entries in build_facts_table(found, root, "sketch").rows
    ]
    text = {label: shown for label, shown, _ in said if label != "Warning"}
    assert text["Files"].startswith("1,500 in 5 classes, ")
    assert text["Excluded"] == "1 images"
    assert "1 classes of the training set have no image here" in text["Validation"]
    warnings = [shown for label, shown, _ in said if label == "Warning"]
    assert warnings[:5] == [f"odd {i}\\n<b>" for i in range(5)]
    assert warnings[5].startswith("2 more: ")
    assert all(source for _, _, source in said)


def test_a_damaged_manifest_is_said_and_stops_no_page(compared, tmp_path):
    found, _ = compared
    for dataset in (TRAIN_SET, "sketch"):
        path = tmp_path / paths.manifest_file(dataset)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"PAR1 torn PAR1")
    said = {
        label: entries[0].main
        for label, _, entries in build_facts_table(found, tmp_path, "sketch").rows
    }
    assert said["Files"] == "not known: data/manifests/sketch.parquet cannot be read"
    assert read_class_names(tmp_path, synthetic=False) == {}


def test_hashes_are_those_of_dvc_lock(tmp_path):
    plan = plan_of(tmp_path)
    assert (
        build_artifact_table(plan, tmp_path)[1]
        == "No file dvc.lock: the stages did not run under DVC."
    )
    out = {"path": str(paths.manifest_file(TRAIN_SET)), "md5": "0123abcd" * 4}
    cell = {"path": str(paths.predictions_folder("dense", 0)), "md5": "4567cdef" * 4 + ".dir"}
    (tmp_path / paths.DVC_LOCK).write_text(
        yaml.safe_dump(
            {
                "schema": "2.0",
                "stages": {"prepare@imagenet-train": {"cmd": "x", "outs": [out, cell]}},
            }
        )
    )
    table, why = build_artifact_table(plan, tmp_path)
    assert why == ""
    first, second = table.rows[:2]
    assert [n.main for n in first[2]] == ["0123abcd" * 4]
    shown = {path: cells[0].main for path, _, cells in table.rows}
    assert shown[cell["path"]] == cell["md5"]
    assert second[2][0].missing
    assert table.reasons == ["not in dvc.lock"]


def test_outside_of_a_repository_the_commit_is_not_known(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert describe_commit(tmp_path).startswith("not known")
