"""Claims of fabricated probes: families, verdicts, chance, what is missing; and the sections that
draw them.
"""

import json
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest

from densecl import paths
from densecl.analysis.claims import (
    count_claim_tests,
    is_at_chance,
    list_claim_tests,
    list_claims,
    list_pairs,
)
from densecl.analysis.comparison import SHIFTED_MEAN, Comparison, compare_modes
from densecl.analysis.probe_results import format_measure_place, read_probe_results
from densecl.analysis.results import MetricRow
from densecl.artifacts import ProbeEvaluation, ReportPlan, write_json
from densecl.config.params import ReportParams
from densecl.evaluation.protocols import PROTOCOLS
from densecl.report.charts.forest import draw_forest
from densecl.report.charts.probe_curves import collect_points, draw_probe_curves, list_curves
from densecl.report.claims import build_claim_table, compare_claimed_cost
from densecl.report.headline import build_headline
from densecl.report.sections.heat_maps import build_heat_maps
from densecl.report.sections.probe_sections import build_measure_table, build_probe_sections
from densecl.report.sections.segmentation import build_segmentation_pictures, colour_classes
from densecl.report.tables import build_model_table
from densecl.report.verdicts import AT_CHANCE, OPEN, judge_claim
from tests.cost_factory import make_cost, ratio
from tests.report.probe_factory import BASE, CORRUPTIONS, PROBES, SHARES, write_probe, write_probes
from tests.report.report_factory import write_cell

MODES = ("dense", "global", "none")
GAINS = {("dense", "occlusion"): 0.08, ("dense", "viewpoint"): -0.06}
CLAIMED = ("occlusion", "viewpoint", "segmentation")
AREA = "(occlusion) random/area"


def make_plan(modes=MODES, seeds=(0,), probes=PROBES) -> ReportPlan:
    return ReportPlan(
        modes=modes,
        seeds=seeds,
        datasets=(),
        protocols={},
        probes=probes,
        rendered=(),
        values=ReportParams(),
        params={},
    )


def compare(root: Path, cost=None, **planned) -> Comparison:
    return compare_modes(make_plan(**planned), root, cost)


def judge(comparison: Comparison) -> dict[str, dict[str, str]]:
    """Verdicts by claim and the mode that dense is compared with."""
    return {
        claim.name: {b: judge_claim(comparison, claim, (a, b)) for a, b in list_pairs(comparison)}
        for claim in list_claims(comparison)
    }


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> tuple[Path, Comparison]:
    """One seed of three modes, all probes; segmentation is at chance."""
    root = tmp_path_factory.mktemp("planted")
    write_probes(root, gains=GAINS, base=BASE | {"segmentation": 0.09})
    return root, compare(root, make_cost({"dense": 1.5, "global": 1.2}))


def read_column(root: Path, probe: str, mode: str, measure: str, seed: int = 0) -> np.ndarray:
    rows = pd.read_parquet(root / paths.probe_rows_file(probe, mode, seed))
    return rows.sort_values("image_id")[measure].to_numpy()


def test_the_family_is_all_claims_and_costs_and_its_intervals_are_bonferronis(planted) -> None:
    root, found = planted
    # Three measured claims and the cost, each against two modes; no dataset, so no shift.
    assert count_claim_tests(found) == 8
    z = NormalDist().inv_cdf(1 - 0.05 / 8 / 2)
    for other in ("none", "global"):
        gap = read_column(root, "occlusion", "dense", "random/area") - read_column(
            root, "occlusion", other, "random/area"
        )
        n = len(gap)
        # One more image of either end (Agresti & Min 2005).
        squares = ((gap - gap.mean()) ** 2).sum() + (1 - gap.mean()) ** 2 + (1 + gap.mean()) ** 2
        half = z * np.sqrt(squares) / (n + 2)
        row = found.rows[AREA, "dense", f"difference_to_{other}_simultaneous"]
        assert row.note == "family of 8"
        assert row.value == pytest.approx(gap.mean(), abs=1e-12)
        assert (row.low, row.high) == pytest.approx((gap.mean() - half, gap.mean() + half))
    # The pair that the first screen does not show is in the family of the tables.
    assert found.rows[AREA, "global", "difference_to_none_simultaneous"].note == "family of 3"


