"""Known warps of images: flips, shifts, crops and rotations, whose true correspondence is computed.

A warp is an affine map in pixels: the place q of the warped image shows the place A q + b of the
image, both (x, y) from the centre of an image of H x W pixels. Places outside the image show 0, the
mean of the normalisation. B images, N patches.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from densecl.evaluation.probing.context import create_generator

ROUNDING = 1e-6  # patches, of places that are computed in float64


class Warps(NamedTuple):
    """One warp per image, float64."""

    matrix: Tensor  # A, [B, 2, 2]
    offset: Tensor  # b, [B, 2], pixels


def draw_warps(kind: str, image_ids: Sequence[str], size: tuple[int, int]) -> Warps:
    """A warp of a kind of KINDS per image of `size` (height, width) pixels; it depends on the kind
    and the image_id only.
    """
    drawn = [
        KINDS[kind](torch.rand(4, generator=create_generator("warp", kind, name)).tolist(), *size)
        for name in image_ids
    ]
    rows = torch.tensor(drawn, dtype=torch.float64).view(-1, 2, 3)
    return Warps(rows[..., :2], rows[..., 2])


def warp_images(images: Tensor, warps: Warps) -> Tensor:
    """The warped images [B, 3, H, W] of normalised ones, by bilinear interpolation."""
    height, width = images.shape[-2:]
    half = torch.tensor([width / 2, height / 2], dtype=torch.float64)
    # In the coordinates of `affine_grid`, an image covers -1..1 in both directions.
    matrix = warps.matrix * half / half[:, None]
    theta = torch.cat([matrix, (warps.offset / half)[..., None]], dim=2)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid.to(images), padding_mode="zeros", align_corners=False)


def find_true_places(warps: Warps, size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Where the warped image shows the centre of each patch of the image: [B, N, 2] float64, (row,
    column) in patches. Patch (r, c) covers [r, r + 1) x [c, c + 1).
    """
    patch = torch.tensor([size[0] / grid[0], size[1] / grid[1]], dtype=torch.float64)
    half = torch.tensor(size, dtype=torch.float64) / 2
    centres = list_centres(grid) * patch - half  # [N, 2] (y, x), pixels from the centre
    moved = centres.flip(-1) - warps.offset[:, None]  # [B, N, 2] (x, y)
    places = torch.linalg.solve(warps.matrix, moved.mT).mT.flip(-1)
    shown: Tensor = (places + half) / patch
    return shown


def list_centres(grid: tuple[int, int]) -> Tensor:
    """[N, 2] float64: (row, column) of the centres of patches, row by row."""
    rows, columns = (torch.arange(count, dtype=torch.float64) + 0.5 for count in grid)
    return torch.cartesian_prod(rows, columns)


def is_visible(places: Tensor, grid: tuple[int, int]) -> Tensor:
    """Bool [B, N]: whether a place [B, N, 2] lies in the warped image, [0, rows) x [0, columns)."""
    inside: Tensor = (places >= -ROUNDING) & (places < places.new_tensor(grid) - ROUNDING)
    return inside.all(-1)


def measure_distances(places: Tensor, grid: tuple[int, int]) -> Tensor:
    """[B, N, N] float64: distance of each true place [B, N, 2] from the centre of each patch of the
    warped image, in patches.
    """
    return torch.cdist(places, list_centres(grid).expand(len(places), -1, -1), compute_mode=EXACT)


EXACT = "donot_use_mm_for_euclid_dist"
Uniform = list[float]  # four numbers in [0, 1)
Rows = tuple[float, float, float, float, float, float]  # A and b, row by row


def _flip(numbers: Uniform, height: int, width: int) -> Rows:  # noqa: ARG001
    """Left and right exchanged."""
    return -1, 0, 0, 0, 1, 0


def _shift(numbers: Uniform, height: int, width: int) -> Rows:
    """By whole pixels, a quarter to a half of the side in both directions."""
    x = _draw_sign(numbers[0]) * math.floor(width * (0.25 + 0.25 * numbers[1]))
    y = _draw_sign(numbers[2]) * math.floor(height * (0.25 + 0.25 * numbers[3]))
    return 1, 0, x, 0, 1, y


def _crop(numbers: Uniform, height: int, width: int) -> Rows:
    """A window anywhere in the image, 40 to 75 % of its sides, enlarged to the whole."""
    share = 0.4 + 0.35 * numbers[0]
    x, y = ((1 - share) * (number - 0.5) for number in numbers[1:3])
    return share, 0, x * width, 0, share, y * height


def _rotate(numbers: Uniform, height: int, width: int) -> Rows:  # noqa: ARG001
    """About the centre by 30 to 90 degrees, either way."""
    angle = _draw_sign(numbers[0]) * math.radians(30 + 60 * numbers[1])
    return math.cos(angle), -math.sin(angle), 0, math.sin(angle), math.cos(angle), 0


def _draw_sign(number: float) -> int:
    return 1 if number < 0.5 else -1


KINDS: dict[str, Callable[[Uniform, int, int], Rows]] = {
    "flip": _flip,
    "shift": _shift,
    "crop": _crop,
    "rotation": _rotate,
}
