"""Tables over datasets and modes."""

from collections.abc import Mapping
from dataclasses import replace

from densecl import paths
from densecl.analysis.cell_metrics import FIT_REMARK
from densecl.analysis.claims import get_chance, is_at_chance
from densecl.analysis.comparison import SHIFTED_MEAN, Comparison, MetricRow
from densecl.analysis.corruption_error import CORRUPTIONS, MCE, MCE_TO_ALEXNET
from densecl.analysis.probe_results import format_measure_place, list_main_measures
from densecl.analysis.results import describe_incompleteness
from densecl.pages.formatting import align_columns, format_count, format_percent
from densecl.report.formatting import (
    FIRST_SCREEN,
    TableCell,
    TableData,
    build_difference_cell,
    build_metric_cell,
    build_verdict_cell,
    list_modes,
)


def build_aggregate_table(comparison: Comparison) -> TableData:
    """Scores, differences and drops; without a shifted dataset neither drops nor their mean."""
    modes = list_modes(comparison)
    pairs = comparison.mode_pairs
    is_shifted = bool(comparison.shifted_sets)
    shifted_modes = modes if is_shifted else ()
    rows = [
        (
            comparison.plan.titles.get(s, s),
            describe_dataset(comparison, s),
            (
                *(_build_score_cell(comparison, s, m, "top1") for m in modes),
                *(_build_judged_cell(comparison, s, a, b) for a, b in pairs),
                *(_build_score_cell(comparison, s, m, "drop") for m in shifted_modes),
            ),
        )
        for s in (*comparison.plan.datasets, *([SHIFTED_MEAN] * is_shifted))
    ]
    groups = (
        ("Top-1, %", modes),
        ("Difference, points", tuple(f"{a} − {b}" for a, b in pairs)),
        ("Drop from the control, points", shifted_modes),
    )
    return TableData(tuple(group for group in groups if group[1]), tuple(rows))


def _build_score_cell(comparison: Comparison, dataset: str, mode: str, metric: str) -> TableCell:
    cell = build_metric_cell(comparison.get_row(dataset, mode, metric))
    return mark_chance(cell, comparison, dataset, mode)


def mark_chance(cell: TableCell, comparison: Comparison, place: str, mode: str) -> TableCell:
    """With a remark where the score is not shown to be better than guessing."""
    if cell.missing or not cell.source or not is_at_chance(comparison, place, [mode]):
        return cell
    return replace(cell, sub="; ".join(filter(None, (cell.sub, "at chance"))))


def _build_judged_cell(comparison: Comparison, dataset: str, mode: str, baseline: str) -> TableCell:
    """With a verdict for the mean; those of the datasets have a table of their own."""
    is_judged = dataset == SHIFTED_MEAN
    build = build_verdict_cell if is_judged else build_difference_cell
    return build(comparison, dataset, mode, baseline)


def build_difference_table(comparison: Comparison) -> TableData:
    """Differences of all pairs of modes on each dataset: a family of their own."""
    pairs = comparison.mode_pairs
    rows = [
        (title, "", tuple(build_verdict_cell(comparison, s, a, b) for a, b in pairs))
        for s, title in comparison.plan.titles.items()
    ]
    return TableData((("Points", tuple(f"{a} − {b}" for a, b in pairs)),), tuple(rows))


def build_model_table(comparison: Comparison) -> TableData | None:
    """Other models on all datasets and main measures of probes beside the modes; None without
    any.
    """
    models, modes = comparison.plan.models, list_modes(comparison)
    if not models:
        return None
    measures = [
        format_measure_place(probe, measure)
        for probe in comparison.plan.probes
        for measure in list_main_measures(comparison, probe)
    ]
    rows = tuple(
        (
            comparison.plan.titles.get(place, place),
            model,
            (
                _build_model_cell(comparison.get_score(place, model)),
                *(
                    _build_model_cell(
                        comparison.get_row(place, model, f"difference_to_{mode}"), signed=True
                    )
                    for mode in modes
                ),
            ),
        )
        for model in models
        for place in (*comparison.plan.datasets, *measures)
    )
    groups = (
        ("", ("score, %",)),
        ("Points above the mean of a mode's seeds", tuple(f"model − {mode}" for mode in modes)),
    )
    return TableData(groups, rows)


def _build_model_cell(row: MetricRow | None, signed: bool = False) -> TableCell:
    """A model has no seeds: its files are under its name."""
    cell = build_metric_cell(row and replace(row, seeds=""), signed)
    return replace(cell, source=str(paths.predictions_folder(row.mode, None))) if row else cell


def describe_dataset(comparison: Comparison, dataset: str) -> str:
    records = [
        r
        for m in comparison.plan.modes
        if dataset != SHIFTED_MEAN
        for r in comparison.cells[dataset, m].records.values()
    ]
    level = get_chance(comparison, dataset)
    chance = [] if level is None else [f"chance {format_percent(level)} %"]
    if not records:
        return (
            "; ".join([f"of {format_count(len(comparison.complete_sets), 'dataset')}", *chance])
            if dataset == SHIFTED_MEAN
            else comparison.cells[dataset, comparison.plan.modes[0]].note
        )
    return "; ".join(
        [
            f"{records[0].images:,} images, {records[0].classes} classes",
            *chance,
            *(["as they are, not resized"] if records[0].preprocessing.rule == "as-is" else []),
            *describe_incompleteness(records[0]),
        ]
    )


