"""Everything that the templates show, from one comparison and the files of the trainings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from densecl import paths
from densecl.analysis.comparison import BASELINE, SHIFTED_MEAN, Comparison
from densecl.analysis.statistics import SEEDS_FOR_MODE
from densecl.artifacts import ReportPlan, TrainingCost, read_json
from densecl.config.flatten import flatten
from densecl.config.params import CONTROL_SET
from densecl.errors import DataError
from densecl.report import provenance
from densecl.report.caveats import check_learned_position, describe_probed_modes
from densecl.report.charts import curves, svg
from densecl.report.charts.matches import MatchPicture, build_match_picture
from densecl.report.charts.scatters import draw_control_charts, has_published_fit
from densecl.report.formatting import TableData, build_text_cells, list_modes
from densecl.report.sections.costs import build_cost_table
from densecl.report.sections.dataset_sections import build_dataset_sections
from densecl.report.summary import build_details, build_headline
from densecl.report.tables import (
    build_aggregate_table,
    build_dataset_metrics,
    build_extra_metrics,
    build_masking_table,
)

Costs = dict[str, list[TrainingCost]]  # mode -> one a seed
Histories = dict[str, list[pd.DataFrame]]


def build_context(
    comparison: Comparison, costs: Costs, histories: Histories, root: Path
) -> dict[str, Any]:
    """By the names that the templates use."""
    plan = comparison.plan
    baseline = BASELINE if BASELINE in plan.modes else None
    metric_table, omitted = build_dataset_metrics(comparison)
    hashes, no_hashes = provenance.build_artifact_table(plan, root)
    return {
        "answer": build_headline(comparison, costs),
        "details": build_details(comparison),
        "missing": list_missing_cells(comparison),
        "modes": list_modes(comparison),
        "seeds": plan.seeds,
        "plan": plan,
        "mean_row": SHIFTED_MEAN,
        "level": f"{100 * plan.values.confidence:g}",
        "samples": plan.values.bootstrap_samples,
        "mean": describe_mean(comparison),
        "rendered": [s for s in plan.datasets if s in plan.rendered],
        "baseline": baseline,
        "aggregate": build_aggregate_table(comparison),
        "costs": build_cost_table(plan, costs),
        "masks": build_masking_table(comparison),
        "further": build_extra_metrics(comparison),
        "special": metric_table,
        "left_out": omitted,
        "sets": build_dataset_sections(comparison, root),
        "forest": svg.draw_forest(comparison, BASELINE) if baseline else None,
        "scatters": draw_control_charts(comparison),
        "fitted": has_published_fit(comparison),
        "curves": curves.build_curve_groups(histories),
        "pictures": build_match_pictures(plan, root),
        "control": CONTROL_SET,
        "seeds_for_mode": SEEDS_FOR_MODE,
        "cautions": [*check_learned_position(plan, histories), *describe_probed_modes(plan)],
        "apart": provenance.build_seed_table(comparison),
        "trainings": provenance.build_training_table(plan, root),
        "code": provenance.build_environment_table(root),
        "hashes": hashes,
        "no_hashes": no_hashes,
        "parameters": build_params_table(plan),
    }


def read_training_results(plan: ReportPlan, root: Path) -> tuple[Costs, Histories]:
    """Costs and histories that are there, by mode; absence shows as an empty list."""
    costs: Costs = {m: [] for m in plan.modes}
    histories: Histories = {m: [] for m in plan.modes}
    for mode in plan.modes:
        for seed in plan.seeds:
            folder = root / paths.training_folder(mode, seed)
            if (folder / "cost.json").exists():
                costs[mode].append(read_json(TrainingCost, folder / "cost.json"))
            if (folder / "history.csv").exists():
                histories[mode].append(_read_history(folder / "history.csv"))
    return costs, histories


def _read_history(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        message = " ".join(str(error).split())
        raise DataError(
            f"{path}: {message}; expected one row per epoch; remove the file and train again (dvc "
            f"repro)"
        ) from None


def build_match_pictures(plan: ReportPlan, root: Path) -> list[MatchPicture]:
    """Of the first seed of each mode that left one."""
    files = {
        m: root / paths.training_folder(m, plan.seeds[0]) / "matches.safetensors"
        for m in svg.COLOURS
        if m in plan.modes
    }
    return [build_match_picture(mode, path) for mode, path in files.items() if path.exists()]


def list_missing_cells(comparison: Comparison) -> list[str]:
    """Cells of the plan that could not be read, with the reason; one line where all modes share
    it.
    """
    lines: dict[tuple[str, str], list[str]] = {}
    for (dataset, mode), cell in comparison.cells.items():
        if cell.missing:
            lines.setdefault((dataset, cell.note), []).append(mode)
    return [f"{dataset}, {', '.join(modes)}: {note}" for (dataset, note), modes in lines.items()]


def describe_mean(comparison: Comparison) -> str:
    row = comparison.get_row(SHIFTED_MEAN, comparison.plan.modes[0], "top1")
    return row.note if row else ""


def build_params_table(plan: ReportPlan) -> TableData:
    file = str(paths.plan_file("report"))
    rows = tuple(
        (key, "", build_text_cells(provenance.format_value(value), source=file))
        for key, value in flatten(plan.params).items()
    )
    return TableData((("", ("value",)),), rows, is_text=True)
