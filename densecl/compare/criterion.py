"""The criterion of `compare --fail-if-worse`: whether B may take the place of A."""

from collections.abc import Iterator
from dataclasses import dataclass

from densecl import paths
from densecl.analysis.differences import SHIFTED_MEAN
from densecl.analysis.dvc_lock import read_lock
from densecl.compare.differences import Delta, ExperimentComparison
from densecl.compare.pairing import describe_unmatched
from densecl.compare.summary import (
    describe_largest_fall,
    describe_stale,
    format_interval,
    format_verdict,
)
from densecl.errors import DenseclError, RegressionFound
from densecl.pages.formatting import (
    clip_list,
    format_bound,
    format_count,
    format_level,
    format_points,
)

MAX_NAMED = 3  # cells that a message names


@dataclass(frozen=True)
class Judgement:
    """What is said, and the error that ends the command; None: the criterion held."""

    text: str
    error: type[DenseclError] | None = None


def judge_comparison(comparison: ExperimentComparison, margin: float | None) -> Judgement:
    """Whether B is not worse than A; fractions in [0, 1].

    Without a margin: in no row, dataset or mean, does the simultaneous interval lie below 0. With
    one: on every dataset the lower end of the interval lies above -margin, each at its own level
    since all must hold (an intersection-union test: Berger 1982), as in the retraining's gate.
    """
    if stale := describe_stale(comparison):
        return Judgement(stale, DenseclError)
    for letter, side in (("A", comparison.a), ("B", comparison.b)):
        if side.origin.unchecked:
            text = f"not comparable: {letter}: {side.origin.describe_unchecked()}"
            return Judgement(text, DenseclError)
    worse = comparison.select_by_call("worse")
    if any(margin is None or not _is_within(delta, margin) for delta in worse):
        return Judgement(format_verdict(comparison), RegressionFound)
    if gaps := list(_list_gaps(comparison)):
        return Judgement(
            f"not comparable: {clip_list(gaps, MAX_NAMED)}; what was judged in A and not in B "
            "cannot pass",
            DenseclError,
        )
    if margin is None:
        return Judgement(_describe_exclusion(comparison))
    return _judge_margin(comparison, margin)


def _is_within(delta: Delta, margin: float) -> bool:
    """Whether a fall of more than the margin is ruled out."""
    return delta.difference is None or delta.difference.low > -margin


def _list_gaps(comparison: ExperimentComparison) -> Iterator[str]:
    """What of A was not judged in B: cells, questions and images."""
    a, b = comparison.a, comparison.b
    for key in a.cells:
        if key not in b.cells:
            dataset, mode, seed = key
            dataset = comparison.titles.get(dataset, dataset)
            reason = b.missing.get(key, "not in its plan")
            yield f"A has {dataset}, {mode}, seed {seed}, and B does not ({reason})"
    for delta in comparison.deltas:
        name = f"{comparison.format_dataset(delta)}, {delta.mode}"
        if delta.call == "unlike":
            yield f"{name}: {delta.note}"
        if left_out := {k: n for k, n in delta.unmatched.items() if n and k != "only_b"}:
            yield f"{name}: images {describe_unmatched(left_out)} are left out"
    # A folder of reports alone has neither manifests nor a dvc.lock that names them.
    known = {str(paths.manifest_file(dataset)) for dataset in a.manifests}
    known |= read_lock(a.origin.root).outs.keys()
    for (dataset, mode), pair in comparison.pairs.items():
        if not pair.by_content and str(paths.manifest_file(dataset)) in known:
            title = comparison.titles.get(dataset, dataset)
            yield f"{title}, {mode}: contents are unchecked, for want of a manifest"


def _describe_exclusion(comparison: ExperimentComparison) -> str:
    """That B is worse nowhere, and the largest fall that may still be there."""
    level = format_level(comparison.report_params.confidence)
    held = f"Held: B is significantly worse than A nowhere (simultaneous {level} % intervals)"
    if comparison.select_by_call("open"):
        held += f"; {describe_largest_fall(comparison)} is not excluded, see --margin"
    return f"{held}."


def _judge_margin(comparison: ExperimentComparison, margin: float) -> Judgement:
    cells = [d for d in comparison.deltas if d.dataset != SHIFTED_MEAN and d.call != "missing"]
    undecided = [
        f"{comparison.format_dataset(d)} ({d.mode}: {format_points(d.difference.value)} "
        f"{format_interval(d.difference)})"
        for d in cells
        if d.difference and not _is_within(d, margin)
    ]
    fall = f"a fall of more than {format_bound(margin)} points"
    level = f"{format_level(comparison.report_params.confidence)} % intervals"
    if not undecided:
        count = format_count(len(cells), "cell")
        return Judgement(f"Held: {fall} is ruled out in each of {count} ({level}).")
    return Judgement(
        f"undecided: {fall} is not ruled out on {clip_list(undecided, MAX_NAMED)} ({level}); it "
        "takes more images or seeds, or a larger --margin",
        RegressionFound,
    )