def test_a_refused_measurement_of_cost_changes_no_verdict_on_a_score(planted) -> None:
    """How busy the machine was would decide the size of the family otherwise."""
    root, found = planted
    busy = compare(root, make_cost({"dense": 1.5, "global": 1.2}, control=ratio(1.3, 0.2)))
    assert found.cost.is_measured
    assert not busy.cost.is_measured
    assert count_claim_tests(busy) == count_claim_tests(found)
    assert busy.rows == found.rows
    assert compare_claimed_cost(found, ("dense", "none"))
    assert compare_claimed_cost(busy, ("dense", "none")) is None


def test_planted_differences_are_called_in_words(planted) -> None:
    _, found = planted
    assert judge(found) == {
        "Occlusion": {"none": "better", "global": "better"},
        "Viewpoint": {"none": "worse", "global": "worse"},
        "Distribution shift": {"none": "", "global": ""},
        "Spatial tasks": {"none": AT_CHANCE, "global": AT_CHANCE},
    }
    said = build_headline(found)
    assert said[1].startswith("Under occlusion, dense-0 beats none-0 (+")
    assert said[2].startswith("Under changes of viewpoint, dense-0 falls behind none-0 (−")
    assert said[3] == "Too close to guessing to compare: spatial tasks."
    assert said[4].startswith("Dense cost 50 % [")


def test_nothing_planted_is_not_distinguishable_and_says_what_it_would_take(tmp_path) -> None:
    write_probes(tmp_path, seeds=(0, 1, 2))
    found = compare(tmp_path, seeds=(0, 1, 2))
    verdicts = judge(found)
    assert {word for name in verdicts for word in verdicts[name].values()} == {OPEN, ""}
    said = build_headline(found)
    assert said[0] == (
        "This run cannot tell dense from none or global on any of the 3 measures of robustness and "
        "features."
    )
    needed = {
        (place, b): found.rows[place, "dense", f"difference_to_{b}_needed_seeds"].value
        for place, _, b in list_claim_tests(found)
    }
    for (place, b), number in needed.items():
        row = found.rows[place, "dense", f"difference_to_{b}_needed_seeds"]
        assert ("more than 50 seeds, " in row.note) == (number is None)
        row = found.rows[place, "dense", f"difference_to_{b}_needed_images"]
        assert ("more than 1000 times as many, " in row.note) == (row.value is None)
    known = [number for number in needed.values() if number is not None]
    if known:
        assert f"about {min(known):.0f} seeds instead of 3." in said[1]
    else:
        assert "more than 50 seeds" in said[1]
    table = build_claim_table(found)
    assert table.rows[0][0] == "Occlusion"
    for (_, _, cells), claim in zip(table.rows, list_claims(found), strict=False):
        for cell, (_, b) in zip(cells, list_pairs(found), strict=False):
            number = needed.get((claim.place, b))
            assert (f"needs {number} seeds" in cell.sub) == (number is not None)


@pytest.mark.parametrize(
    ("low", "chance", "expected"),
    [
        ((0.05, 0.06), 0.08, True),
        ((0.05, 0.09), 0.08, False),
        ((0.08, 0.08), 0.08, True),
        ((0.05, 0.06), None, False),
    ],
)
def test_at_chance_is_where_no_interval_lies_above_it(low, chance, expected) -> None:
    found = Comparison(make_plan(modes=("dense", "none"), probes=()), {})
    for mode, end in zip(("dense", "none"), low, strict=True):
        found.add_row(MetricRow("set", "", mode, "top1", end + 0.02, end, end + 0.04))
        if chance is not None:
            found.add_row(MetricRow("set", "", mode, "chance", chance))
    assert is_at_chance(found, "set", ("dense", "none")) == expected


