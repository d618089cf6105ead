"""How a number is shown: the entry of a table, what stands below it, and the files that it came
from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from densecl import paths
from densecl.analysis.cell_metrics import AGAINST_CONTROL
from densecl.analysis.comparison import MEAN, Comparison, Row, called
from densecl.report.charts import svg


class Bar(NamedTuple):
    """Drawn behind an entry, in a mode's colour: from its middle to the right for more, to the left
    for less.
    """

    start: float  # % of the entry's width
    end: float
    mode: str


def bar(share: float, up: str, down: str) -> Bar:
    """Of `share` in [-1, 1] of half the entry: in the colour of the mode that is ahead."""
    middle, end = 50.0, 50 + 50 * share
    return Bar(middle, end, up) if share > 0 else Bar(end, middle, down)


@dataclass(frozen=True)
class Number:
    """One entry of a table: what stands large, what stands small below it, and the files it came
    from.
    """

    main: str
    sub: str = ""
    source: str = ""
    mark: int = 0  # +1 or -1: told apart from the baseline; 0: not, or nothing to tell
    missing: bool = False
    bar: Bar | None = None


@dataclass(frozen=True)
class Table:
    groups: tuple[tuple[str, tuple[str, ...]], ...]  # heading, columns below it
    rows: tuple[tuple[str, str, tuple[Number, ...]], ...]  # label, small text below it, entries
    text: bool = False  # words, set to the left

    @property
    def shared(self) -> list[str]:
        """The files that every row comes from, where they are the same for all: said once, below
        the table.
        """
        found = [files_of(entries) for _, _, entries in self.rows]
        return found[0] if found and all(files == found[0] for files in found) else []

    @property
    def reasons(self) -> list[str]:
        """Why entries are missing, each reason once: the footnotes of the table."""
        return list(
            dict.fromkeys(
                n.sub for _, _, entries in self.rows for n in entries if n.missing and n.sub
            )
        )


def files_of(entries: Sequence[Number]) -> list[str]:
    """Every file that a row's numbers came from, once."""
    return list(dict.fromkeys(f for n in entries for f in n.source.split(", ") if f))


def words(*texts: str, source: str = "") -> tuple[Number, ...]:
    """Entries that are text, all from one file."""
    return tuple(Number(text, "", source) for text in texts)


def modes_of(found: Comparison) -> tuple[str, ...]:
    """The plan's modes in the order of every table and legend."""
    return tuple(m for m in svg.COLOURS if m in found.plan.modes)


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}".replace("-", "−")


def points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")


def p_text(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _source(row: Row) -> str:
    if not row.seeds:
        return str(paths.COMPARISON)
    if row.dataset == MEAN:
        return ", ".join(
            f"{paths.PREDICTIONS}/<each shifted set>/{row.mode}-{seed}.parquet"
            for seed in row.seeds.split()
        )
    cells = [(row.dataset, row.mode, int(s)) for s in row.seeds.split()]
    files = [paths.predictions(*cell) for cell in cells]
    if (
        row.metric in AGAINST_CONTROL
    ):  # the evaluation holds the control's top-1 and names its predictions
        files += [paths.evaluation(*cell) for cell in cells]
    return ", ".join(map(str, files))


def number(row: Row | None, signed: bool = False) -> Number:
    if row is None:
        return Number("–")
    if row.value is None:
        return Number("missing", row.note, missing=True)
    show = points if signed else percent
    between = ""
    if row.low is not None and row.high is not None:
        between = f"{show(row.low)}{' to ' if signed or row.low < 0 else '–'}{show(row.high)}"
    partly = (
        "seeds " + row.seeds.replace(" ", ", ") + " only"
        if "seed " in row.note and row.dataset != MEAN
        else ""
    )
    return Number(show(row.value), "; ".join(t for t in (between, partly) if t), _source(row))


def difference(found: Comparison, dataset: str, first: str, second: str) -> Number:
    metric = f"difference_to_{second}"
    shown, p = (
        number(found.get(dataset, first, metric), signed=True),
        found.get(dataset, first, f"{metric}_p_holm"),
    )
    if p is None or p.value is None:
        return shown
    other = found.get(dataset, second, "top1")
    files = (
        shown.source if dataset == MEAN or other is None else f"{shown.source}, {_source(other)}"
    )
    return Number(
        shown.main, f"{shown.sub}; {p_text(p.value)}", files, called(found, dataset, first, second)
    )


def joined(clauses: Sequence[str]) -> str:
    """a; a and b; a, b and c."""
    return clauses[0] if len(clauses) == 1 else f"{', '.join(clauses[:-1])} and {clauses[-1]}"
