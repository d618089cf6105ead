"""Which patches are dropped, and pieces of other images pasted over. B images, a grid of h x w = N
patches.
"""

import math

import torch
from torch import Tensor


def rank_patches(saliency: Tensor | None, draws: Tensor) -> Tensor:
    """Ranks int64 [B, N] from 0, the most salient first; ties, and all patches without saliency,
    in the order of the random `draws` [B, N].

    A share of the patches are those of the lowest ranks: a larger share contains a smaller one.
    """
    order = draws.argsort(dim=1, stable=True)
    if saliency is not None:
        drawn = saliency.gather(1, order)
        order = order.gather(1, drawn.argsort(dim=1, descending=True, stable=True))
    return order.argsort(dim=1)


def select_patches(ranks: Tensor, share: float) -> Tensor:
    """bool [B, N]: the share of the patches of the lowest ranks, rounded half up."""
    return ranks < math.floor(share * ranks.shape[1] + 0.5)


def drop_patches(images: Tensor, dropped: Tensor, grid: tuple[int, int]) -> Tensor:
    """Normalised images [B, 3, H, W], 0 in patches: exactly the mean that normalisation subtracts,
    which uint8 could only hold rounded.
    """
    height, width = images.shape[-2:]
    mask = dropped.view(-1, 1, *grid).to(images.device)
    mask = mask.repeat_interleave(height // grid[0], 2).repeat_interleave(width // grid[1], 3)
    return images.masked_fill(mask, 0)


def locate_rectangle(
    draws: list[float], share: float, height: int, width: int
) -> tuple[slice, slice]:
    """Rows and columns of a rectangle of a share of an image's area, up to whole pixels.

    `draws`: three numbers in [0, 1) for its shape (height to width 1:2 to 2:1, as far as it fits),
    top and left. With the same numbers, a larger share contains a smaller one.
    """
    shape, top, left = draws
    narrowest = max(0.5, share)
    ratio = narrowest ** (1 - 2 * shape)  # from the narrowest to its inverse, uniform in log
    rows = min(height, math.floor(math.sqrt(share * ratio) * height + 0.5))
    columns = min(width, math.floor(math.sqrt(share / ratio) * width + 0.5))
    y, x = math.floor(top * (height - rows + 1)), math.floor(left * (width - columns + 1))
    return slice(y, y + rows), slice(x, x + columns)


def paste_rectangle(image: Tensor, donor: Tensor, draws: list[float], share: float) -> Tensor:
    """The image [3, H, W] under a rectangle of the donor [3, H, W], from the same place."""
    rows, columns = locate_rectangle(draws, share, *image.shape[-2:])
    result = image.clone()
    result[:, rows, columns] = donor[:, rows, columns]
    return result


def choose_donors(labels: Tensor, draws: Tensor) -> Tensor:
    """Index int64 [n] of an image of another class for each image, evenly among them, by its
    number in [0, 1), fp64 [n]. At least two classes.

    The images of one class are consecutive in an order by class, so the others are counted around
    them.
    """
    order = labels.argsort(stable=True)
    classes, sizes = labels.unique(return_counts=True)
    starts = sizes.cumsum(0) - sizes
    own = torch.searchsorted(classes, labels)
    chosen = (draws * (len(labels) - sizes[own])).long()
    return order[chosen + sizes[own] * (chosen >= starts[own])]