def test_errors_are_at_chance_where_no_interval_lies_below_it(tmp_path) -> None:
    place = format_measure_place("corruptions", "error")
    for level, expected in ((0.45, False), (0.0, True)):
        for mode in ("dense", "none"):
            write_probe(tmp_path, "corruptions", mode, 0, base={"corruptions": level})
        found = compare(tmp_path, modes=("dense", "none"), probes=("corruptions",))
        assert is_at_chance(found, place, ("dense", "none")) == expected


def test_a_missing_probe_is_explicit(tmp_path) -> None:
    for probe in ("occlusion", "viewpoint"):
        for mode in ("dense", "none"):
            write_probe(tmp_path, probe, mode, 0)
    reason = "data/transfer/voc.parquet: no images"
    failed = ProbeEvaluation(probe="viewpoint", mode="none", seed=0, measures={}, reason=reason)
    write_json(tmp_path / paths.probe_file("viewpoint", "none", 0), failed)
    found = compare(tmp_path, modes=("dense", "none"), probes=("occlusion", "viewpoint"))
    cells = {label: entries for label, _, entries in build_claim_table(found).rows}
    assert cells["Viewpoint"][0].main == "not measured"
    assert reason in cells["Viewpoint"][0].sub
    assert cells["Spatial tasks"][0].sub.endswith(
        "evaluate.probes in the params has no segmentation"
    )
    assert cells["Occlusion"][0].verdict
    sections = build_probe_sections(found, tmp_path)
    assert sections[1].missing == (f"viewpoint, none: seed 0: {reason}",)
    assert count_claim_tests(found) == 1


def _drop_image(path: Path) -> None:
    pd.read_parquet(path).iloc[1:].to_parquet(path)


def _repeat_image(path: Path) -> None:
    rows = pd.read_parquet(path)
    pd.concat([rows.iloc[:-1], rows.iloc[:1]]).to_parquet(path)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_drop_image, "on 480 images, but occlusion.parquet gives"),
        (_repeat_image, "holds an image twice"),
        (lambda path: path.write_bytes(b"torn"), "cannot be used"),
        (lambda path: path.unlink(), "no file reports/predictions/dense-0/probes/occlusion"),
    ],
)
def test_damaged_rows_are_refused_with_the_reason(tmp_path, damage, reason) -> None:
    write_probe(tmp_path, "occlusion", "dense", 0)
    damage(tmp_path / paths.probe_rows_file("occlusion", "dense", 0))
    cell = read_probe_results(tmp_path, "occlusion", "dense", (0,))
    assert not cell.records
    assert reason in cell.missing[0]


def test_two_modes_and_one(tmp_path) -> None:
    write_probes(tmp_path, modes=("dense", "none"), gains=GAINS)
    two = compare(tmp_path, modes=("dense", "none"), probes=CLAIMED)
    assert list_pairs(two) == [("dense", "none")]
    assert count_claim_tests(two) == 3
    assert build_claim_table(two).groups[0] == ("Difference, points", ("dense − none",))
    one = compare(tmp_path, modes=("dense",), probes=CLAIMED)
    assert [len(cells) for _, _, cells in build_claim_table(one).rows] == [1] * 5
    assert build_headline(one)[0].startswith("There is only the mode dense")
    assert draw_forest(one) is None


