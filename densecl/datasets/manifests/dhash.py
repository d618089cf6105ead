"""Near-duplicates by difference hash: the same photograph re-encoded, resized or mirrored.

A hash is 256 bits, one a neighbouring pair of a 17 x 16 px grey thumbnail: 1 where it grows
brighter to the right. Letters: Q queries, K keys, W = 8 words of 32 bits; word w holds the columns
w and w + 8 of the thumbnail's pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE, WORDS = 16, 8
# Levels by which flat areas count as brighter on the left and darker on the right: noise of
# re-encoding turns few bits,
# and the hash of the mirrored image follows from the hash.
SLACK = 1.5 * np.where(np.arange(SIDE) < SIDE // 2, 1, -1)
# Differing bits. Of two hashes at most 15 apart one word differs in at most one bit; at most 7
# apart, in none.
BETWEEN, WITHIN = 15, 7
CROWD = 500  # keys that share a word and are looked at: more share only what flat areas look like
PAIRS = 2**22  # compared at a time

Hashes = NDArray[np.uint32]  # [., W]


class Nearest(NamedTuple):
    """Of each query; -1 where no key is near enough."""

    key: NDArray[np.int64]  # [Q]
    bits: NDArray[np.int64]  # [Q] that differ
    mirrored: NDArray[np.bool_]  # [Q]


def dhash(image: Image.Image) -> str:
    """64 hex digits."""
    grey = image.convert("L").resize((SIDE + 1, SIDE), Image.Resampling.LANCZOS)
    brighter = np.diff(np.asarray(grey, np.float32), axis=1) + SLACK > 0  # [row, column]
    words = brighter.T.reshape(2, WORDS, SIDE).swapaxes(0, 1)  # [W, 2, row]
    return np.packbits(words).tobytes().hex()


def hashes(digits: list[str]) -> Hashes:
    """[., W] of `dhash`es."""
    return np.frombuffer(bytes.fromhex("".join(digits)), np.uint32).reshape(-1, WORDS)


def mirrored(found: Hashes) -> Hashes:
    """Hashes of the mirrored images: columns in reverse, brighter and darker exchanged."""
    return np.ascontiguousarray(~found.view(np.uint16)[:, ::-1]).view(np.uint32)


class Index:
    """Keys [K, W], sorted once by each word, so that no search looks at all pairs."""

    def __init__(self, keys: Hashes) -> None:
        self.keys = keys
        self.order = [np.argsort(keys[:, word], kind="stable") for word in range(WORDS)]
        self.sorted = [keys[order, word] for word, order in enumerate(self.order)]

    def nearest(self, queries: Hashes, most: int = BETWEEN) -> Nearest:
        """The key with the fewest differing bits, at most `most`, as it is or mirrored; the first
        of equals.
        """
        return self._best(queries, most, earlier=False)

    def repeats(self, most: int = WITHIN) -> Nearest:
        """Of each key, the nearest of the keys before it."""
        return self._best(self.keys, most, earlier=True)

    def _best(self, queries: Hashes, most: int, *, earlier: bool) -> Nearest:
        nothing = np.iinfo(np.int64).max
        best = np.full(len(queries), nothing)  # (bits, mirrored, key) as one number
        for turned, asked in enumerate((queries, mirrored(queries))):
            for query, key in self._candidates(asked, most):
                bits = np.bitwise_count(asked[query] ^ self.keys[key]).sum(1, dtype=np.int64)
                near = (bits <= most) & ((key < query) | (not earlier))
                np.minimum.at(best, query[near], ((bits * 2 + turned) * len(self.keys) + key)[near])
        found = best < nothing
        rest, key = np.divmod(np.where(found, best, -1), max(1, len(self.keys)))
        return Nearest(
            np.where(found, key, -1), np.where(found, rest // 2, -1), found & (rest % 2 == 1)
        )

    def _candidates(
        self, asked: Hashes, most: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Pairs of a query and a key with a word that is equal, or (`most` > 7) that differs in one
        bit.
        """
        turns = [0, *(1 << bit for bit in range(32))] if most > WITHIN else [0]
        for word in range(WORDS):
            values, order = self.sorted[word], self.order[word]
            queries = np.argsort(asked[:, word], kind="stable")  # neighbours look in the same place
            for turn in turns:
                wanted = asked[queries, word] ^ np.uint32(turn)
                low = np.searchsorted(values, wanted)
                hit = (
                    np.flatnonzero(values[np.minimum(low, len(values) - 1)] == wanted)
                    if len(values)
                    else low[:0]
                )
                low = low[hit]
                shared = np.minimum(np.searchsorted(values, wanted[hit], "right") - low, CROWD)
                for part in _parts(shared):
                    count = shared[part]
                    start = np.repeat(low[part] - np.cumsum(count) + count, count)
                    yield np.repeat(queries[hit][part], count), order[start + np.arange(len(start))]


def _parts(counts: NDArray[np.int64]) -> Iterator[slice]:
    """Runs of about PAIRS in all."""
    ends = np.searchsorted(
        np.cumsum(counts), np.arange(PAIRS, counts.sum() + PAIRS, PAIRS), "right"
    ).tolist()
    for start, end in zip([0, *ends], [*ends, len(counts)], strict=True):
        yield slice(start, end)
