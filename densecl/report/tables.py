"""The tables of sets and modes."""

from __future__ import annotations

from collections.abc import Mapping

from densecl import paths
from densecl.analysis.comparison import BASELINE, MEAN, Comparison, Row
from densecl.analysis.results import incompleteness
from densecl.report.formatting import Number, Table, difference, modes_of, number, percent


def aggregate(found: Comparison) -> Table:
    modes = modes_of(found)
    pairs = found.pairs if BASELINE in modes else []
    rows: list[tuple[str, str, tuple[Number, ...]]] = []
    for dataset in (*found.plan.datasets, MEAN):
        entries = [number(found.get(dataset, m, "top1")) for m in modes]
        entries += [difference(found, dataset, a, b) for a, b in pairs]
        entries += [number(found.get(dataset, m, "drop")) for m in modes]
        rows.append((dataset, about(found, dataset), tuple(entries)))
    groups: list[tuple[str, tuple[str, ...]]] = [("Top-1, %", modes)]
    if pairs:
        groups.append(("Difference, points", tuple(f"{a} − {b}" for a, b in pairs)))
    return Table((*groups, ("Drop from the control, points", modes)), tuple(rows))


def about(found: Comparison, dataset: str) -> str:
    records = [
        r
        for m in found.plan.modes
        if dataset != MEAN
        for r in found.cells[dataset, m].records.values()
    ]
    if not records:
        return (
            f"of {len(found.whole)} sets"
            if dataset == MEAN
            else found.cells[dataset, found.plan.modes[0]].note
        )
    return "; ".join(
        [f"{records[0].images:,} images, {records[0].classes} classes", *incompleteness(records[0])]
    )


def masks(found: Comparison) -> Table:
    modes = modes_of(found)
    groups = (("Masked: the set's own classes, %", modes), ("Unmasked: all classes, %", modes))
    return Table(
        groups,
        tuple(
            (
                s,
                about(found, s),
                tuple(number(found.get(s, m, k)) for k in ("top1", "top1_unmasked") for m in modes),
            )
            for s in found.plan.datasets
        ),
    )


def further(found: Comparison) -> Table:
    return _by_cell(
        found,
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


SPECIAL = {
    "relative_accuracy": "Share of the control's top-1, %",
    "effective_robustness": "Effective robustness, points",
    "shape_bias": "Shape bias, %",
}


def special(found: Comparison) -> tuple[Table, list[str]]:
    """Figures that only some sets have, and why one that no set has is left out."""
    rows = {k: [r for (_, _, metric), r in found.rows.items() if metric == k] for k in SPECIAL}
    shown = {k: title for k, title in SPECIAL.items() if any(r.value is not None for r in rows[k])}
    reasons = {
        SPECIAL[k].split(",")[0]: dict.fromkeys(r.note for r in rows[k] if r.note)
        for k in SPECIAL.keys() - shown.keys()
    }
    return _by_cell(found, shown), [
        f"{title} is left out: {'; '.join(why)}." for title, why in sorted(reasons.items()) if why
    ]


def _by_cell(found: Comparison, shown: Mapping[str, str]) -> Table:
    rows = []
    for s in found.plan.datasets:
        for m in modes_of(found):
            entries = [_further_number(found.get(s, m, k), k) for k in shown]
            rows.append((s, m, tuple(entries)))
    return Table((("", tuple(shown.values())),), tuple(rows))


def _further_number(row: Row | None, metric: str) -> Number:
    if row is not None and row.value is not None and row.low is not None:
        return number(row, signed=metric == "effective_robustness")
    if row is None or row.value is None:
        return number(row)
    files = ", ".join(
        str(paths.evaluation(row.dataset, row.mode, int(s))) for s in row.seeds.split()
    )
    return Number(f"{row.value:.3f}" if metric == "nll" else percent(row.value), "", files)


def plain(shown: Table) -> str:
    """Aligned columns for a terminal; a star where two modes are told apart."""
    head = [
        "set",
        *(
            f"drop {c}" if g.startswith("Drop") else c
            for g, columns in shown.groups
            for c in columns
        ),
    ]
    lines = [head]
    for label, _, entries in shown.rows:
        lines.append(
            [
                label,
                *(
                    f"{n.main} ({n.sub.split(';')[0]}){' *' * bool(n.mark)}"
                    if n.main[0] in "+−" and n.sub
                    else n.main
                    for n in entries
                ),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
