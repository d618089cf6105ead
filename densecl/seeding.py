"""Named random streams: every generator depends on the seed and on words, never on global state."""

import hashlib


def derive_seed(seed: int, *words: str | int) -> int:
    """A 63-bit seed for the stream `words`, e.g. `derive_seed(0, "views", epoch, image_id)`."""
    text = "\0".join(map(str, (seed, *words)))
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
