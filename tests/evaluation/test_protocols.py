"""The table of sets, and the rules that read it."""

from importlib.resources import files

import pandas as pd
import pytest

from densecl.errors import DataError
from densecl.evaluation.protocols import (
    PROTOCOLS,
    describe_missing,
    describe_resizing,
    is_imagenet,
    resolve_preprocess_rule,
    resolve_scored_classes,
)


def listed(name: str) -> list[str]:
    return (files("timm.data") / "_info" / name).read_text(encoding="utf-8").split()


IMAGENET = sorted(listed("imagenet_synsets.txt"))


def frame(labels: list[int], size: tuple[int, int] = (64, 64)) -> pd.DataFrame:
    return pd.DataFrame({"label": labels, "height": size[0], "width": size[1]})


def test_published_counts():
    """Images, and classes under ImageNet-1k, as the sets' papers and archives have them."""
    published = {
        "imagenet": (50_000, 1000),
        "imagenet-a": (7_500, 200),
        "imagenet-r": (30_000, 200),
        "imagenet-v2": (10_000, 1000),
        "sketch": (50_889, 1000),
        "stylized": (50_000, 1000),
    }
    for name, (images, classes) in published.items():
        assert PROTOCOLS[name].images == images
        assert len(resolve_scored_classes(name, frame([0]), IMAGENET)) == classes


@pytest.mark.parametrize(
    ("name", "subset"),
    [("imagenet-a", "imagenet_a_synsets.txt"), ("imagenet-r", "imagenet_r_synsets.txt")],
)
def test_under_imagenet_the_mask_is_the_published_list_whatever_images_there_are(name, subset):
    expected = sorted(IMAGENET.index(wnid) for wnid in listed(subset))
    assert resolve_scored_classes(name, frame([expected[3]]), IMAGENET) == expected


def test_elsewhere_the_mask_is_the_classes_that_have_images_or_those_that_params_give():
    classes = ["n1", "n2", "n3", "n4"]
    assert not is_imagenet(classes)
    for name in PROTOCOLS:
        assert resolve_scored_classes(name, frame([3, 1, 1]), classes) == [1, 3]
        assert resolve_scored_classes(name, frame([3, 1, 1]), classes, ("n4", "n1", "n2")) == [
            0,
            1,
            3,
        ]
    with pytest.raises(
        DataError,
        match=r"evaluate.classes: found n9, expected one of the 4 classes of the train set",
    ):
        resolve_scored_classes("folder", frame([3]), classes, ("n9",))


def test_as_is_needs_every_image_at_the_input_size():
    mixed = pd.concat([frame([0]), frame([0], (64, 65))])
    assert resolve_preprocess_rule("stylized", None, frame([0]), (64, 64)) == "as-is"
    assert resolve_preprocess_rule("stylized", None, mixed, (64, 64)) == "model"
    assert resolve_preprocess_rule("stylized", "model", frame([0]), (64, 64)) == "model"
    assert resolve_preprocess_rule("sketch", None, frame([0]), (64, 64)) == "model"
    assert resolve_preprocess_rule("sketch", "as-is", mixed, (64, 64)) == "as-is"


def test_published_sets_at_input_size_are_scored_as_they_are_and_a_deviation_is_described():
    prescribed = {name for name, row in PROTOCOLS.items() if row.preprocess == "as-is"}
    assert prescribed == {"imagenet-c", "stylized", "cue-conflict", "imagenet-9"}
    same, mixed = frame([0]), pd.concat([frame([0]), frame([0, 0], (64, 65))])
    for name in prescribed:
        assert describe_resizing(name, None, same, (64, 64)) == ""
        assert describe_resizing(name, "as-is", mixed, (64, 64)) == ""
        assert describe_resizing(name, None, mixed, (64, 64)) == (
            "resized, where the protocol prescribes as-is: 2 of 3 images are not 64 x 64 px, the "
            "model's input size"
        )
        assert "as evaluate.preprocess says" in describe_resizing(name, "model", same, (64, 64))
    assert describe_resizing("sketch", None, mixed, (64, 64)) == ""


def test_what_of_a_published_set_is_missing_is_said():
    scored = resolve_scored_classes("imagenet-a", frame([0]), IMAGENET)
    assert describe_missing("imagenet-a", 7_500, scored, scored, IMAGENET) == ""
    assert (
        describe_missing("imagenet-a", 7_400, scored[1:], scored, IMAGENET)
        == "7,400 of 7,500 images, 1 of 200 classes without images"
    )
    assert describe_missing("imagenet-a", 10, [0], [0], ["n1"]) == ""
    assert describe_missing("folder", 10, scored, scored, IMAGENET) == ""
