"""Which patch of view 2 shows what a patch of view 1 shows. Letters: B images, N patches, D dimension."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def match_patches(first: Tensor, second: Tensor) -> Tensor:
    """[B, N]: index[b, n] = argmax_m cos(first[b, n], second[b, m]) of features [B, N, D] (DenseCL, eq. 3)."""
    first, second = F.normalize(first.float(), dim=-1), F.normalize(second.float(), dim=-1)
    return torch.bmm(first, second.transpose(1, 2)).argmax(dim=2)
