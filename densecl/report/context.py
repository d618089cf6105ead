"""Everything that the templates show, from one comparison and the files of the trainings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from densecl import paths
from densecl.analysis.comparison import BASELINE, MEAN, Comparison
from densecl.analysis.statistics import SEEDS_FOR_MODE
from densecl.artifacts import Cost, ReportPlan, read_json
from densecl.config.params import CONTROL_SET
from densecl.errors import DataError
from densecl.report import provenance
from densecl.report.caveats import learned_position, probed
from densecl.report.charts import curves, svg
from densecl.report.charts.matches import Picture, picture
from densecl.report.charts.scatters import against_control, fitted
from densecl.report.formatting import Table, modes_of, words
from densecl.report.sections.costs import cost_table
from densecl.report.sections.dataset_sections import panels
from densecl.report.summary import details, headline
from densecl.report.tables import aggregate, further, masks, special

Costs = dict[str, list[Cost]]  # mode -> one a seed
Histories = dict[str, list[pd.DataFrame]]


def page(found: Comparison, costs: Costs, histories: Histories, root: Path) -> dict[str, Any]:
    """By the names that the templates use."""
    plan = found.plan
    baseline = BASELINE if BASELINE in plan.modes else None
    of_some, left_out = special(found)
    hashes, no_hashes = provenance.artifacts(plan, root)
    return {
        "answer": headline(found, costs),
        "details": details(found),
        "missing": missing(found),
        "modes": modes_of(found),
        "seeds": plan.seeds,
        "plan": plan,
        "mean_row": MEAN,
        "level": f"{100 * plan.values.confidence:g}",
        "samples": plan.values.bootstrap_samples,
        "mean": mean_note(found),
        "rendered": [s for s in plan.datasets if s in plan.rendered],
        "baseline": baseline,
        "aggregate": aggregate(found),
        "costs": cost_table(plan, costs),
        "masks": masks(found),
        "further": further(found),
        "special": of_some,
        "left_out": left_out,
        "sets": panels(found, root),
        "forest": svg.forest(found, BASELINE) if baseline else None,
        "scatters": against_control(found),
        "fitted": fitted(found),
        "curves": curves.training(histories),
        "pictures": pictures(plan, root),
        "control": CONTROL_SET,
        "seeds_for_mode": SEEDS_FOR_MODE,
        "cautions": [*learned_position(plan, histories), *probed(plan)],
        "apart": provenance.seeds_apart(found),
        "trainings": provenance.trainings(plan, root),
        "code": provenance.code_and_environment(root),
        "hashes": hashes,
        "no_hashes": no_hashes,
        "parameters": parameters(plan),
    }


def trained(plan: ReportPlan, root: Path) -> tuple[Costs, Histories]:
    """Costs and histories that are there, by mode; absence shows as an empty list."""
    costs: Costs = {m: [] for m in plan.modes}
    histories: Histories = {m: [] for m in plan.modes}
    for mode in plan.modes:
        for seed in plan.seeds:
            folder = root / paths.training(mode, seed)
            if (folder / "cost.json").exists():
                costs[mode].append(read_json(Cost, folder / "cost.json"))
            if (folder / "history.csv").exists():
                histories[mode].append(_history(folder / "history.csv"))
    return costs, histories


def _history(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())
        raise DataError(
            f"{path}: {said}; expected a row an epoch; remove the file and train again (dvc repro)"
        ) from None


def pictures(plan: ReportPlan, root: Path) -> list[Picture]:
    """Of the first seed of each mode that left one."""
    places = {
        m: root / paths.training(m, plan.seeds[0]) / "matches.safetensors"
        for m in svg.COLOURS
        if m in plan.modes
    }
    return [picture(mode, path) for mode, path in places.items() if path.exists()]


def missing(found: Comparison) -> list[str]:
    """Cells of the plan that could not be read, with the reason; one line where all modes share
    it.
    """
    lines: dict[tuple[str, str], list[str]] = {}
    for (dataset, mode), cell in found.cells.items():
        if cell.missing:
            lines.setdefault((dataset, cell.note), []).append(mode)
    return [f"{dataset}, {', '.join(modes)}: {note}" for (dataset, note), modes in lines.items()]


def mean_note(found: Comparison) -> str:
    row = found.get(MEAN, found.plan.modes[0], "top1")
    return row.note if row else ""


def parameters(plan: ReportPlan) -> Table:
    file = str(paths.plan("report"))
    rows = tuple(
        (key, "", words(value, source=file)) for key, value in provenance.flat(plan.params)
    )
    return Table((("", ("value",)),), rows, text=True)
