"""The photograph that an image was made from, by the names of files."""

import pytest

from densecl.evaluation.sources import find_sources


@pytest.mark.parametrize(
    ("dataset", "image_id", "source"),
    [
        ("imagenet", "imagenet/n01440764/ILSVRC2012_val_00000293.JPEG", "ILSVRC2012_val_00000293"),
        ("imagenet", "imagenet/ILSVRC2012_val_00000293.JPEG", "ILSVRC2012_val_00000293"),
        (
            "stylized",
            "stylized/n01440764/ILSVRC2012_val_00000293-ab3.png",
            "ILSVRC2012_val_00000293",
        ),
        ("fog", "fog/5/n01440764/ILSVRC2012_val_00000293.JPEG", "ILSVRC2012_val_00000293"),
        ("own", "own/cat/img_07.jpg", "cat/img_07"),
        ("own-blurred", "own-blurred/test/cat/img_07.webp", "cat/img_07"),
        ("own", "cat/img_07.jpg", "cat/img_07"),
        ("flat", "flat/0007.png", "0007"),
        ("own", "own/cat/a.b.jpg", "cat/a.b"),
        ("own", "own/cat.v2/noending", "cat.v2/noending"),
        ("cue-conflict", "cue-conflict/cat/cat1-dog2.png", "cat/cat1"),
        ("hostile", "hostile/n1/a\n|b.png", "n1/a\n|b"),
    ],
)
def test_a_copy_has_the_name_of_its_photograph(dataset, image_id, source):
    assert find_sources(dataset, [image_id]).tolist() == [source]


def test_no_image_has_no_source():
    assert find_sources("imagenet", []).tolist() == []
