"""Each corruption against its definition: slow references, exact cases, and pixels of the authors'
own packages.
"""

import colorsys
import hashlib
import io
import math
import subprocess
import sys
from functools import partial
from itertools import product

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from densecl.config.probe_params import FROST_FILES
from densecl.errors import DataError
from densecl.evaluation.corruptions import blur, digital, noise, weather
from densecl.evaluation.corruptions.corrupt import (
    CORRUPTIONS,
    corrupt_image,
    create_random,
    truncate_pixels,
)
from densecl.evaluation.corruptions.frost import read_frost
from densecl.evaluation.corruptions.scaling import blur_on_finer_grid, get_published_shape
from densecl.evaluation.corruptions.zoom import zoom_centre
from densecl.evaluation.imagenet_c import ALEXNET_ERRORS, EXTRA_CORRUPTIONS, SEVERITIES
from tests.evaluation.corruption_samples import (
    corrupt_unsaved,
    draw_grain,
    draw_image,
    read_samples,
    sample_pixels,
)

CONDITIONS = list(product(CORRUPTIONS, SEVERITIES))


def get_rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def get_grey(value: int, side: int = 128) -> np.ndarray:
    return np.full((side, side, 3), value, np.uint8)


class ZeroRandom:
    """In place of a generator: uniform numbers are their middle."""

    def uniform(self, low: float, high: float, shape: tuple[int, ...]) -> np.ndarray:
        return np.full(shape, (low + high) / 2)


def test_corruptions_are_those_of_imagenet_c():
    assert {*CORRUPTIONS, "frost"} == {*ALEXNET_ERRORS, *EXTRA_CORRUPTIONS}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_pixels_are_those_of_the_authors_packages(name: str):
    """Within 2 of 255: OpenCV and SciPy round in other places, and the authors cut off
    fractions.
    """
    expected = read_samples()
    for severity in SEVERITIES:
        found = sample_pixels(corrupt_unsaved(draw_image(), name, severity))
        assert found == pytest.approx(expected[name, severity], abs=2)


@pytest.mark.parametrize("shape", [(32, 32, 3), (48, 64, 3), (112, 80, 3), (256, 256, 3)])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_any_size_keeps_its_shape(name: str, shape: tuple[int, int, int]):
    image = get_rng().integers(0, 256, shape, np.uint8)
    before = image.copy()
    corrupted = corrupt_image(image, name, 3, "a", CORRUPTIONS[name])
    assert corrupted.shape == shape
    assert corrupted.dtype == np.uint8
    assert (corrupted != image).any()
    assert (image == before).all()


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_black_and_white_images_have_finite_values(name: str, value: int):
    pixels = CORRUPTIONS[name](get_grey(value, 48), 5, get_rng())
    assert np.isfinite(np.asarray(pixels, float)).all()


# The authors' severities are ordered by difficulty, not by distance: their elastic transform moves
# the whole image at 1 and 2, pixels among their neighbours from 3 on; snow gets finer at 5; glass
# goes farther at 2 and 4 but less often; water becomes mud; saturation falls at 1 and 2 and rises
# from 3.
UNORDERED = ("elastic_transform", "glass_blur", "snow", "spatter", "saturate")


@pytest.mark.parametrize("side", [48, 224])
@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name not in UNORDERED])
def test_distance_grows_with_severity(name: str, side: int):
    image = draw_grain(side)
    distances = [
        np.abs(image.astype(float) - corrupt_unsaved(image, name, severity)).mean()
        for severity in SEVERITIES
    ]
    assert (np.diff(distances) > 0).all(), distances


@pytest.mark.parametrize(
    ("name", "severities"),
    [
        ("elastic_transform", (3, 4, 5)),
        ("glass_blur", (1, 3, 5)),
        ("snow", (1, 2)),
        ("saturate", (1, 2)),
        ("saturate", (3, 4, 5)),
    ],
)
@pytest.mark.parametrize("side", [48, 224])
def test_distance_grows_within_a_kind(name: str, severities: tuple[int, ...], side: int):
    image = draw_grain(side)
    distances = [
        np.abs(image.astype(float) - corrupt_unsaved(image, name, severity)).mean()
        for severity in severities
    ]
    assert (np.diff(distances) > 0).all(), distances


