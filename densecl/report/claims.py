"""The table of the first screen: one line per claim, with a verdict for dense against each other
mode.
"""

from densecl import paths
from densecl.analysis.claims import (
    OCCLUSION,
    SHIFT,
    Claim,
    Pair,
    compare_cost,
    count_claim_tests,
    get_chance,
    list_claims,
    list_pairs,
)
from densecl.analysis.comparison import Comparison
from densecl.analysis.probe_results import find_measure, list_measures
from densecl.config.params import CONTROL_SET
from densecl.cost.result import CostReport, StepRatio
from densecl.pages.formatting import align_columns, format_count, format_percent, join_names
from densecl.report.formatting import (
    TableCell,
    TableData,
    TableRow,
    build_difference_cell,
    build_metric_cell,
    list_main_modes,
)
from densecl.report.mode_settings import explain_other_batch
from densecl.report.verdicts import (
    AT_CHANCE,
    WORDS,
    describe_needed,
    format_limits,
    judge_claim,
    judge_cost,
    list_seeds,
)

SIGNS = {WORDS[1]: 1, WORDS[-1]: -1}


def build_claim_table(comparison: Comparison) -> TableData:
    """The unaltered images, which nothing is tested on, then claims, then the cost; by differences
    and scores.
    """
    pairs, modes = list_pairs(comparison), list_main_modes(comparison)
    rows = [
        *_build_control_rows(comparison),
        *(
            (
                claim.name,
                describe_claim(comparison, claim),
                (
                    *(build_claim_cell(comparison, claim, pair) for pair in pairs),
                    *(_build_score_cell(comparison, claim.place, mode) for mode in modes),
                ),
            )
            for claim in list_claims(comparison)
        ),
    ]
    cost_cells = (
        *(_build_cost_cell(comparison, pair) for pair in pairs),
        *(_build_time_cell(comparison.cost, mode) for mode in modes),
    )
    rows.append(
        ("Cost", "time of a training step; differences in % of time, scores in ms", cost_cells)
    )
    groups = (
        ("Difference, points", tuple(f"{a} − {b}" for a, b in pairs)),
        ("Score, %", modes),
    )
    return TableData(tuple(group for group in groups if group[1]), tuple(rows))


def has_control_row(comparison: Comparison) -> bool:
    """Whether the accuracy on unaltered images stands above the claims, being none of them."""
    places = [claim.place for claim in list_claims(comparison)]
    return CONTROL_SET in comparison.plan.datasets and CONTROL_SET not in places


def _build_control_rows(comparison: Comparison) -> list[TableRow]:
    """Robust accuracies contain it: a gain there may be plain accuracy."""
    if not has_control_row(comparison):
        return []
    title = comparison.plan.titles[CONTROL_SET]
    claim = Claim(f"Unaltered images ({title})", CONTROL_SET, "", "top-1; not tested here")
    cells = (
        *(build_difference_cell(comparison, CONTROL_SET, *p) for p in list_pairs(comparison)),
        *(_build_score_cell(comparison, CONTROL_SET, mode) for mode in list_main_modes(comparison)),
    )
    return [(claim.name, describe_claim(comparison, claim), cells)]


def describe_claim(comparison: Comparison, claim: Claim) -> str:
    """What is measured, on how many images, and the chance level."""
    scores = [comparison.get_score(claim.place, mode) for mode in comparison.plan.modes]
    images = next((row.images for row in scores if row and row.images), None)
    chance = get_chance(comparison, claim.place)
    about = claim.about
    if claim is SHIFT and comparison.complete_sets:
        about = f"top-1, mean of {format_count(len(comparison.complete_sets), 'dataset')}"
    if claim is OCCLUSION and (shares := _list_occlusion_shares(comparison)):
        about = f"top-1, mean over 0 to {100 * max(shares):g} % of patches dropped"
    parts = [
        about,
        format_count(images, "image") if images else "",
        "" if chance is None else f"chance {format_percent(chance)} %",
    ]
    return "; ".join(filter(None, parts))


def _list_occlusion_shares(comparison: Comparison) -> list[float]:
    """Of the curve whose area is the claim's score."""
    if OCCLUSION.probe not in comparison.plan.probes:
        return []
    curve = OCCLUSION.place.partition(") ")[2].partition("/")[0]
    measures = [
        find_measure(comparison, OCCLUSION.probe, name)
        for name in list_measures(comparison, OCCLUSION.probe)
    ]
    return [m.strength for m in measures if m and m.curve == curve and m.strength is not None]


