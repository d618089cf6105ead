"""The rows of one set and mode: figures of the set, and beside its control."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from densecl.analysis import statistics
from densecl.analysis.results import OUTCOMES, Comparison, Row, Unpaired, outcomes, seed_of
from densecl.analysis.statistics import Estimate, Outcomes, Part
from densecl.evaluation import effective_robustness
from densecl.evaluation.metrics import LeftOut, rendition_of, texture_of

RECORDED = (
    "top5_unmasked",
    "macro_top1",
    "nll",
    "ece",
    "ece_equal_mass",
    "rms_calibration_error",
    "aurra",
    "mean_confidence",
)
AGAINST_CONTROL = ("control_top1", "drop", "relative_accuracy", "effective_robustness")


def add_cell(found: Comparison, dataset: str, mode: str) -> None:
    cell, protocol = found.cells[dataset, mode], found.protocol(dataset)
    against = AGAINST_CONTROL if protocol.control else ()
    special = ("shape_bias",) if protocol.names == "cue-conflict" else ()
    if not cell.records:
        for metric in (*OUTCOMES, *RECORDED, *against, *special):
            found.add(Row(dataset, protocol.control, mode, metric, None, note=cell.note))
        return
    try:
        _add_counted(found, dataset, mode)
        if against:
            _add_against_control(found, dataset, mode)
        if protocol.names == "rendition":
            _add_renditions(found, dataset, mode)
        if special:
            _add_shape_bias(found, dataset, mode)
    except Unpaired as error:
        for metric in (*OUTCOMES, *against, *special):
            found.add(Row(dataset, protocol.control, mode, metric, None, note=str(error)))
    for metric in RECORDED:
        mean = float(np.mean([getattr(record, metric) for record in cell.records.values()]))
        found.add(_row(found, dataset, mode, metric, Estimate(mean, np.nan, np.nan)))


def _row(
    found: Comparison, dataset: str, mode: str, metric: str, e: Estimate, images: int | None = None
) -> Row:
    """A row over all seeds that the cell has; limits of NaN are none."""
    cell = found.cells[dataset, mode]
    low, high = (None if np.isnan(limit) else limit for limit in (e.low, e.high))
    count = next(iter(cell.records.values())).images if images is None else images
    named = " ".join(map(str, sorted(cell.records)))
    return Row(
        dataset,
        found.protocol(dataset).control,
        mode,
        metric,
        e.value,
        low,
        high,
        count,
        named,
        cell.note,
    )


def _add_counted(found: Comparison, dataset: str, mode: str) -> None:
    cell = found.cells[dataset, mode]
    for metric, column in OUTCOMES.items():
        right = outcomes(cell.rows, column, sorted(cell.records))
        found.add(
            _row(found, dataset, mode, metric, _accuracy(found, right, dataset, mode, metric))
        )


def _accuracy(found: Comparison, right: Outcomes, *words: str) -> Estimate:
    values = found.plan.values
    return statistics.accuracy(right, values.confidence, values.bootstrap_samples, seed_of(*words))


def _add_against_control(found: Comparison, dataset: str, mode: str) -> None:
    """Rows beside the matched control; where there is none, the reason in their place."""
    cell, control = found.cells[dataset, mode], found.protocol(dataset).control
    seeds = sorted(cell.records)
    if sorted(cell.controls) != seeds:
        reason = next(
            r.left_out.get("control", "no control")
            for r in cell.records.values()
            if r.control is None
        )
        for metric in AGAINST_CONTROL:
            found.add(Row(dataset, control, mode, metric, None, note=reason))
        return
    clean, right = outcomes(cell.controls, "correct", seeds), outcomes(cell.rows, "correct", seeds)
    control_top1 = _accuracy(found, clean, dataset, mode, "control_top1")
    found.add(_row(found, dataset, mode, "control_top1", control_top1, clean.shape[0]))
    drop = statistics.independent_difference(
        control_top1, _accuracy(found, right, dataset, mode, "top1")
    )
    if len(seeds) > 1:
        drop = _combined(found, [Part(1.0, clean), Part(-1.0, right)], dataset, mode, "drop")
    found.add(_row(found, dataset, mode, "drop", drop))
    for metric, spread in (("relative_accuracy", _of_ratio), ("effective_robustness", _of_fit)):
        records = list(cell.records.values())
        each = [getattr(record, metric) for record in records]
        if any(value is None for value in each):
            reason = next(r.left_out.get(metric, "") for r in records if getattr(r, metric) is None)
            found.add(Row(dataset, control, mode, metric, None, note=reason))
            continue
        parts = spread(found.plan.protocols[dataset], clean, right)
        e = _around(float(np.mean(each)), _combined(found, parts, dataset, mode, metric))
        low = max(0.0, e.low) if metric == "relative_accuracy" else e.low
        found.add(_row(found, dataset, mode, metric, Estimate(e.value, low, e.high)))


def _around(value: float, spread: Estimate) -> Estimate:
    """`value` with the limits' distances of a first-order expansion."""
    return Estimate(value, value + spread.low - spread.value, value + spread.high - spread.value)


