"""How each dataset is scored: one protocol per dataset, and the functions that apply it. No other
module knows datasets by name.

A set that is no row here is scored as `folder`, or as the row that `evaluate.protocol.<set>` names.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from densecl.config.evaluation_params import Combination, OutsideRule, PublishedGroups
from densecl.config.params import CONTROL_SET, DatasetParams, Params
from densecl.datasets.imagenet import IMAGENET1K_WNIDS, OFFICIAL_DATASETS, read_lines
from densecl.errors import DataError, DenseclError

if TYPE_CHECKING:
    import pandas as pd

PreprocessRule = Literal["model", "as-is"]


@dataclass(frozen=True)
class EvaluationProtocol:
    """The protocol of one published dataset; `images` and `classes` hold for models of the 1000
    ImageNet classes.
    """

    layout: Literal["wnid", "index", "groups"] = "wnid"  # of its folders; params may say another
    classes: str = ""  # timm's file of the classes it is scored over; "": those that have images
    images: int | None = None
    preprocess: PreprocessRule = (
        "model"  # as-is: normalised only, where every image has the model's input size
    )
    # dataset whose images of the same classes are the control; "" if it is a control itself
    control: str = CONTROL_SET
    names: Literal["", "rendition", "cue-conflict"] = ""  # what its file names tell
    # What a difference on it is evidence of: viewpoint has a line of its own, outside the mean of
    # the shifted datasets.
    claim: Literal["shift", "viewpoint"] = "shift"
    groups: PublishedGroups | None = None  # list of groups of classes; its folders are groups
    combine: Combination = "max"  # probabilities of a group's classes
    outside: OutsideRule = "masked"  # classes of no group
    border: int = 0  # pixels cut off each side of its images


def _build_published(name: str, **options: Any) -> EvaluationProtocol:
    return EvaluationProtocol(
        classes=OFFICIAL_DATASETS[name].wnids_file, images=OFFICIAL_DATASETS[name].images, **options
    )


FOLDER_PROTOCOL = "folder"
PROTOCOLS = {
    "imagenet": _build_published("imagenet", control=""),
    "imagenet-a": _build_published("imagenet-a"),
    "imagenet-r": _build_published("imagenet-r", names="rendition"),
    "imagenet-v2": _build_published("imagenet-v2", layout="index"),
    "sketch": _build_published("sketch"),
    "stylized": _build_published("stylized", preprocess="as-is", names="cue-conflict"),
    # Objects in other poses and at other scales; no published set. Prefix: the strength.
    "viewpoint": EvaluationProtocol(names="rendition", claim="viewpoint"),
    # One corruption at one severity: validation images again, already cropped to 224 px.
    "imagenet-c": _build_published("imagenet", preprocess="as-is"),
    # Geirhos et al. 2019; its authors' loader does not resize it either. Divided by the sum over
    # all groups, the mean probabilities of a softmax over all classes are those over the groups'.
    "cue-conflict": EvaluationProtocol(
        layout="groups",
        images=1_280,
        preprocess="as-is",
        names="cue-conflict",
        groups="cue-conflict",
        combine="mean",
    ),
    # Barbu et al. 2019: the authors take the most probable of all classes; their loader cuts 2 px.
    "objectnet": EvaluationProtocol(
        layout="groups", images=18_574, groups="objectnet", outside="wrong", border=2
    ),
    # Xiao et al. 2021; one variant, such as mixed_rand. Its images are crops of 224 px.
    "imagenet-9": EvaluationProtocol(
        layout="groups", images=4_050, preprocess="as-is", groups="imagenet-9", outside="wrong"
    ),
    FOLDER_PROTOCOL: EvaluationProtocol(),
}


def resolve_protocol(params: Params, name: str) -> str:
    """The protocol of a dataset: the one that params name, else its own, else `folder`.

    Raises DenseclError for an unknown one.
    """
    own = name if name in PROTOCOLS else FOLDER_PROTOCOL
    protocol = params.evaluate.protocol.get(name, own)
    if protocol not in PROTOCOLS:
        raise DenseclError(
            f"evaluate.protocol.{name}: found {protocol!r}, expected one of {', '.join(PROTOCOLS)}"
        )
    return protocol


def resolve_layout(params: Params, name: str) -> DatasetParams:
    """The dataset's params, with the layout of its protocol or its groups unless params name
    one.
    """
    dataset, layout = params.datasets[name], PROTOCOLS[resolve_protocol(params, name)].layout
    if "layout" in dataset.model_fields_set:
        return dataset
    if name in params.evaluate.class_groups:
        layout = "groups"
    return dataset.model_copy(update={"layout": layout})


def is_imagenet(classes: Sequence[str]) -> bool:
    """True if the class list is that of ImageNet-1k, to which published lists, counts and fits
    apply.
    """
    return list(classes) == sorted(read_lines(IMAGENET1K_WNIDS))


def resolve_scored_classes(
    protocol: str, frame: "pd.DataFrame", classes: Sequence[str], wnids: Sequence[str] = ()
) -> list[int]:
    """Sorted indices into the training classes; the logits of all others are masked.

    The wnids that params give, else the published list where the class list is ImageNet-1k, else
    the classes that have images. DataError where params name a class that the train set has not.
    """
    published = PROTOCOLS[protocol].classes
    if not wnids and not (published and is_imagenet(classes)):
        return sorted(int(label) for label in frame["label"].unique())
    class_index = {wnid: index for index, wnid in enumerate(classes)}
    requested = wnids or read_lines(published)
    unknown = [wnid for wnid in requested if wnid not in class_index]
    if unknown:
        raise DataError(
            f"evaluate.classes: found {unknown[0]}, expected one of the {len(class_index)} "
            f"classes of "
            f"the train set; correct the list"
        )
    return sorted({class_index[wnid] for wnid in requested})


def resolve_preprocess_rule(
    protocol: str, requested: PreprocessRule | None, frame: "pd.DataFrame", size: tuple[int, int]
) -> PreprocessRule:
    """The rule in params, else that of the protocol; `as-is` requires images of the input size
    (height, width), in pixels.
    """
    if requested is not None or PROTOCOLS[protocol].preprocess == "model":
        return requested or "model"
    return (
        "as-is" if ((frame["height"] == size[0]) & (frame["width"] == size[1])).all() else "model"
    )


def describe_resizing(
    protocol: str, requested: PreprocessRule | None, frame: "pd.DataFrame", size: tuple[int, int]
) -> str:
    """Why images that the protocol prescribes as they are were resized; "" otherwise."""
    rule = resolve_preprocess_rule(protocol, requested, frame, size)
    if PROTOCOLS[protocol].preprocess == "model" or rule == "as-is":
        return ""
    if requested == "model":
        return "resized, as evaluate.preprocess says, where the protocol prescribes as-is"
    other_sizes = int(((frame["height"] != size[0]) | (frame["width"] != size[1])).sum())
    return (
        f"resized, where the protocol prescribes as-is: {other_sizes:,} of {len(frame):,} images "
        f"are not {size[1]} x {size[0]} px, the model's input size"
    )


def describe_missing(
    protocol: str, images: int, labels: Sequence[int], scored: Sequence[int], classes: Sequence[str]
) -> str:
    """What is missing of the published dataset; "" if nothing is, or no count is published."""
    expected = PROTOCOLS[protocol].images
    if expected is None or not is_imagenet(classes):
        return ""
    empty_classes = len(set(scored) - set(labels))
    parts = {
        f"{images:,} of {expected:,} images": images != expected,
        f"{empty_classes} of {len(scored)} classes without images": empty_classes,
    }
    return ", ".join(part for part, is_missing in parts.items() if is_missing)
