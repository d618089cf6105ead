"""What each variant changed: differences, matches, ranks, stability and cost, as rows."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, stdev

import pandas as pd

from densecl import paths
from densecl.analysis.claims import compare_cost, list_claims
from densecl.analysis.comparison import compare_modes
from densecl.analysis.results import Comparison
from densecl.analysis.variants import count_variant_tests
from densecl.artifacts import ReportPlan, read_json
from densecl.config.params import CONTROL_SET
from densecl.monitoring.training_records import TrainingRecords
from densecl.report.mode_settings import describe_variant
from densecl.report.training_results import read_training_results
from densecl.report.verdicts import judge_claim

# Column of history.csv -> column of the table: after the last epoch, mean over the seeds.
MEASURES = {
    "match/pairs/true": "true_matches_pairs",
    "match/last/within0": "true_matches_last_block",
    "rank_cls": "rank_images",
    "rank_patches_within": "rank_patches",
}
LOSS = "classification_loss"


@dataclass(frozen=True)
class Difference:
    """Of a variant from its base, paired by image and seed; fractions."""

    place: str
    value: float
    low: float  # simultaneous, where the place is tested; else of this number alone
    high: float
    verdict: str  # "" where nothing is tested


@dataclass(frozen=True)
class VariantRow:
    factor: str
    variant: str
    base: str
    changes: str
    differences: dict[str, Difference]  # by the name of the claim, or of the dataset
    measures: dict[str, float]
    base_measures: dict[str, float] = field(repr=False)
    seeds: int = 0
    step_time: tuple[float, float | None, float | None] | None = None  # ratio to the base


def read_variant_rows(
    factors: Mapping[str, Sequence[str]], root: Path = Path()
) -> tuple[Comparison, list[VariantRow]]:
    """The comparison that the report shows, and one row per variant of these factors."""
    plan = read_json(ReportPlan, root / paths.plan_file("report"))
    results = read_training_results(plan, root, TrainingRecords({}, ""))
    comparison = compare_modes(plan, root, results.cost)
    rows = []
    for factor, variants in factors.items():
        for variant in variants:
            base = plan.variants[variant]
            histories = results.histories
            rows.append(
                VariantRow(
                    factor,
                    variant,
                    base,
                    describe_variant(plan, variant).removeprefix(f"{base} with "),
                    collect_differences(comparison, variant, base),
                    measure_trainings(histories[variant]),
                    measure_trainings(histories[base]),
                    len(plan.seeds),
                    compute_step_time(comparison, variant, base),
                )
            )
    return comparison, rows


def collect_differences(comparison: Comparison, variant: str, base: str) -> dict[str, Difference]:
    """The unaltered images first, which are not tested, then the claims that were measured."""
    found = {}
    plain = comparison.get_difference(CONTROL_SET, variant, base)
    if plain and plain.value is not None and plain.low is not None and plain.high is not None:
        title = comparison.plan.titles[CONTROL_SET]
        found[title] = Difference(CONTROL_SET, plain.value, plain.low, plain.high, "")
    for claim in list_claims(comparison):
        verdict = judge_claim(comparison, claim, (variant, base))
        row = comparison.get_row(claim.place, variant, f"difference_to_{base}_simultaneous")
        plain = comparison.get_difference(claim.place, variant, base)
        if verdict and row and plain and plain.value is not None:
            low, high = (float("nan") if end is None else end for end in (row.low, row.high))
            found[claim.name] = Difference(claim.place, plain.value, low, high, verdict)
    return found


def measure_trainings(histories: Sequence[pd.DataFrame]) -> dict[str, float]:
    """Means over the seeds after the last epoch, and the spread of the loss over the seeds."""
    found = {
        name: fmean(values)
        for column, name in MEASURES.items()
        if (values := _list_last(histories, column))
    }
    losses = _list_last(histories, LOSS)
    if len(losses) > 1:
        found["loss_spread"] = stdev(losses)
    return found


def _list_last(histories: Sequence[pd.DataFrame], column: str) -> list[float]:
    columns = [history[column].dropna() for history in histories if column in history]
    return [float(values.iloc[-1]) for values in columns if len(values)]


def compute_step_time(
    comparison: Comparison, variant: str, base: str
) -> tuple[float, float | None, float | None] | None:
    """Ratio to the base with its limits in the family of the variants; None if not measured."""
    ratio = compare_cost(comparison, (variant, base), count_variant_tests(comparison))
    return (ratio.value, ratio.low, ratio.high) if ratio else None


def build_ablation_table(rows: Sequence[VariantRow]) -> pd.DataFrame:
    """One row per variant and place, as reports/ablations.csv has it; fractions."""
    lines = []
    for row in rows:
        fixed = {name: getattr(row, name) for name in ("factor", "variant", "base", "changes")}
        ratio, low, high = row.step_time or (None, None, None)
        trained = {
            **row.measures,
            **{f"base_{name}": value for name, value in row.base_measures.items()},
            "seeds": row.seeds,
            "step_time": ratio,
            "step_time_low": low,
            "step_time_high": high,
        }
        for claim, difference in row.differences.items():
            lines.append({**fixed, "claim": claim, **asdict(difference), **trained})
    return pd.DataFrame(lines)
