"""Two models on the images that both were evaluated on, from the files of their evaluations.

Each model's labels are indices into its own class list, so right and wrong are compared, and labels
by wnid.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from densecl.analysis.paired import (
    MissingPredictions,
    ModelPredictions,
    estimate_difference,
    read_model_predictions,
)
from densecl.analysis.sampled_value import Estimate, SampledValue
from densecl.analysis.statistics import (
    Outcomes,
    Sources,
    compute_wilson_interval,
    sample_difference,
)
from densecl.config.params import CONTROL_SET, Params
from densecl.pages.formatting import format_count, format_percent, join_names


@dataclass(frozen=True)
class PairedResult:
    """Difference of two models in top-1, first - second, on the images that both were evaluated
    on.
    """

    difference: Estimate
    images: int
    sampled: SampledValue  # what the difference is computed from
    confidence: float
    note: str = ""  # omissions and remarks; "" or begins with a semicolon


@dataclass(frozen=True)
class Unpaired:
    """The reason why two models cannot be compared, and whether the candidate passes all the
    same.
    """

    reason: str
    passes: bool = False


Comparisons = Mapping[str, PairedResult | Unpaired]  # by dataset


def pair_outcomes(
    candidate: Outcomes,
    other: Outcomes,
    confidence: float,
    sources: Sources | None = None,
    note: str = "",
) -> PairedResult:
    """Compare the outcomes [images, 1] of two models on the same images in the same order."""
    estimate = estimate_difference(candidate, other, confidence, sources)
    sampled = sample_difference([candidate - other], [sources])
    return PairedResult(estimate, len(candidate), sampled, confidence, note)


def compare_with(params: Params, other: str, root: Path) -> Comparisons:
    """The candidate compared with `champion` or `anchor` on every evaluation dataset, from the
    predictions under `root`.
    """
    return {name: _compare_models(params, root, name, other) for name in params.evaluate.datasets}


def _compare_models(params: Params, root: Path, name: str, other: str) -> PairedResult | Unpaired:
    predictions = {
        "candidate": read_model_predictions(root, name, *params.candidate),
        other: read_model_predictions(root, name, other, 0),
    }
    candidate, reference = predictions.values()
    if isinstance(candidate, MissingPredictions) or isinstance(reference, MissingPredictions):
        return _explain_missing(name, other, predictions)
    images = candidate.rows.index.intersection(reference.rows.index).sort_values()
    shared = candidate.select_images(images), reference.select_images(images)
    relabelled = images[(shared[0].rows["wnid"] != shared[1].rows["wnid"]).to_numpy()]
    if len(relabelled) or images.empty:
        reason = (
            f"{format_count(len(relabelled), 'image')} of another class, such as {relabelled[0]}"
            if len(relabelled)
            else "no image in common"
        )
        return Unpaired(f"evaluated from different manifests: {reason}; evaluate both models again")
    note = _describe_omissions(candidate, reference, other, len(images))
    note += _describe_chance({"candidate": shared[0], other: shared[1]}, params.report.confidence)
    return pair_outcomes(
        shared[0].correct, shared[1].correct, params.report.confidence, shared[0].sources, note
    )


def _describe_omissions(
    candidate: ModelPredictions, reference: ModelPredictions, other: str, shared: int
) -> str:
    """Text on images that are not compared, and on differing candidate classes."""
    notes = [
        f"{format_count(len(predictions.rows) - shared, 'image')} left out that the {model} alone "
        f"was "
        f"evaluated on"
        for model, predictions in (("candidate", candidate), (other, reference))
        if len(predictions.rows) > shared
    ]
    class_counts = (candidate.record.classes, reference.record.classes)
    if class_counts[0] != class_counts[1]:
        notes.append(
            f"the candidate chose among {class_counts[0]} classes, the {other} among "
            f"{class_counts[1]}"
        )
    return "".join(f"; {note}" for note in notes)


def _describe_chance(models: Mapping[str, ModelPredictions], confidence: float) -> str:
    """Text on models whose score is not shown to be above chance, where differences mean little."""
    names, levels = [], []
    for name, predictions in models.items():
        level = predictions.record.chance or 1 / predictions.record.classes
        if compute_wilson_interval(predictions.correct[:, 0], confidence).low <= level:
            names.append(f"the {name}")
            levels.append(level)
    if not names:
        return ""
    be = "is" if len(names) == 1 else "are"
    return f"; {join_names(names)} {be} at chance there ({format_percent(max(levels))} %)"


def _explain_missing(
    name: str, other: str, predictions: Mapping[str, ModelPredictions | MissingPredictions]
) -> Unpaired:
    """Passes if neither model can be evaluated, or the other never was; always fails on
    validation.
    """
    missing = {m: p for m, p in predictions.items() if isinstance(p, MissingPredictions)}
    model, first = next(iter(missing.items()))
    who = "neither model has an" if len(missing) == 2 else f"the {model} has no"
    passes = (
        name != CONTROL_SET
        and other in missing
        and all(predictions.is_unscorable for predictions in missing.values())
    )
    return Unpaired(f"{who} evaluation: {first.reason}", passes)
