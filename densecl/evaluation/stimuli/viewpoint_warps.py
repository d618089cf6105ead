"""Warps of images at graded strength, by torchvision. uint8 [B, 3, H, W]; strength 0 leaves images
as they are.

Each image has its own direction, the same at all strengths. Pixels from outside the image have the
colour `fill`, three numbers of 0 to 255.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import grid_sample
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

Fill = Sequence[float]
# Warped images, of images, the numbers in [0, 1) that were drawn for each, [B, DRAWS], strength and
# fill.
Warp = Callable[[Tensor, Tensor, float, Fill], Tensor]
DRAWS = 8  # numbers that a warp needs at most: two per corner
BILINEAR = InterpolationMode.BILINEAR


def rotate(images: Tensor, draws: Tensor, degrees: float, fill: Fill) -> Tensor:
    """About the centre; counter-clockwise where the first number is below 1/2."""
    result = torch.empty_like(images)
    for chosen, angle in ((draws[:, 0] < 0.5, degrees), (draws[:, 0] >= 0.5, -degrees)):
        result[chosen] = functional.rotate(images[chosen], angle, BILINEAR, fill=list(fill))
    return result


def shrink(images: Tensor, draws: Tensor, share: float, fill: Fill) -> Tensor:
    """Resized with antialiasing to the rounded share 1 - `share` of its sides, in the middle of its
    frame, whose size stays.
    """
    del draws  # there is no direction
    height, width = images.shape[-2:]
    size = [max(1, round((1 - share) * side)) for side in (height, width)]
    small = functional.resize(images, size, BILINEAR, antialias=True)
    result = fill_frame(images, fill)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    result[..., top : top + size[0], left : left + size[1]] = small
    return result


def translate(images: Tensor, draws: Tensor, share: float, fill: Fill) -> Tensor:
    """Shifted by the share of the side, rounded to whole pixels: the first number decides whether
    left, right, up or down.
    """
    height, width = images.shape[-2:]
    down, right = round(share * height), round(share * width)
    result = fill_frame(images, fill)
    for number, (y, x) in enumerate(((0, -right), (0, right), (-down, 0), (down, 0))):
        chosen = (draws[:, 0] * 4).long() == number
        kept = images[chosen][..., max(0, -y) : height - max(0, y), max(0, -x) : width - max(0, x)]
        shifted = fill_frame(images[chosen], fill)
        shifted[..., max(0, y) : height + min(0, y), max(0, x) : width + min(0, x)] = kept
        result[chosen] = shifted
    return result


def change_perspective(images: Tensor, draws: Tensor, distortion: float, fill: Fill) -> Tensor:
    """The corners moved inwards at random, each by a whole number of pixels of at most `distortion`
    times half of the sides, as torchvision's RandomPerspective draws them.
    """
    coefficients = compute_perspective(draws, distortion, *images.shape[-2:])
    grids = build_grids(coefficients, *images.shape[-2:])
    # A fourth channel tells how much of each pixel is from within the image.
    pixels = images.float()
    pixels = torch.cat([pixels, torch.ones_like(pixels[:, :1])], 1)
    warped = grid_sample(pixels, grids, padding_mode="zeros", align_corners=False)
    colours, inside = warped[:, :3], warped[:, 3:]
    outside = torch.tensor(fill, dtype=torch.float32)[:, None, None]
    return colours.sub_(outside).mul_(inside).add_(outside).round_().to(images.dtype)


def build_grids(coefficients: Tensor, height: int, width: int) -> Tensor:
    """Where each pixel of the warped images is read, fp32 [B, H, W, 2]: x and y in [-1, 1], as
    `grid_sample` takes them.
    """
    x = torch.arange(width) + 0.5
    y = (torch.arange(height) + 0.5)[:, None]
    a, b, c, d, e, f, g, h = coefficients.T[..., None, None]
    depth = g * x + h * y + 1
    grids = torch.empty(len(coefficients), height, width, 2)
    grids[..., 0] = (a * x + b * y + c).div_(depth).div_(0.5 * width).sub_(1)
    grids[..., 1] = (d * x + e * y + f).div_(depth).div_(0.5 * height).sub_(1)
    return grids


def compute_perspective(draws: Tensor, distortion: float, height: int, width: int) -> Tensor:
    """The eight coefficients [B, 8] of the map from the warped image to the image, in the order of
    torchvision and Pillow, in fp32: two equations per corner, solved in fp64.
    """
    right, bottom = float(width - 1), float(height - 1)
    corners = torch.tensor(
        [[0.0, 0.0], [right, 0.0], [right, bottom], [0.0, bottom]], dtype=torch.float64
    )
    inwards = torch.tensor([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    largest = torch.tensor([int(distortion * (side // 2)) for side in (width, height)])
    moves = (draws.view(-1, 4, 2) * (largest + 1)).floor()
    moved = corners + inwards * moves  # [B, 4, 2]: x and y
    x, y = moved.unbind(-1)
    zeros, ones = torch.zeros_like(x), torch.ones_like(x)
    to_x, to_y = corners.unbind(-1)
    rows = (
        torch.stack([x, y, ones, zeros, zeros, zeros, -to_x * x, -to_x * y], -1),
        torch.stack([zeros, zeros, zeros, x, y, ones, -to_y * x, -to_y * y], -1),
    )
    matrix = torch.stack(rows, 2).flatten(1, 2)  # [B, 8, 8]
    solution: Tensor = torch.linalg.solve(matrix, corners.flatten()[None, :, None])
    return solution[..., 0].float()


def fill_frame(images: Tensor, fill: Fill) -> Tensor:
    """Images of one colour, rounded to uint8, in the shape of `images`."""
    colour = torch.tensor(fill).round().to(images.dtype)
    return colour[:, None, None].expand_as(images).clone()


WARPS: dict[str, Warp] = {
    "rotation": rotate,
    "scale": shrink,
    "translation": translate,
    "perspective": change_perspective,
}
