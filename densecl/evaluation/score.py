"""One cell of the table: one model on one dataset, with its matched control."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from densecl import paths
from densecl.artifacts import (
    Control,
    EvaluatePlan,
    Evaluation,
    Preprocessing,
    SetPlan,
    Verdict,
    read_json,
)
from densecl.datasets.storage.usable_images import usable_images
from densecl.errors import DataError
from densecl.evaluation.metrics import figures, special_figures
from densecl.evaluation.predict import no_rows, predict, scoring
from densecl.evaluation.protocols import PROTOCOLS, preprocess_rule, shortfall
from densecl.network.preprocessing import preprocessing
from densecl.network.vit import Backbone


@dataclass(frozen=True)
class Cell:
    """Rows of the set and of its control, with how they were scored."""

    rows: pd.DataFrame
    control_rows: pd.DataFrame
    outside: int
    scored: list[int]
    preprocessing: Preprocessing
    no_control: str  # why there is none, where there should be one


class NoClassKnown(DataError):
    """The set holds nothing that the model could name: no fault of the set."""


def known_to(plan: SetPlan, classes: list[str]) -> SetPlan:
    """The plan without the scored classes that an older model does not know; NoClassKnown where
    none is left.
    """
    kept = tuple(wnid for wnid in plan.classes if wnid in classes)
    if plan.classes and not kept:
        raise NoClassKnown(
            f"{plan.name}: the model knows none of the {len(plan.classes)} classes it is scored "
            f"over"
        )
    return plan.model_copy(update={"classes": kept})


def relabelled(name: str, frame: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Rows of the classes that a model knows, `label` its own index of their wnid; NoClassKnown
    where none is left.
    """
    labels = frame["wnid"].map({wnid: index for index, wnid in enumerate(classes)})
    known = labels.notna()
    if not known.any():
        raise NoClassKnown(
            f"{name}: none of its {len(frame)} images is of the {len(classes)} classes that the "
            f"model knows"
        )
    return frame[known].assign(label=labels[known].astype("int64")).reset_index(drop=True)


def run(set: str, plan: SetPlan, model: Backbone, classes: list[str]) -> Cell:
    """Every image of the set and of its control, decoded and scored once; DataError where the set
    cannot be used.
    """
    batch_size = read_json(EvaluatePlan, paths.plan("evaluate")).batch_size
    images = usable_images(set)
    known = relabelled(set, images.frame, classes)
    frame, values, scored = scoring(
        model,
        known,
        classes,
        protocol=plan.protocol,
        preprocess=plan.preprocess,
        given=plan.classes,
    )
    rows = predict(model, frame, images.root, values, scored, batch_size)
    control_rows, reason = no_rows(), ""
    if control := PROTOCOLS[plan.protocol].control:
        try:
            control_rows = _control(control, model, classes, scored, batch_size)
        except DataError as error:
            if not read_json(SetPlan, paths.plan(control)).optional:
                raise
            reason = f"the control {control} cannot be used: {error}"
    return Cell(rows, control_rows, len(images.frame) - len(frame), scored, values, reason)


def _control(
    name: str, model: Backbone, classes: list[str], scored: list[int], batch_size: int
) -> pd.DataFrame:
    """Rows of the control's images of the scored classes, under the same mask and the control's own
    preprocessing.
    """
    images = usable_images(name)
    frame = relabelled(name, images.frame, classes)
    frame = frame[frame["label"].isin(scored)].reset_index(drop=True)
    if frame.empty:
        raise DataError(f"{name} has no image of the set's classes")
    rule = preprocess_rule(images.protocol, images.preprocess, frame, model.patch_embed.img_size)
    return predict(model, frame, images.root, preprocessing(model, rule), scored, batch_size)


def describe(cell: Cell, plan: SetPlan, mode: str, seed: int, classes: list[str]) -> Evaluation:
    """All figures of a cell."""
    control = None
    if len(cell.control_rows):
        control = Control(
            dataset=PROTOCOLS[plan.protocol].control,
            images=len(cell.control_rows),
            top1=float(cell.control_rows["correct"].mean()),
            top5=float(cell.control_rows["correct5"].mean()),
            predictions=paths.control_predictions(plan.name, mode, seed).as_posix(),
        )
    special = special_figures(cell.rows, plan.protocol, classes, control)
    if cell.no_control:
        special["left_out"] |= dict.fromkeys(
            ("control", "relative_accuracy", "effective_robustness"), cell.no_control
        )
    labels = cell.rows["label"].unique().tolist()
    return Evaluation(
        dataset=plan.name,
        protocol=plan.protocol,
        mode=mode,
        seed=seed,
        images=len(cell.rows),
        outside=cell.outside,
        excluded=len(read_json(Verdict, paths.verdict(plan.name)).excluded),
        classes=len(cell.scored),
        control=control,
        shortfall=shortfall(plan.protocol, len(cell.rows), labels, cell.scored, classes),
        preprocessing=cell.preprocessing,
        **figures(cell.rows),
        **special,
    )
