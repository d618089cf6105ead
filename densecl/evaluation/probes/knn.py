"""k nearest neighbours on frozen features, weighted by exp(cosine / temperature) (Wu et al. 2018,
section 3.4).
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from densecl.config.probe_params import NeighbourParams
from densecl.evaluation.frozen_features.accuracy import measure_accuracy
from densecl.evaluation.probing.context import ProbeContext
from densecl.evaluation.probing.result import ProbeResult
from densecl.runtime.hardware import get_device

ASKED_CHUNK, KEY_CHUNK = 256, 2**15  # rows compared at once: 64 MB of float64
DIGITS = 9  # of cosines that count; of equal ones, the image that comes first in its set is nearer


def measure(context: ProbeContext, params: NeighbourParams) -> ProbeResult:
    """Accuracy of the vote of the nearest neighbours by CLS and by mean patches."""
    return measure_accuracy(
        context, params, partial(classify, k=params.k, temperature=params.temperature)
    )


def classify(
    features: Tensor, labels: Tensor, asked: Tensor, classes: int, *, k: int, temperature: float
) -> Tensor:
    """Labels [m] of features [m, E], voted by their k nearest of features [n, E] with labels [n];
    of equal votes the lowest label.
    """
    cosines, nearest = find_neighbours(asked, features, k)
    # Relative to the nearest: a common factor of the votes, which must not underflow.
    weights = ((cosines - cosines[:, :1]) / temperature).exp()
    predicted = []
    for part, voters in zip(weights.split(ASKED_CHUNK), nearest.split(ASKED_CHUNK), strict=True):
        votes = part.new_zeros(len(part), classes)
        predicted.append(votes.scatter_add_(1, labels[voters], part).argmax(1))
    return torch.cat(predicted)


def find_neighbours(asked: Tensor, features: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Cosines in falling order and rows [m, k] of the k nearest of features [n, E] to each of
    `asked` [m, E]; fewer if n is less. On the CPU, float64.
    """
    device, parts = get_device(), asked.split(ASKED_CHUNK)
    cosines = [torch.zeros(len(part), 0, dtype=torch.float64, device=device) for part in parts]
    rows = [torch.zeros(len(part), 0, dtype=torch.int64, device=device) for part in parts]
    for number, chunk in enumerate(features.split(KEY_CHUNK)):
        keys = F.normalize(chunk.to(device, torch.float64), dim=1)
        for place, part in enumerate(parts):
            queries = F.normalize(part.to(device, torch.float64), dim=1)
            found = (queries @ keys.T).round(decimals=DIGITS)
            nearest = select_largest(found, k)
            # Rows of earlier chunks come first, so that they win ties.
            all_cosines = torch.cat([cosines[place], found.gather(1, nearest)], 1)
            all_rows = torch.cat([rows[place], nearest + number * KEY_CHUNK], 1)
            kept = select_largest(all_cosines, k)
            cosines[place], rows[place] = all_cosines.gather(1, kept), all_rows.gather(1, kept)
    return torch.cat(cosines).cpu(), torch.cat(rows).cpu()


def select_largest(values: Tensor, k: int) -> Tensor:
    """Columns [m, k] of the k largest of values [m, n], in falling order; of equal values the first
    columns. All of them if n is less.
    """
    k = min(k, values.shape[1])
    least = values.topk(k, dim=1).values[:, -1:]
    above, equal = values > least, values == least
    room = k - above.sum(1, keepdim=True)
    columns = (above | (equal & (equal.cumsum(1) <= room))).nonzero()[:, 1].view(-1, k)
    order = values.gather(1, columns).argsort(dim=1, descending=True, stable=True)
    return columns.gather(1, order)
