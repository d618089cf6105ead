"""Decoding equals Pillow's, 16-bit apart; every kind of bad file gets its reason and none a
traceback.
"""

import hashlib
import io
import os
import shutil
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from densecl.datasets.manifests.inspect import FileInfo, inspect_file
from densecl.datasets.storage import decode as images
from densecl.datasets.storage.decode import HARMLESS_PROBLEMS, decode_image
from densecl.datasets.storage.image_formats import FORMATS, is_image_content
from densecl.datasets.views.read_pixels import read_pixels
from densecl.errors import DataError

SUITE = os.environ.get("DENSECL_SUITE")


def noise(shape: tuple[int, ...] = (20, 30, 3), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def pillow(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "YCbCr"])
def test_jpeg_equals_pillow_to_the_bit(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.JPEG"
    Image.fromarray(noise()).convert(mode).save(path, "JPEG")
    assert np.array_equal(decode_image(path), pillow(path))
    info = inspect_file(path)
    assert (info.width, info.height) == (30, 20)
    assert info.problem == (images.CMYK if mode == "CMYK" else "")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_other_modes_equal_pillow_to_the_bit(tmp_path: Path, kind: str, mode: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.fromarray(noise()).convert(mode), kind))
    image = decode_image(path)
    assert image.mode == "RGB"
    assert np.array_equal(image, pillow(path))
    assert inspect_file(path).problem == ""


def test_light_is_the_mean_and_spread_of_luma(tmp_path: Path) -> None:
    half = np.zeros((4, 6, 3), np.uint8)
    half[:, :3] = 255
    for pixels, expected in ((half, (0.5, 0.5)), (np.full((4, 4, 3), 51, np.uint8), (0.2, 0.0))):
        Image.fromarray(pixels).save(tmp_path / "a.png")
        assert inspect_file(tmp_path / "a.png")[6:8] == pytest.approx(expected)


@pytest.mark.parametrize("kind", [*FORMATS, "MPO"])
def test_every_format_of_the_list_is_read_whatever_its_name(tmp_path: Path, kind: str) -> None:
    options = {"save_all": True, "append_images": [Image.new("RGB", (30, 20))]}
    path = tmp_path / "a.JPEG"
    path.write_bytes(
        encoded(Image.fromarray(noise((256, 256, 3))), kind, **options if kind == "MPO" else {})
    )
    assert np.array_equal(decode_image(path), pillow(path))
    assert np.array_equal(read_pixels(path), pillow(path))
    assert inspect_file(path).problem == ""
    # A camera's raw file is a TIFF of another extension, whose first image is a thumbnail.
    for name, expected in {"photo": True, "photo.dat": kind != "TIFF"}.items():
        with path.open("rb") as file:
            assert is_image_content(file, name) is expected


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_exif_orientation_is_ignored_or_applied(
    tmp_path: Path, kind: str, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(Image.fromarray(noise()), kind, exif=exif))
    with Image.open(path) as image:
        upright = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert np.array_equal(decode_image(path), pillow(path))
    for read in (decode_image, read_pixels):
        assert np.array_equal(read(path, "apply"), upright)
    ignored, applied = inspect_file(path), inspect_file(path, "apply")
    assert ignored.is_turned == applied.is_turned == (orientation != 1)
    assert ignored[:2] == (30, 20)
    assert applied[:2] == upright.shape[1::-1]


def test_a_tiff_is_upright_as_pillow_reads_it(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise()).save(tmp_path / "a.tif", exif=exif)
    for setting in ("ignore", "apply"):
        assert decode_image(tmp_path / "a.tif", setting).size == (20, 30)
    assert not inspect_file(tmp_path / "a.tif").is_turned


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "JPEG2000"])
@pytest.mark.parametrize(
    ("highest", "bits"), [(255, 8), (256, 10), (1023, 10), (4095, 12), (5000, 14), (20000, 16)]
)
def test_greys_of_fewer_bits_are_scaled_by_the_range_they_use(
    tmp_path: Path, kind: str, highest: int, bits: int
) -> None:
    levels = np.linspace(0, highest, 600).reshape(20, 30).astype(np.uint16)
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.fromarray(levels), kind))
    expected = np.rint(levels * (255 / (2**bits - 1)))
    assert np.abs(np.asarray(decode_image(path))[..., 0] - expected).max() <= 1
    reason = images.SIXTEEN_BIT if bits == 16 else images.FEWER_BITS[bits]
    assert inspect_file(path).problem == reason
    assert reason in HARMLESS_PROBLEMS


def test_no_exif_rotation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees
    path = tmp_path / "a.jpg"
    Image.fromarray(noise()).save(path, "JPEG", exif=exif)
    assert decode_image(path).size == (30, 20)


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    eight = noise((20, 30))
    path = tmp_path / "a.png"
    Image.fromarray(eight.astype(np.uint16) * 257).save(path)
    assert np.array_equal(np.asarray(decode_image(path)), np.repeat(eight[..., None], 3, axis=2))
    info = inspect_file(path)
    assert (info.width, info.height, info.problem) == (30, 20, images.SIXTEEN_BIT)
    assert images.SIXTEEN_BIT in HARMLESS_PROBLEMS
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(every).save(path)
    assert np.array_equal(
        np.asarray(decode_image(path))[..., 0], np.rint(every / 257).astype(np.uint8)
    )


