"""The blocks whose patch tokens are probed."""


def select_blocks(depth: int) -> dict[str, int]:
    """Block by its name, in rising order; 0 is the first of `depth`. Fewer where they coincide.

    The classification loss reaches the patch tokens of the last block only by the CLS token's
    attention within that block, never their values after it: what they hold there is not trained
    without a dense loss. The block before it and the one in the middle are the fairer comparison.
    """
    blocks = {"middle": (depth - 1) // 2, "next-to-last": depth - 2, "last": depth - 1}
    return {
        name: block
        for number, (name, block) in enumerate(blocks.items())
        if block >= 0 and block not in list(blocks.values())[number + 1 :]
    }
