"""What the results rest on, and what to beware of, in sentences beside the headline."""

from collections.abc import Mapping
from statistics import fmean

import pandas as pd

from densecl.analysis.claims import is_at_chance, list_claims
from densecl.analysis.comparison import SHIFTED_MEAN, Comparison, get_significance
from densecl.analysis.differences import list_table_tests
from densecl.analysis.statistics import SEEDS_FOR_MODE
from densecl.artifacts import ReportPlan
from densecl.config.params import CONTROL_SET
from densecl.pages.formatting import clip_list, format_count, format_percent, join_names
from densecl.report.formatting import list_modes
from densecl.report.mode_settings import describe_unequal_training, read_mode_settings
from densecl.report.sentences import describe_power, describe_scope
from densecl.report.verdicts import group_by_seeds, name_claims

# What matches are found on -> its name in history.csv; on the crops' geometry nothing is learned.
MATCHING_FEATURES = {"dense": "dense", "backbone": "last"}


def build_details(comparison: Comparison) -> list[str]:
    """What the seeds allow to conclude, and the power of the tests."""
    general = describe_unequal_training(comparison.plan)
    if len(comparison.plan.main_modes) == 1:
        return general
    return [
        *general,
        *_describe_scope(comparison),
        *_describe_power(comparison),
        *_describe_other_family(comparison),
    ]


def build_question(comparison: Comparison) -> str:
    """What the page answers: without a second mode nothing is compared, and without a shifted
    dataset or a probe robustness is not measured.
    """
    modes, titles = comparison.plan.main_modes, comparison.plan.titles
    if len(modes) == 1 and comparison.plan.variants:
        names = [m for m in comparison.plan.modes if m not in modes]
        verb = "does" if len(names) == 1 else "do"
        return f"How {verb} {join_names(names)} compare with {modes[0]}, and at what cost?"
    if len(modes) == 1:
        return f"One mode, {modes[0]}: its scores, compared with no other mode."
    if not comparison.shifted_sets and not comparison.plan.probes:
        place = titles.get(CONTROL_SET, CONTROL_SET)
        return f"Which of the modes {join_names(modes)} is better on {place}, at what cost?"
    return (
        "Does dense contrastive learning make a vision transformer more robust than global, or "
        "than none, and at what cost?"
    )


def describe_no_shift(comparison: Comparison) -> list[str]:
    if comparison.shifted_sets:
        return []
    return [
        "No shifted dataset was evaluated: nothing here is about robustness to a shift of the "
        "distribution."
    ]


def describe_chance(comparison: Comparison) -> list[str]:
    """Which scores are not shown to be better than guessing, and which models answer every image
    with the same class; [] if there are none.
    """
    places = (*comparison.plan.datasets, SHIFTED_MEAN)
    guessed = {
        place: modes
        for place in places
        if (modes := [m for m in list_modes(comparison) if is_at_chance(comparison, place, [m])])
    }
    constant = [
        f"{comparison.plan.titles[dataset]} ({mode}, seed {seed})"
        for (dataset, mode), cell in comparison.cells.items()
        for seed, rows in cell.rows.items()
        if cell.records[seed].classes > 1 and rows["prediction"].nunique() == 1
    ]
    sentences = []
    if guessed:
        titles = {**comparison.plan.titles, SHIFTED_MEAN: "mean of shifted datasets"}
        names = "; ".join(f"{titles[p]} ({', '.join(m)})" for p, m in guessed.items())
        sentences.append(
            f"At chance, not shown to be better than guessing: {names}. Drops, differences and "
            "points of charts there mean little."
        )
    if constant:
        sentences.append(f"One class is predicted for every image: {clip_list(constant, 6)}.")
    return sentences


def _describe_other_family(comparison: Comparison) -> list[str]:
    """What the tests below the first screen call."""
    tests = list_table_tests(comparison)
    called = [test for test in tests if get_significance(comparison, *test)]
    if not called:
        return []
    claims = {claim.place: claim.name for claim in list_claims(comparison)}
    names = comparison.plan.titles | claims
    named = [f"{a} − {b} on {names.get(place, place)}" for place, a, b in called]
    return [
        f"Apart from these claims, the tables below call {len(called)} of "
        f"{format_count(len(tests), 'difference')}: {clip_list(named, 3)}."
    ]


