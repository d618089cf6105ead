"""Near-duplicates by difference hash: the same photograph re-encoded, resized or mirrored.

A hash is 256 bits, one a neighbouring pair of a 17 x 16 px grey thumbnail: 1 where it grows
brighter to the right. Letters: Q queries, K keys, W = 8 words of 32 bits; word w holds the columns
w and w + 8 of the thumbnail's pairs.
"""

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
MAX_BITS_ACROSS, MAX_BITS_WITHIN = 15, 7
MAX_SHARING_KEYS = (
    500  # keys that share a word and are looked at: more share only what flat areas look like
)
PAIRS_PER_BATCH = 2**22  # compared at a time

Hashes = NDArray[np.uint32]  # [., W]


class NearestMatches(NamedTuple):
    """The nearest key per query; -1 if none is near enough."""

    key: NDArray[np.int64]  # [Q]
    bits: NDArray[np.int64]  # [Q] that differ
    mirrored: NDArray[np.bool_]  # [Q]


def compute_dhash(image: Image.Image) -> str:
    """Difference hash as 64 hex digits."""
    grey = image.convert("L").resize((SIDE + 1, SIDE), Image.Resampling.LANCZOS)
    brighter = np.diff(np.asarray(grey, np.float32), axis=1) + SLACK > 0  # [row, column]
    words = brighter.T.reshape(2, WORDS, SIDE).swapaxes(0, 1)  # [W, 2, row]
    return np.packbits(words).tobytes().hex()


def parse_hashes(hex_hashes: list[str]) -> Hashes:
    """[., W] words of `compute_dhash` outputs."""
    return np.frombuffer(bytes.fromhex("".join(hex_hashes)), np.uint32).reshape(-1, WORDS)


def mirror_hashes(hashes: Hashes) -> Hashes:
    """Hashes of the mirrored images: columns reversed, brighter and darker exchanged."""
    return np.ascontiguousarray(~hashes.view(np.uint16)[:, ::-1]).view(np.uint32)


class DHashIndex:
    """Keys [K, W], sorted by each word, so that a search does not visit all pairs."""

    def __init__(self, keys: Hashes) -> None:
        self.keys = keys
        self.orders = [np.argsort(keys[:, word], kind="stable") for word in range(WORDS)]
        self.sorted_words = [keys[order, word] for word, order in enumerate(self.orders)]

    def find_nearest(self, queries: Hashes, max_bits: int = MAX_BITS_ACROSS) -> NearestMatches:
        """The key with the fewest differing bits, at most `max_bits`, plain or mirrored; the first
        among equals.
        """
        return self._find_best(queries, max_bits, earlier_only=False)

    def find_repeats(self, max_bits: int = MAX_BITS_WITHIN) -> NearestMatches:
        """For each key, the nearest of the preceding keys."""
        return self._find_best(self.keys, max_bits, earlier_only=True)

    def _find_best(self, queries: Hashes, max_bits: int, *, earlier_only: bool) -> NearestMatches:
        no_match = np.iinfo(np.int64).max
        best = np.full(len(queries), no_match)  # (bits, mirrored, key) as one number
        for turned, query_hashes in enumerate((queries, mirror_hashes(queries))):
            for query, key in self._iter_candidates(query_hashes, max_bits):
                bits = np.bitwise_count(query_hashes[query] ^ self.keys[key]).sum(1, dtype=np.int64)
                near = (bits <= max_bits) & ((key < query) | (not earlier_only))
                np.minimum.at(best, query[near], ((bits * 2 + turned) * len(self.keys) + key)[near])
        found = best < no_match
        rest, key = np.divmod(np.where(found, best, -1), max(1, len(self.keys)))
        return NearestMatches(
            np.where(found, key, -1), np.where(found, rest // 2, -1), found & (rest % 2 == 1)
        )

    def _iter_candidates(
        self, query_hashes: Hashes, max_bits: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Pairs of query and key that share a word, or (`max_bits` > 7) have words that differ in
        one bit.
        """
        bit_flips = [0, *(1 << bit for bit in range(32))] if max_bits > MAX_BITS_WITHIN else [0]
        for word in range(WORDS):
            key_words, order = self.sorted_words[word], self.orders[word]
            queries = np.argsort(
                query_hashes[:, word], kind="stable"
            )  # neighbours look in the same place
            for bit_flip in bit_flips:
                target_words = query_hashes[queries, word] ^ np.uint32(bit_flip)
                low = np.searchsorted(key_words, target_words)
                hit = (
                    np.flatnonzero(key_words[np.minimum(low, len(key_words) - 1)] == target_words)
                    if len(key_words)
                    else low[:0]
                )
                low = low[hit]
                shared = np.minimum(
                    np.searchsorted(key_words, target_words[hit], "right") - low, MAX_SHARING_KEYS
                )
                for part in _iter_batches(shared):
                    count = shared[part]
                    start = np.repeat(low[part] - np.cumsum(count) + count, count)
                    yield np.repeat(queries[hit][part], count), order[start + np.arange(len(start))]


def _iter_batches(counts: NDArray[np.int64]) -> Iterator[slice]:
    """Batches of about PAIRS pairs."""
    ends = np.searchsorted(
        np.cumsum(counts),
        np.arange(PAIRS_PER_BATCH, counts.sum() + PAIRS_PER_BATCH, PAIRS_PER_BATCH),
        "right",
    ).tolist()
    for start, end in zip([0, *ends], [*ends, len(counts)], strict=True):
        yield slice(start, end)