def _of_ratio(_: str, clean: Outcomes, right: Outcomes) -> list[Part]:
    """right / clean to first order in both (the delta method)."""
    return [Part(1 / clean.mean(), right), Part(-right.mean() / clean.mean() ** 2, clean)]


def _of_fit(protocol: str, clean: Outcomes, right: Outcomes) -> list[Part]:
    """right - expected(clean) to first order in clean (the delta method)."""
    return [
        Part(1.0, right),
        Part(-effective_robustness.slope_at(protocol, float(clean.mean())), clean),
    ]


def _combined(found: Comparison, parts: Sequence[Part], *words: str) -> Estimate:
    values = found.plan.values
    return statistics.combined(parts, values.confidence, values.bootstrap_samples, seed_of(*words))


def _add_renditions(found: Comparison, dataset: str, mode: str) -> None:
    """Rows `top1/<rendition>`, where the file names tell renditions."""
    cell = found.cells[dataset, mode]
    seeds = sorted(cell.records)
    right = outcomes(cell.rows, "correct", seeds)
    try:
        kinds = rendition_of(pd.Series(cell.rows[seeds[0]].index)).to_numpy()
    except LeftOut:
        return
    for kind in sorted(set(kinds)):
        metric, some = f"top1/{kind}", right[kinds == kind]
        found.add(
            _row(
                found,
                dataset,
                mode,
                metric,
                _accuracy(found, some, dataset, mode, metric),
                some.shape[0],
            )
        )


def _add_shape_bias(found: Comparison, dataset: str, mode: str) -> None:
    cell = found.cells[dataset, mode]
    seeds = sorted(cell.records)
    first = cell.rows[seeds[0]].reset_index()
    shape = outcomes(cell.rows, "correct", seeds)  # [images, seeds]
    try:
        texture = texture_of(first["image_id"], first["label"]).to_numpy()[:, None]
    except LeftOut as reason:
        found.add(
            Row(
                dataset, found.protocol(dataset).control, mode, "shape_bias", None, note=str(reason)
            )
        )
        return
    shape[texture[:, 0] < 0] = 0
    decided = shape + (outcomes(cell.rows, "prediction", seeds) == texture)
    if not decided.any(axis=0).all():
        note = "no decision for the shape's or the texture's class"
        found.add(
            Row(dataset, found.protocol(dataset).control, mode, "shape_bias", None, note=note)
        )
        return
    if len(seeds) == 1:
        e = statistics.wilson(shape[decided > 0], found.plan.values.confidence)
    else:
        # The ratio of two means, to first order in both.
        value = float((shape.sum(axis=0) / decided.sum(axis=0)).mean())
        parts = [Part(1 / decided.mean(), shape - value * decided)]
        e = _around(value, _combined(found, parts, dataset, mode, "shape_bias"))
    found.add(_row(found, dataset, mode, "shape_bias", e, int(decided.sum(axis=0).mean())))
