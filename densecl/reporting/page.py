"""Everything that the templates show, from one comparison and the files of the trainings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from densecl import layout
from densecl.params import CONTROL_SET
from densecl.records import Cost, ReportPlan, read_json
from densecl.reporting import curves, figures
from densecl.reporting.answer import answer
from densecl.reporting.cautions import learned_position, probed
from densecl.reporting.comparison import BASELINE, MEAN, Comparison
from densecl.reporting.costs import cost_answer, cost_table
from densecl.reporting.matches import Picture, picture
from densecl.reporting.numbers import Number, difference
from densecl.reporting.statistics import SEEDS_FOR_MODE
from densecl.reporting.tables import about, aggregate, further, masks, special


def page(found: Comparison, root: Path) -> dict[str, Any]:
    plan, costs, histories = found.plan, *_training(found.plan, root)
    missing = [f"{s}, {m}: {cell.note}" for (s, m), cell in found.cells.items() if cell.missing]
    baseline = BASELINE if BASELINE in plan.modes else None
    of_some, left_out = special(found)
    return {
        "answer": answer(found), "tiles": _tiles(found), "cost_answer": cost_answer(costs), "missing": missing,
        "modes": [m for m in figures.COLOURS if m in plan.modes], "seeds": plan.seeds, "plan": plan,
        "level": f"{100 * plan.values.confidence:g}", "samples": plan.values.bootstrap_samples, "mean": mean_note(found),
        "rendered": [s for s in plan.datasets if s in plan.rendered], "baseline": baseline,
        "aggregate": aggregate(found), "costs": cost_table(plan, costs), "masks": masks(found),
        "further": further(found), "special": of_some, "left_out": left_out,
        "data": _data(found), "parameters": list(_flat(plan.params)),
        "forest": figures.forest(found, BASELINE) if baseline else None, "curves": curves.training(histories),
        "control": CONTROL_SET, "seeds_for_mode": SEEDS_FOR_MODE, "pictures": _pictures(plan, root),
        "cautions": [*learned_position(histories), *probed(plan)],
    }  # fmt: skip


def _training(plan: ReportPlan, root: Path) -> tuple[dict[str, list[Cost]], dict[str, list[pd.DataFrame]]]:
    """Costs and histories that are there, by mode; absence shows as an empty list."""
    costs: dict[str, list[Cost]] = {m: [] for m in plan.modes}
    histories: dict[str, list[pd.DataFrame]] = {m: [] for m in plan.modes}
    for mode in plan.modes:
        for seed in plan.seeds:
            folder = root / layout.training(mode, seed)
            if (folder / "cost.json").exists():
                costs[mode].append(read_json(Cost, folder / "cost.json"))
            if (folder / "history.csv").exists():
                histories[mode].append(pd.read_csv(folder / "history.csv"))
    return costs, histories


def _pictures(plan: ReportPlan, root: Path) -> list[Picture]:
    """Of the first seed of each mode that left one."""
    places = {
        m: root / layout.training(m, plan.seeds[0]) / "matches.safetensors" for m in figures.COLOURS if m in plan.modes
    }
    return [picture(mode, path) for mode, path in places.items() if path.exists()]


def mean_note(found: Comparison) -> str:
    row = found.get(MEAN, found.plan.modes[0], "top1")
    return row.note if row else ""


def _tiles(found: Comparison) -> list[tuple[str, Number]]:
    scope = MEAN if found.whole else CONTROL_SET
    tiles = [(f"{a} − {b}", difference(found, scope, a, b)) for a, b in found.pairs]
    return [tile for tile in tiles if not tile[1].missing]


def _data(found: Comparison) -> list[tuple[str, str, str, str, str]]:
    """Set, size, what it is, folder, preprocessing."""
    roots, rows = found.plan.params.get("datasets", {}), []
    for s in found.plan.datasets:
        records = [r for m in found.plan.modes for r in found.cells[s, m].records.values()]
        size = about(found, s) + (f", {records[0].excluded} excluded" if records and records[0].excluded else "")
        rule = dict.fromkeys(
            f"{r.protocol}: {r.preprocessing.rule}, {r.preprocessing.input_size[-1]} px" for r in records
        )
        kind = "built-in drawn images" if s in found.plan.rendered else "images from a folder"
        folder = str(roots[s].get("root", "")) if isinstance(roots.get(s), dict) else ""
        rows.append((s, size, kind, folder, "; ".join(rule) or "–"))
    return rows


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", "–" if value is None else str(value)
