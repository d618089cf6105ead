"""16 bits per channel: colour as Pillow reads it, unless that is nearly black; TIFF whose white is
zero is no negative.
"""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from densecl.datasets.manifests.inspect import inspect_file
from densecl.datasets.storage import decode
from densecl.datasets.storage.decode import HARMLESS_PROBLEMS, decode_image
from densecl.errors import DataError

PNG_COLOURS = {2: 2, 3: 2, 4: 6}  # channels -> the colour type of IHDR, 4 for grey with alpha
SHAPE = 8, 10  # rows, columns


def encode_png(levels: np.ndarray) -> bytes:
    rows, columns, channels = levels.shape
    kind = 4 if channels == 2 else PNG_COLOURS[channels]

    def chunk(name: bytes, content: bytes) -> bytes:
        end = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + end

    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    header = struct.pack(">IIBBBBB", columns, rows, 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*part)
        for part in ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    )


def encode_ppm(levels: np.ndarray) -> bytes:
    return b"P6\n%d %d\n65535\n" % levels.shape[1::-1] + levels.astype(">u2").tobytes()


def encode_tiff(levels: np.ndarray, photometric: int) -> bytes:
    """Uncompressed, little-endian; photometric: 0 white is zero, 1 black is zero, 2 RGB."""
    rows, columns, channels = levels.shape
    content = levels.astype("<u2").tobytes()
    bits = 8 + 2 + 12 * 9 + 4  # where the bits per sample are, then the pixels
    entries = (
        *((256, 3, 1, columns), (257, 3, 1, rows), (258, 3, channels, bits)),
        *((259, 3, 1, 1), (262, 3, 1, photometric), (273, 4, 1, bits + 2 * channels)),
        *((277, 3, 1, channels), (278, 3, 1, rows), (279, 4, 1, len(content))),
    )
    if channels == 1:
        entries = (*entries[:2], (258, 3, 1, 16), *entries[3:])
    table = b"".join(
        struct.pack("<HHI", *entry[:3]) + struct.pack("<I", entry[3]) for entry in entries
    )
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    return head + table + bytes(4) + struct.pack("<H", 16) * channels + content


def draw_levels(channels: int, top: int) -> np.ndarray:
    levels = np.random.default_rng(0).integers(0, top + 1, (*SHAPE, channels))
    levels[0, 0] = top
    return levels


ENCODERS = {
    "png RGB": (encode_png, 3),
    "png RGBA": (encode_png, 4),
    "png LA": (encode_png, 2),
    "ppm": (encode_ppm, 3),
    "tiff": (lambda levels: encode_tiff(levels, 2), 3),
}


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("top", [1023, 4095, 16383])
def test_colour_of_fewer_bits_in_sixteen_is_a_problem(name: str, top: int, tmp_path: Path) -> None:
    encode, channels = ENCODERS[name]
    path = tmp_path / ("a.tif" if name == "tiff" else "a.png")
    path.write_bytes(encode(draw_levels(channels, top)))
    assert inspect_file(path).problem == decode.DARK_COLOUR
    assert decode.DARK_COLOUR not in HARMLESS_PROBLEMS
    with pytest.raises(DataError, match="16-bit colour with levels below 16384 only"):
        decode_image(path)


@pytest.mark.parametrize("name", ENCODERS)
def test_colour_of_sixteen_bits_is_read_as_pillow_reads_it(name: str, tmp_path: Path) -> None:
    encode, channels = ENCODERS[name]
    path = tmp_path / ("a.tif" if name == "tiff" else "a.png")
    levels = draw_levels(channels, 65535)
    path.write_bytes(encode(levels))
    assert inspect_file(path).problem == ""
    colour = np.repeat(levels[..., :1], 3, axis=2) if channels == 2 else levels[..., :3]
    assert np.abs(np.asarray(decode_image(path)) - colour / 257).max() < 1.01


@pytest.mark.parametrize("top", [4095, 65535])
def test_grey_whose_white_is_zero_is_no_negative(top: int, tmp_path: Path) -> None:
    levels, path = draw_levels(1, top), tmp_path / "a.tif"
    levels[0, 1] = 0
    images = []
    for photometric, stored in ((1, levels), (0, top - levels)):
        path.write_bytes(encode_tiff(stored, photometric))
        images.append(np.asarray(decode_image(path))[..., 0])
    assert np.array_equal(images[0], images[1])
    assert np.array_equal(images[0], np.rint(levels[..., 0] * 255 / top))