def test_a_dataset_of_viewpoints_is_a_line_of_its_own(tmp_path, monkeypatch) -> None:
    moved = replace(PROTOCOLS["folder"], claim="viewpoint")
    monkeypatch.setitem(PROTOCOLS, "moved", moved)
    for dataset in ("imagenet", "sketch", "imagenet-a"):
        for mode in ("dense", "none"):
            write_cell(tmp_path, dataset, mode, 0)
    plan = make_plan(modes=("dense", "none"), probes=()).model_copy(
        update={
            "datasets": ("imagenet", "sketch", "imagenet-a"),
            "protocols": {"imagenet": "imagenet", "sketch": "moved", "imagenet-a": "imagenet-a"},
        }
    )
    found = compare_modes(plan, tmp_path)
    assert found.shifted_sets == ("imagenet-a",)
    assert [claim.name for claim in list_claims(found)] == [
        *(
            "Occlusion",
            "Viewpoint",
            "Viewpoint: dataset sketch",
            "Distribution shift",
            "Spatial tasks",
        )
    ]
    assert list_claim_tests(found) == [
        ("sketch", "dense", "none"),
        (SHIFTED_MEAN, "dense", "none"),
    ]
    assert found.rows["sketch", "dense", "difference_to_none_simultaneous"].note == "family of 2"
    assert found.rows["sketch", "dense", "chance"].value == pytest.approx(1 / 5)
    assert found.rows[SHIFTED_MEAN, "dense", "chance"].value == pytest.approx(1 / 6)


def test_another_model_is_compared_with_the_mean_of_each_modes_seeds(tmp_path) -> None:
    """Of one file per probe, under its name alone; in no family."""
    for mode in ("dense", "none"):
        for seed in (0, 1, 2):
            write_probe(tmp_path, "occlusion", mode, seed)
    expected = write_probe(tmp_path, "occlusion", "deit", None, {("deit", "occlusion"): 0.1})
    plan = make_plan(modes=("dense", "none"), seeds=(0, 1, 2), probes=("occlusion",))
    found = compare_modes(plan.model_copy(update={"models": ("deit", "gone")}), tmp_path)
    values = expected.sort_values("image_id")["random/area"].to_numpy()
    score = found.rows[AREA, "deit", "value"]
    assert score.value == pytest.approx(values.mean())
    for mode in ("dense", "none"):
        seeds = [read_column(tmp_path, "occlusion", mode, "random/area", s) for s in (0, 1, 2)]
        row = found.rows[AREA, "deit", f"difference_to_{mode}"]
        assert row.value == pytest.approx(values.mean() - np.mean(seeds))
        assert row.low < row.value < row.high
        assert (AREA, "deit", f"difference_to_{mode}_simultaneous") not in found.rows
    assert count_claim_tests(found) == 1
    table = {(place, model): cells for place, model, cells in build_model_table(found).rows}
    assert table[AREA, "deit"][0].main == f"{100 * values.mean():.1f}"
    assert "no file reports/evaluation/gone/probes/occlusion.json" in table[AREA, "gone"][0].sub


def test_images_of_one_source_count_once(tmp_path) -> None:
    """Every image twice: the error of half the images, where images of their own would have 0.71 of
    it.
    """
    for mode in ("dense", "none"):
        write_probe(tmp_path, "occlusion", mode, 0)
    single = compare(tmp_path, modes=("dense", "none"), probes=("occlusion",))
    for mode in ("dense", "none"):
        path = tmp_path / paths.probe_rows_file("occlusion", mode, 0)
        rows = pd.read_parquet(path)
        copied = rows.assign(image_id=rows["image_id"] + " copy")
        pd.concat([rows, copied]).to_parquet(path)
        file = tmp_path / paths.probe_file("occlusion", mode, 0)
        record = json.loads(file.read_text())
        for measure in record["measures"].values():
            measure["images"] = 960
        file.write_text(json.dumps(record))
    found = compare(tmp_path, modes=("dense", "none"), probes=("occlusion",))
    widths = [
        (row := comparison.rows[AREA, "dense", "difference_to_none"]).high - row.low
        for comparison in (single, found)
    ]
    assert widths[1] == pytest.approx(widths[0], rel=0.1)


