"""The gate: decides on shared images whether a candidate replaces the champion. Writes nothing.

Differences are candidate - champion in top-1, with the interval of `paired.estimate_difference`;
they speak of these two models. Each model's labels are indices into its own class list, so right
and wrong are compared, and labels by wnid. Falls are not corrected for the number of datasets: a
correction would let falls through, and promoting wrongly costs every user, refusing wrongly costs
one retraining.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from densecl import paths
from densecl.analysis.paired import (
    MissingPredictions,
    ModelPredictions,
    estimate_difference,
    read_model_predictions,
)
from densecl.analysis.sampled_value import Estimate
from densecl.analysis.statistics import compute_wilson_interval
from densecl.config.params import CONTROL_SET, GateParams, Params
from densecl.pages.formatting import format_count, format_percent, format_points
from pipelines.schemas import Champion, Criterion, GateVerdict

CriterionName = Literal["val", "fall", "minimum", "chance"]


@dataclass(frozen=True)
class PairedResult:
    """Two models on the images that both were evaluated on."""

    difference: Estimate
    images: int
    note: str  # omissions and remarks; "" or begins with a semicolon


def judge_candidate(params: Params, champion: Champion, root: Path = Path()) -> GateVerdict:
    """Verdict on `params.candidate` from the predictions under `root`: every criterion with value,
    interval and bound.

    Without a champion: top-1 on validation surely above chance, and the least top-1 of
    `retraining.gate.minimum`. With one: the lower bound of the difference on validation above
    -margin, and on no dataset a significant drop of more than max_drop.
    """
    mode, seed = params.candidate
    if champion.version is None:
        criteria = _check_first_champion(params, root)
    else:
        pairs = {name: _compare_models(params, root, name) for name in params.evaluate.datasets}
        criteria = [
            check_validation(params.retraining.gate, pairs[CONTROL_SET]),
            *(check_regression(params.retraining.gate, name, pair) for name, pair in pairs.items()),
        ]
    promoted = all(criterion.passed for criterion in criteria)
    return GateVerdict(
        promoted=promoted,
        champion=champion.version,
        mode=mode,
        seed=seed,
        criteria=tuple(criteria),
        said=_format_verdict(promoted, champion.version, criteria),
    )


def _check_first_champion(params: Params, root: Path) -> list[Criterion]:
    """The absolute minimums, for a candidate without a champion to beat."""
    minimums = params.retraining.gate.minimum
    return [
        _check_accuracy(params, root, "chance", CONTROL_SET, None),
        *(_check_accuracy(params, root, "minimum", *minimum) for minimum in minimums.items()),
    ]


def _check_accuracy(
    params: Params, root: Path, name: CriterionName, dataset: str, minimum: float | None
) -> Criterion:
    """Passes if top-1 reaches the minimum or, without a minimum, is significantly above chance."""
    predictions = read_model_predictions(root, dataset, *params.candidate)
    if isinstance(predictions, MissingPredictions):
        sentence = f"no evaluation: {predictions.reason}"
        return _build_criterion(name, dataset, None, minimum or 0.0, 0, False, sentence)
    estimate = compute_wilson_interval(predictions.correct[:, 0], params.report.confidence)
    accuracy = (
        f"top-1 {format_percent(estimate.value)} % "
        f"({100 * estimate.low:.1f} to {100 * estimate.high:.1f})"
    )
    if minimum is None:
        bound = 1 / predictions.record.classes
        passed = estimate.low > bound
        rule = f"{'' if passed else 'not '}surely above chance ({format_percent(bound)} %)"
    else:
        bound, passed = minimum, estimate.value >= minimum
        rule = f"{'at least' if passed else 'below'} the minimum of {format_percent(bound)} %"
    return _build_criterion(
        name, dataset, estimate, bound, len(predictions.rows), passed, f"{accuracy}, {rule}"
    )


def _compare_models(params: Params, root: Path, name: str) -> PairedResult | Criterion:
    """Compare both models on shared images, or return a criterion with the reason why this is
    impossible.
    """
    bound = -params.retraining.gate.max_drop
    candidate, champion = (
        read_model_predictions(root, name, *params.candidate),
        read_model_predictions(root, name, paths.CHAMPION, 0),
    )
    if isinstance(candidate, MissingPredictions) or isinstance(champion, MissingPredictions):
        return _check_unpaired(name, bound, candidate, champion)
    images = candidate.rows.index.intersection(champion.rows.index).sort_values()
    shared_candidate, shared_champion = (
        candidate.select_images(images),
        champion.select_images(images),
    )
    relabelled = images[(shared_candidate.rows["wnid"] != shared_champion.rows["wnid"]).to_numpy()]
    if len(relabelled) or images.empty:
        reason = (
            f"{format_count(len(relabelled), 'image')} of another class, such as {relabelled[0]}"
            if len(relabelled)
            else "no image in common"
        )
        sentence = f"evaluated from different manifests: {reason}; evaluate both models again"
        return _build_criterion("fall", name, None, bound, 0, False, sentence)
    estimate = estimate_difference(
        shared_candidate.correct,
        shared_champion.correct,
        params.report.confidence,
        shared_candidate.sources,
    )
    return PairedResult(
        estimate, len(images), _describe_omissions(candidate, champion, len(images))
    )


def _describe_omissions(
    candidate: ModelPredictions, champion: ModelPredictions, shared: int
) -> str:
    """Text on images that are not compared, and on differing candidate classes."""
    notes = [
        f"{format_count(len(predictions.rows) - shared, 'image')} left out that the {model} alone "
        f"was "
        f"evaluated on"
        for model, predictions in (("candidate", candidate), ("champion", champion))
        if len(predictions.rows) > shared
    ]
    class_counts = (candidate.record.classes, champion.record.classes)
    if class_counts[0] != class_counts[1]:
        notes.append(
            f"the candidate chose among {class_counts[0]} classes, the champion among "
            f"{class_counts[1]}"
        )
    return "".join(f"; {note}" for note in notes)


def _check_unpaired(
    name: str,
    bound: float,
    candidate: ModelPredictions | MissingPredictions,
    champion: ModelPredictions | MissingPredictions,
) -> Criterion:
    """Passes if neither model can be evaluated, or the champion never was; always fails on
    validation.
    """
    missing = {
        model: predictions
        for model, predictions in (("candidate", candidate), ("champion", champion))
        if isinstance(predictions, MissingPredictions)
    }
    model, first = next(iter(missing.items()))
    who = "neither model has an" if len(missing) == 2 else f"the {model} has no"
    passed = (
        name != CONTROL_SET
        and "champion" in missing
        and all(predictions.is_unscorable for predictions in missing.values())
    )
    sentence = f"{who} evaluation: {first.reason}"
    return _build_criterion("fall", name, None, bound, 0, passed, sentence)


def check_validation(gate_params: GateParams, pair: PairedResult | Criterion) -> Criterion:
    """Passes if the lower bound of the difference on validation is above -margin."""
    margin = gate_params.margin
    if isinstance(pair, Criterion):
        return pair.model_copy(update={"name": "val", "bound": -margin})
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
    return _build_criterion(
        "val",
        CONTROL_SET,
        estimate,
        -margin,
        pair.images,
        passed,
        f"{_format_difference(estimate)}: {sentence}{pair.note}",
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
    gate_params: GateParams, name: str, pair: PairedResult | Criterion
) -> Criterion:
    """Fails if a dataset drops by more than max_drop and its whole interval is below 0."""
    max_drop = gate_params.max_drop
    if isinstance(pair, Criterion):
        return pair
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
    return _build_criterion(
        "fall",
        name,
        estimate,
        -max_drop,
        pair.images,
        not (exceeds_drop and is_significant),
        sentence + pair.note,
    )


def _format_verdict(promoted: bool, champion: str | None, criteria: Sequence[Criterion]) -> str:
    """The outcome and the datasets that failed; a drop takes precedence over an interval that is
    too wide.
    """
    if promoted and champion is None:
        return "promoted as the first champion: " + "; ".join(
            f"{criterion.dataset} {criterion.said}" for criterion in criteria
        )
    if promoted:
        compared = sum(
            criterion.name == "fall" and criterion.value is not None for criterion in criteria
        )
        sentence = (
            f"{CONTROL_SET} {criteria[0].said}; no fall that "
            f"counts on {format_count(compared, 'set')}"
        )
        return f"promoted over version {champion}: {sentence}"
    refusing = {
        criterion.dataset: criterion for criterion in criteria if not criterion.passed
    }  # fall comes after val
    stays = f", version {champion} stays" if champion else ""
    return f"refused{stays}: " + "; ".join(
        f"{name} {criterion.said}" for name, criterion in refusing.items()
    )


def _format_difference(estimate: Estimate) -> str:
    return (
        f"{format_points(estimate.value)} points "
        f"({format_points(estimate.low)} to {format_points(estimate.high)})"
    )


def _build_criterion(
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
