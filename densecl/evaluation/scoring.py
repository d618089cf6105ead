"""Which images of a dataset are scored for a model, over which classes, and how they are
preprocessed.
"""

from collections.abc import Sequence

import pandas as pd

from densecl.artifacts import DatasetPlan, Preprocessing
from densecl.errors import DataError
from densecl.evaluation.group_scores import ScoredGroups
from densecl.evaluation.protocols import (
    PROTOCOLS,
    PreprocessRule,
    resolve_preprocess_rule,
    resolve_scored_classes,
)
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


def select_known_groups(name: str, frame: pd.DataFrame, groups: ScoredGroups) -> pd.DataFrame:
    """Rows of groups of which the model knows a class, `label` being the group's;
    NoKnownClassError if none remains.
    """
    known = frame["wnid"].isin(groups.known)
    if not known.any():
        raise NoKnownClassError(
            f"{name}: none of its {len(frame)} images is of a group of classes of which one is "
            f"among the {len(groups.classes)} classes that the model knows"
        )
    return relabel_to_model(name, frame[known], list(groups.names))


def select_scored(name: str, frame: pd.DataFrame, scored_indices: list[int]) -> pd.DataFrame:
    """The rows whose classes are scored; DataError if there are none."""
    scored_frame = frame[frame["label"].isin(scored_indices)].reset_index(drop=True)
    if scored_frame.empty:
        raise DataError(
            f"{name}: found {len(frame)} images, none of the {len(scored_indices)} classes that it "
            "or the dataset it is the control of is scored over; list other images or classes"
        )
    return scored_frame


def resolve_model_preprocessing(
    model: Backbone, frame: pd.DataFrame, protocol: str, requested: PreprocessRule | None
) -> Preprocessing:
    """The preprocessing of all images of a dataset: one rule, whichever of them are scored."""
    height, width = model.patch_embed.img_size
    rule = resolve_preprocess_rule(protocol, requested, frame, (height, width))
    border = PROTOCOLS[protocol].border
    return resolve_preprocessing(model, rule).model_copy(update={"border": border})


def prepare_scoring(
    model: Backbone,
    frame: pd.DataFrame,
    classes: Sequence[str],
    *,
    protocol: str,
    preprocess: PreprocessRule | None = None,
    wnids: Sequence[str] = (),
    name: str = "dataset",
) -> tuple[pd.DataFrame, Preprocessing, list[int]]:
    """The rows of `frame` whose classes are scored, their preprocessing, and the class indices that
    are not masked; errors name the dataset `name`.
    """
    data_config = resolve_model_preprocessing(model, frame, protocol, preprocess)
    scored_indices = resolve_scored_classes(protocol, frame, classes, wnids)
    return select_scored(name, frame, scored_indices), data_config, scored_indices
