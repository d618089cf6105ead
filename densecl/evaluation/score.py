"""One cell of the table: one model on one dataset, with its matched control."""

import pandas as pd

from densecl import paths
from densecl.artifacts import (
    DatasetPlan,
    EvaluatePlan,
    Evaluation,
    MatchedControl,
    ValidationResult,
    read_json,
)
from densecl.datasets.storage.usable_images import load_usable_images
from densecl.errors import DataError
from densecl.evaluation.metrics import compute_dataset_metrics, compute_metrics
from densecl.evaluation.predict import create_empty_predictions, predict_images, prepare_scoring
from densecl.evaluation.protocols import PROTOCOLS, describe_missing, resolve_preprocess_rule
from densecl.network.preprocessing import resolve_preprocessing
from densecl.network.vit import Backbone


class NoKnownClassError(DataError):
    """The dataset has no class that the model knows; the dataset itself is valid."""


def restrict_to_known_classes(plan: DatasetPlan, classes: list[str]) -> DatasetPlan:
    """The plan without classes that an older model does not know; NoKnownClassError if none
    remains.
    """
    known_classes = tuple(wnid for wnid in plan.classes if wnid in classes)
    if plan.classes and not known_classes:
        raise NoKnownClassError(
            f"{plan.name}: the model knows none of the {len(plan.classes)} classes it is scored "
            f"over"
        )
    return plan.model_copy(update={"classes": known_classes})


def relabel_to_model(name: str, frame: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Rows of classes that the model knows, `label` being the model's own index of their wnid;
    NoKnownClassError if none remains.
    """
    labels = frame["wnid"].map({wnid: index for index, wnid in enumerate(classes)})
    known = labels.notna()
    if not known.any():
        raise NoKnownClassError(
            f"{name}: none of its {len(frame)} images is of the {len(classes)} classes that the "
            f"model knows"
        )
    return frame[known].assign(label=labels[known].astype("int64")).reset_index(drop=True)


def evaluate_dataset(
    plan: DatasetPlan, model: Backbone, classes: list[str], mode: str, seed: int
) -> tuple[Evaluation, pd.DataFrame, pd.DataFrame]:
    """All metrics of a cell, and the predictions on every image of the dataset and of its control;
    DataError if the dataset cannot be used.
    """
    batch_size = read_json(EvaluatePlan, paths.plan_file("evaluate")).batch_size
    verdict = read_json(ValidationResult, paths.validation_file(plan.name))
    images = load_usable_images(plan.name)
    frame, preprocessing, scored_labels = prepare_scoring(
        model,
        relabel_to_model(plan.name, images.frame, classes),
        classes,
        protocol=plan.protocol,
        preprocess=plan.preprocess,
        wnids=plan.classes,
    )
    rows = predict_images(model, frame, images.root, preprocessing, scored_labels, batch_size)
    control, control_rows, missing_reason = None, create_empty_predictions(), ""
    if control_name := PROTOCOLS[plan.protocol].control:
        try:
            control_rows = _predict_control(control_name, model, classes, scored_labels, batch_size)
        except DataError as error:
            if not read_json(DatasetPlan, paths.plan_file(control_name)).optional:
                raise
            missing_reason = f"the control {control_name} cannot be used: {error}"
        else:
            control = MatchedControl(
                dataset=control_name,
                images=len(control_rows),
                top1=float(control_rows["correct"].mean()),
                top5=float(control_rows["correct5"].mean()),
                predictions=paths.control_predictions_file(plan.name, mode, seed).as_posix(),
            )
    specific_metrics = compute_dataset_metrics(rows, plan.protocol, classes, control)
    if missing_reason:
        specific_metrics["left_out"] |= dict.fromkeys(
            ("control", "relative_accuracy", "effective_robustness"), missing_reason
        )
    evaluation = Evaluation(
        dataset=plan.name,
        protocol=plan.protocol,
        mode=mode,
        seed=seed,
        images=len(rows),
        outside=len(images.frame) - len(frame),
        excluded=len(verdict.excluded),
        classes=len(scored_labels),
        control=control,
        shortfall=describe_missing(
            plan.protocol, len(rows), rows["label"].unique().tolist(), scored_labels, classes
        ),
        preprocessing=preprocessing,
        **compute_metrics(rows),
        **specific_metrics,
    )
    return evaluation, rows, control_rows


def _predict_control(
    name: str, model: Backbone, classes: list[str], scored_labels: list[int], batch_size: int
) -> pd.DataFrame:
    """Predictions on control images of the scored classes, under the same mask and with the
    control's own preprocessing.
    """
    images = load_usable_images(name)
    frame = relabel_to_model(name, images.frame, classes)
    frame = frame[frame["label"].isin(scored_labels)].reset_index(drop=True)
    if frame.empty:
        raise DataError(f"{name} has no image of the dataset's classes")
    rule = resolve_preprocess_rule(
        images.protocol, images.preprocess, frame, model.patch_embed.img_size
    )
    return predict_images(
        model, frame, images.root, resolve_preprocessing(model, rule), scored_labels, batch_size
    )
