"""One model on all datasets, each with its matched control: one row of cells of the table."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import pandas as pd

from densecl import paths
from densecl.artifacts import (
    DatasetPlan,
    EvaluatePlan,
    Evaluation,
    MatchedControl,
    MissingEvaluation,
    ValidationResult,
    read_json,
)
from densecl.config.params import CONTROL_SET
from densecl.datasets.storage.usable_images import ImageSet, load_planned_images
from densecl.errors import DataError
from densecl.evaluation.cached_predict import CachedPredictor, LabelledImages
from densecl.evaluation.cell_cache import CellCache
from densecl.evaluation.group_scores import ScoredGroups, match_groups
from densecl.evaluation.metrics import compute_dataset_metrics, compute_metrics
from densecl.evaluation.predict import create_empty_predictions
from densecl.evaluation.protocols import (
    PROTOCOLS,
    describe_missing,
    describe_resizing,
    resolve_scored_classes,
)
from densecl.evaluation.scoring import (
    NoKnownClassError,
    relabel_to_model,
    resolve_model_preprocessing,
    restrict_to_known_classes,
    select_known_groups,
)
from densecl.evaluation.sources import find_sources
from densecl.network.vit import Backbone


class Cell(NamedTuple):
    """Metrics, and the predictions on every image of the dataset and of its control."""

    evaluation: Evaluation | MissingEvaluation
    rows: pd.DataFrame
    control_rows: pd.DataFrame
    cached: bool = False  # the predictions on the dataset's own images were in the cell cache


class ModelEvaluator:
    """Evaluates one exported model on one dataset after the other. Each image is run once at most:
    the controls of all datasets come from the same logits of the validation images.
    """

    def __init__(
        self,
        model: Backbone,
        classes: list[str],
        mode: str,
        seed: int | None,
        plan: EvaluatePlan,
        cache: CellCache,
        trained: Sequence[str] = (),
    ) -> None:
        """`classes`: the wnids of the model's classes, in index order. `seed` None: a model of
        `evaluate.models`, whose name `mode` is; `trained` are the classes of the modes then.
        """
        self.trained = list(trained)
        self.model, self.classes, self.mode, self.seed = model, classes, mode, seed
        folder = paths.model_folder(mode, seed)
        self.predictor = CachedPredictor(model, folder, plan.batch_size, cache, classes)
        self._plans = {dataset.name: dataset for dataset in plan.datasets}
        self._images: dict[str, LabelledImages] = {}

    def evaluate(self, name: str) -> Cell:
        """The cell of a dataset; for an optional one that fails, the reason.

        A model that was not trained here may know other classes than there are now: labels are
        found by wnid in its own class list, and images of classes that it does not know are left
        out and counted. DataError if a dataset that is required cannot be used.
        """
        plan = self._plans[name]
        try:
            return self._evaluate_plan(self._restrict_plan(plan))
        except DataError as error:
            if not plan.optional and not isinstance(error, NoKnownClassError):
                raise
            reason = " ".join(str(error).split())
        return Cell(
            MissingEvaluation(dataset=name, mode=self.mode, seed=self.seed, reason=reason),
            create_empty_predictions(),
            create_empty_predictions(),
        )

    def _restrict_plan(self, plan: DatasetPlan) -> DatasetPlan:
        """The plan over the classes that the model knows, if it was not trained here."""
        if self.mode in paths.REGISTERED or self.seed is None:
            return restrict_to_known_classes(plan, self.classes)
        return plan

    def _evaluate_plan(self, plan: DatasetPlan) -> Cell:
        images, groups = self.load_images(plan.name), match_groups(plan.groups, self.classes)
        scored_labels = self._resolve_labels(plan, images, groups)
        rows, cached = self.predictor.predict(images, scored_labels, groups)
        control, control_rows, missing_reason = self._evaluate_control(plan, scored_labels, groups)
        known_groups = groups.known if groups else {}
        specific_metrics = compute_dataset_metrics(
            rows, plan.protocol, self.classes, control, known_groups
        )
        if missing_reason:
            specific_metrics["left_out"] |= dict.fromkeys(
                ("control", "relative_accuracy", "effective_robustness"), missing_reason
            )
        evaluation = Evaluation(
            dataset=plan.name,
            protocol=plan.protocol,
            mode=self.mode,
            seed=self.seed,
            images=len(rows),
            outside=images.usable - len(rows),
            excluded=images.excluded,
            classes=len(scored_labels),
            chance=groups.compute_chance(rows["label"]) if groups else None,
            groups=known_groups,
            control=control,
            shortfall=self._describe_shortfall(plan, rows, scored_labels),
            preprocessing=images.preprocessing,
            resizing=images.resizing,
            **compute_metrics(rows),
            **specific_metrics,
        )
        return Cell(evaluation, _add_sources(plan.name, rows), control_rows, cached)

    def _resolve_labels(
        self, plan: DatasetPlan, images: LabelledImages, groups: ScoredGroups | None
    ) -> list[int]:
        """Labels that the dataset is scored over: the model's classes, or groups of them."""
        if groups:
            return sorted(groups.known.values())
        return resolve_scored_classes(plan.protocol, images.frame, self.classes, plan.classes)

    def _describe_shortfall(
        self, plan: DatasetPlan, rows: pd.DataFrame, scored_labels: list[int]
    ) -> str:
        """What is missing of the published dataset; "" for one with groups of the user's own."""
        if plan.groups and not plan.groups.published:
            return ""
        labels = rows["label"].unique().tolist()
        return describe_missing(plan.protocol, len(rows), labels, scored_labels, self.classes)

    def _evaluate_control(
        self, plan: DatasetPlan, scored_labels: list[int], groups: ScoredGroups | None
    ) -> tuple[MatchedControl | None, pd.DataFrame, str]:
        """The control's images of the scored classes, or of the classes of the scored groups, under
        the same mask and with the control's own preprocessing; without one that can be used, the
        reason.
        """
        name = PROTOCOLS[plan.protocol].control
        if not name:
            return None, create_empty_predictions(), ""
        try:
            images = self.load_images(name)
            if groups:
                images = _relabel_by_groups(images, groups)
            rows, _ = self.predictor.predict(images, scored_labels, groups)
        except DataError as error:
            # A model may know classes of the groups, but none that the control has.
            unknown = groups is not None and isinstance(error, NoKnownClassError)
            if not (self._plans[name].optional or unknown):
                raise
            reason = f"the control {name} cannot be used: {error}"
            return None, create_empty_predictions(), reason
        predictions = paths.control_predictions_file(plan.name, self.mode, self.seed)
        control = MatchedControl(
            dataset=name,
            images=len(rows),
            top1=float(rows["correct"].mean()),
            top5=float(rows["correct5"].mean()),
            predictions=predictions.as_posix(),
        )
        return control, _add_sources(name, rows), ""

    def resolve_scored(self, name: str) -> list[int]:
        """Indices of the classes that the dataset is scored over."""
        plan, images = self._restrict_plan(self._plans[name]), self.load_images(name)
        return self._resolve_labels(plan, images, match_groups(plan.groups, self.classes))

    def load_images(self, name: str) -> LabelledImages:
        """The usable images of a dataset, read once."""
        if name not in self._images:
            plan = self._plans[name]
            images = load_planned_images(plan)
            groups = match_groups(plan.groups, self.classes)
            frame = (
                select_known_groups(name, images.frame, groups)
                if groups
                else relabel_to_model(name, images.frame, self.classes)
            )
            self._images[name] = self._label_images(plan, images, frame)
        return self._images[name]

    def load_unscored(self, name: str) -> LabelledImages:
        """The images of the modes' classes, with their labels, for what needs no classifier."""
        plan = self._plans[name]
        images = load_planned_images(plan)
        return self._label_images(plan, images, relabel_to_model(name, images.frame, self.trained))

    def resolve_unscored(self, images: LabelledImages) -> list[int]:
        """Places in `trained` of the classes that the modes are scored over on these images."""
        plan = self._plans[images.name]
        return resolve_scored_classes(plan.protocol, images.frame, self.trained, plan.classes)

    def _label_images(
        self, plan: DatasetPlan, images: ImageSet, frame: pd.DataFrame
    ) -> LabelledImages:
        return LabelledImages(
            plan.name,
            frame,
            images.root,
            resolve_model_preprocessing(self.model, frame, plan.protocol, plan.preprocess),
            shared=plan.name == CONTROL_SET,
            usable=len(images.frame),
            excluded=len(read_json(ValidationResult, paths.validation_file(plan.name)).excluded),
            resizing=describe_resizing(
                plan.protocol, plan.preprocess, frame, self.model.patch_embed.img_size
            ),
        )


def _relabel_by_groups(images: LabelledImages, groups: ScoredGroups) -> LabelledImages:
    """Images whose labels are classes, with the labels of these classes' groups, -1 for none;
    NoKnownClassError if none has a group.
    """
    labels = groups.label_wnids(images.frame["wnid"])
    if (labels < 0).all():
        raise NoKnownClassError(
            f"{images.name}: none of its {len(labels)} images is of a class of the groups"
        )
    return replace(images, frame=images.frame.assign(label=labels))


def _add_sources(dataset: str, rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(source=find_sources(dataset, rows["image_id"]).to_numpy())
