"""The criteria of the gate: each takes an estimate and returns whether it passes, and why.

Falls are not corrected for the number of datasets: a correction would let falls through, and
promoting wrongly costs every user, refusing wrongly costs one retraining.
"""

from dataclasses import dataclass

from densecl.analysis.needed import find_images_to_exclude
from densecl.analysis.sampled_value import Estimate
from densecl.config.params import CONTROL_SET, GateParams
from densecl.pages.formatting import format_bound, format_percent, format_points
from pipelines.gate.pairing import PairedResult, Unpaired
from pipelines.schemas import Criterion, CriterionName, DifferenceVerdict


@dataclass(frozen=True)
class Accuracy:
    """Top-1 of the candidate on a dataset, among `classes` classes."""

    top1: Estimate
    images: int
    classes: int


def check_validation(
    gate: GateParams, pair: PairedResult | Unpaired, anchor: str | None = None
) -> Criterion:
    """Passes if the lower bound of the difference on validation is above -margin; against the
    anchor, a version, above its own.
    """
    name: CriterionName = "anchor" if anchor else "val"
    margin = gate.anchor_margin if anchor else gate.margin
    if isinstance(pair, Unpaired):
        return _refuse_unpaired(name, CONTROL_SET, pair, -margin, anchor)
    estimate = pair.difference
    verdict = judge_difference(estimate, margin)
    sentence = _describe_verdict(verdict, estimate, margin)
    if verdict == "undecided":
        sentence += _describe_needed_images(pair, margin)
    return build_criterion(
        name,
        CONTROL_SET,
        estimate,
        -margin,
        pair.images,
        verdict == "not worse",
        f"{_name_anchor(anchor)}{_format_difference(estimate)}: {sentence}{pair.note}",
        verdict,
    )


def judge_difference(estimate: Estimate, fall: float) -> DifferenceVerdict:
    """`not worse`: a fall of more than `fall` is ruled out; `worse`: it is not, and the interval
    lies below 0.
    """
    if estimate.low > -fall:
        return "not worse"
    return "worse" if estimate.high < 0 else "undecided"


def _describe_verdict(verdict: DifferenceVerdict, estimate: Estimate, fall: float) -> str:
    bound = f"a fall of more than {format_bound(fall)} points"
    match verdict:
        case "not worse":
            return f"not worse: {bound} is ruled out"
        case "worse" if estimate.high < -fall:
            return f"worse: surely {bound}"
        case "worse":
            return f"worse: a fall, and {bound} is not ruled out"
    return f"undecided: {bound} is not ruled out"


def _describe_needed_images(pair: PairedResult, fall: float) -> str:
    images = find_images_to_exclude(pair.sampled, pair.confidence, fall)
    if images is None:
        return ""
    return f"; about {float(f'{images:.3g}'):,.0f} instead of {pair.images:,} images would do"


def check_regression(
    gate: GateParams, dataset: str, pair: PairedResult | Unpaired, anchor: str | None = None
) -> Criterion:
    """Fails if a dataset drops by more than the maximum and its whole interval is below 0."""
    name: CriterionName = "anchor-fall" if anchor else "fall"
    max_drop = gate.anchor_max_drop if anchor else gate.max_drop
    if isinstance(pair, Unpaired):
        return _refuse_unpaired(name, dataset, pair, -max_drop, anchor)
    estimate = pair.difference
    verdict = judge_difference(estimate, max_drop)
    passed = not (estimate.value < -max_drop and estimate.high < 0)
    if passed:
        verdict_text = _describe_verdict(verdict, estimate, max_drop)
        sentence = f"{_format_difference(estimate)}: {verdict_text}"
    else:
        span = f"({-100 * estimate.high:.1f} to {-100 * estimate.low:.1f})"
        sentence = (
            f"falls by {format_percent(-estimate.value)} points {span}, "
            f"more than {format_percent(max_drop)} points: worse"
        )
    return build_criterion(
        name,
        dataset,
        estimate,
        -max_drop,
        pair.images,
        passed,
        f"{_name_anchor(anchor)}{sentence}{pair.note}",
        verdict,
    )


def check_chance(accuracy: Accuracy | Unpaired) -> Criterion:
    """Passes if top-1 on validation is significantly above 1 / classes."""
    if isinstance(accuracy, Unpaired):
        return _refuse_unpaired("chance", CONTROL_SET, accuracy, 0.0, None)
    bound = 1 / accuracy.classes
    passed = accuracy.top1.low > bound
    rule = f"{'' if passed else 'not '}surely above chance ({format_percent(bound)} %)"
    return _build_absolute("chance", CONTROL_SET, accuracy, bound, passed, rule)


def check_minimum(dataset: str, accuracy: Accuracy | Unpaired, minimum: float) -> Criterion:
    """Passes if top-1 reaches the minimum."""
    if isinstance(accuracy, Unpaired):
        return _refuse_unpaired("minimum", dataset, accuracy, minimum, None)
    passed = accuracy.top1.value >= minimum
    rule = f"{'at least' if passed else 'below'} the minimum of {format_percent(minimum)} %"
    return _build_absolute("minimum", dataset, accuracy, minimum, passed, rule)


def _build_absolute(
    name: CriterionName, dataset: str, accuracy: Accuracy, bound: float, passed: bool, rule: str
) -> Criterion:
    top1 = accuracy.top1
    sentence = (
        f"top-1 {format_percent(top1.value)} % ({100 * top1.low:.1f} to {100 * top1.high:.1f})"
    )
    return build_criterion(
        name, dataset, top1, bound, accuracy.images, passed, f"{sentence}, {rule}"
    )


def _refuse_unpaired(
    name: CriterionName, dataset: str, unpaired: Unpaired, bound: float, anchor: str | None
) -> Criterion:
    sentence = _name_anchor(anchor) + unpaired.reason
    return build_criterion(name, dataset, None, bound, 0, unpaired.passes, sentence)


def _name_anchor(anchor: str | None) -> str:
    return f"against the anchor, version {anchor}: " if anchor else ""


def _format_difference(estimate: Estimate) -> str:
    return (
        f"{format_points(estimate.value)} points "
        f"({format_points(estimate.low)} to {format_points(estimate.high)})"
    )


def build_criterion(
    name: CriterionName,
    dataset: str,
    estimate: Estimate | None,
    bound: float,
    images: int,
    passed: bool,
    sentence: str,
    verdict: DifferenceVerdict | None = None,
) -> Criterion:
    return Criterion(
        name=name,
        dataset=dataset,
        value=estimate.value if estimate else None,
        low=estimate.low if estimate else None,
        high=estimate.high if estimate else None,
        bound=bound,
        images=images,
        passed=passed,
        said=sentence,
        verdict=verdict,
    )
