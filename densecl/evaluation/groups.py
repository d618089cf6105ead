"""Datasets whose labels are groups of classes: many classes of the model to one label."""

import csv
from functools import cache
from importlib.resources import files

from densecl.artifacts import ClassGroups
from densecl.config.params import CONTROL_SET, TRAIN_SET, Params
from densecl.errors import DenseclError
from densecl.evaluation.protocols import PROTOCOLS, resolve_layout, resolve_protocol


@cache
def read_published_groups(name: str) -> dict[str, tuple[str, ...]]:
    """Wnids of ImageNet-1k by group, both sorted, of a list in `class_groups`.

    Sources, by name of the list: `cue-conflict`, the 16 entry-level categories of Geirhos et al.
    (`human_categories.py` of github.com/rgeirhos/texture-vs-shape); `objectnet`, the 113 of
    ObjectNet's 313 folders that overlap (`mappings/` of the dataset of Barbu et al. 2019);
    `imagenet-9`, the 9 folders of Xiao et al. (`in_to_in9.json` of
    github.com/MadryLab/backgrounds_challenge).
    """
    text = (files("densecl.evaluation") / "class_groups" / f"{name}.csv").read_text("utf-8")
    groups: dict[str, list[str]] = {}
    for row in csv.DictReader(text.splitlines()):
        groups.setdefault(row["group"], []).append(row["wnid"])
    return {group: tuple(wnids) for group, wnids in groups.items()}


def resolve_class_groups(params: Params, name: str) -> ClassGroups | None:
    """The groups that are the labels of a dataset: those that params give, else those of its
    protocol; None if its labels are classes.

    DenseclError where params contradict themselves.
    """
    own = params.evaluate.class_groups.get(name)
    layout, protocol = (
        resolve_layout(params, name).layout,
        PROTOCOLS[resolve_protocol(params, name)],
    )
    if layout != "groups":
        if own:
            raise DenseclError(
                f"evaluate.class_groups.{name}: found layout {layout} of this dataset, expected "
                f"groups; remove datasets.{name}.layout or the groups"
            )
        return None
    _check_usable(params, name)
    source = own or protocol
    if source.groups is None:
        raise DenseclError(
            f"datasets.{name}.layout: found groups, but no groups: its protocol has none; list "
            f"them in evaluate.class_groups.{name}"
        )
    if isinstance(source.groups, str):
        members, published = read_published_groups(source.groups), str(source.groups)
    else:
        members, published = source.groups, ""
    return ClassGroups(
        members={group: members[group] for group in sorted(members)},
        combine=source.combine,
        outside=source.outside,
        published=published,
    )


def _check_usable(params: Params, name: str) -> None:
    if name in (TRAIN_SET, CONTROL_SET):
        raise DenseclError(
            f"datasets.{name}.layout: found groups, expected folders of classes: other datasets "
            f"find their classes in this one"
        )
    for key, names in {
        "evaluate.classes": params.evaluate.classes,
        "train.validate_on": params.train.validate_on or (),
    }.items():
        if name in names:
            raise DenseclError(
                f"{key}: found {name}, whose labels are groups of classes, expected datasets whose "
                f"labels are classes; remove it there, or, if its folders are named by wnid, set "
                f"datasets.{name}.layout: wnid"
            )
