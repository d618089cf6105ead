"""Boxes of objects that nobody labelled, from the attention of CLS or from clusters of tokens, and
their overlap with labelled boxes. N patches of a grid, E features.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from densecl.evaluation.probing.transfer import Box

Mask = NDArray[np.bool_]

ATTENTION_SHARE = 0.6  # of the attention that the kept patches hold, as in DINO's figures
# Of TokenCut (Wang et al. 2022): patches above this cosine are joined, others barely.
SIMILARITY, EPSILON = 0.2, 1e-5
# Of the second and third eigenvalue, of which all are in [0, 2]: below, the cut is not defined.
EIGENVALUE_GAP = 1e-9
# Of entries of the eigenvector, as a share of the largest: smaller differences are rounding.
ROUNDING = 1e-9


def keep_attended(attention: Tensor, grid: tuple[int, int]) -> Mask:
    """The patches [rows, columns] that hold the last ATTENTION_SHARE of the attention [N], added up
    from the least attended (Caron et al. 2021).
    """
    values = attention.double()
    order = values.argsort(stable=True)
    held = values[order].cumsum(0) / values.sum()
    kept = torch.empty(len(values), dtype=torch.bool)
    kept[order] = held > 1 - ATTENTION_SHARE
    return kept.view(grid).numpy()


def cut_tokens(tokens: Tensor, grid: tuple[int, int]) -> Mask:
    """The foreground [rows, columns] of an image's tokens [N, E] by a normalised cut, as TokenCut's
    (Wang et al. 2022).

    The second smallest eigenvector of (D - W) y = v D y is split at its mean; the foreground is the
    part that holds the largest |y|, of equal ones the first, and never what lies at the mean. All
    patches where the eigenvector is not unique, as for equal tokens.
    """
    normalised = F.normalize(tokens.double(), dim=-1)
    weights = torch.where(normalised @ normalised.T > SIMILARITY, 1.0, EPSILON).double()  # [N, N]
    scale = weights.sum(1).rsqrt()
    laplacian = torch.eye(len(weights)) - scale[:, None] * weights * scale
    values, vectors = torch.linalg.eigh(laplacian)
    if len(values) < 3 or values[2] - values[1] < EIGENVALUE_GAP:
        return np.ones(grid, dtype=bool)
    vector = vectors[:, 1] * scale
    largest = vector.abs().max()
    first = torch.nonzero(vector.abs() >= largest * (1 - ROUNDING))[0, 0]
    vector = vector * vector[first].sign()  # an eigenvector has no sign of its own
    foreground = vector > vector.mean() + ROUNDING * largest
    return np.asarray(foreground.view(grid).numpy())


def find_box(mask: Mask, patch: tuple[int, int]) -> Box:
    """The box in pixels around the largest component of patches that share edges, the first of
    equals; of the whole grid if there is none.
    """
    components, count = ndimage.label(mask)
    if not count:
        components, count = np.ones(mask.shape, int), 1
    largest = np.bincount(components.flat)[1:].argmax()
    rows, columns = ndimage.find_objects(components)[largest]
    return Box(
        "",
        columns.start * patch[1],
        rows.start * patch[0],
        columns.stop * patch[1],
        rows.stop * patch[0],
    )


def find_mask_boxes(values: NDArray[np.uint8], ignored: int) -> list[Box]:
    """Boxes around the components [H, W] of each class but 0, the background, and `ignored`."""
    boxes = []
    for value in np.unique(values[(values != 0) & (values != ignored)]):
        components, _ = ndimage.label(values == value)
        boxes += [
            Box(str(value), columns.start, rows.start, columns.stop, rows.stop)
            for rows, columns in ndimage.find_objects(components)
        ]
    return boxes


def compute_iou(first: Box, second: Box) -> float:
    """Area of the intersection by that of the union."""
    width = min(first.x1, second.x1) - max(first.x0, second.x0)
    height = min(first.y1, second.y1) - max(first.y0, second.y0)
    both = max(0, width) * max(0, height)
    areas = ((box.x1 - box.x0) * (box.y1 - box.y0) for box in (first, second))
    return both / (sum(areas) - both)