def _describe_power(comparison: Comparison) -> list[str]:
    """Power of the tests of the first screen that found no significant difference, and on what the
    numbers of seeds and images are conditional.
    """
    groups: dict[bool, list[float]] = {}  # by whether the seeds' spread is known
    fewest = 0
    for seeds, tests in group_by_seeds(comparison).items():
        rows = [
            comparison.get_row(claim.place, a, f"difference_to_{b}_detectable")
            for claim, (a, b) in tests
            if not get_significance(comparison, claim.place, a, b)
        ]
        if values := [row.value for row in rows if row and row.value is not None]:
            groups.setdefault(len(seeds) >= SEEDS_FOR_MODE, []).extend(values)
            if len(seeds) >= SEEDS_FOR_MODE:
                fewest = min(fewest or len(seeds), len(seeds))
    if not groups:
        return []
    rough = f", which {fewest} seeds tell roughly only" if fewest else ""
    return [
        *(
            sentence
            for is_known, values in groups.items()
            for sentence in describe_power(
                "two modes are not distinguishable"
                + (" with fewer than three seeds" * (len(groups) > 1 and not is_known)),
                values,
                fewest if is_known else 1,
            )
        ),
        "Seeds or images needed: to call the difference seen with 80 % power, if it and the "
        f"variances seen are the true ones{rough}; the nearest to a decision is the least of "
        "these numbers, and a least one tends to be too small.",
    ]


def _describe_scope(comparison: Comparison) -> list[str]:
    """State whether results apply to modes or only to these models, by the seeds of each claim."""
    groups = group_by_seeds(comparison)
    few = {seeds: tests for seeds, tests in groups.items() if len(seeds) < SEEDS_FOR_MODE}
    many = {len(seeds) for seeds in groups if len(seeds) >= SEEDS_FOR_MODE}
    sentences = [describe_scope(min(many), _name_numbers(many))] if many else []
    if few and many:
        names = name_claims([claim for tests in few.values() for claim, _ in tests])
        return [
            *sentences,
            f"Not so on {names}: there the intervals cover new images and not the noise between "
            "seeds.",
        ]
    if few:
        one = f"one seed ({next(iter(few))[0]})" if len(few) == 1 else "one seed"
        numbers = {len(seeds) for seeds in few}
        sentences = [describe_scope(1, one if numbers == {1} else _name_numbers(numbers))]
    return sentences


def _name_numbers(numbers: set[int]) -> str:
    """`3 seeds`, `3 to 5 seeds`."""
    return f"{' to '.join(map(str, dict.fromkeys((min(numbers), max(numbers)))))} seeds"


TERMS = {
    "dense": "dense: contrast of matching patches of two views",
    "global": "global: contrast of whole images",
    "none": "none: classification alone",
}


def explain_terms(plan: ReportPlan) -> list[str]:
    """The words of the first screen."""
    return [
        *(text for mode, text in TERMS.items() if mode in plan.modes),
        *(["variant: one of these with other settings"] if plan.variants else []),
        "seed: the random numbers of one training",
        *(["mIoU: overlap of predicted and true areas, mean of classes"] if plan.probes else []),
    ]


def check_learned_position(
    plan: ReportPlan, histories: Mapping[str, list[pd.DataFrame]]
) -> list[str]:
    """Warn if dense matches of flipped or shifted views are no better than matching by position."""
    settings = read_mode_settings(plan)
    final_values = []
    for mode in plan.main_modes:
        contrast = settings.resolve_contrast(mode)
        name = MATCHING_FEATURES.get(getattr(contrast, "correspondence_features", ""), "")
        columns = [f"match/{name}/moved0", "match/identity/moved0"]
        final_values += [
            frame[columns].iloc[-1]
            for frame in histories.get(mode, [])
            if {*columns} <= {*frame.columns}
        ]
    worse = [(match, identity) for match, identity in final_values if match <= identity]
    if not worse:
        return []
    match_rate, identity_rate = (fmean(values) for values in zip(*worse, strict=True))
    share_text = (
        f" in {len(worse)} of {len(final_values)} trainings" if len(final_values) > 1 else ""
    )
    return [
        f"Matching has learned position, not content{share_text}: of flipped or shifted views "
        f"{format_percent(match_rate)} % of the patches "
        f"are matched to their true place, and {format_percent(identity_rate)} % by the same index."
    ]


def describe_probed_modes(plan: ReportPlan) -> list[str]:
    settings = read_mode_settings(plan)
    return [
        f"{m} trained no classifier (lambda 1): a linear probe on its frozen features is evaluated."
        for m in plan.modes
        if (contrast := settings.resolve_contrast(m)) and contrast.lambda_weight == 1
    ]