def test_modes_measured_on_other_images_are_not_paired(tmp_path) -> None:
    for mode in ("dense", "none"):
        write_probe(tmp_path, "occlusion", mode, 0)
    path = tmp_path / paths.probe_rows_file("occlusion", "none", 0)
    rows = pd.read_parquet(path)
    rows.assign(image_id="other/" + rows["image_id"]).to_parquet(path)
    found = compare(tmp_path, modes=("dense", "none"), probes=("occlusion",))
    row = found.rows[AREA, "dense", "difference_to_none"]
    assert row.value is None
    assert row.note == "dense and none were evaluated on different images"


def test_points_of_curves_are_the_means_with_their_intervals(planted) -> None:
    root, found = planted
    curves = list_curves(found, "occlusion")
    assert {curve: list(m.values()) for curve, m in curves.items()} == {
        "random": list(SHARES),
        "salient": list(SHARES),
    }
    for mode in MODES:
        points = collect_points(found, "occlusion", curves["random"], mode)
        for point, share in zip(points, SHARES, strict=True):
            column = read_column(root, "occlusion", mode, f"random/{share}")
            assert (point.strength, point.value) == (share, pytest.approx(column.mean()))
            assert point.low < point.value < point.high
            assert point.chance == pytest.approx(1 / 12)
    charts = draw_probe_curves(found, "occlusion")
    assert [chart.title for chart in charts] == ["random", "salient"]
    assert "share of the patches from 0.25 to 0.75: dense from" in charts[0].alt


def test_curves_of_accuracies_begin_at_the_unaltered_images(tmp_path) -> None:
    """Where the control's score is of the same images and seeds; agreement has no such point."""
    write_probe(tmp_path, "occlusion", "dense", 0)
    found = compare(tmp_path, modes=("dense",), probes=("occlusion",))
    measures = list_curves(found, "occlusion")["random"]
    top1 = MetricRow("imagenet", "", "dense", "top1", 0.7, 0.66, 0.74, 480, "0")
    for row, starts in (
        (top1, [0.0]),
        (replace(top1, images=48), []),
        (replace(top1, seeds=""), []),
    ):
        found.add_row(row)
        points = collect_points(found, "occlusion", measures, "dense")
        assert [point.strength for point in points] == [*starts, *SHARES]
    found.add_row(top1)
    assert collect_points(found, "occlusion", measures, "dense")[0][1:] == (0.7, 0.66, 0.74, None)
    record = found.probes["occlusion", "dense"].records[0]
    for name in measures:
        changed = {"curve": "random/consistency"}
        record.measures[name] = record.measures[name].model_copy(update=changed)
    assert collect_points(found, "occlusion", measures, "dense")[0].strength == SHARES[0]


def test_a_claim_with_a_missing_seed_names_its_seeds_and_models_their_notes(tmp_path) -> None:
    probes = ("occlusion", "segmentation")
    for probe in probes:
        for mode in ("dense", "none"):
            for seed in (0, 1, 2):
                write_probe(tmp_path, probe, mode, seed, images=60)
    (tmp_path / paths.probe_file("segmentation", "none", 2)).unlink()
    blocks = iter(("last", "last", "last", "middle", "next-to-last"))
    for mode, seed in (("dense", 0), ("dense", 1), ("dense", 2), ("none", 0), ("none", 1)):
        file = tmp_path / paths.probe_file("segmentation", mode, seed)
        record = json.loads(file.read_text())
        record["measures"]["linear/chosen"]["note"] = f"of the {next(blocks)} block"
        file.write_text(json.dumps(record))
    found = compare(tmp_path, modes=("dense", "none"), seeds=(0, 1, 2), probes=probes)
    rows = {label: (about, cells) for label, about, cells in build_claim_table(found).rows}
    assert "seeds 0, 1 only" in rows["Spatial tasks"][1][0].sub.split("; ")
    assert "only" not in rows["Occlusion"][1][0].sub
    assert rows["Occlusion"][0].startswith("top-1, mean over 0 to 75 % of patches dropped; 60 im")
    assert build_headline(found)[0] == (
        "Spatial tasks: two seeds (0, 1), so no statement about the modes there."
    )
    about = {label: text for label, text, _ in build_measure_table(found, "segmentation").rows}
    assert about["linear/chosen"].endswith(
        "3 models: of the last block; 1 model: of the middle block; 1 model: of the next-to-last "
        "block"
    )


