"""The split of the training images: by class, by content, and stable."""

import pandas as pd
import pytest

from densecl.errors import DataError
from densecl.tuning.split import split_training_images


def make_rows(per_class: int, classes: int = 3, hashes: list[str] | None = None) -> pd.DataFrame:
    count = per_class * classes
    return pd.DataFrame(
        {
            "image_id": [f"train/{i}" for i in range(count)],
            "wnid": [f"n{i % classes}" for i in range(count)],
            "sha256": [f"sha{i}" for i in range(count)],
            "dhash": hashes or [f"hash{i}" for i in range(count)],
        }
    )


def get_ids(split):
    return [set(part["image_id"]) for part in split]


def test_each_class_is_held_back_in_two_equal_halves_and_nothing_is_lost():
    rows = make_rows(40)
    split = split_training_images(rows, 0, 0.2)
    assert [part.groupby("wnid").size().tolist() for part in split] == [[32] * 3, [4] * 3, [4] * 3]
    fit, select, confirm = get_ids(split)
    assert fit | select | confirm == set(rows["image_id"])
    assert len(fit) + len(select) + len(confirm) == len(rows)


def test_the_split_follows_from_seed_and_content_not_from_the_order_of_rows():
    rows = make_rows(40)
    shuffled = rows.sample(frac=1, random_state=1).reset_index(drop=True)
    first = get_ids(split_training_images(rows, 0, 0.2))
    assert first == get_ids(split_training_images(shuffled, 0, 0.2))
    assert first != get_ids(split_training_images(rows, 1, 0.2))


def test_equal_images_are_never_on_two_sides():
    """Also where their class folders differ."""
    rows = make_rows(40, hashes=[f"hash{i // 5}" for i in range(120)])
    parts = [set(part["dhash"]) for part in split_training_images(rows, 0, 0.2)]
    assert all(a.isdisjoint(b) for i, a in enumerate(parts) for b in parts[i + 1 :])
    assert all(parts)


def test_a_manifest_without_perceptual_hashes_is_split_by_content():
    rows = make_rows(10, hashes=[""] * 30)
    assert [len(part) for part in split_training_images(rows, 0, 0.2)] == [24, 3, 3]


def test_a_class_that_is_too_small_is_named():
    rows = pd.concat([make_rows(10), make_rows(2, 1).assign(wnid="n9")])
    with pytest.raises(DataError, match=r"class n9: found 2 training images"):
        split_training_images(rows.reset_index(drop=True), 0, 0.2)


@pytest.mark.parametrize("seed", range(3))
def test_a_class_that_is_mostly_one_content_has_all_three_parts(seed):
    hashes = ["a", "b", "c", *["many"] * 97]
    split = split_training_images(make_rows(100, 1, hashes), seed, 0.2)
    assert [len(part) for part in split] == [97, 1, 2]
    assert set(split.fit["dhash"]) == {"many"}


def test_contents_of_many_images_are_halved_as_nearly_as_whole_contents_allow():
    hashes = [f"hash{i // 5}" for i in range(40)]  # eight contents of five images; a half has four
    split = split_training_images(make_rows(40, 1, hashes), 0, 0.2)
    assert [len(part) for part in split] == [30, 5, 5]


def test_a_class_whose_images_went_with_those_of_others_is_named():
    """The three images of n1 are in n0 too, which holds most of its own back."""
    rows = make_rows(20, 2, [f"hash{i // 2}" for i in range(40)])
    own, copies = rows[rows["wnid"] == "n0"], rows[rows["wnid"] == "n1"].iloc[:3]
    with pytest.raises(DataError, match=r"class n1: found no image for the part"):
        split_training_images(pd.concat([own, copies], ignore_index=True), 0, 0.8)
