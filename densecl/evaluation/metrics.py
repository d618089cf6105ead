"""The figures of a cell, each counted from its rows of predictions; fractions in [0, 1], nll in
nats.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from densecl.artifacts import Control, Group, ShapeBias
from densecl.evaluation import effective_robustness
from densecl.evaluation.calibration import (
    equal_mass_calibration_error,
    expected_calibration_error,
    response_rate_accuracy,
    rms_calibration_error,
)
from densecl.evaluation.protocols import PROTOCOLS, is_imagenet

RENDITION = re.compile(r"([A-Za-z]+)_[^/]*$")  # art_0.jpg
CONFLICT = re.compile(r"([^/]*?)\d+-([^/]*?)\d+\.[^./]+$")  # <shape><n>-<texture><m>.png


class LeftOut(ValueError):
    """A figure that this set does not have; the message says why."""


def figures(rows: pd.DataFrame) -> dict[str, Any]:
    """The figures that every set has."""
    tiny = float(np.finfo(np.float32).tiny)
    confidence = rows["confidence"].to_numpy(dtype=np.float64)
    correct = rows["correct"].to_numpy()
    return {
        "top1": float(correct.mean()),
        "top5": float(rows["correct5"].mean()),
        "top1_unmasked": float(rows["correct_unmasked"].mean()),
        "top5_unmasked": float(rows["correct5_unmasked"].mean()),
        "macro_top1": float(rows.groupby("label")["correct"].mean().mean()),
        "nll": float(-np.log(rows["p_true"].astype("float64").clip(lower=tiny)).mean()),
        "ece": expected_calibration_error(confidence, correct),
        "ece_equal_mass": equal_mass_calibration_error(confidence, correct),
        "rms_calibration_error": rms_calibration_error(confidence, correct),
        "aurra": response_rate_accuracy(confidence, correct),
        "mean_confidence": float(confidence.mean()),
    }


def special_figures(
    rows: pd.DataFrame, protocol: str, classes: Sequence[str], control: Control | None
) -> dict[str, Any]:
    """Figures that only some sets have, by field of Evaluation; `left_out` says why one is not
    there.
    """
    names = PROTOCOLS[protocol].names
    top1, left_out = float(rows["correct"].mean()), {}
    found: dict[str, Any] = {
        "per_class": by_class(rows, classes),
        "renditions": {},
        "shape_bias": None,
        "relative_accuracy": None,
        "effective_robustness": None,
    }
    ways: dict[str, Any] = {}
    if names == "rendition":
        ways["renditions"] = lambda: by_rendition(rows)
    if names == "cue-conflict":
        ways["shape_bias"] = lambda: shape_bias(rows)
    if control is not None:
        ways["relative_accuracy"] = lambda: relative(top1, control.top1)
        ways["effective_robustness"] = lambda: above_fit(protocol, classes, top1, control.top1)
    for figure, count in ways.items():
        try:
            found[figure] = count()
        except (LeftOut, effective_robustness.NoFit) as reason:
            left_out[figure] = str(reason)
    return found | {"left_out": left_out}


def by_class(rows: pd.DataFrame, classes: Sequence[str]) -> dict[str, Group]:
    """Accuracy of each class that has images, by wnid."""
    return {classes[int(label)]: group for label, group in _groups(rows, rows["label"]).items()}


def by_rendition(rows: pd.DataFrame) -> dict[str, Group]:
    """Accuracy by what the file name begins with, as in `art_0.jpg`; LeftOut where a name does not
    begin so.
    """
    return _groups(rows, rendition_of(rows["image_id"]))


def rendition_of(image_ids: pd.Series) -> pd.Series:
    """[B] the word before the first underscore of each file name; LeftOut where one has none."""
    found = image_ids.str.extract(RENDITION.pattern, expand=False)
    if found.isna().any():
        raise LeftOut(f"file names are not <rendition>_<n>: {image_ids[found.isna()].iloc[0]}")
    return found


def _groups(rows: pd.DataFrame, key: pd.Series) -> dict[Any, Group]:
    table = rows.groupby(key, sort=True)[["correct", "correct_unmasked"]].agg(["size", "mean"])
    return {
        name: Group(
            images=int(row["correct", "size"]),
            top1=float(row["correct", "mean"]),
            top1_unmasked=float(row["correct_unmasked", "mean"]),
        )
        for name, row in table.iterrows()
    }


def shape_bias(rows: pd.DataFrame) -> ShapeBias:
    """Shape bias over the set's classes; LeftOut as `texture_of`."""
    texture = texture_of(rows["image_id"], rows["label"])
    usable = texture >= 0
    shape = int((usable & rows["correct"]).sum())
    other = int((usable & (rows["prediction"] == texture)).sum())
    return ShapeBias(
        value=shape / (shape + other) if shape + other else None,
        shape=shape,
        texture=other,
        images=int(usable.sum()),
        left_out=int((~usable).sum()),
    )


def texture_of(image_ids: pd.Series, labels: pd.Series) -> pd.Series:
    """[B] class index of each image's texture; -1 where that is no class of the set, or the shape's
    own.

    A cue's class is that of the images whose shape has its name. LeftOut where file names are not
    `<shape><n>-<texture><m>`, or one shape's name stands in two classes.
    """
    cues = image_ids.str.extract(CONFLICT.pattern)
    unnamed = cues.isna().any(axis=1)
    if unnamed.any():
        raise LeftOut(f"file names are not <shape><n>-<texture><m>: {image_ids[unnamed].iloc[0]}")
    pairs = pd.DataFrame({"cue": cues[0], "label": labels}).drop_duplicates()
    if pairs["cue"].duplicated().any():
        raise LeftOut(
            f"shape {pairs['cue'][pairs['cue'].duplicated()].iloc[0]} stands in two classes"
        )
    texture = cues[1].map(pairs.set_index("cue")["label"])
    return texture.where(texture != labels).fillna(-1).astype("int64")


def relative(top1: float, clean: float) -> float:
    """Accuracy as a share of the control's; LeftOut where the control has none."""
    if clean == 0:
        raise LeftOut("no image of the control is right")
    return top1 / clean


def above_fit(protocol: str, classes: Sequence[str], top1: float, clean: float) -> float:
    """Effective robustness; LeftOut or NoFit where the published fit does not apply."""
    if not is_imagenet(classes):
        raise LeftOut(
            "the published fit is for the 1000 classes of ImageNet-1k; this class list is another"
        )
    return top1 - effective_robustness.expected(protocol, clean)
