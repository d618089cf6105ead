"""Patch correspondence between two views, by features or by position.

A match is an index [B, N] into the patches of view 2, which are numbered row by row. A geometry
[B, 5] states where each view was cut from its image (`ViewGeometry`: top, left, height and width as
fractions of the image, then flipped or not), which gives the true correspondence.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from densecl.network.precision import use_fp32_products


@torch.no_grad()
def match_patches(first: Tensor, second: Tensor) -> Tensor:
    """[B, N]: index[b, n] = argmax_m cos(first[b, n], second[b, m]) (Wang et al. 2021, eq. 3).

    first, second: features [B, N, D] of the two views, of any norm.
    """
    return _compute_cosines(first, second).argmax(dim=2)


@torch.no_grad()
def is_mutual_match(first: Tensor, second: Tensor) -> Tensor:
    """Bool [B, N]: True where patch n of view 1 is in turn the best match of its match."""
    cosines = _compute_cosines(first, second)  # [B, N, N]
    forward_match, backward_match = cosines.argmax(dim=2), cosines.argmax(dim=1)  # [B, N]
    patches = torch.arange(forward_match.shape[1], device=forward_match.device)
    return backward_match.gather(1, forward_match) == patches


@torch.no_grad()
def compute_match_similarity(first: Tensor, second: Tensor) -> Tensor:
    """[B, N]: cosine of each patch of view 1 with its match."""
    return _compute_cosines(first, second).amax(dim=2)


def find_true_matches(
    geometry1: Tensor, geometry2: Tensor, grid: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Index [B, N] of the patch of view 2 that contains the centre of each patch of view 1.

    The second result, bool [B, N], is True where view 2 shows that centre; elsewhere the index is
    that of the nearest border patch. geometry1, geometry2: [B, 5]; grid: (rows, columns).
    """
    position = compute_true_positions(geometry1, geometry2, grid)  # [B, N, 2]
    bounds = position.new_tensor(grid)
    visible = ((position >= 0) & (position < bounds)).all(-1)  # [B, N]
    cell = position.floor().clamp_min(0).minimum(bounds - 1).long()
    return cell[..., 0] * grid[1] + cell[..., 1], visible


def compute_true_positions(geometry1: Tensor, geometry2: Tensor, grid: tuple[int, int]) -> Tensor:
    """[B, N, 2]: the centre of each patch of view 1 as (row, column) in view 2, in patches.

    geometry1, geometry2: [B, 5]; grid: (rows, columns). Patch (r, c) covers [r, r + 1) x
    [c, c + 1); a position outside [0, rows) x [0, columns) is not in view 2.
    """
    rows, columns = grid
    r, c = torch.meshgrid(
        torch.arange(rows, device=geometry1.device, dtype=torch.float64),
        torch.arange(columns, device=geometry1.device, dtype=torch.float64),
        indexing="ij",
    )
    top, left, height, width, flipped = _split_geometry(geometry1)
    across = ((c.flatten() + 0.5) / columns)[None]  # share of view 1
    y = top + (r.flatten() + 0.5)[None] / rows * height  # share of the image
    x = left + torch.where(flipped > 0.5, 1 - across, across) * width
    top, left, height, width, flipped = _split_geometry(geometry2)
    down, across = (y - top) / height, (x - left) / width  # share of view 2
    across = torch.where(flipped > 0.5, 1 - across, across)
    return torch.stack([down * rows, across * columns], dim=-1)


def compute_crop_overlap(geometry1: Tensor, geometry2: Tensor) -> Tensor:
    """[B]: area of the intersection of two crops as a share of the smaller crop."""
    geometry1, geometry2 = geometry1.double(), geometry2.double()
    shared = torch.ones_like(geometry1[:, 0])
    for start, length in ((0, 2), (1, 3)):
        low = torch.maximum(geometry1[:, start], geometry2[:, start])
        high = torch.minimum(
            geometry1[:, start] + geometry1[:, length], geometry2[:, start] + geometry2[:, length]
        )
        shared = shared * (high - low).clamp_min(0)
    area1, area2 = geometry1[:, 2] * geometry1[:, 3], geometry2[:, 2] * geometry2[:, 3]
    # Rounding of the corners must not give a contained crop more than 1.
    return (shared / torch.minimum(area1, area2)).clamp_max(1)


def build_neighbour_mask(grid: tuple[int, int]) -> Tensor:
    """Bool [N, N]: True for patches that are the same or neighbours, corners included."""
    rows, columns = grid
    position = torch.stack(
        torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), -1
    ).view(-1, 2)
    return (position[:, None] - position[None]).abs().amax(-1) <= 1


def _split_geometry(geometry: Tensor) -> tuple[Tensor, ...]:
    return tuple(part[:, None] for part in geometry.double().unbind(1))


@use_fp32_products()
def _compute_cosines(first: Tensor, second: Tensor) -> Tensor:
    """[B, N, N] in fp32, also under autocast."""
    with torch.autocast(first.device.type, enabled=False):
        first, second = F.normalize(first.float(), dim=-1), F.normalize(second.float(), dim=-1)
        return torch.bmm(first, second.transpose(1, 2))
