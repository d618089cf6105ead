"""The published lists of groups, and what params may say about groups."""

from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from densecl.config.params import ParamsError, load_params
from densecl.errors import DenseclError
from densecl.evaluation.groups import read_published_groups, resolve_class_groups
from densecl.evaluation.protocols import PROTOCOLS, resolve_layout

IMAGENET = (files("timm.data") / "_info/imagenet_synsets.txt").read_text(encoding="utf-8").split()
SMALL = Path(__file__).parent.parent / "small.yaml"
# Classes of each group: Geirhos et al. 2019, and Xiao et al. 2021.
SIXTEEN = {
    **{"airplane": 1, "bear": 4, "bicycle": 2, "bird": 49, "boat": 5, "bottle": 7, "car": 3},
    **{"cat": 6, "chair": 4, "clock": 3, "dog": 109, "elephant": 2, "keyboard": 2, "knife": 1},
    **{"oven": 1, "truck": 8},
}
NINE = {
    **{"00_dog": 116, "01_bird": 52, "02_wheeled vehicle": 42, "03_reptile": 36},
    **{"04_carnivore": 35, "05_insect": 27, "06_musical instrument": 26, "07_primate": 20},
    "08_fish": 16,
}


def resolve(tmp_path: Path, name: str, evaluate: dict, **dataset: str):
    values = yaml.safe_load(SMALL.read_text())
    values["datasets"][name] = {"root": name, "tracked_by": name, **dataset}
    values["train"] |= evaluate.pop("train", {})
    values["evaluate"] = {"datasets": ["imagenet", name], **evaluate}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values))
    params = load_params(path)
    return params, resolve_class_groups(params, name)


@pytest.mark.parametrize("name", ["cue-conflict", "imagenet-9", "objectnet"])
def test_each_class_of_a_published_list_is_one_of_imagenet_and_in_one_group(name):
    groups = read_published_groups(name)
    counts = Counter(wnid for wnids in groups.values() for wnid in wnids)
    assert set(counts.values()) == {1}
    assert set(counts) <= set(IMAGENET)
    assert list(groups) == sorted(groups)
    assert PROTOCOLS[name].groups == name


def test_published_lists_have_the_published_counts():
    sixteen, nine, objects = map(read_published_groups, ("cue-conflict", "imagenet-9", "objectnet"))
    assert {name: len(wnids) for name, wnids in sixteen.items()} == SIXTEEN
    assert {name: len(wnids) for name, wnids in nine.items()} == NINE
    assert sum(NINE.values()) == 370
    assert len(objects) == 113
    several = {name: len(wnids) for name, wnids in objects.items() if len(wnids) > 1}
    assert several == {
        **{"alarm_clock": 2, "bicycle": 2, "chair": 3, "helmet": 2, "pen": 3, "skirt": 3},
        **{"still_camera": 2, "tie": 2, "wheel": 2},
    }


def test_published_groups_by_what_is_known_of_imagenet():
    """Indices of ImageNet-1k that everyone knows: 151 to 268 are dogs, 281 to 285 house cats."""
    sixteen, nine, objects = map(read_published_groups, ("cue-conflict", "imagenet-9", "objectnet"))
    assert {IMAGENET.index(wnid) for wnid in sixteen["dog"]} <= set(range(151, 269))
    assert {IMAGENET.index(wnid) for wnid in sixteen["cat"]} == {*range(281, 286), 286}
    assert {IMAGENET.index(wnid) for wnid in nine["03_reptile"]} == set(range(33, 69))
    assert {IMAGENET.index(wnid) for wnid in nine["08_fish"]} == {*range(7), *range(389, 398)}
    assert objects["banana"] == (IMAGENET[954],)
    assert objects["computer_mouse"] == (IMAGENET[673],)
    assert set(objects["alarm_clock"]) == {IMAGENET[409], IMAGENET[530]}


@pytest.mark.parametrize(
    ("name", "combine", "outside", "border"),
    [
        ("cue-conflict", "mean", "masked", 0),
        ("objectnet", "max", "wrong", 2),
        ("imagenet-9", "max", "wrong", 0),
    ],
)
def test_a_set_of_a_published_name_is_labelled_by_its_groups(
    tmp_path, name, combine, outside, border
):
    params, groups = resolve(tmp_path, name, {})
    assert resolve_layout(params, name).layout == "groups"
    assert (groups.combine, groups.outside, groups.published) == (combine, outside, name)
    assert groups.members == read_published_groups(name)
    assert PROTOCOLS[name].border == border


def test_folders_named_by_wnid_have_no_groups(tmp_path):
    assert resolve(tmp_path, "cue-conflict", {}, layout="wnid")[1] is None


def test_own_groups_replace_those_of_the_protocol(tmp_path):
    own = {"groups": {"dog": ["n2", "n1"], "cat": ["n3"]}}
    for name in ("pets", "objectnet"):
        params, groups = resolve(tmp_path, name, {"class_groups": {name: own}})
        assert resolve_layout(params, name).layout == "groups"
        assert groups.members == {"cat": ("n3",), "dog": ("n2", "n1")}
        assert (groups.combine, groups.outside, groups.published) == ("max", "masked", "")
    masked = {"groups": "objectnet", "outside": "masked"}
    _, groups = resolve(tmp_path, "objectnet", {"class_groups": {"objectnet": masked}})
    assert (len(groups.members), groups.outside) == (113, "masked")


@pytest.mark.parametrize(
    ("given", "dataset", "message"),
    [
        ({}, {"layout": "groups"}, r"datasets.pets.layout: found groups, but no groups"),
        (
            {"class_groups": {"pets": {"groups": "objectnet"}}},
            {"layout": "wnid"},
            r"evaluate.class_groups.pets: found layout wnid of this dataset, expected groups",
        ),
        (
            {"class_groups": {"pets": {"groups": "objectnet"}}, "classes": {"pets": ["n1"]}},
            {},
            r"evaluate.classes: found pets, whose labels are groups",
        ),
        (
            {
                "class_groups": {"pets": {"groups": "objectnet"}},
                "train": {"validate_on": ["pets"]},
            },
            {},
            r"train.validate_on: found pets, whose labels are groups",
        ),
    ],
)
def test_contradictions_are_named(tmp_path, given, dataset, message):
    with pytest.raises(DenseclError, match=message):
        resolve(tmp_path, "pets", given, **dataset)


def test_the_control_has_no_groups(tmp_path):
    with pytest.raises(DenseclError, match=r"datasets.imagenet.layout: found groups"):
        resolve(tmp_path, "imagenet", {"datasets": ["imagenet"]}, layout="groups")


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"a": ["n1"], "b": ["n2", "n1"]}, "found n1 in 'a' and in 'b'"),
        ({"a": ["n1"]}, "groups: found 1, expected 2 or more"),
        ({"a": [], "b": ["n1"]}, "groups"),
        ("objectnet-1", "groups"),
    ],
)
def test_wrong_groups_are_errors_of_params(tmp_path, groups, message):
    with pytest.raises(ParamsError, match=message):
        resolve(tmp_path, "pets", {"class_groups": {"pets": {"groups": groups}}})
    with pytest.raises(ParamsError, match=r"evaluate.class_groups: found 'cats'"):
        resolve(tmp_path, "pets", {"class_groups": {"cats": {"groups": "objectnet"}}})
