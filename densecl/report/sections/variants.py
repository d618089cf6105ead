"""Variants against their bases: what each changes, its verdict on every claim, how it trains."""

from collections.abc import Sequence
from statistics import fmean, stdev

import pandas as pd

from densecl import paths
from densecl.analysis.claims import compare_cost, list_claims
from densecl.analysis.results import Comparison
from densecl.analysis.variants import count_variant_tests
from densecl.pages.formatting import format_level
from densecl.report.claims import build_claim_cell, format_cost_cell
from densecl.report.formatting import TableCell, TableData, build_difference_cell
from densecl.report.mode_settings import describe_variant
from densecl.report.training_results import TrainingResults

# Column of history.csv -> title and factor, after the last epoch.
MATCHES = {
    "match/pairs/true": ("pairs of the loss", 100.0),
    "match/last/within0": ("patches of the last block", 100.0),
}
RANKS = {"rank_cls": ("images", 1.0), "rank_patches_within": ("patches of an image", 1.0)}
LOSS = "classification_loss"  # the total weighs it by lambda, which variants may change


def build_variant_table(comparison: Comparison, results: TrainingResults) -> TableData | None:
    """One row per variant; None without any."""
    if not comparison.plan.variants:
        return None
    claims = tuple(claim.name for claim in list_claims(comparison))
    groups = (
        ("Difference from the base, points", claims),
        ("True matches, %", tuple(title for title, _ in MATCHES.values())),
        ("Effective rank", tuple(title for title, _ in RANKS.values())),
        ("Trainings", ("finished", "spread of the loss")),
        ("Cost", ("time of a step",)),
    )
    rows = tuple(
        (
            variant,
            describe_variant(comparison.plan, variant),
            (
                *(
                    build_claim_cell(comparison, c, (variant, base))
                    for c in list_claims(comparison)
                ),
                *(
                    _build_mean_cell(results, variant, base, column, factor)
                    for column, (_, factor) in (MATCHES | RANKS).items()
                ),
                _build_finished_cell(comparison, results, variant),
                _build_spread_cell(results, variant, base),
                _build_cost_cell(comparison, variant, base),
            ),
        )
        for variant, base in comparison.variant_pairs
    )
    return TableData(groups, rows)


def build_variant_set_table(comparison: Comparison) -> TableData | None:
    """Differences of each variant from its base on each dataset, which nothing is tested on."""
    if not comparison.plan.variants:
        return None
    datasets = comparison.plan.datasets
    rows = tuple(
        (
            f"{variant} − {base}",
            "",
            tuple(build_difference_cell(comparison, s, variant, base) for s in datasets),
        )
        for variant, base in comparison.variant_pairs
    )
    return TableData((("Points", tuple(comparison.plan.titles.values())),), rows)


def describe_variant_table(comparison: Comparison) -> str:
    """What its verdicts hold for, and what its columns are."""
    tests = count_variant_tests(comparison)
    level = f"{format_level(comparison.plan.values.confidence)} %"
    family = {0: "", 1: f"A family of one test, with a {level} interval. "}.get(
        tests,
        f"One family of {tests} tests, all verdicts of this table: simultaneous {level} intervals "
        "(Bonferroni). ",
    )
    return (
        f"{family}Same images and seeds as the base. Matches, ranks and loss: after the last "
        "epoch, means over the seeds, not tested. A training stops at its first step that is not "
        "finite, so one that finished has none. Spread: standard deviation of the "
        "classification loss over seeds, in nats."
    )


def _list_last(frames: Sequence[pd.DataFrame], column: str) -> list[float]:
    """The value after the last epoch, of the seeds that have one."""
    columns = [frame[column].dropna() for frame in frames if column in frame]
    return [float(values.iloc[-1]) for values in columns if len(values)]


def _build_mean_cell(
    results: TrainingResults, variant: str, base: str, column: str, factor: float
) -> TableCell:
    """Mean over the seeds, beside that of the base."""
    own, peer = (_list_last(results.histories[mode], column) for mode in (variant, base))
    if not own:
        return TableCell("–")
    beside = f"{base} {factor * fmean(peer):.1f}" if peer else ""
    return TableCell(f"{factor * fmean(own):.1f}", beside, _name_files(variant, base))


def _build_spread_cell(results: TrainingResults, variant: str, base: str) -> TableCell:
    """Standard deviation over the seeds, in nats, beside that of the base."""
    own, peer = (_list_last(results.histories[mode], LOSS) for mode in (variant, base))
    if len(own) < 2:
        return TableCell("–")
    beside = f"{base} {stdev(peer):.3f}" if len(peer) > 1 else ""
    return TableCell(f"{stdev(own):.3f}", beside, _name_files(variant, base))


def _build_finished_cell(
    comparison: Comparison, results: TrainingResults, variant: str
) -> TableCell:
    """Trainings that left a history: one stops at its first step that is not finite."""
    finished, seeds = len(results.histories[variant]), len(comparison.plan.seeds)
    return TableCell(f"{finished} of {seeds}", "", _name_files(variant))


def _build_cost_cell(comparison: Comparison, variant: str, base: str) -> TableCell:
    ratio = compare_cost(comparison, (variant, base), count_variant_tests(comparison))
    return format_cost_cell(comparison, (variant, base), ratio)


def _name_files(*modes: str) -> str:
    return ", ".join(str(paths.TRAINING / f"{mode}-<seed>" / "history.csv") for mode in modes)