def damaged() -> dict[str, tuple[bytes, str]]:
    jpeg, png = encoded(Image.fromarray(noise()), "JPEG"), encoded(Image.fromarray(noise()), "PNG")
    return {
        "nothing": (b"", images.EMPTY),
        "text": (b"404: not found", images.NO_IMAGE),
        "eps": (encoded(Image.fromarray(noise()), "EPS"), images.NO_IMAGE),
        "pcx": (encoded(Image.fromarray(noise()), "PCX"), images.NO_IMAGE),
        "fractions": (
            encoded(Image.fromarray(noise((8, 8)) / np.float32(255)), "TIFF"),
            images.NO_RANGE,
        ),
        "cut jpeg": (jpeg[: len(jpeg) * 6 // 10], images.TRUNCATED),
        "cut png": (png[: len(png) * 6 // 10], images.TRUNCATED),
        "header only": (png[:12], images.BAD_HEADER),
        "wrong checksum": (png[:60] + bytes(4) + png[64:], images.DAMAGED),
        "black": (encoded(Image.new("RGB", (8, 8)), "JPEG"), images.BLANK),
        "one colour": (encoded(Image.new("RGB", (8, 8), (9, 80, 200)), "PNG"), images.BLANK),
    }


@pytest.mark.parametrize("name", damaged())
def test_bad_files_have_stable_reasons(tmp_path: Path, name: str) -> None:
    content, reason = damaged()[name]
    path = tmp_path / "bad.JPEG"
    path.write_bytes(content)
    found = inspect_file(path)
    assert (found.problem, found.bytes, found.sha256) == (
        reason,
        len(content),
        hashlib.sha256(content).hexdigest(),
    )
    assert reason not in HARMLESS_PROBLEMS
    assert (found.brightness is None) == (found.contrast is None) == (reason != images.BLANK)
    if reason == images.BLANK:
        assert found.contrast == 0
        assert decode_image(path).size == found[:2] == (8, 8)
        return
    assert found[:2] == (0, 0)
    with pytest.raises(DataError, match=f"bad.JPEG: {reason}"):
        decode_image(path)


def test_one_channel_that_varies_is_not_blank(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[3, 4, 2] = 1
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert inspect_file(tmp_path / "a.png").problem == ""


def test_any_cut_or_flipped_byte_is_survived(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "a.jpg"
    for kind in FORMATS:
        whole = encoded(Image.fromarray(noise()), kind)
        for cut in rng.integers(0, len(whole), 40):
            path.write_bytes(whole[:cut])
            assert isinstance(inspect_file(path), FileInfo)
            flipped = bytearray(whole)
            flipped[cut] ^= 1 << int(rng.integers(8))
            path.write_bytes(flipped)
            assert isinstance(inspect_file(path), FileInfo)


def test_bombs_are_refused_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(noise()).save(path)
    for pixels in (
        500,
        100,
    ):  # 600 in the image: Pillow warns, then from twice the limit on refuses
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels)
        assert inspect_file(path)[:2] == (0, 0)
        assert inspect_file(path).problem == images.BOMB


def test_a_header_of_a_hundred_thousand_pixels_square_is_refused_unread(tmp_path: Path) -> None:
    side = 100_000
    chunk = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    png = encoded(Image.fromarray(noise()), "PNG")
    (tmp_path / "a.png").write_bytes(
        png[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[33:]
    )
    jpeg = bytearray(encoded(Image.fromarray(noise()), "JPEG"))
    place = jpeg.index(b"\xff\xc0") + 5  # start of frame: marker, length, precision, height, width
    jpeg[place : place + 4] = struct.pack(">HH", 65535, 65535)  # a JPEG can say no more
    (tmp_path / "a.jpg").write_bytes(jpeg)
    for name in ("a.png", "a.jpg"):
        assert inspect_file(tmp_path / name)[:2] == (0, 0)
        assert inspect_file(tmp_path / name).problem == images.BOMB
        with pytest.raises(DataError, match="decompression bomb"):
            decode_image(tmp_path / name)


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    missing = inspect_file(tmp_path / "none.jpg")
    assert missing == FileInfo(
        problem="cannot be opened: no such file or directory", is_final=False
    )
    with pytest.raises(DataError, match=r"none\.jpg: cannot be opened"):
        decode_image(tmp_path / "none.jpg")


@pytest.mark.skipif(not SUITE, reason="DENSECL_SUITE is unset")
def test_real_files_equal_pillow_to_the_bit(tmp_path: Path) -> None:
    files = sorted(Path(SUITE or "").glob("full/*.JPEG"))[:6]
    files += [Path(SUITE or "") / "broken/cmyk.JPEG"]
    for file in files:
        path = Path(shutil.copy(file, tmp_path))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = pillow(path)
        assert np.array_equal(decode_image(path), expected)
        assert inspect_file(path)[:2] == (expected.shape[1], expected.shape[0])
        assert inspect_file(path).problem == (images.CMYK if path.name == "cmyk.JPEG" else "")
