"""Read what probes left, by mode and seed, and add their rows to the comparison table.

A measure of a probe is a place like a dataset: `(occlusion) random/area`, with the metric `value`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from densecl import paths
from densecl.analysis import statistics
from densecl.analysis.results import (
    PROBE_METRIC,
    READ_ERRORS,
    Comparison,
    MetricRow,
    ProbeResults,
    UnpairedImagesError,
    build_outcome_matrix,
    describe_read_error,
    get_sources,
    merge_seeds,
)
from densecl.analysis.sampled_value import Estimate
from densecl.artifacts import ProbeEvaluation, ProbeMeasure
from densecl.evaluation.probing.result import IMAGE_COLUMNS

# What stands for a probe where there is room for little of it; all measures where none is named.
MAIN_MEASURES: Mapping[str, tuple[str, ...]] = {
    "occlusion": ("random/area", "pasted/area"),
    "viewpoint": ("area",),
    "corruptions": ("mean",),
    "segmentation": ("linear/chosen",),
    "correspondence": ("moved1/next-to-last",),
    "localisation": ("corloc/attention", "corloc/last"),
    "knn": (),
    "linear": (),
}


def format_measure_place(probe: str, measure: str) -> str:
    """The name of a dataset has no brackets."""
    return f"({probe}) {measure}"


def list_measures(comparison: Comparison, probe: str) -> list[str]:
    """Measures that any model has, or should have, in the order of the files."""
    records = [
        record
        for mode in comparison.plan.modes
        for record in _iter_records(comparison, probe, mode)
    ]
    return list(dict.fromkeys(name for r in records for name in (*r.measures, *r.missing)))


def list_main_measures(comparison: Comparison, probe: str) -> list[str]:
    """Those of `list_measures` that say most in few rows."""
    main = MAIN_MEASURES[probe]
    return [name for name in list_measures(comparison, probe) if not main or name in main]


def list_measure_places(comparison: Comparison) -> dict[str, tuple[str, str]]:
    """Place -> probe and measure, of all probes of the plan."""
    return {
        format_measure_place(probe, measure): (probe, measure)
        for probe in comparison.plan.probes
        for measure in list_measures(comparison, probe)
    }


def find_measure(comparison: Comparison, probe: str, measure: str) -> ProbeMeasure | None:
    """Of any model that has it: chance, curve and strength are the same for all."""
    records = (
        record
        for mode in comparison.plan.modes
        for record in _iter_records(comparison, probe, mode)
    )
    return next((r.measures[measure] for r in records if measure in r.measures), None)


def _iter_records(comparison: Comparison, probe: str, mode: str) -> list[ProbeEvaluation]:
    return list(comparison.probes[probe, mode].records.values())


def select_measure(cell: ProbeResults, measure: str) -> dict[int, pd.DataFrame]:
    """By seed, the images that have a value, with at least `source` and the measure's column."""
    return {
        seed: select_known(cell.rows[seed], measure)
        for seed, record in cell.records.items()
        if measure in record.measures
    }


def select_known(rows: pd.DataFrame, measure: str) -> pd.DataFrame:
    """The images that have a value; without a copy where all have one."""
    known = pd.notna(rows[measure].to_numpy())
    return rows if known.all() else rows.loc[known, ["source", measure]]


def read_probe_results(root: Path, probe: str, mode: str, seeds: Sequence[int]) -> ProbeResults:
    """Of all seeds; what cannot be read is in `missing`, with the reason."""
    cell = ProbeResults()
    for seed in seeds:
        file = paths.probe_file(probe, mode, seed)
        try:
            record = ProbeEvaluation.model_validate_json((root / file).read_text("utf-8"))
            if record.reason:
                cell.missing.append(f"seed {seed}: {record.reason}")
                continue
            file = paths.probe_rows_file(probe, mode, seed)
            rows = read_probe_rows(root / file, record)
        except READ_ERRORS as error:
            cell.missing.append(f"seed {seed}: {describe_read_error(error, file, root)}")
        else:
            cell.records[seed], cell.rows[seed] = record, rows
    return cell


def read_probe_rows(path: Path, record: ProbeEvaluation) -> pd.DataFrame:
    """Rows indexed and sorted by image_id; ValueError for a duplicate image, or if a measure is not
    the mean of its column.
    """
    columns = [*IMAGE_COLUMNS, *record.measures]
    rows = pd.read_parquet(path, columns=columns).set_index("image_id").sort_index()
    if rows.empty or rows.index.has_duplicates:
        raise ValueError(f"{path.name} holds {'no rows' if rows.empty else 'an image twice'}")
    for name, measure in record.measures.items():
        values = rows[name].dropna()
        difference = abs(float(values.mean()) - measure.value)
        if len(values) != measure.images or not difference <= 1e-6 * max(1, abs(measure.value)):
            raise ValueError(
                f"{name} is said to be {measure.value:.6f} on {measure.images} images, but "
                f"{path.name} gives {values.mean():.6f} on {len(values)}; evaluate the model again"
            )
    return rows


def add_probe_metrics(comparison: Comparison) -> None:
    """The value of every measure and mode with its interval, or the reason why there is none; and
    its chance level where it has one.
    """
    for place, (probe, measure) in list_measure_places(comparison).items():
        for mode in comparison.plan.modes:
            _add_measure(comparison, place, probe, measure, mode)
    for probe in comparison.plan.probes:
        if not list_measures(comparison, probe):
            for mode in comparison.plan.modes:
                note = "; ".join(comparison.probes[probe, mode].missing)
                row = MetricRow(f"({probe})", "", mode, PROBE_METRIC, None, note=note)
                comparison.add_row(row)


def _add_measure(comparison: Comparison, place: str, probe: str, measure: str, mode: str) -> None:
    cell = comparison.probes[probe, mode]
    frames = select_measure(cell, measure)
    empty = MetricRow(place, "", mode, PROBE_METRIC, None, note=describe_measure([cell], measure))
    if not frames:
        comparison.add_row(empty)
        return
    seeds = sorted(frames)
    try:
        values = build_outcome_matrix(frames, measure, seeds)
    except UnpairedImagesError as error:
        note = "; ".join((str(error), *list_reasons([cell], measure)))
        comparison.add_row(replace(empty, note=note))
        return
    confidence = comparison.plan.values.confidence
    estimate = statistics.estimate_mean(values, confidence, get_sources(frames))
    comparison.add_estimate(empty, estimate, len(values), seeds)
    chance = cell.records[seeds[0]].measures[measure].chance
    if chance is not None:
        row = MetricRow(place, "", mode, "chance", None)
        comparison.add_estimate(row, Estimate(chance, np.nan, np.nan), len(values), seeds)


def describe_measure(cells: Sequence[ProbeResults], measure: str) -> str:
    """Missing seeds, and what the probe itself says of the measure."""
    records = [record for cell in cells for record in cell.records.values()]
    remarks = [r.measures[measure].note for r in records if measure in r.measures]
    return "; ".join(dict.fromkeys(filter(None, (*list_reasons(cells, measure), *remarks))))


def list_reasons(cells: Sequence[ProbeResults], measure: str) -> list[str]:
    """Why there is none, of every seed without the measure."""
    reasons: list[str] = []
    for cell in cells:
        reasons += cell.missing
        reasons += [
            f"seed {seed}: {record.missing[measure]}"
            for seed, record in cell.records.items()
            if measure in record.missing
        ]
    return merge_seeds(reasons)
