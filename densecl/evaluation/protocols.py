"""How each set is scored: one row a set, and the rules that read it. The only place that knows a
set by its name.

A set that is no row here is scored as `folder`, or as the row that `evaluate.protocol.<set>` names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from densecl.config.params import CONTROL_SET, Dataset, Params
from densecl.datasets.imagenet import ALL, SETS, words
from densecl.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Rule = Literal["model", "as-is"]


@dataclass(frozen=True)
class Protocol:
    """One set as its authors publish it; `images` and `classes` hold where the model knows the 1000
    ImageNet classes.
    """

    layout: Literal["wnid", "index"] = "wnid"  # of its folders, where params do not say
    classes: str = ""  # timm's file of the classes it is scored over; "": those that have images
    images: int | None = None
    preprocess: Rule = (
        "model"  # as-is: normalised only, where every image has the model's input size
    )
    # the set whose images of the same classes it is measured against; "": itself one
    control: str = CONTROL_SET
    names: Literal["", "rendition", "cue-conflict"] = ""  # what its file names tell


def _published(name: str, **how: Any) -> Protocol:
    return Protocol(classes=SETS[name].wnids, images=SETS[name].images, **how)


FOLDER = "folder"
PROTOCOLS = {
    "imagenet": _published("imagenet", control=""),
    "imagenet-a": _published("imagenet-a"),
    "imagenet-r": _published("imagenet-r", names="rendition"),
    "imagenet-v2": _published("imagenet-v2", layout="index"),
    "sketch": _published("sketch"),
    "stylized": _published("stylized", preprocess="as-is", names="cue-conflict"),
    "imagenet-c": _published("imagenet"),  # one corruption at one severity: validation images again
    "cue-conflict": Protocol(names="cue-conflict"),  # Geirhos et al. 2019
    FOLDER: Protocol(),
}


def protocol_of(params: Params, name: str) -> str:
    """The row a set is scored by: the one params name, else its own, else `folder`."""
    return params.evaluate.protocol.get(name) or (name if name in PROTOCOLS else FOLDER)


def with_layout(params: Params, name: str) -> Dataset:
    """The set's entry, with its protocol's layout where params do not say one."""
    dataset = params.datasets[name]
    said = "layout" in dataset.model_fields_set
    return (
        dataset
        if said
        else dataset.model_copy(update={"layout": PROTOCOLS[protocol_of(params, name)].layout})
    )


def is_imagenet(classes: Sequence[str]) -> bool:
    """True where the class list is that of ImageNet-1k, which published lists, counts and fits are
    about.
    """
    return list(classes) == sorted(words(ALL))


def scored_classes(
    protocol: str, frame: pd.DataFrame, classes: Sequence[str], given: Sequence[str] = ()
) -> list[int]:
    """Sorted indices into the training classes; logits of all others are masked.

    The wnids that params give, else the published list where the class list is ImageNet-1k, else
    the classes that have images. DataError where params name a class that the train set has not.
    """
    listed = PROTOCOLS[protocol].classes
    if not given and not (listed and is_imagenet(classes)):
        return sorted(int(label) for label in frame["label"].unique())
    known = {wnid: index for index, wnid in enumerate(classes)}
    wanted = given or words(listed)
    unknown = [wnid for wnid in wanted if wnid not in known]
    if unknown:
        raise DataError(
            f"evaluate.classes: found {unknown[0]}, expected one of the {len(known)} classes of "
            f"the train set; correct the list"
        )
    return sorted({known[wnid] for wnid in wanted})


def preprocess_rule(
    protocol: str, given: Rule | None, frame: pd.DataFrame, size: tuple[int, int]
) -> Rule:
    """What params say, else the row's; as-is needs every image of the set at the input size
    (height, width), in pixels.
    """
    if given is not None or PROTOCOLS[protocol].preprocess == "model":
        return given or "model"
    return (
        "as-is" if ((frame["height"] == size[0]) & (frame["width"] == size[1])).all() else "model"
    )


def shortfall(
    protocol: str, images: int, labels: Sequence[int], scored: Sequence[int], classes: Sequence[str]
) -> str:
    """What of the published set is not there, "" where nothing is missing or no count is
    published.
    """
    expected = PROTOCOLS[protocol].images
    if expected is None or not is_imagenet(classes):
        return ""
    absent = len(set(scored) - set(labels))
    said = [f"{images:,} of {expected:,} images"] if images != expected else []
    return ", ".join(
        said + ([f"{absent} of {len(scored)} classes without images"] if absent else [])
    )
