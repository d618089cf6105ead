"""A dataset's title stands wherever its name stands for people; files keep the name."""

import json

import numpy as np
import pytest
import yaml

from densecl import paths
from densecl.config.params import ParamsError, parse_params
from densecl.config.titles import get_title
from densecl.report.charts.panels import Panel, build_panel_groups
from densecl.report.charts.svg import render_svg
from densecl.report.render import write_report
from pipelines.gate.change_text import format_changes
from pipelines.gate.gate import judge_candidate
from pipelines.outcome.notify import format_message
from pipelines.schemas import Champion, DatasetDrift, RetrainingRecord, SourceChanges
from steps.__main__ import main
from steps.unit_plans import resolve_plans
from tests.pipelines.factories import small_params, write_side
from tests.report.factories import Planted
from tests.report.report_factory import RECORDS, make
from tests.training.training_project import ROOT

TITLES = {"imagenet": "Our photographs", "sketch": "Drawings"}
PARAMS = {"datasets": {name: {"title": title} for name, title in TITLES.items()}}


@pytest.mark.slow
def test_the_report_shows_titles_and_its_files_the_names(tmp_path):
    plan = make(tmp_path)
    titled = plan.model_copy(update={"params": plan.params | PARAMS})
    told = write_report(titled, tmp_path, RECORDS)
    rows = [line.split("  ")[0] for line in told.splitlines()]
    assert {"Our photographs", "Drawings", "imagenet-r"} <= set(rows)
    assert not {"imagenet", "sketch"} & set(rows)
    page = (tmp_path / paths.REPORT_PAGE).read_text()
    assert "<h3>Our photographs</h3>" in page
    assert "<h3>imagenet</h3>" not in page
    assert "<h3>Drawings</h3>" in page
    text = (tmp_path / paths.REPORT_TEXT).read_text()
    assert "| Drawings " in text
    assert "| sketch " not in text
    assert "\nsketch," in (tmp_path / paths.COMPARISON).read_text()
    for plot in ("robustness", "differences"):
        names = (tmp_path / paths.plot_file(plot)).read_text()
        assert "\nDrawings " in names
        assert "\nsketch " not in names
    assert "sketch" in json.loads((tmp_path / paths.metrics_file("none")).read_text())


def test_dollars_in_a_title_are_dollars():
    title = "Stock at $5, $x^{ and more"
    svg = render_svg("salt", (3, 2), "alt", lambda axes: axes.set_yticks([0], [title]))
    assert f">{title}</text>" in svg


def test_a_comparison_of_experiments_shows_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    planted = {"images": 300, "modes": ("none",), "params": PARAMS}
    Planted(**planted).write(tmp_path / "a")
    worse = {("none", "sketch"): -0.3}
    Planted(**planted, gains=worse, of_luck=1).write(tmp_path / "b")
    assert main(["compare", "a", "b", "--fail-if-worse"]) == 1
    told = capsys.readouterr()
    assert "Drawings (none: −" in told.err
    assert "none  Our photographs" in told.out
    assert "sketch" not in told.out
    page = (paths.COMPARE_FOLDER / "compare.md").read_text()
    assert "| Drawings |" in page
    assert "sketch" in (paths.COMPARE_FOLDER / "compare.csv").read_text()


def test_the_gate_and_its_message_show_them(tmp_path):
    for name in ("imagenet", "sketch"):
        write_side(tmp_path, name, paths.CHAMPION, np.arange(500) % 10 < 7)
        write_side(tmp_path, name, "dense", np.arange(500) % 10 < 4)
    params = small_params()
    datasets = {
        name: dataset.model_copy(update={"title": TITLES.get(name)})
        for name, dataset in params.datasets.items()
    }
    params = params.model_copy(update={"datasets": datasets})
    verdict = judge_candidate(params, Champion(version="3"), tmp_path)
    assert verdict.said.startswith("refused, version 3 stays: Our photographs falls by ")
    assert "; Drawings falls by " in verdict.said
    record = RetrainingRecord(started="", seconds=0, outcome="rejected", said=verdict.said)
    assert "• Drawings, fall: falls by" in format_message(record, verdict)["text"]


def test_a_title_changes_no_plan_but_those_of_pages():
    params = small_params()
    before = {unit: plan.model_dump_json() for unit, plan in resolve_plans(params).items()}
    datasets = {n: d.model_copy(update={"title": "T"}) for n, d in params.datasets.items()}
    titled = params.model_copy(update={"datasets": datasets})
    after = {unit: plan.model_dump_json() for unit, plan in resolve_plans(titled).items()}
    assert {unit for unit in before if before[unit] != after[unit]} == {"report", "validate"}
    assert json.loads(after["report"])["params"]["datasets"]["imagenet"]["title"] == "T"


@pytest.mark.parametrize(
    ("params", "title"),
    [
        ({}, "sketch"),
        ({"datasets": {"sketch": {"title": None}}}, "sketch"),
        ({"datasets": {"sketch": {"title": "A\x1b[31m\nB"}}}, "A [31m B"),
        ({"datasets": {"sketch": {"title": " "}}}, "sketch"),
        ({"datasets": ["sketch"]}, "sketch"),
    ],
)
def test_titles_of_any_file_are_one_printable_line(params, title):
    assert get_title(params, "sketch") == title


def test_curves_and_changes_show_them():
    groups = build_panel_groups(["top1/imagenet"], TITLES)
    shown = {panel.title for group in groups for panel in group.panels if isinstance(panel, Panel)}
    assert "Accuracy on Our photographs" in shown
    change = DatasetDrift(
        dataset="imagenet",
        title="Our photographs",
        images=48,
        before=None,
        classes_new=(),
        classes_removed=(),
        psi={},
        new=48,
        removed=0,
        changed=0,
        evidence=(),
    )
    text = format_changes(SourceChanges(sets=(change,), params=(), made_of={}))
    assert "Our photographs: 48 images, nothing to compare with" in text


@pytest.mark.parametrize("titles", [("Drawings", "Drawings"), ("sketch", None)])
def test_two_datasets_of_one_title_are_refused(titles):
    values = yaml.safe_load((ROOT / "tests" / "small.yaml").read_text(encoding="utf-8"))
    for name, title in zip(("imagenet", "sketch"), titles, strict=True):
        values["datasets"][name]["title"] = title
    with pytest.raises(ParamsError, match=r"title: found '\w+', the name of datasets.\w+ too"):
        parse_params(values, "params.yaml")
