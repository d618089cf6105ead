"""Format the entries of tables: value, details, and source files."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from densecl import paths
from densecl.analysis.cell_metrics import CONTROL_METRICS
from densecl.analysis.claims import list_claim_tests
from densecl.analysis.comparison import SHIFTED_MEAN, Comparison, MetricRow, get_significance
from densecl.config.params import MODES
from densecl.pages.formatting import format_p_value, format_percent, format_points

FIRST_SCREEN = "first screen; "  # before the interval of a difference of its family


class Bar(NamedTuple):
    """A bar behind an entry in a mode's colour; it starts at the centre and extends right if
    positive.
    """

    start: float  # % of the entry's width
    end: float
    mode: str


def build_bar(share: float, positive_mode: str, negative_mode: str) -> Bar:
    """The bar of `share` in [-1, 1] of half the entry, in the colour of the better mode."""
    start, end = sorted((50.0, 50 + 50 * share))
    return Bar(start, end, positive_mode if share > 0 else negative_mode)


class Heat(NamedTuple):
    """Background of an entry: a mode's colour at a share in [0, 1] of its strength."""

    mode: str
    share: float


@dataclass(frozen=True)
class TableCell:
    """One entry of a table: the main text, a smaller line below it, and its source files."""

    main: str
    sub: str = ""
    source: str = ""
    significance: int = 0  # +1 or -1: significantly different from the baseline; 0: not
    missing: bool = False
    bar: Bar | None = None
    verdict: str = ""  # words before the main text
    heat: Heat | None = None


# Label, small text below it, entries.
TableRow = tuple[str, str, tuple[TableCell, ...]]


@dataclass(frozen=True)
class TableData:
    groups: tuple[tuple[str, tuple[str, ...]], ...]  # heading, columns below it
    rows: tuple[TableRow, ...]
    is_text: bool = False  # words, set to the left

    @property
    def shared_files(self) -> list[str]:
        """Source files shared by all rows, which the table names once."""
        row_files = {tuple(list_source_files(entries)) for _, _, entries in self.rows}
        return list(row_files.pop()) if len(row_files) == 1 else []

    @property
    def reasons(self) -> list[str]:
        """Reasons for missing entries, without duplicates: the footnotes of the table."""
        return list(
            dict.fromkeys(
                n.sub for _, _, entries in self.rows for n in entries if n.missing and n.sub
            )
        )


def list_source_files(entries: Sequence[TableCell]) -> list[str]:
    """All source files of a row, without duplicates."""
    return list(dict.fromkeys(f for n in entries for f in n.source.split(", ") if f))


def build_text_cells(*texts: str, source: str = "") -> tuple[TableCell, ...]:
    """Text entries that share one source file."""
    return tuple(TableCell(text, "", source) for text in texts)


def list_modes(comparison: Comparison) -> tuple[str, ...]:
    """The plan's modes in the order of every table and legend."""
    return sort_modes(comparison.plan.modes)


def list_main_modes(comparison: Comparison) -> tuple[str, ...]:
    """Those that are no variants, in that order: what the first screen compares."""
    return sort_modes(comparison.plan.main_modes)


def sort_modes(modes: Iterable[str]) -> tuple[str, ...]:
    """Modes in that order: dense, global, none, then variants as they come."""
    return tuple(sorted(modes, key=lambda mode: (*MODES, mode).index(mode)))


def _format_source(row: MetricRow) -> str:
    if not row.seeds:
        return str(paths.COMPARISON)
    probe, is_measure, _ = row.dataset.removeprefix("(").partition(") ")
    if is_measure:
        seeds = map(int, row.seeds.split())
        return ", ".join(str(paths.probe_rows_file(probe, row.mode, seed)) for seed in seeds)
    dataset = "<each shifted set>" if row.dataset == SHIFTED_MEAN else row.dataset
    cells = [(dataset, row.mode, int(s)) for s in row.seeds.split()]
    files = [paths.predictions_file(*cell) for cell in cells]
    if row.metric in CONTROL_METRICS:
        # The evaluation holds the control's top-1 and names its predictions.
        files += [paths.evaluation_file(*cell) for cell in cells]
    return ", ".join(map(str, files))


def build_metric_cell(row: MetricRow | None, signed: bool = False) -> TableCell:
    if row is None:
        return TableCell("–")
    if row.value is None:
        return TableCell("missing", row.note, missing=True)
    format_value = format_points if signed else format_percent
    interval = ""
    if row.low is not None and row.high is not None:
        dash = " to " if signed or row.low < 0 else "–"
        interval = f"{format_value(row.low)}{dash}{format_value(row.high)}"
    seed_note = (
        "seeds " + row.seeds.replace(" ", ", ") + " only"
        if "seed " in row.note and row.dataset != SHIFTED_MEAN
        else ""
    )
    return TableCell(
        format_value(row.value),
        "; ".join(t for t in (interval, seed_note) if t),
        _format_source(row),
    )


def build_difference_cell(
    comparison: Comparison, dataset: str, mode: str, baseline: str
) -> TableCell:
    """The difference with its plain interval, which no verdict is read from."""
    metric = f"difference_to_{baseline}"
    cell = build_metric_cell(comparison.get_row(dataset, mode, metric), signed=True)
    if cell.missing or not cell.source or dataset == SHIFTED_MEAN:
        return cell
    score = comparison.get_score(dataset, baseline)
    return replace(cell, source=f"{cell.source}, {_format_source(score)}") if score else cell


def build_verdict_cell(comparison: Comparison, dataset: str, mode: str, baseline: str) -> TableCell:
    """The difference with the interval, the p-value and the star of its family; that of the first
    screen is named.
    """
    plain = build_difference_cell(comparison, dataset, mode, baseline)
    metric = f"difference_to_{baseline}"
    interval = comparison.get_row(dataset, mode, f"{metric}_simultaneous")
    p_row = comparison.get_row(dataset, mode, f"{metric}_p_adjusted")
    if interval is None or p_row is None or p_row.value is None:
        return plain
    p_text = format_p_value(p_row.value)
    is_claimed = (dataset, mode, baseline) in list_claim_tests(comparison)
    return replace(
        plain,
        sub=f"{FIRST_SCREEN * is_claimed}{build_metric_cell(interval, signed=True).sub}; "
        f"p {'' if p_text[0] == '<' else '= '}{p_text}",
        significance=get_significance(comparison, dataset, mode, baseline),
    )
