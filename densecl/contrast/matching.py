"""Which patch of view 2 shows what a patch of view 1 shows. Letters: B images, N patches, D
dimension.

A match is an index [B, N] into view 2's patches; patches are counted row by row. Views know where
they were cut from the image (`ViewGeometry`: top, left, height, width as shares of it, then flipped
or not), so a match can be checked, or taken, by position.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def match_patches(first: Tensor, second: Tensor) -> Tensor:
    """[B, N]: index[b, n] = argmax_m cos(first[b, n], second[b, m]) of features [B, N, D] (DenseCL,
    eq. 3).
    """
    return _compute_cosines(first, second).argmax(dim=2)


@torch.no_grad()
def is_mutual_match(first: Tensor, second: Tensor) -> Tensor:
    """[B, N] bool: is patch n of view 1 also the most similar one to its match?"""
    cosines = _compute_cosines(first, second)
    forward_match, backward_match = cosines.argmax(dim=2), cosines.argmax(dim=1)
    return backward_match.gather(1, forward_match) == torch.arange(
        forward_match.shape[1], device=forward_match.device
    )


@torch.no_grad()
def compute_match_similarity(first: Tensor, second: Tensor) -> Tensor:
    """[B, N]: cosine of each patch of view 1 with its match."""
    return _compute_cosines(first, second).amax(dim=2)


def compute_true_positions(geometry1: Tensor, geometry2: Tensor, grid: tuple[int, int]) -> Tensor:
    """[B, N, 2]: where the centre of each patch of view 1 lies in view 2, as (row, column) in
    patches of view 2.

    first, second: geometry [B, 5]; grid: (rows, columns). Patch (r, c) covers [r, r + 1) x [c, c +
    1); a position outside [0, rows) x [0, columns) is not in view 2.
    """
    rows, columns = grid
    r, c = torch.meshgrid(
        torch.arange(rows, device=geometry1.device, dtype=torch.float64),
        torch.arange(columns, device=geometry1.device, dtype=torch.float64),
        indexing="ij",
    )
    top, left, height, width, flipped = _split_geometry(geometry1)
    across = ((c.flatten() + 0.5) / columns)[None]  # of view 1
    y = top + (r.flatten() + 0.5)[None] / rows * height  # of the image
    x = left + torch.where(flipped > 0.5, 1 - across, across) * width
    top, left, height, width, flipped = _split_geometry(geometry2)
    down, across = (y - top) / height, (x - left) / width  # of view 2
    across = torch.where(flipped > 0.5, 1 - across, across)
    return torch.stack([down * rows, across * columns], dim=-1)


def find_true_matches(
    geometry1: Tensor, geometry2: Tensor, grid: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Index [B, N] of the patch of view 2 that holds each centre of view 1, and whether there is
    one, bool [B, N].

    Where there is none the index is that of the nearest patch of the border.
    """
    position = compute_true_positions(geometry1, geometry2, grid)
    bounds = position.new_tensor(grid)
    visible = ((position >= 0) & (position < bounds)).all(-1)
    cell = position.floor().clamp_min(0).minimum(bounds - 1).long()
    return cell[..., 0] * grid[1] + cell[..., 1], visible


def compute_crop_overlap(geometry1: Tensor, geometry2: Tensor) -> Tensor:
    """[B]: area that both crops hold, as a share of the smaller one; geometry [B, 5]."""
    geometry1, geometry2 = geometry1.double(), geometry2.double()
    shared = torch.ones_like(geometry1[:, 0])
    for start, length in ((0, 2), (1, 3)):
        low = torch.maximum(geometry1[:, start], geometry2[:, start])
        high = torch.minimum(
            geometry1[:, start] + geometry1[:, length], geometry2[:, start] + geometry2[:, length]
        )
        shared = shared * (high - low).clamp_min(0)
    # One crop inside the other is 1, whatever the rounding of its corners.
    return (
        shared / torch.minimum(geometry1[:, 2] * geometry1[:, 3], geometry2[:, 2] * geometry2[:, 3])
    ).clamp_max(1)


def _split_geometry(geometry: Tensor) -> tuple[Tensor, ...]:
    return tuple(part[:, None] for part in geometry.double().unbind(1))


def _compute_cosines(first: Tensor, second: Tensor) -> Tensor:
    with torch.autocast(first.device.type, enabled=False):  # compared in fp32
        first, second = F.normalize(first.float(), dim=-1), F.normalize(second.float(), dim=-1)
        return torch.bmm(first, second.transpose(1, 2))  # [B, N, N]
