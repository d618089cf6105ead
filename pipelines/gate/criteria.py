"""The criteria of the gate: each takes an estimate and returns whether it passes, and why.

Falls are not corrected for the number of datasets: a correction would let falls through, and
promoting wrongly costs every user, refusing wrongly costs one retraining.
"""

from dataclasses import dataclass

from densecl.analysis.sampled_value import Estimate
from densecl.config.params import CONTROL_SET, GateParams
from densecl.pages.formatting import format_percent, format_points
from pipelines.gate.pairing import PairedResult, Unpaired
from pipelines.schemas import Criterion, CriterionName


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
    passed = estimate.low > -margin
    if passed:
        sentence = f"a fall of {format_percent(margin)} points is ruled out"
    elif estimate.high < -margin:
        sentence = f"surely a fall of more than {format_percent(margin)} points"
    else:
        sentence = (
            f"the interval is too wide to rule out a fall of "
            f"{format_percent(margin)} points{_estimate_needed_images(pair, margin)}"
        )
    return build_criterion(
        name,
        CONTROL_SET,
        estimate,
        -margin,
        pair.images,
        passed,
        f"{_name_anchor(anchor)}{_format_difference(estimate)}: {sentence}{pair.note}",
    )


def _estimate_needed_images(pair: PairedResult, margin: float) -> str:
    """Number of images that would suffice for the same difference: interval widths scale with
    1/sqrt(n).
    """
    headroom = pair.difference.value + margin
    if headroom <= 0:
        return ""
    images = pair.images * ((pair.difference.value - pair.difference.low) / headroom) ** 2
    return f"; it needs more images, about {float(f'{images:.2g}'):,.0f} instead of {pair.images:,}"


def check_regression(
    gate: GateParams, dataset: str, pair: PairedResult | Unpaired, anchor: str | None = None
) -> Criterion:
    """Fails if a dataset drops by more than the maximum and its whole interval is below 0."""
    name: CriterionName = "anchor-fall" if anchor else "fall"
    max_drop = gate.anchor_max_drop if anchor else gate.max_drop
    if isinstance(pair, Unpaired):
        return _refuse_unpaired(name, dataset, pair, -max_drop, anchor)
    estimate = pair.difference
    exceeds_drop, is_significant = estimate.value < -max_drop, estimate.high < 0
    if exceeds_drop and is_significant:
        span = f"({-100 * estimate.high:.1f} to {-100 * estimate.low:.1f})"
        sentence = (
            f"falls by {format_percent(-estimate.value)} points {span}, "
            f"more than {format_percent(max_drop)} points"
        )
    else:
        reason = (
            f"more than {format_percent(max_drop)} points, but it may be chance"
            if exceeds_drop
            else f"no fall of more than {format_percent(max_drop)} points"
        )
        sentence = f"{_format_difference(estimate)}: {reason}"
    return build_criterion(
        name,
        dataset,
        estimate,
        -max_drop,
        pair.images,
        not (exceeds_drop and is_significant),
        f"{_name_anchor(anchor)}{sentence}{pair.note}",
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
    )
