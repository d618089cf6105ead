"""Metrics of one cell, from its predictions; fractions are in [0, 1], nll is in nats."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from densecl.artifacts import MatchedControl, ShapeBias, SubsetAccuracy
from densecl.evaluation import effective_robustness
from densecl.evaluation.calibration import (
    equal_mass_calibration_error,
    expected_calibration_error,
    response_rate_accuracy,
    rms_calibration_error,
)
from densecl.evaluation.protocols import PROTOCOLS, is_imagenet

RENDITION_PATTERN = re.compile(r"([A-Za-z]+)_[^/]*$")  # art_0.jpg
CUE_CONFLICT_PATTERN = re.compile(
    r"([^/]*?)\d+-([^/]*?)\d+\.[^./]+$"
)  # <shape><n>-<texture><m>.png


def compute_metrics(rows: pd.DataFrame) -> dict[str, Any]:
    """Metrics that every dataset has."""
    confidence = rows["confidence"].to_numpy(dtype=np.float64)
    correct = rows["correct"].to_numpy()
    return {
        "top1": float(correct.mean()),
        "top5": float(rows["correct5"].mean()),
        "top1_unmasked": float(rows["correct_unmasked"].mean()),
        "top5_unmasked": float(rows["correct5_unmasked"].mean()),
        "macro_top1": float(rows.groupby("label")["correct"].mean().mean()),
        "nll": float(
            -np.log(rows["p_true"].astype("float64").clip(float(np.finfo(np.float32).tiny))).mean()
        ),
        "ece": expected_calibration_error(confidence, correct),
        "ece_equal_mass": equal_mass_calibration_error(confidence, correct),
        "rms_calibration_error": rms_calibration_error(confidence, correct),
        "aurra": response_rate_accuracy(confidence, correct),
        "mean_confidence": float(confidence.mean()),
    }


def compute_dataset_metrics(
    rows: pd.DataFrame,
    protocol: str,
    classes: Sequence[str],
    control: MatchedControl | None,
    groups: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Metrics that only some datasets have, by field of Evaluation; `left_out` gives the reason for
    a missing one.

    `classes` are the model's; `groups` are the labels by name, where they are groups of classes.
    """
    names = {label: name for name, label in groups.items()} if groups else dict(enumerate(classes))
    name_scheme = PROTOCOLS[protocol].names
    top1, left_out = float(rows["correct"].mean()), {}
    per_class = _group_accuracy(rows, rows["label"])
    metrics: dict[str, Any] = {
        "per_class": {names[int(label)]: group for label, group in per_class.items()},
        "renditions": {},
        "shape_bias": None,
        "relative_accuracy": None,
        "effective_robustness": None,
    }
    computations: dict[str, Any] = {}
    if name_scheme == "rendition":
        computations["renditions"] = lambda: compute_rendition_accuracy(rows)
    if name_scheme == "cue-conflict":
        computations["shape_bias"] = lambda: compute_shape_bias(rows, groups)
    if control is not None:
        computations |= {
            "relative_accuracy": lambda: compute_relative_accuracy(top1, control.top1),
            "effective_robustness": lambda: compute_effective_robustness(
                protocol, classes, top1, control.top1
            ),
        }
    for metric, compute in computations.items():
        try:
            metrics[metric] = compute()
        except effective_robustness.NotApplicable as reason:
            left_out[metric] = str(reason)
    return metrics | {"left_out": left_out}


def compute_rendition_accuracy(rows: pd.DataFrame) -> dict[str, SubsetAccuracy]:
    """Accuracy per rendition, the file name's prefix as in `art_0.jpg`; NotApplicable if a name has
    none.
    """
    return _group_accuracy(rows, extract_renditions(rows["image_id"]))


def extract_renditions(image_ids: pd.Series) -> pd.Series:
    """[B] prefix of each file name up to the first underscore; NotApplicable without one."""
    renditions = image_ids.str.extract(RENDITION_PATTERN.pattern, expand=False)
    if renditions.isna().any():
        raise effective_robustness.NotApplicable(
            f"file names are not <rendition>_<n>: {image_ids[renditions.isna()].iloc[0]}"
        )
    return renditions


def _group_accuracy(rows: pd.DataFrame, key: pd.Series) -> dict[Any, SubsetAccuracy]:
    table = rows.groupby(key, sort=True)[["correct", "correct_unmasked"]].agg(["size", "mean"])
    return {
        name: SubsetAccuracy(
            images=int(row["correct", "size"]),
            top1=float(row["correct", "mean"]),
            top1_unmasked=float(row["correct_unmasked", "mean"]),
        )
        for name, row in table.iterrows()
    }


def compute_shape_bias(rows: pd.DataFrame, groups: Mapping[str, int] | None = None) -> ShapeBias:
    """Shape bias over the dataset's labels, of all decisions together (Geirhos et al. 2019); raises
    NotApplicable as `find_texture_labels`.
    """
    texture = find_texture_labels(rows["image_id"], rows["label"], groups)
    usable = texture >= 0
    shape_count = int((usable & rows["correct"]).sum())
    texture_count = int((usable & (rows["prediction"] == texture)).sum())
    return ShapeBias(
        value=shape_count / (shape_count + texture_count) if shape_count + texture_count else None,
        shape=shape_count,
        texture=texture_count,
        images=int(usable.sum()),
        left_out=int((~usable).sum()),
    )


def find_texture_labels(
    image_ids: pd.Series, labels: pd.Series, groups: Mapping[str, int] | None = None
) -> pd.Series:
    """[B] label of each image's texture; -1 if it is no label of the dataset, or that of the shape.

    A cue's label is that of the group of its name, or without `groups` that of the images whose
    shape has its name. NotApplicable where file names are not `<shape><n>-<texture><m>`, or one
    shape's name occurs in two classes.
    """
    cues = image_ids.str.extract(CUE_CONFLICT_PATTERN.pattern)
    unnamed = cues.isna().any(axis=1)
    if unnamed.any():
        raise effective_robustness.NotApplicable(
            f"file names are not <shape><n>-<texture><m>: {image_ids[unnamed].iloc[0]}"
        )
    pairs = pd.DataFrame({"cue": cues[0], "label": labels}).drop_duplicates()
    if pairs["cue"].duplicated().any():
        raise effective_robustness.NotApplicable(
            f"shape {pairs['cue'][pairs['cue'].duplicated()].iloc[0]} occurs in two classes"
        )
    texture = cues[1].map(dict(groups) if groups else pairs.set_index("cue")["label"])
    return texture.where(texture != labels).fillna(-1).astype("int64")


def compute_relative_accuracy(top1: float, control_top1: float) -> float:
    """Accuracy as a share of the control's; NotApplicable without a control."""
    if control_top1 == 0:
        raise effective_robustness.NotApplicable("no image of the control is right")
    return top1 / control_top1


def compute_effective_robustness(
    protocol: str, classes: Sequence[str], top1: float, control_top1: float
) -> float:
    """Effective robustness; raises NotApplicable if the published fit does not apply."""
    if not is_imagenet(classes):
        raise effective_robustness.NotApplicable(
            "the published fit is for the 1000 classes of ImageNet-1k; this class list is another"
        )
    return top1 - effective_robustness.compute_expected_accuracy(protocol, control_top1)
