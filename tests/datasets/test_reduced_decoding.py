"""JPEGs decoded at a part of their size: the same views, where both crops allow it."""

import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from densecl.config.params import ColorJitterParams, DataParams, ViewParams
from densecl.datasets.synthetic.photographs import PHOTO, render_photograph
from densecl.datasets.views.crops import reduce_crops
from densecl.datasets.views.read_pixels import ImageFile
from densecl.datasets.views.transforms import resize_crop
from densecl.datasets.views.two_views import TwoViewDataset

PLAIN = ColorJitterParams(brightness=0, contrast=0, saturation=0, hue=0)
SIZE = 40  # px of a view


def views(root: Path, **data: object) -> TwoViewDataset:
    paths = sorted(p.name for p in root.iterdir())
    frame = pd.DataFrame({"path": paths, "label": 0, "image_id": paths})
    settings = {"color_jitter": PLAIN, "view2": ViewParams(scale=(0.2, 1.0)), **data}
    return TwoViewDataset(frame, root, DataParams.model_validate(settings), (SIZE, SIZE), 0)


@pytest.mark.parametrize("reduction", [2, 4, 8])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_reduced_pixels_are_those_of_pillows_draft(tmp_path, reduction, mode):
    path = tmp_path / "image.jpg"
    render_photograph(0, PHOTO, 203, np.random.default_rng(0))[0].crop((0, 0, 203, 150)).convert(
        mode
    ).save(path, quality=90)
    with Image.open(path) as image:
        image.draft(mode, (203 // reduction, 150 // reduction))
        expected = np.asarray(image.convert("RGB"))
    assert expected.shape == (-(-150 // reduction), -(-203 // reduction), 3)
    assert np.array_equal(ImageFile(path).decode(reduction), expected)


def test_a_file_that_opencv_cannot_read_is_reduced_to_the_same_size(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(np.arange(31 * 50 * 3, dtype=np.uint8).reshape(31, 50, 3)).save(path)
    assert ImageFile(path).jpeg_size is None
    assert ImageFile(path).decode(4).shape == (8, 13, 3)


@pytest.mark.parametrize(
    ("crop", "expected"),
    [
        ((0, 0, 315, 315), 4),  # 39.4 px of 8 px each: too few for 40
        ((0, 0, 320, 320), 8),
        ((0, 0, 320, 80), 2),  # the shorter side decides
        ((0, 0, 78, 320), 1),
    ],
)
def test_no_side_of_a_crop_is_enlarged(crop, expected):
    whole = (0, 0, 400, 400)
    assert reduce_crops((whole, crop), (40, 40), (400, 400))[0] == expected
    assert reduce_crops((crop, whole), (40, 40), (400, 400))[0] == expected


def test_reduced_crops_lie_within_the_image_and_move_by_half_a_pixel_at_most():
    rng, size = np.random.default_rng(0), (397, 501)
    for _ in range(500):
        h, w = rng.integers(80, 397), rng.integers(80, 501)
        crop = (int(rng.integers(397 - h + 1)), int(rng.integers(501 - w + 1)), int(h), int(w))
        reduction, (reduced, _) = reduce_crops((crop, crop), (40, 40), size)
        for start in (0, 1):
            low, high = reduced[start], reduced[start] + reduced[start + 2]
            assert low * reduction >= 0
            assert high * reduction <= size[start]
            assert abs(low * reduction - crop[start]) <= reduction / 2
            end = crop[start] + crop[start + 2]  # the image may cover part of its last pixel
            assert abs(high * reduction - end) <= (
                reduction / 2 if end <= size[start] - reduction else reduction
            )


def test_geometry_of_a_reduced_view_says_where_its_pixels_came_from(tmp_path):
    # Red rises across and green falls down, by a level per 2 px; sizes that no reduction divides.
    across, down = np.meshgrid(np.arange(509), np.arange(483))
    image = np.stack([across / 2, 255 - down / 2, 0 * down], 2).round().astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "image.jpg", quality=100, subsampling=0)
    dataset, reductions = views(tmp_path, reduced_decoding=True), set()
    for epoch in range(40):
        reductions.add(len(dataset.decode_crops(0, np.random.default_rng(epoch))[0]))
        image = dataset[epoch, 0]
        for view, geometry in ((image.view1, image.geometry1), (image.view2, image.geometry2)):
            top, left, height, width, flipped = geometry
            share = (np.arange(SIZE) + 0.5) / SIZE
            x = left + width * (1 - share if flipped else share)
            y = top + height * share
            red, green = view[0].float().mean(0).numpy(), view[1].float().mean(1).numpy()
            pixel = width * 509 / SIZE / 2  # levels across a pixel of the view
            assert np.abs(red - (x * 509 - 0.5) / 2)[2:-2].max() < 0.5 + 0.1 * pixel
            pixel = height * 483 / SIZE / 2
            assert np.abs(green - 255 + (y * 483 - 0.5) / 2)[2:-2].max() < 0.5 + 0.1 * pixel
    assert reductions >= {242, 121, 61}


def test_lines_are_where_the_geometry_says(tmp_path):
    """Dark lines at known places, found in both views to a tenth of a pixel of the view."""
    places = (100, 180, 260, 340, 420)
    image = np.full((600, 560, 3), 255, np.uint8)
    for place in places:
        image[place - 4 : place + 4] = 0
    Image.fromarray(image).save(tmp_path / "image.jpg", quality=95)
    dataset, found = views(tmp_path, reduced_decoding=True), 0
    for epoch in range(30):
        image = dataset[epoch, 0]
        for view, geometry in ((image.view1, image.geometry1), (image.view2, image.geometry2)):
            top, height = geometry.top, geometry.height
            if height * 600 < 3 * 80:  # lines too near to tell apart are no problem, too few are
                continue
            darkness = 255 - view.float().mean((0, 2)).numpy()
            for place in places:
                row = (place / 600 - top) / height * SIZE - 0.5
                if 3 <= row <= SIZE - 4:
                    near = np.arange(round(row) - 2, round(row) + 3)
                    centre = (darkness[near] * near).sum() / darkness[near].sum()
                    assert abs(centre - row) < 0.1
                    found += 1
    assert found > 50


def test_reduced_drawings_look_like_the_exact_ones(tmp_path):
    for number in range(6):
        drawn = render_photograph(number, PHOTO, 400, np.random.default_rng(number))[0]
        drawn.save(tmp_path / f"{number}.jpg", quality=92)
    compare(tmp_path, SIZE)


@pytest.mark.slow
def test_reduced_photographs_look_like_the_exact_ones(suite):
    compare(suite / "full", 96)


def compare(root: Path, size: int) -> None:
    """Views of the same crops, from the whole and from the reduced image."""
    differences = []
    for path in sorted(root.glob("*.*")):
        file = ImageFile(path)
        width, height = file.jpeg_size
        crop = (8, 16, (height - 8) // 8 * 8, (width - 16) // 8 * 8)  # on whole pixels of each
        reduction, (reduced, _) = reduce_crops((crop, crop), (size, size), (height, width))
        if reduction == 1:
            continue
        assert tuple(side * reduction for side in reduced) == crop
        exact = resize_crop(file.decode(), crop, (size, size))
        ours = resize_crop(file.decode(reduction), reduced, (size, size))
        differences.append(np.abs(exact.astype(int) - ours.astype(int)).mean())
    assert len(differences) >= 6
    assert np.mean(differences) <= 2
    assert max(differences) <= 5


def test_images_in_an_archive_are_reduced_too(tmp_path):
    drawn = render_photograph(0, PHOTO, 400, np.random.default_rng(0))[0]
    (tmp_path / "folder").mkdir()
    drawn.save(tmp_path / "folder" / "image.jpg")
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        archive.add(tmp_path / "folder" / "image.jpg", "image.jpg")
    frame = pd.DataFrame({"path": ["image.jpg"], "label": 0, "image_id": "image"})
    data = DataParams(reduced_decoding=True, view1=ViewParams(scale=(0.5, 1.0)))
    in_folder, in_archive = (
        TwoViewDataset(frame, tmp_path / root, data, (SIZE, SIZE), 0)
        for root in ("folder", "set.tar")
    )
    assert in_archive.decode_crops(0, np.random.default_rng(0))[0].shape == (100, 100, 3)
    assert torch.equal(in_folder[0, 0].view1, in_archive[0, 0].view1)


def test_it_is_off_by_default_and_refused_where_whole_images_are_kept(tmp_path):
    render_photograph(0, PHOTO, 400, np.random.default_rng(0))[0].save(tmp_path / "0.jpg")
    assert views(tmp_path).decode_crops(0, np.random.default_rng(0))[0].shape == (400, 400, 3)
    with pytest.raises(ValidationError, match="found reduced_decoding with cache: ram"):
        DataParams(reduced_decoding=True, cache="ram")
