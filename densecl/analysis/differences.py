"""The rows of two modes on the same images, and of the mean over the shifted sets; p-values
corrected by families.
"""

from __future__ import annotations

from collections.abc import Sequence

from densecl.analysis import statistics
from densecl.analysis.results import Comparison, Row, Unpaired, outcomes, seed_of
from densecl.analysis.statistics import Outcomes, Part
from densecl.config.params import Mode

MEAN = "(shifted mean)"  # brackets cannot occur in the name of a set


def _mean_note(found: Comparison) -> str:
    absent = [s for s in found.shifted if s not in found.whole]
    over = (
        f"mean over {', '.join(found.whole)}"
        if found.whole
        else "no shifted set has every mode and seed"
    )
    return over + (f"; left out, not complete: {', '.join(absent)}" if absent else "")


def add_mean(found: Comparison, mode: str) -> None:
    note, values, sets = _mean_note(found), found.plan.values, found.whole
    if not sets:
        found.add(Row(MEAN, "", mode, "top1", None, note=note))
        return
    try:
        cells = [outcomes(found.cells[s, mode].rows, "correct", found.plan.seeds) for s in sets]
    except Unpaired as error:
        found.add(Row(MEAN, "", mode, "top1", None, note=str(error)))
        return
    parts = [Part(1 / len(sets), right) for right in cells]
    e = statistics.combined(
        parts, values.confidence, values.bootstrap_samples, seed_of(MEAN, mode, "top1")
    )
    images = sum(right.shape[0] for right in cells)
    found.add(
        Row(
            MEAN,
            "",
            mode,
            "top1",
            e.value,
            e.low,
            e.high,
            images,
            " ".join(map(str, found.plan.seeds)),
            note,
        )
    )


def add_differences(found: Comparison, first: Mode, second: Mode) -> None:
    """Differences on each set and on the mean of the shifted sets; p-values corrected over the
    sets.
    """
    metric, tested = f"difference_to_{second}", []
    for dataset in found.plan.datasets:
        row, p = _difference(found, dataset, first, second, metric)
        found.add(row)
        if p is not None:
            tested.append((row, p))
    for (row, p), holm in zip(tested, statistics.holm([p for _, p in tested]), strict=True):
        _add_p(found, row, p, holm)
        one, two, _ = _paired(found, row.dataset, first, second)
        _add_detectable(found, row, [Part(1.0, one - two)], len(tested))
    _add_mean_difference(found, first, second, metric)
    if (first, second) == found.pairs[-1]:
        _correct_means(found)


def _paired(
    found: Comparison, dataset: str, first: str, second: str
) -> tuple[Outcomes, Outcomes, list[int]]:
    one, two = found.cells[dataset, first], found.cells[dataset, second]
    seeds = sorted(one.rows.keys() & two.rows.keys())
    if not seeds:
        raise Unpaired("; ".join(n for n in (one.note, two.note) if n) or "no seed in common")
    if not one.rows[seeds[0]].index.equals(two.rows[seeds[0]].index):
        raise Unpaired(f"{first} and {second} were evaluated on different images")
    return outcomes(one.rows, "correct", seeds), outcomes(two.rows, "correct", seeds), seeds


def _difference(
    found: Comparison, dataset: str, first: str, second: str, metric: str
) -> tuple[Row, float | None]:
    values = found.plan.values
    try:
        one, two, seeds = _paired(found, dataset, first, second)
    except Unpaired as error:
        return Row(dataset, "", first, metric, None, note=str(error)), None
    words = seed_of(dataset, first, metric)
    e = statistics.paired_difference(one, two, values.confidence, values.bootstrap_samples, words)
    note = "; ".join(n for n in (found.cells[dataset, m].note for m in (first, second)) if n)
    named = " ".join(map(str, seeds))
    return Row(dataset, "", first, metric, e.value, e.low, e.high, one.shape[0], named, note), e.p


def _add_p(found: Comparison, row: Row, p: float, holm: float) -> None:
    for suffix, value in (("p", p), ("p_holm", holm)):
        found.add(
            Row(
                row.dataset,
                "",
                row.mode,
                f"{row.metric}_{suffix}",
                value,
                images=row.images,
                seeds=row.seeds,
            )
        )


def _add_detectable(found: Comparison, row: Row, parts: Sequence[Part], tests: int) -> None:
    """The smallest true difference that would be called with 80 % power."""
    confidence = found.plan.values.confidence
    value = statistics.detectable(parts, confidence, tests)
    note = f"80 % power at level {(1 - confidence) / tests:.4g}"
    found.add(
        Row(
            row.dataset,
            "",
            row.mode,
            f"{row.metric}_detectable",
            value,
            images=row.images,
            seeds=row.seeds,
            note=note,
        )
    )


def _add_mean_difference(found: Comparison, first: str, second: str, metric: str) -> None:
    note, values, sets = _mean_note(found), found.plan.values, found.whole
    try:
        if not sets:
            raise Unpaired(note)
        pairs = [_paired(found, s, first, second) for s in sets]
    except Unpaired as error:
        found.add(Row(MEAN, "", first, metric, None, note=str(error)))
        return
    gaps, words = [one - two for one, two, _ in pairs], seed_of(MEAN, first, metric)
    e = statistics.mean_difference(gaps, values.confidence, values.bootstrap_samples, words)
    images, named = sum(one.shape[0] for one, _, _ in pairs), " ".join(map(str, found.plan.seeds))
    found.add(Row(MEAN, "", first, metric, e.value, e.low, e.high, images, named, note))
    found.add(Row(MEAN, "", first, f"{metric}_p", e.p, images=images, seeds=named))


def _correct_means(found: Comparison) -> None:
    """The pairs of modes are one family: the answer calls any of them."""
    for a, b in found.pairs:
        row = found.get(MEAN, a, f"difference_to_{b}")
        if row and row.value is not None:
            pairs = [_paired(found, s, a, b) for s in found.whole]
            parts = [Part(1 / len(pairs), one - two) for one, two, _ in pairs]
            _add_detectable(found, row, parts, len(found.pairs))
    rows = [
        r
        for a, b in found.pairs
        if (r := found.get(MEAN, a, f"difference_to_{b}_p")) and r.value is not None
    ]
    for row, holm in zip(rows, statistics.holm([float(r.value or 0) for r in rows]), strict=True):
        found.add(
            Row(MEAN, "", row.mode, f"{row.metric}_holm", holm, images=row.images, seeds=row.seeds)
        )