# Noise


@pytest.mark.parametrize("severity", SEVERITIES)
def test_noise_has_its_published_moments(severity: int):
    grey, values = get_grey(100), 128 * 128 * 3
    deviation = 255 * (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    gaussian = noise.add_gaussian_noise(grey, severity, get_rng())
    assert gaussian.mean() == pytest.approx(100, abs=4 * deviation / values**0.5)
    assert gaussian.std() == pytest.approx(deviation, rel=4 / (2 * values) ** 0.5)

    photons = 100 / 255 * (60, 25, 12, 5, 3)[severity - 1]
    shot = noise.add_shot_noise(grey, severity, get_rng())
    assert shot.mean() == pytest.approx(100, rel=4 / (photons * values) ** 0.5)
    assert shot.var() == pytest.approx(100**2 / photons, rel=0.05)

    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    impulse = noise.add_impulse_noise(grey, severity, get_rng())
    for value, expected in ((0, share / 2), (255, share / 2), (100, 1 - share)):
        error = (expected * (1 - expected) / values) ** 0.5
        assert (impulse == value).mean() == pytest.approx(expected, abs=4 * error)

    deviation = 100 * (0.15, 0.2, 0.35, 0.45, 0.6)[severity - 1]
    speckle = noise.add_speckle_noise(grey, severity, get_rng())
    assert speckle.std() == pytest.approx(deviation, rel=4 / (2 * values) ** 0.5)


# Blur


@pytest.mark.parametrize("severity", SEVERITIES)
def test_defocus_is_the_mean_over_a_disk(severity: int):
    image = get_grey(0, 224)
    image[112, 112] = 255
    spot = blur.blur_by_defocus(image, severity, get_rng())[..., 0]
    radius = (3, 4, 6, 8, 10)[severity - 1]
    rows, columns = np.mgrid[:224, :224] - 112
    distances = np.hypot(rows, columns)
    # The authors normalise the disk before they smooth its edge: it brightens by 1 % at 4 and 5.
    assert spot.sum() == pytest.approx(255, rel=0.015 if severity > 3 else 1e-5)
    assert (np.abs(spot[distances > radius + 3.5]) < 1e-2).all()
    inside = spot[distances < radius - 3]
    np.testing.assert_allclose(inside, 255 / (distances <= radius).sum(), rtol=1e-5)


@pytest.mark.parametrize("reach", [1, 2, 4])
def test_scattered_pixels_equal_the_slow_loop(reach: int):
    image = get_rng(1).integers(0, 256, (20, 17, 3), np.uint8)
    expected, rng = image.copy(), get_rng()
    for row in range(20 - reach, reach, -1):
        for column in range(17 - reach, reach, -1):
            right, down = rng.integers(-reach, reach, 2)
            expected[row, column] = expected[row + down, column + right]
    assert (blur.scatter_pixels(image, reach, get_rng()) == expected).all()


@pytest.mark.parametrize("angle", [-45, -10, 0, 33, 90, -135])
def test_motion_blur_equals_the_slow_mean_along_its_line(angle: int):
    image = get_rng().uniform(0, 255, (12, 15)).astype(np.float32)
    radius, sigma = 4, 3
    steps = range(2 * radius + 1)
    weights = [math.exp(-(step**2) / (2 * sigma**2)) for step in steps]
    expected = np.zeros((12, 15))
    for row, column in np.ndindex(12, 15):
        for step, weight in zip(steps, weights, strict=True):
            y = row + math.ceil(step * math.sin(math.radians(angle)) - 0.5)
            x = column + math.ceil(step * math.cos(math.radians(angle)) - 0.5)
            value = image[min(max(y, 0), 11), min(max(x, 0), 14)]
            expected[row, column] += weight / sum(weights) * value
    np.testing.assert_allclose(blur.blur_along(image, radius, sigma, angle), expected, 1e-4)


@pytest.mark.parametrize("factor", [1, 1.01, 1.11, 1.3, 2.5, 4.5])
@pytest.mark.parametrize("shape", [(224, 224, 3), (40, 31, 3)])
def test_zoom_equals_scipys(factor: float, shape: tuple[int, int, int]):
    image = get_rng().uniform(0, 1, shape).astype(np.float32)
    (height, top), (width, left) = (
        (crop := math.ceil(length / factor), (length - crop) // 2) for length in shape[:2]
    )
    central = image[top : top + height, left : left + width]
    enlarged = ndimage.zoom(central, (factor, factor, 1), order=1)
    down, right = ((enlarged.shape[axis] - shape[axis]) // 2 for axis in (0, 1))
    expected = enlarged[down : down + shape[0], right : right + shape[1]]
    np.testing.assert_allclose(zoom_centre(image, factor), expected, atol=2e-5)


@pytest.mark.parametrize("sigma", [0.2, 1, 3.3])
def test_gaussian_blur_equals_scipys(sigma: float):
    image = get_rng().uniform(0, 255, (40, 30)).astype(np.float32)
    expected = ndimage.gaussian_filter(image, sigma, mode="nearest", truncate=4)
    np.testing.assert_allclose(blur.blur_by_gaussian(image, sigma), expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur"])
def test_blurs_keep_a_plain_image(name: str):
    for severity in SEVERITIES:
        plain = CORRUPTIONS[name](get_grey(77, 48), severity, get_rng())
        np.testing.assert_allclose(plain, 77, atol=1.1)


# Weather


def test_snow_and_fog_have_their_effect_on_a_plain_image():
    for severity in SEVERITIES:
        kept = (0.8, 0.7, 0.7, 0.65, 0.55)[severity - 1]
        snow = weather.add_snow(get_grey(100, 224), severity, get_rng())
        whitened = kept * 100 + (1 - kept) * (1.5 * 100 + 127.5)
        assert snow.min() >= whitened - 1e-3  # no flake
        np.testing.assert_allclose(snow, np.rot90(snow, 2), atol=1e-3)

        strength = (1.5, 2, 2.5, 2.5, 3)[severity - 1]
        fog = weather.add_fog(get_grey(100, 224), severity, get_rng())
        share = (100 / 255) / (100 / 255 + strength)
        assert fog.min() >= 100 * share - 1e-3
        assert fog.max() <= (100 + 255 * strength) * share + 1e-3


@pytest.mark.parametrize("side", [2, 16])
def test_cloud_equals_the_slow_diamonds_and_squares(side: int):
    rng, heights, step, spread = get_rng(), np.zeros((side, side)), side, 100.0

    def fill(rows: range, columns: range, offsets: list[tuple[int, int]]) -> None:
        old = heights.copy()
        jitter = rng.uniform(-spread, spread, (len(rows), len(columns)))
        for (i, row), (j, column) in product(enumerate(rows), enumerate(columns)):
            near = [old[(row + y) % side, (column + x) % side] for y, x in offsets]
            heights[row, column] = sum(near) / 4 + spread * jitter[i, j]

    while step > 1:
        half = step // 2
        corners, middles = range(0, side, step), range(half, side, step)
        beside = [(0, -half), (0, half), (-half, 0), (half, 0)]
        fill(middles, middles, [(y, x) for y in (-half, half) for x in (-half, half)])
        fill(corners, middles, beside)
        fill(middles, corners, beside)
        step, spread = half, spread / 1.7
    expected = (heights - heights.min()) / (heights.max() - heights.min())
    np.testing.assert_allclose(weather.draw_cloud(side, 1.7, get_rng()), expected, atol=1e-12)


def test_frost_is_a_crop_of_one_photograph(tmp_path):
    rows, columns = np.mgrid[:250, :300]
    photographs = []
    for number, name in enumerate(FROST_FILES):
        pixels = np.stack([rows, columns % 256, np.full_like(rows, 50 * number)], -1)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / name, quality=95)
        photographs.append(pixels.astype(np.uint8))
    image = get_grey(100, 224)
    frost = weather.add_frost(photographs, image, 3, get_rng())
    crop = (frost - 0.7 * 100) / 0.7
    np.testing.assert_allclose(crop, crop.round(), atol=1e-4)
    assert (np.diff(crop[..., 0], axis=0).round() == 1).all()
    assert np.unique(crop[..., 2].round()).size == 1
    seen = {
        int(weather.add_frost(photographs, image, 1, get_rng(seed))[0, 0, 2].round())
        for seed in range(60)
    }
    assert seen == {100 + round(0.4 * 50 * number) for number in range(5)}
    read = read_frost(tmp_path)
    assert [photograph.shape for photograph in read] == [(250, 300, 3)] * 5
    assert (read[0] == photographs[0]).all()
    with pytest.raises(DataError, match=r"frost1\.png: found 300 x 250 px, expected more than 896"):
        read_frost(tmp_path, get_published_shape((112, 448)))
    Image.new("RGB", (300, 224)).save(tmp_path / "frost2.png")
    with pytest.raises(DataError, match=r"frost2\.png: found 300 x 224 px, expected more than 224"):
        read_frost(tmp_path)
    (tmp_path / "frost4.jpg").unlink()
    with pytest.raises(DataError, match=r"found no frost4\.jpg, expected .*correct evaluate"):
        read_frost(tmp_path)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_brightness_and_saturation_equal_those_of_hsv(severity: int):
    image = get_rng().integers(0, 256, (6, 5, 3), np.uint8)
    image[0, 0], image[0, 1], image[0, 2], image[0, 3] = 0, 255, 90, [255, 0, 0]
    raised = (0.1, 0.2, 0.3, 0.4, 0.5)[severity - 1]
    factor, shift = ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))[severity - 1]
    bright, saturated = np.zeros(image.shape), np.zeros(image.shape)
    for place in np.ndindex(6, 5):
        hue, saturation, value = colorsys.rgb_to_hsv(*(image[place] / 255))
        bright[place] = colorsys.hsv_to_rgb(hue, saturation, min(value + raised, 1))
        changed = min(saturation * factor + shift, 1)
        saturated[place] = colorsys.hsv_to_rgb(hue, changed, value)
    found = weather.brighten(image, severity, get_rng())
    np.testing.assert_allclose(found, 255 * bright, atol=1e-3)
    found = digital.saturate(image, severity, get_rng())
    np.testing.assert_allclose(found, 255 * saturated, atol=1e-3)


# Digital


@pytest.mark.parametrize("severity", SEVERITIES)
def test_contrast_keeps_means_and_scales_deviations(severity: int):
    image = draw_image(48)
    pixels = digital.reduce_contrast(image, severity, get_rng())
    factor = (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]
    assert pixels.mean((0, 1)) == pytest.approx(image.mean((0, 1)))
    assert pixels.std((0, 1)) == pytest.approx(factor * image.std((0, 1)))


def test_elastic_transform_without_displacement_is_the_image():
    image = draw_image(48)
    for severity in SEVERITIES:
        np.testing.assert_allclose(digital.deform(image, severity, ZeroRandom()), image, atol=1e-3)


@pytest.mark.parametrize("sigma", [2.44, 170.8])
def test_smoothing_equals_the_gaussian_filter(sigma: float):
    numbers = get_rng().uniform(-1, 1, (30, 40))
    smooth = digital.build_smoothing(30, sigma) @ numbers @ digital.build_smoothing(40, sigma).T
    expected = ndimage.gaussian_filter(numbers, sigma, mode="reflect", truncate=3)
    np.testing.assert_allclose(smooth, expected)


def test_pixelated_pixels_are_means_over_boxes():
    image = draw_image(48)
    pixels = digital.pixelate(image, 5, get_rng())
    means = image.reshape(12, 4, 12, 4, 3).mean((1, 3))
    assert np.abs(pixels - means.repeat(4, 0).repeat(4, 1)).max() <= 1  # rounded per axis


@pytest.mark.parametrize("severity", SEVERITIES)
def test_compression_is_pillows_at_its_quality(severity: int):
    image, content = draw_image(48), io.BytesIO()
    quality = (25, 18, 15, 10, 7)[severity - 1]
    Image.fromarray(image).save(content, "JPEG", quality=quality, optimize=True)
    assert (digital.compress(image, severity, get_rng()) == np.asarray(Image.open(content))).all()


# Sizes


@pytest.mark.parametrize("shape", [(7, 9, 3), (48, 48, 3), (224, 224, 3), (300, 260, 3)])
def test_finer_grid_alone_changes_nothing(shape: tuple[int, int, int]):
    image = get_rng().integers(0, 256, shape, np.uint8)
    scales = []
    found = blur_on_finer_grid(image, lambda fine, scale: (scales.append(scale), fine)[1])
    np.testing.assert_allclose(found, image, atol=1e-4)
    assert scales[0] >= 1


SCALED = (
    "defocus_blur",
    "motion_blur",
    "zoom_blur",
    "gaussian_blur",
    "snow",
    "fog",
    "elastic_transform",
)


@pytest.mark.parametrize("side", [56, 112, 448])
@pytest.mark.parametrize("name", SCALED)
def test_other_sizes_show_what_224_px_show(name: str, side: int):
    """Corrupted at another size is nearly the corrupted image at another size."""
    image = cv2.GaussianBlur(draw_image(), (0, 0), 1)
    corrupted = corrupt_unsaved(image, name, 3)
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    expected = cv2.resize(corrupted, (side, side), interpolation=cv2.INTER_AREA).astype(float)
    found = corrupt_unsaved(small, name, 3)
    change = np.abs(expected - small).mean()
    assert np.abs(found - expected).mean() < 0.25 * change


# Random numbers


def test_random_numbers_depend_on_the_image_and_the_corruption_only():
    image, corruption = draw_image(48), noise.add_gaussian_noise
    first = corrupt_image(image, "gaussian_noise", 2, "a", corruption)
    assert (first == corrupt_image(image, "gaussian_noise", 2, "a", corruption)).all()
    assert (first != corrupt_image(image, "gaussian_noise", 2, "b", corruption)).any()
    assert (first != corrupt_image(image, "speckle_noise", 2, "a", corruption)).any()
    draws = [
        corruption(image, severity, create_random("gaussian_noise", "a")) - image
        for severity in (1, 2)
    ]
    np.testing.assert_allclose(draws[1], 0.12 / 0.08 * draws[0])


@pytest.mark.slow
def test_another_process_makes_the_same_pixels():
    code = (
        "import hashlib; from tests.evaluation.test_corruptions import hash_corrupted; "
        "print(hash_corrupted())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == hash_corrupted()


def hash_corrupted() -> str:
    digest, image = hashlib.sha256(), draw_image(48)
    for name, severity in CONDITIONS:
        digest.update(corrupt_image(image, name, severity, "a", CORRUPTIONS[name]).tobytes())
    return digest.hexdigest()


def test_fractions_are_cut_off_as_the_authors_do():
    assert truncate_pixels(np.array([-3.0, 0.9, 254.99, 300])).tolist() == [0, 0, 254, 255]


def test_corrupted_images_are_what_their_jpeg_file_shows():
    image, content = draw_image(48), io.BytesIO()
    contrast = partial(digital.reduce_contrast)
    Image.fromarray(truncate_pixels(contrast(image, 1, get_rng()))).save(
        content, "JPEG", quality=85, optimize=True
    )
    found = corrupt_image(image, "contrast", 1, "a", contrast)
    assert (found == np.asarray(Image.open(content).convert("RGB"))).all()
