"""Write the files that `dvc metrics` and `dvc plots` show: one row per mode, one file per curve."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from densecl import paths
from densecl.analysis.claims import list_claims
from densecl.analysis.comparison import SHIFTED_MEAN, Comparison
from densecl.artifacts import write_text
from densecl.cost.result import CostReport
from densecl.report.charts.panels import Panel, build_panel_groups
from densecl.report.formatting import list_modes

Histories = Mapping[str, Sequence[pd.DataFrame]]


def write_dvc_exports(
    comparison: Comparison,
    cost: CostReport | None,
    histories: Histories,
    root: Path,
) -> None:
    """Write reports/metrics/<mode>.json (fractions) and reports/plots/ (robustness.csv,
    differences.csv, curves/<column>.csv).
    """
    for folder in (paths.METRICS, paths.PLOTS):
        shutil.rmtree(root / folder, ignore_errors=True)
    for mode in list_modes(comparison):
        metrics = collect_metrics(comparison, mode, cost)
        text = json.dumps(metrics, indent=1, ensure_ascii=False)
        write_text(root / paths.metrics_file(mode), text + "\n")
    plots = {
        paths.plot_file("robustness"): build_robustness_plot(comparison),
        paths.plot_file("differences"): build_difference_plot(comparison),
        **{paths.curve_file(column): frame for column, frame in iter_curves(histories)},
    }
    for path, frame in plots.items():
        # A blank cell would be drawn as 0.
        text = frame.to_csv(index=False, float_format="%.6g", lineterminator="\n", na_rep="nan")
        write_text(root / path, text)


def collect_metrics(comparison: Comparison, mode: str, cost: CostReport | None) -> dict[str, float]:
    """Top-1 by dataset and the claims' scores as fractions, and step time relative to
    classification alone; missing values are omitted.
    """
    metrics = {
        _name_place(place): round(row.value, 6)
        for place in list_shown_places(comparison)
        if (row := comparison.get_score(place, mode)) and row.value is not None
    }
    if cost and cost.is_measured and mode in cost.modes:
        metrics["step time"] = round(cost.modes[mode].against_none.value, 4)
    return metrics


def list_shown_places(comparison: Comparison) -> list[str]:
    """The datasets, their mean, and the claims that probes measure."""
    claims = [claim.place for claim in list_claims(comparison) if claim.probe]
    return [*comparison.plan.datasets, SHIFTED_MEAN, *claims]


def _name_place(place: str) -> str:
    """`shifted mean`, `occlusion random/area`."""
    return place.replace("(", "").replace(")", "")


def build_robustness_plot(comparison: Comparison) -> pd.DataFrame:
    """Table of bars with columns `set and mode` and `top-1, %`."""
    rows = [
        (f"{comparison.plan.titles[s]} {m}", 100 * row.value)
        for s in comparison.plan.datasets
        for m in list_modes(comparison)
        if (row := comparison.get_row(s, m, "top1")) and row.value is not None
    ]
    return pd.DataFrame(rows, columns=["set and mode", "top-1, %"])


def build_difference_plot(comparison: Comparison) -> pd.DataFrame:
    """Table of bars with columns `set and modes`, `points`, and the interval's limits `low` and
    `high`.
    """
    rows = [
        (
            f"{comparison.plan.titles.get(place) or _name_place(place)} {a} − {b}",
            *(100 * (number or 0) for number in (row.value, row.low, row.high)),
        )
        for place in list_shown_places(comparison)
        for a, b in [*comparison.mode_pairs, *comparison.variant_pairs]
        if (row := comparison.get_difference(place, a, b))
    ]
    return pd.DataFrame(rows, columns=["set and modes", "points", "low", "high"])


def iter_curves(histories: Histories) -> Iterator[tuple[str, pd.DataFrame]]:
    """(column of history.csv, frame with `epoch` and one column per mode: the mean over its seeds);
    NaN if a mode has none.
    """
    columns = dict.fromkeys(
        c for frames in histories.values() for frame in frames for c in frame.columns
    )
    drawn_columns = dict.fromkeys(
        c
        for g in build_panel_groups(columns)
        for p in g.panels
        if isinstance(p, Panel)
        for c in p.lines
        if c in columns
    )
    for column in drawn_columns:
        means = {
            mode: pd.concat(having).groupby(level=0).mean() if having[1:] else having[0]
            for mode, having in _iter_series(histories, column)
        }
        if means:
            frame = pd.DataFrame(means).reindex(columns=list(histories))
            yield (
                column,
                frame.rename_axis("epoch").reset_index().assign(epoch=lambda f: f["epoch"] + 1),
            )


def _iter_series(histories: Histories, column: str) -> Iterator[tuple[str, list[pd.Series]]]:
    """By mode, the column by epoch of every seed that has it; modes without one are omitted."""
    for mode, frames in histories.items():
        series = [
            f.set_index("epoch")[column] for f in frames if column in f and f[column].notna().any()
        ]
        if series:
            yield mode, series
