"""Models whose files do not hold the same images or seeds: what is compared all the same, and the
reason where nothing is.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from densecl import paths
from densecl.analysis import other_models
from densecl.analysis.claims import SPATIAL
from densecl.analysis.comparison import Comparison, compare_modes
from densecl.analysis.results import MetricRow
from densecl.artifacts import ProbeEvaluation, ReportPlan, read_json, write_json
from densecl.config.params import ReportParams
from densecl.evaluation.probing.result import build_measure
from densecl.report.claims import build_claim_table
from tests.report.probe_factory import write_probe
from tests.report.report_factory import write_cell

MODES, SEEDS = ("dense", "none"), (0, 1, 2)
AREA, CHOSEN = "(occlusion) random/area", "(segmentation) linear/chosen"
OTHER_IMAGES = "dense and none were evaluated on different images"


def compare(root: Path, *probes: str, seeds=SEEDS, models=(), datasets=()) -> Comparison:
    plan = ReportPlan(
        modes=MODES,
        seeds=seeds,
        datasets=datasets,
        protocols={name: name for name in datasets},
        probes=probes,
        models=models,
        rendered=(),
        values=ReportParams(),
        params={},
    )
    return compare_modes(plan, root)


def write_models(root: Path, probe: str) -> None:
    for mode in MODES:
        for seed in SEEDS:
            write_probe(root, probe, mode, seed)


def rename_images(root: Path, probe: str, mode: str, seed: int) -> None:
    path = root / paths.probe_rows_file(probe, mode, seed)
    rows = pd.read_parquet(path)
    rows.assign(image_id="other/" + rows["image_id"]).to_parquet(path)


def remove_model(root: Path, probe: str, mode: str, seed: int) -> None:
    (root / paths.probe_file(probe, mode, seed)).unlink()


def test_a_seed_on_other_images_is_not_compared_with_another_model(tmp_path) -> None:
    write_models(tmp_path, "occlusion")
    write_probe(tmp_path, "occlusion", "deit", None, {("deit", "occlusion"): 0.1})
    rename_images(tmp_path, "occlusion", "none", 1)
    found = compare(tmp_path, "occlusion", models=("deit",))
    row = found.rows[AREA, "deit", "difference_to_none"]
    assert row.value is None
    assert row.note == "the seeds were evaluated on different images"
    assert found.rows[AREA, "deit", "difference_to_dense"].seeds == "0 1 2"


def test_the_files_of_another_model_are_read_once_per_probe(tmp_path, monkeypatch) -> None:
    write_models(tmp_path, "occlusion")
    write_probe(tmp_path, "occlusion", "deit", None)
    read, original = [], other_models.read_probe_rows
    monkeypatch.setattr(
        other_models,
        "read_probe_rows",
        lambda path, record: (read.append(path), original(path, record))[1],
    )
    found = compare(tmp_path, "occlusion", models=("deit", "gone"))
    assert len(read) == 1
    scores = [row for row in found.rows.values() if row.mode == "deit" and row.metric == "value"]
    assert len(scores) == 8


@pytest.mark.parametrize("images", [300, 480])
def test_a_seed_that_one_mode_lacks_has_no_part_in_the_sources(tmp_path, images) -> None:
    """dense-0 has other images than all others, or other sources; without it nothing changes."""
    write_models(tmp_path, "occlusion")
    remove_model(tmp_path, "occlusion", "none", 0)
    write_probe(tmp_path, "occlusion", "dense", 0, images=images)
    path = tmp_path / paths.probe_rows_file("occlusion", "dense", 0)
    pd.read_parquet(path).assign(source="one photograph").to_parquet(path)
    name = (AREA, "dense", "difference_to_none")
    row = compare(tmp_path, "occlusion").rows[name]
    expected = compare(tmp_path, "occlusion", seeds=(1, 2)).rows[name]
    assert row.seeds == "1 2"
    assert (row.value, row.low, row.high, row.images) == (
        expected.value,
        expected.low,
        expected.high,
        480,
    )


def add_remark(root: Path, mode: str, seed: int, remark: str) -> None:
    path = root / paths.probe_file("segmentation", mode, seed)
    record = read_json(ProbeEvaluation, path)
    measures = {
        name: each.model_copy(update={"note": remark}) for name, each in record.measures.items()
    }
    write_json(path, record.model_copy(update={"measures": measures}))


def test_why_modes_are_not_compared_is_said_without_remarks_and_with_missing_seeds(
    tmp_path,
) -> None:
    """Segmentation says of every value which block was chosen, which is no reason."""
    write_models(tmp_path, "segmentation")
    for mode in MODES:
        for seed in SEEDS:
            add_remark(tmp_path, mode, seed, "block 3")
    file = paths.probe_file("segmentation", "none", 2)
    remove_model(tmp_path, "segmentation", "none", 2)
    missing = f"seed 2: no file {file}"
    name = (CHOSEN, "dense", "difference_to_none")
    assert compare(tmp_path, "segmentation").rows[name].note == f"{missing}; block 3"

    for seed in (0, 1):
        rename_images(tmp_path, "segmentation", "none", seed)
    write_models(tmp_path, "occlusion")
    found = compare(tmp_path, "occlusion", "segmentation")
    assert found.rows[name].value is None
    assert found.rows[name].note == f"{OTHER_IMAGES}; {missing}"
    # The score has its value, and the remark with it.
    assert found.rows[CHOSEN, "none", "value"].note == f"{missing}; block 3"
    cells = {label: cells for label, _, cells in build_claim_table(found).rows}
    assert cells[SPATIAL.name][0].sub == f"{SPATIAL.name}: {OTHER_IMAGES}; {missing}"

    rename_images(tmp_path, "segmentation", "none", 1)  # twice: each seed has images of its own
    row = compare(tmp_path, "segmentation").rows[CHOSEN, "none", "value"]
    assert row.value is None
    assert row.note == f"the seeds were evaluated on different images; {missing}"


def test_missing_seeds_of_a_dataset_are_said_beside_other_images(tmp_path) -> None:
    for mode in MODES:
        for seed in (0, 1):
            write_cell(tmp_path, "imagenet", mode, seed)
    missing = [f"seed 2: no file {paths.evaluation_file('imagenet', mode, 2)}" for mode in MODES]
    path = tmp_path / paths.predictions_file("imagenet", "none", 0)
    rows = pd.read_parquet(path)
    rows.assign(image_id="other/" + rows["image_id"]).to_parquet(path)
    found = compare(tmp_path, datasets=("imagenet",))
    row = found.rows["imagenet", "dense", "difference_to_none"]
    assert row.note == "; ".join((OTHER_IMAGES, *missing))
    row = found.rows["imagenet", "none", "top1"]
    assert row.note == f"the seeds were evaluated on different images; {missing[1]}"


def test_a_measure_that_a_mode_lacks_says_why(tmp_path) -> None:
    write_models(tmp_path, "segmentation")
    for seed in SEEDS:
        path = tmp_path / paths.probe_file("segmentation", "none", seed)
        record = read_json(ProbeEvaluation, path)
        measures = dict(record.measures)
        del measures["linear/chosen"]
        update = {"measures": measures, "missing": {"linear/chosen": "no block has a value"}}
        write_json(path, record.model_copy(update=update))
    write_models(tmp_path, "occlusion")
    found = compare(tmp_path, "occlusion", "segmentation")
    reasons = f"seeds {', '.join(map(str, SEEDS))}: no block has a value"
    row: MetricRow = found.rows[CHOSEN, "dense", "difference_to_none"]
    assert row.note == f"no seed in common; {reasons}"
    cells = {label: cells for label, _, cells in build_claim_table(found).rows}
    assert cells[SPATIAL.name][0].sub == f"{SPATIAL.name}: no seed in common; {reasons}"


def test_an_image_without_a_value_is_left_out_of_its_measure_alone(tmp_path) -> None:
    for mode in MODES:
        rows = write_probe(tmp_path, "occlusion", mode, 0)
        rows.loc[:9, "random/area"] = np.nan
        rows.to_parquet(tmp_path / paths.probe_rows_file("occlusion", mode, 0), index=False)
        path = tmp_path / paths.probe_file("occlusion", mode, 0)
        record = read_json(ProbeEvaluation, path)
        measures = record.measures | {"random/area": build_measure(rows, "random/area")}
        write_json(path, record.model_copy(update={"measures": measures}))
    found = compare(tmp_path, "occlusion", seeds=(0,))
    difference = found.rows[AREA, "dense", "difference_to_none"]
    assert (found.rows[AREA, "dense", "value"].images, difference.images) == (470, 470)
    assert found.rows["(occlusion) random/0.5", "dense", "value"].images == 480
