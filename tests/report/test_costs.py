"""What the page says of cost: measured or refused, beside throughput, and where they disagree."""

import re
from pathlib import Path

import pytest

from densecl import paths
from densecl.artifacts import write_json
from densecl.cost.result import CostReport, MachineLoad, StepRatio
from densecl.monitoring.training_records import TrainingRecords
from densecl.report.cost_sentences import (
    describe_contradictions,
    describe_cost_problem,
    describe_measurement,
)
from densecl.report.costs import build_cost_table, build_training_table
from densecl.report.render import write_report
from densecl.report.training_results import list_fingerprints, read_training_results
from tests.cost_factory import make_cost, make_record, ratio
from tests.report.report_factory import RECORDS, make

BUSY = make_cost(
    {"dense": 1.9},
    StepRatio(value=1.02, low=0.93, high=1.18),
    load=MachineLoad(cores=2, start=4.3, end=5.1, busy_cores=1.8),
)


@pytest.fixture
def planned(tmp_path):
    return make(tmp_path), tmp_path


def read_cells(cost: CostReport | None, planned, records=RECORDS) -> dict[str, list[str]]:
    """Cells of the cost table by mode, with their small print."""
    plan, root = planned
    if cost is None:
        (root / paths.COST).unlink()
    else:
        write_json(root / paths.COST, cost)
    table = build_cost_table(plan, read_training_results(plan, root, records))
    return {mode: [f"{c.main} {c.sub}".strip() for c in cells] for mode, _, cells in table.rows}


def test_the_table_holds_the_measured_ratios(planned):
    cells = read_cells(make_cost({"dense": 1.55, "global": 1.2}), planned)
    assert cells["dense"] == [
        "310",
        "1.55 × 1.54–1.56",
        "2.82 × 2.81–2.83",
        "1.4 to 1.6 ×",
        "1,478",
        "1.55 ×",
        "2.58 ×",
        "2 to 3 ×",
        "206",
        "3.0",
        "8,192",
        "cpu, 2 threads",
    ]


def test_a_refused_cost_states_no_figure_of_time(planned):
    cells = read_cells(BUSY, planned)["dense"]
    assert cells[:3] == ["not measured the control failed"] * 3
    assert cells[4:6] == ["1,812", "1.90 ×"]  # memory does not suffer from a busy machine
    assert describe_cost_problem(BUSY) == [
        "The cost could not be measured: mode none took 1.02 [0.93, 1.18] times as long as "
        "itself, and a quiet machine shows 1.00 in an interval narrower than 0.10. Meanwhile other "
        "processes used 1.8 of 2 cores; the load average was 4.3 at the start and 5.1 at the end. "
        "To measure again: dvc repro --force --single-item cost, then dvc repro."
    ]


@pytest.mark.slow
def test_the_first_screen_refuses_and_says_how_busy_it_was(planned):
    plan, root = planned
    write_json(root / paths.COST, BUSY)
    text = write_report(plan, root, RECORDS)
    assert "What dense costs is not known: it could not be measured" in text
    assert not re.search(r"cost \d+ %", text)
    page = (root / paths.REPORT_PAGE).read_text(encoding="utf-8")
    first_screen = page[: page.index("<main>")]
    assert "other processes used 1.8 of 2 cores" in first_screen
    assert "step time" not in (root / paths.metrics_file("dense")).read_text(encoding="utf-8")


def test_too_few_rounds_name_the_budget():
    few = make_cost({"dense": 1.5}, StepRatio(value=1.0, low=None, high=None), rounds=3)
    assert "was over after 3 rounds" in describe_cost_problem(few)[0]
    assert "cost.seconds" in describe_cost_problem(few)[0]
    assert describe_cost_problem(make_cost({"dense": 1.5})) == []
    assert describe_cost_problem(None) == []


def test_missing_sources_say_why(planned):
    cells = read_cells(None, planned, TrainingRecords({}, "made elsewhere"))["dense"]
    assert cells[0] == "missing no file reports/cost.json"
    assert cells[8:10] == ["missing made elsewhere"] * 2
    plan, root = planned
    records = TrainingRecords({"none-0": make_record()}, "made elsewhere")
    table = build_training_table(plan, read_training_results(plan, root, records))
    assert {name: cells[0].main for name, _, cells in table.rows} == {
        "dense, seed 0": "missing",
        "global, seed 0": "missing",
        "none, seed 0": "3.0",
    }


def test_several_processes_are_named():
    assert "Training shares" not in describe_measurement(make_cost({"dense": 1.5}))
    said = describe_measurement(make_cost({"dense": 1.5}, processes=4))
    assert "among 4 processes; one of them was measured" in said


@pytest.mark.parametrize(
    ("rate", "device", "is_contradiction"),
    [
        (320 / 1.9, "cpu, 2 threads", False),
        (320 / 1.82, "cpu, 2 threads", False),  # within 0.10 of the interval
        (320 / 1.1, "cpu, 2 threads", True),
        (320 / 2.5, "cpu, 2 threads", True),
        (320 / 1.1, "another", False),  # than the cost was measured on
    ],
)
def test_throughput_that_contradicts_the_cost_is_named(planned, rate, device, is_contradiction):
    plan, root = planned
    write_json(root / paths.COST, make_cost({"dense": 1.9, "global": 1.2}))
    # Global has no record, as after its training was restored from DVC's cache.
    records = {"dense-0": make_record(rate, device), "none-0": make_record(320.0)}
    results = read_training_results(plan, root, TrainingRecords(records, ""))
    said = describe_contradictions(results)
    assert bool(said) == is_contradiction
    if said:
        assert f"dense trained at {rate:,.0f} images/s and none at 320" in said[0]
        assert "1.90 [1.89, 1.91] times as long" in said[0]


def test_a_refused_cost_contradicts_nothing(planned):
    plan, root = planned
    write_json(root / paths.COST, make_cost({"dense": 9.0}, ratio(1.3)))
    assert describe_contradictions(read_training_results(plan, root, RECORDS)) == []


def test_epochs_of_the_records_join_the_curves_only_where_all_are_there(planned):
    plan, root = planned
    assert list_fingerprints(plan, root) == ["dense-0", "global-0", "none-0"]
    records = {"dense-0": make_record(epochs=20), "none-0": make_record(epochs=19)}
    results = read_training_results(plan, root, TrainingRecords(records, ""))
    assert "images_per_second" in results.histories["dense"][0]
    assert "images_per_second" not in results.histories["none"][0]


@pytest.mark.slow
def test_the_page_still_opens_where_an_earlier_version_left_its_files(planned):
    plan, root = planned
    (root / paths.COST).unlink()
    for run in (("dense", 0), ("global", 0), ("none", 0)):
        folder: Path = root / paths.training_folder(*run)
        (folder / "training.json").rename(folder / "cost.json")
    assert "no file reports/cost.json" in write_report(plan, root, RECORDS)
