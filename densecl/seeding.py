"""Named randomness: every generator comes from the seed and words, none from global state."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *words: str | int) -> int:
    """A 63-bit seed for the stream that `words` name, e.g. `derive_seed(0, "views", epoch,
    image_id)`.
    """
    text = "\0".join(map(str, (seed, *words)))
    return (
        int.from_bytes(
            hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big"
        )
        >> 1
    )