def build_claim_cell(comparison: Comparison, claim: Claim, pair: Pair) -> TableCell:
    """The verdict on a claim in its family, with the difference, its interval and what it needs."""
    verdict = judge_claim(comparison, claim, pair)
    if not verdict:
        return TableCell("not measured", _explain_missing(comparison, claim, pair), missing=True)
    points, interval = format_limits(comparison, claim.place, pair)
    needed = describe_needed(comparison, claim.place, pair)
    needs = f"needs {needed}" if needed and verdict != AT_CHANCE else ""
    seeds = list_seeds(comparison, claim.place, pair)
    only = f"seeds {', '.join(map(str, seeds))} only"
    return TableCell(
        points,
        "; ".join(filter(None, (interval, only * (set(seeds) != {*comparison.plan.seeds}), needs))),
        build_difference_cell(comparison, claim.place, *pair).source,
        significance=SIGNS.get(verdict, 0),
        verdict=verdict,
    )


def _build_score_cell(comparison: Comparison, place: str, mode: str) -> TableCell:
    row = comparison.get_score(place, mode)
    if row is None or row.value is None:
        return TableCell("–")
    return build_metric_cell(row)


def _explain_missing(comparison: Comparison, claim: Claim, pair: Pair) -> str:
    if claim.probe and claim.probe not in comparison.plan.probes:
        return f"{claim.name}: evaluate.probes in the params has no {claim.probe}"
    rows = [comparison.get_row(claim.place, pair[0], f"difference_to_{pair[1]}")]
    if claim.probe:
        rows += [
            comparison.get_row(place, mode, "value")
            for mode in pair
            for place in (claim.place, f"({claim.probe})")
        ]
    notes = [row.note for row in rows if row and row.value is None and row.note]
    reasons = dict.fromkeys(reason for note in notes for reason in note.split("; "))
    return f"{claim.name}: {'; '.join(reasons) or f'no measure {claim.place}'}"


def compare_claimed_cost(comparison: Comparison, pair: Pair) -> StepRatio | None:
    """Relative time with its interval in the family of the first screen; None if not measured."""
    return compare_cost(comparison, pair, count_claim_tests(comparison))


def format_extra_time(ratio: StepRatio) -> tuple[str, str]:
    """`+52 %` and `[+49, +55]`."""
    value, low, high = (
        f"{100 * ((end or 1.0) - 1):+.0f}".replace("-", "−")
        for end in (ratio.value, ratio.low, ratio.high)
    )
    return f"{value} %", f"[{low}, {high}]"


def explain_missing_cost(comparison: Comparison, pair: Pair) -> str:
    cost = comparison.cost
    if cost is None:
        return f"no file {paths.COST}"
    if not cost.is_measured:
        return "it could not be measured"
    if reason := explain_other_batch(comparison.plan, pair[0]):
        return reason
    absent = [mode for mode in pair if mode not in cost.modes]
    return f"{join_names(absent)} {'is' if len(absent) == 1 else 'are'} not in {paths.COST}"


def _build_cost_cell(comparison: Comparison, pair: Pair) -> TableCell:
    return format_cost_cell(comparison, pair, compare_claimed_cost(comparison, pair))


def format_cost_cell(comparison: Comparison, pair: Pair, ratio: StepRatio | None) -> TableCell:
    """The verdict on a relative time with its interval, or why there is none."""
    if ratio is None:
        reason = explain_missing_cost(comparison, pair)
        return TableCell("not measured", f"Cost: {reason}", missing=True)
    extra, limits = format_extra_time(ratio)
    verdict = judge_cost(ratio)
    return TableCell(
        f"{extra} time", limits, str(paths.COST), SIGNS.get(verdict, 0), verdict=verdict
    )


def _build_time_cell(cost: CostReport | None, mode: str) -> TableCell:
    if cost is None or not cost.is_measured or mode not in cost.modes:
        return TableCell("–")
    return TableCell(f"{1000 * cost.modes[mode].seconds:,.0f} ms", "", str(paths.COST))


def format_claims_text(table: TableData) -> str:
    """Aligned columns for a terminal, without the scores; "" without a pair of modes."""
    pairs = table.groups[0][1] if len(table.groups) > 1 else ()
    if not pairs:
        return ""
    lines = [
        [label, *(_format_text_cell(cell) for cell in cells[: len(pairs)])]
        for label, _, cells in table.rows
    ]
    return align_columns([["claim", *pairs], *lines])


def _format_text_cell(cell: TableCell) -> str:
    if cell.missing:
        return cell.main
    if not cell.verdict:
        return f"not tested here: {cell.main} ({cell.sub})" if cell.sub else cell.main
    parts = [part for part in cell.sub.split("; ") if not part.startswith("needs ")]
    return f"{cell.verdict}: {' '.join((cell.main, *parts))}"
