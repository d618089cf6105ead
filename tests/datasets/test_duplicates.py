"""Near-duplicates: found when re-encoded, resized or mirrored, not where images only resemble; by
index as by hand.
"""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from densecl.datasets.manifests import dhash as duplicates
from densecl.datasets.manifests.dhash import (
    MAX_BITS_ACROSS,
    MAX_BITS_WITHIN,
    DHashIndex,
    compute_dhash,
    mirror_hashes,
    parse_hashes,
)
from densecl.datasets.synthetic.photographs import PHOTO, render_photograph


def slow_hash(image: Image.Image) -> int:
    """Bit by bit, in the order of the definition: word w holds columns w and w + 8, each from top
    to bottom.
    """
    grey = image.convert("L").resize((17, 16), Image.Resampling.LANCZOS)
    bits = ""
    for word in range(8):
        for column in (word, word + 8):
            slack = 1.5 if column < 8 else -1.5
            for row in range(16):
                bits += str(
                    int(grey.getpixel((column + 1, row)) - grey.getpixel((column, row)) + slack > 0)
                )
    return int(bits, 2)


def slow_nearest(
    queries: np.ndarray, keys: np.ndarray, most: int, earlier: bool
) -> list[tuple[int, int, bool]]:
    def number(row: np.ndarray) -> int:
        return int.from_bytes(row.tobytes(), "big")

    found = []
    for place, (query, turned) in enumerate(zip(queries, mirror_hashes(queries), strict=True)):
        every = [
            ((number(asked) ^ number(key)).bit_count(), way, other)
            for other, key in enumerate(keys)
            if not earlier or other < place
            for way, asked in ((False, query), (True, turned))
        ]
        bits, way, other = min(every, default=(999, False, -1))
        found.append((other, bits, way) if bits <= most else (-1, -1, False))
    return found


@pytest.fixture(scope="module")
def photographs() -> list[Image.Image]:
    return [
        render_photograph(number % 12, PHOTO, 96, np.random.default_rng(number))[0]
        for number in range(60)
    ]


def encoded(image: Image.Image, kind: str = "JPEG", quality: int = 80) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=quality)
    return Image.open(buffer).convert("RGB")


def test_hash_is_its_definition(photographs: list[Image.Image]) -> None:
    for image in photographs[:10]:
        assert int(compute_dhash(image), 16) == slow_hash(image)
        assert np.array_equal(
            mirror_hashes(parse_hashes([compute_dhash(image)])),
            parse_hashes([compute_dhash(ImageOps.mirror(image))]),
        )


def test_search_finds_what_comparing_all_pairs_finds() -> None:
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 2**32, (150, 8), dtype=np.uint32)
    keys[100:110] = keys[0]
    queries = keys[rng.integers(0, 150, 120)].copy()
    for row in range(120):
        turned = np.zeros(256, np.uint8)
        turned[rng.choice(256, rng.integers(0, 22), replace=False)] = 1
        queries[row] ^= np.packbits(turned).view(np.uint32)
    queries[::2] = mirror_hashes(queries[::2])
    own = np.concatenate([keys, queries])
    for found, slow in [
        (
            DHashIndex(keys).find_nearest(queries),
            slow_nearest(queries, keys, MAX_BITS_ACROSS, False),
        ),
        (DHashIndex(own).find_repeats(), slow_nearest(own, own, MAX_BITS_WITHIN, True)),
    ]:
        rows = list(
            zip(found.key.tolist(), found.bits.tolist(), found.mirrored.tolist(), strict=True)
        )
        assert rows == slow
        assert 20 < sum(key >= 0 for key, *_ in rows) < len(rows) - 5


def test_parts_of_many_pairs_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = np.random.default_rng(1).integers(0, 2, (300, 8), dtype=np.uint32)  # crowded words
    whole = DHashIndex(keys).find_repeats()
    monkeypatch.setattr(duplicates, "PAIRS_PER_BATCH", 7)
    assert all(
        np.array_equal(a, b) for a, b in zip(whole, DHashIndex(keys).find_repeats(), strict=True)
    )


def test_nothing_is_near_nothing() -> None:
    none, one = parse_hashes([]), parse_hashes(["ab" * 32])
    assert DHashIndex(none).find_nearest(one).key.tolist() == [-1]
    assert DHashIndex(one).find_nearest(none).key.tolist() == []
    assert DHashIndex(one).find_repeats().key.tolist() == [-1]


@pytest.mark.parametrize(
    "change",
    [
        lambda image: encoded(image, "JPEG", 75),
        lambda image: encoded(image, "WEBP", 90),
        lambda image: image.resize((61, 61), Image.Resampling.BICUBIC),
        lambda image: image.convert("L").convert("RGB"),
        lambda image: encoded(ImageOps.mirror(image), "JPEG", 90),
    ],
    ids=["jpeg", "webp", "smaller", "grey", "mirrored"],
)
def test_changed_copies_are_near_and_others_are_not(photographs: list[Image.Image], change) -> None:
    index = DHashIndex(parse_hashes([compute_dhash(image) for image in photographs]))
    found = index.find_nearest(
        parse_hashes([compute_dhash(change(image)) for image in photographs])
    )
    near = found.key == np.arange(len(photographs))
    assert near.mean() > 0.9
    assert (found.key[~near] == -1).all()
    assert index.find_repeats().key.max() == -1


@pytest.mark.slow
def test_no_false_alarm_on_the_suite_and_every_planted_copy(suite: Path) -> None:
    def hashed(folder: str) -> np.ndarray:
        files = sorted(path for path in (suite / folder).glob("*/*.*") if path.suffix != ".txt")
        return parse_hashes([compute_dhash(Image.open(path).convert("RGB")) for path in files])

    train = DHashIndex(hashed("imagenet/train"))
    assert train.find_repeats().key.max() == -1
    for folder in (
        "imagenet/val",
        "imagenet-a",
        "imagenet-r",
        "sketch",
        "stylized/val",
        "imagenetv2-matched-frequency-format-val",
    ):
        found = hashed(folder)
        assert train.find_nearest(found).key.max() == -1
        assert DHashIndex(found).find_repeats().key.max() == -1
    files = sorted((suite / "imagenet/train").glob("*/*.JPEG"))
    copied = list(range(0, len(files), 65))
    copies = parse_hashes(
        [compute_dhash(encoded(Image.open(files[number]).convert("RGB"))) for number in copied]
    )
    assert (train.find_nearest(copies).key == copied).mean() >= 0.97