def test_heat_maps_have_a_cell_per_corruption_and_severity(planted) -> None:
    root, found = planted
    maps = build_heat_maps(found, "corruptions")
    assert [m.title for m in maps] == [
        *(f"{mode}, %" for mode in MODES),
        *(f"{pair}, points" for pair in ("dense − none", "global − none", "dense − global")),
    ]
    for corruption in CORRUPTIONS:
        columns = [read_column(root, "corruptions", m, f"{corruption}/4") for m in MODES]
        cells = [
            next(entries for label, _, entries in m.table.rows if label == corruption)[3]
            for m in maps
        ]
        dense, _, none = (column.mean() for column in columns)
        assert cells[0].main == f"{100 * dense:.1f}"
        assert cells[0].heat == ("dense", pytest.approx(dense))
        shown = float(cells[3].main.replace("−", "-"))
        assert shown == pytest.approx(100 * (dense - none), abs=0.051)
        assert cells[3].heat.mode == ("dense" if dense > none else "none")


def test_the_table_of_a_probe_has_every_measure(planted) -> None:
    _, found = planted
    table = build_measure_table(found, "corruptions")
    assert len(table.rows) == len(CORRUPTIONS) * 5 + 1
    about = {label: text for label, text, _ in table.rows}
    assert about["error"] == "480 images; chance 91.7 %; lower is better"


def test_scores_of_probes_at_chance_are_marked(planted) -> None:
    _, found = planted
    scores = {
        probe: [
            cell.sub.endswith("at chance")
            for label, _, cells in build_measure_table(found, probe).rows
            if label in ("linear/chosen", "random/0.25")
            for cell in cells[: len(MODES)]
        ]
        for probe in ("segmentation", "occlusion")
    }
    assert scores == {"segmentation": [True] * 3, "occlusion": [False] * 3}


def test_missing_measures_stand_above_the_charts_with_their_reason(tmp_path) -> None:
    write_probes(tmp_path, gains=GAINS)
    names = [f"own-salient/{share}" for share in (0.25, 0.5, 0.75, "area", "more")]
    for mode in ("dense", "none"):
        file = tmp_path / paths.probe_file("occlusion", mode, 0)
        record = json.loads(file.read_text()) | {"missing": dict.fromkeys(names, "no attention")}
        file.write_text(json.dumps(record))
    sections = {s.name: s for s in build_probe_sections(compare(tmp_path), tmp_path)}
    assert sections["occlusion"].missing == (f"{', '.join(names[:4])} and 1 more: no attention",)
    assert sections["viewpoint"].missing == ()


def test_pictures_are_image_truth_and_each_mode(planted) -> None:
    root, found = planted
    rows = build_segmentation_pictures(found, root)
    assert [picture.caption.split()[0] for picture in rows[0].pictures] == [
        *("image", "truth", *MODES)
    ]
    assert len(rows) == 4
    assert all(p.data_uri.startswith("data:image/webp") for row in rows for p in row.pictures)
    classes = np.array([[0, 1, 2, 255]])
    colours = [tuple(c) for c in colour_classes(classes)[0]]
    assert len(set(colours)) == 4
    assert colours[3] == (255, 255, 255)


def test_the_forest_has_the_third_pair_and_the_claims(planted) -> None:
    chart = draw_forest(planted[1])
    for text in ("dense − global on Occlusion (probe)", "dense − none on Viewpoint (probe)"):
        assert text in chart.alt
    assert SHIFTED_MEAN not in chart.alt
