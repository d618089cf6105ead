"""Integers of folders: ImageNet-1k's class indices wherever the train set has its classes."""

from importlib.resources import files

import pytest

from densecl.datasets.manifests.listing import list_dataset
from densecl.errors import DataError
from tests.datasets.test_skipped_files import write

IMAGENET = (files("timm.data") / "_info/imagenet_synsets.txt").read_text(encoding="utf-8").split()
SUBSET = sorted([IMAGENET[5], IMAGENET[7], IMAGENET[300], IMAGENET[999], IMAGENET[12]])
INDICES = "folder numbers are ImageNet-1k's class indices"
POSITIONS = "folder numbers are positions in the sorted class list of the train set"


@pytest.mark.parametrize("width", [1, 3, 4])
@pytest.mark.parametrize("is_published", [True, False])
def test_with_a_subset_of_imagenet_folders_are_mapped_by_wnid(tmp_path, width, is_published):
    numbers = [0, 1, 2, 5, 7, 12, 300, 998, 999]
    root = write(
        tmp_path / "v2", [f"{n:0{width}d}/{i}.jpeg" for n in numbers for i in range(1 + n % 2)]
    )
    listing = list_dataset(root, "index", SUBSET, is_published=is_published)
    wnids = {int(path.split("/")[0]): SUBSET[label] for path, label in listing.images}
    assert wnids == {n: IMAGENET[n] for n in (5, 7, 12, 300, 999)}
    assert listing.skipped == {"of 4 classes that the train set does not have": 5}
    assert listing.notes == (INDICES,)


def test_folders_0_to_9_are_no_positions_in_a_subset(tmp_path):
    """The fault: they were labelled 0 to 9 of the train set without a word."""
    root = write(tmp_path / "v2", [f"{n}/1.jpeg" for n in range(10)])
    listing = list_dataset(root, "index", SUBSET, is_published=True)
    assert listing.images == [("5/1.jpeg", SUBSET.index(IMAGENET[5])), ("7/1.jpeg", 1)]
    assert listing.skipped.total() == 8
    with pytest.raises(DataError, match="found 10 classes, none of them of the 2 classes"):
        list_dataset(root, "index", [IMAGENET[300], IMAGENET[301]], is_published=True)


@pytest.mark.parametrize("others", [["background"], ["n00007846"]])
def test_classes_beside_those_of_imagenet_change_no_index(tmp_path, others):
    classes = sorted([*SUBSET, *others])
    root = write(tmp_path / "v2", ["5/1.jpeg", "0/1.jpeg", "999/1.jpeg"])
    listing = list_dataset(root, "index", classes, is_published=True)
    assert {path: classes[label] for path, label in listing.images} == {
        "5/1.jpeg": IMAGENET[5],
        "999/1.jpeg": IMAGENET[999],
    }


def test_all_of_imagenet_and_lists_without_any_of_it(tmp_path):
    root = write(tmp_path / "v2", ["0/1.jpeg", "2/1.jpeg", "10/1.jpeg"])
    everything = list_dataset(root, "index", IMAGENET, is_published=True)
    assert everything.images == [("0/1.jpeg", 0), ("10/1.jpeg", 10), ("2/1.jpeg", 2)]
    assert everything.notes == (INDICES,)
    assert not everything.skipped
    own = [f"n10000{n:03d}" for n in range(11)]
    listing = list_dataset(root, "index", own, is_published=True)
    assert (listing.images, listing.notes) == (everything.images, (POSITIONS,))


def test_class_names_that_are_no_wnids_cannot_be_found_by_a_published_index(tmp_path):
    root = write(tmp_path / "v2", ["0/1.jpeg", "1/1.jpeg"])
    for classes in (["goldfish", "tench"], ["0", "1"]):
        with pytest.raises(
            DataError,
            match=rf"v2: its folders are named by ImageNet-1k's class indices, .* found class "
            rf"'{classes[0]}', expected wnids; rename the train set's folders to wnids, or",
        ):
            list_dataset(root, "index", classes, is_published=True)
    listing = list_dataset(root, "index", ["goldfish", "tench"])  # a set of one's own
    assert listing.images == [("0/1.jpeg", 0), ("1/1.jpeg", 1)]
    assert listing.notes == (POSITIONS,)


def test_an_index_beyond_imagenet_is_an_error(tmp_path):
    root = write(tmp_path / "v2", ["5/1.jpeg", "1000/1.jpeg"])
    with pytest.raises(DataError, match=r"1000: found index 1000, expected 0 to 999 .*ImageNet-1k"):
        list_dataset(root, "index", SUBSET, is_published=True)


def test_folders_are_groups_and_others_are_counted(tmp_path):
    root = write(tmp_path / "set", ["cat/1.jpeg", "cat/2.jpeg", "dog/1.jpeg", "rake/1.jpeg"])
    listing = list_dataset(root, "groups", ["bird", "cat", "dog"])
    assert listing.images == [("cat/1.jpeg", 1), ("cat/2.jpeg", 1), ("dog/1.jpeg", 2)]
    assert listing.skipped == {"in 1 folder that no group is named by": 1}


def test_a_set_without_any_group_says_which_were_expected(tmp_path):
    root = write(tmp_path / "set", ["n02123045/1.jpeg", "n02123159/1.jpeg"])
    message = (
        r"found folders n02123045, n02123159, \.\.\., expected some of the 2 groups .*cat, dog"
    )
    with pytest.raises(DataError, match=message + ".* set layout: wnid"):
        list_dataset(root, "groups", ["cat", "dog"])
