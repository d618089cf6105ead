"""The gate: decides on shared images whether a candidate replaces the champion. Writes nothing.

A candidate is compared with the last champion and with the anchor, an older champion that does not
move from one promotion to the next: steps that are each within the margin cannot add up to more
than the cumulative one. Differences are candidate - other in top-1; they speak of these models.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from densecl import paths
from densecl.analysis.paired import MissingPredictions, read_model_predictions
from densecl.analysis.statistics import Outcomes, compute_wilson_interval
from densecl.config.params import CONTROL_SET, GateParams, Params
from pipelines.gate.anchor import find_anchor_mismatch
from pipelines.gate.criteria import (
    Accuracy,
    check_chance,
    check_minimum,
    check_regression,
    check_validation,
)
from pipelines.gate.pairing import Comparisons, PairedResult, Unpaired, compare_with, pair_outcomes
from pipelines.gate.sentences import format_verdict
from pipelines.gate.trials import estimate_winner_bias
from pipelines.schemas import Champion, Criterion, GateVerdict

ModelOutcomes = Mapping[str, NDArray[np.bool_]]  # by dataset: [images], true where it was right


@dataclass(frozen=True)
class GateEvidence:
    """What is known of a candidate, by dataset."""

    accuracies: Mapping[str, Accuracy | Unpaired]
    champion: Comparisons | None  # None: there is no champion
    anchor: Comparisons | Unpaired | None  # None: no anchor other than the champion
    anchor_version: str = "given"


def decide(gate: GateParams, evidence: GateEvidence) -> tuple[Criterion, ...]:
    """All criteria; the candidate is promoted if each passes. A pure function.

    The champion: no fall of `margin` on validation and no significant drop of more than `max_drop`
    on any dataset. The anchor: the same with its own bounds. Every candidate: above chance on
    validation, and the minimums.
    """
    criteria: list[Criterion] = []
    if evidence.champion is not None:
        criteria += _check_falls(gate, evidence.champion, None)
    if isinstance(evidence.anchor, Unpaired):
        criteria.append(check_validation(gate, evidence.anchor, evidence.anchor_version))
    elif evidence.anchor is not None:
        criteria += _check_falls(gate, evidence.anchor, evidence.anchor_version)
    criteria.append(check_chance(evidence.accuracies[CONTROL_SET]))
    criteria += [
        check_minimum(name, evidence.accuracies[name], minimum)
        for name, minimum in gate.minimum.items()
    ]
    return tuple(criteria)


def _check_falls(
    gate: GateParams, comparisons: Comparisons, anchor: str | None
) -> Iterator[Criterion]:
    yield check_validation(gate, comparisons[CONTROL_SET], anchor)
    for name, pair in comparisons.items():
        yield check_regression(gate, name, pair, anchor)


def judge_outcomes(
    gate: GateParams,
    confidence: float,
    classes: int,
    candidate: ModelOutcomes,
    champion: ModelOutcomes | None = None,
    anchor: ModelOutcomes | None = None,
) -> tuple[Criterion, ...]:
    """`decide` on arrays: by dataset, each model's outcomes on the same images in the same order;
    with `imagenet`, the validation set. `classes` is their number.
    """
    accuracies = {
        name: _measure_accuracy(outcomes.astype(float), classes, confidence)
        for name, outcomes in candidate.items()
    }

    def compare(other: ModelOutcomes) -> Comparisons:
        return {
            name: pair_outcomes(_to_column(candidate[name]), _to_column(outcomes), confidence)
            for name, outcomes in other.items()
        }

    return decide(
        gate,
        GateEvidence(
            accuracies,
            champion=None if champion is None else compare(champion),
            anchor=None if anchor is None else compare(anchor),
        ),
    )


def _to_column(outcomes: NDArray[np.bool_]) -> Outcomes:
    return outcomes.astype(float).reshape(-1, 1)


def _measure_accuracy(outcomes: Outcomes, classes: int, confidence: float) -> Accuracy:
    top1 = compute_wilson_interval(outcomes, confidence)
    return Accuracy(top1, len(outcomes), classes)


def judge_candidate(
    params: Params,
    champion: Champion,
    root: Path = Path(),
    *,
    validation: str | None = None,
    candidates: int = 1,
) -> GateVerdict:
    """Verdict on `params.candidate` from the predictions under `root`: every criterion with value,
    interval and bound.

    Args:
        validation: `hash_validation_images` of now.
        candidates: number of candidates tried on these validation images, with this one.
    """
    mode, seed = params.candidate
    evidence = _collect_evidence(params, champion, root, validation)
    criteria = decide(params.retraining.gate, evidence)
    promoted = all(criterion.passed for criterion in criteria)
    anchor = champion.anchor.version if champion.anchor else champion.version
    pair = (evidence.champion or {}).get(CONTROL_SET)
    titles = {name: d.title for name, d in params.datasets.items() if d.title}
    return GateVerdict(
        promoted=promoted,
        champion=champion.version,
        anchor=anchor,
        mode=mode,
        seed=seed,
        criteria=criteria,
        said=format_verdict(promoted, champion.version, criteria, titles),
        titles=titles,
        validation=validation,
        candidates=candidates,
        winner_bias=estimate_winner_bias(pair.difference, params.report.confidence, candidates)
        if isinstance(pair, PairedResult)
        else None,
    )


def find_shortfalls(params: Params, root: Path = Path()) -> tuple[str, ...]:
    """Where `params.candidate` misses chance or a minimum, which need no other model: a sentence
    per dataset.
    """
    criteria = decide(
        params.retraining.gate, GateEvidence(_read_accuracies(params, root), None, None)
    )
    titles = {name: d.title or name for name, d in params.datasets.items()}
    return tuple(f"{titles.get(c.dataset, c.dataset)} {c.said}" for c in criteria if not c.passed)


def _collect_evidence(
    params: Params, champion: Champion, root: Path, validation: str | None
) -> GateEvidence:
    accuracies = _read_accuracies(params, root)
    if champion.version is None:
        return GateEvidence(accuracies, None, None)
    compared = compare_with(params, paths.CHAMPION, root)
    anchor = champion.anchor.version if champion.anchor else champion.version
    if mismatch := find_anchor_mismatch(params, champion, root, validation):
        return GateEvidence(accuracies, compared, Unpaired(mismatch), anchor)
    if anchor == champion.version:  # the anchor's bounds are no narrower than the champion's
        return GateEvidence(accuracies, compared, None)
    return GateEvidence(accuracies, compared, compare_with(params, paths.ANCHOR, root), anchor)


def _read_accuracies(params: Params, root: Path) -> dict[str, Accuracy | Unpaired]:
    names = dict.fromkeys((CONTROL_SET, *params.retraining.gate.minimum))
    return {name: _read_accuracy(params, root, name) for name in names}


def _read_accuracy(params: Params, root: Path, name: str) -> Accuracy | Unpaired:
    predictions = read_model_predictions(root, name, *params.candidate)
    if isinstance(predictions, MissingPredictions):
        return Unpaired(f"no evaluation: {predictions.reason}")
    return _measure_accuracy(
        predictions.correct[:, 0], predictions.record.classes, params.report.confidence
    )