def build_masking_table(comparison: Comparison) -> TableData:
    modes = list_modes(comparison)
    groups = (("Masked: the dataset's own classes, %", modes), ("Unmasked: all classes, %", modes))
    return TableData(
        groups,
        tuple(
            (
                title,
                describe_dataset(comparison, s),
                tuple(
                    build_metric_cell(comparison.get_row(s, m, k))
                    for k in ("top1", "top1_unmasked")
                    for m in modes
                ),
            )
            for s, title in comparison.plan.titles.items()
        ),
    )


def build_extra_metrics(comparison: Comparison) -> TableData:
    return _build_cell_table(
        comparison,
        {
            "top5": "Top-5, %",
            "macro_top1": "Mean of classes, %",
            "mean_confidence": "Confidence, %",
            "ece": "Calibration error, points",
            "ece_equal_mass": "the same, bins of equal mass",
            "rms_calibration_error": "RMS calibration error, points",
            "aurra": "AURRA, %",
            "nll": "Log loss, nats",
        },
    )


DATASET_METRICS = {
    "relative_accuracy": "Share of the control's top-1, %",
    "effective_robustness": "Effective robustness, points",
    "shape_bias": "Shape bias, %",
}


def build_dataset_metrics(comparison: Comparison) -> tuple[TableData, list[str]]:
    """Metrics that only some datasets have, and the reason if no dataset has one."""
    rows = {
        k: [r for (_, _, metric), r in comparison.rows.items() if metric == k]
        for k in DATASET_METRICS
    }
    titles = {
        k: title
        for k, title in DATASET_METRICS.items()
        if any(r.value is not None for r in rows[k])
    }
    reasons = {
        DATASET_METRICS[k].split(",")[0]: dict.fromkeys(r.note for r in rows[k] if r.note)
        for k in DATASET_METRICS.keys() - titles.keys()
    }
    return _build_cell_table(comparison, titles), [
        f"{title} is left out: {'; '.join(notes)}."
        for title, notes in sorted(reasons.items())
        if notes
    ]


MCE_TITLES = {
    MCE: "mCE without AlexNet normalisation, %",
    MCE_TO_ALEXNET: "mCE with AlexNet normalisation, %",
}


def build_corruption_table(comparison: Comparison) -> TableData | None:
    """Mean corruption error of ImageNet-C, one column per mode; None without such datasets."""
    modes = list_modes(comparison)
    if comparison.get_row(CORRUPTIONS, modes[0], MCE) is None:
        return None
    rows = []
    for metric, title in MCE_TITLES.items():
        found = [comparison.get_row(CORRUPTIONS, mode, metric) for mode in modes]
        notes = dict.fromkeys(row.note for row in found if row and row.value is not None)
        source = str(paths.COMPARISON)  # no file holds a row of all folders
        cells = tuple(replace(build_metric_cell(row), source=source) for row in found)
        rows.append((title, "; ".join(notes), cells))
    return TableData((("", modes),), tuple(rows))


def _build_cell_table(comparison: Comparison, titles: Mapping[str, str]) -> TableData:
    rows = tuple(
        (name, m, tuple(_build_extra_cell(comparison.get_row(s, m, k), k) for k in titles))
        for s, name in comparison.plan.titles.items()
        for m in list_modes(comparison)
    )
    return TableData((("", tuple(titles.values())),), rows)


def _build_extra_cell(row: MetricRow | None, metric: str) -> TableCell:
    if row is None or row.value is None or row.low is not None:
        cell = build_metric_cell(row, signed=metric == "effective_robustness")
        remarks = row.note.split("; ") if row else []
        shown = [cell.sub, *(text for text in remarks if text.startswith(FIT_REMARK))]
        return cell if cell.missing else replace(cell, sub="; ".join(shown))
    files = ", ".join(
        str(paths.evaluation_file(row.dataset, row.mode, int(s))) for s in row.seeds.split()
    )
    return TableCell(
        f"{row.value:.3f}" if metric == "nll" else format_percent(row.value), "", files
    )


def format_plain_text(table: TableData) -> str:
    """Aligned columns for a terminal: differences with intervals, and a star where the headline's
    family calls one.
    """
    groups = [group for group, names in table.groups for _ in names]
    columns = [
        f"drop {c}" if group.startswith("Drop") else c
        for group, names in table.groups
        for c in names
    ]
    lines = [
        [
            label,
            *(
                f"{n.main} ({n.sub.removeprefix(FIRST_SCREEN).split(';')[0]})"
                f"{' *' * bool(n.significance)}"
                if group.startswith("Difference") and n.sub and not n.missing
                else n.main
                for group, n in zip(groups, entries, strict=True)
            ),
        ]
        for label, _, entries in table.rows
    ]
    return align_columns([["set", *columns], *lines])
