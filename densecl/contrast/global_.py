"""The global objective: one positive pair per image (MoCo)."""

import torch
import torch.nn.functional as F

from densecl.contrast.contrastive import ContrastiveObjective
from densecl.contrast.memory import NewKeys
from densecl.contrast.view_pairs import PositivePairs, ViewPair


class GlobalObjective(ContrastiveObjective):
    """The CLS tokens of the two views of an image are a positive pair; Q = B."""

    def build_pairs(self, views: ViewPair) -> tuple[PositivePairs, NewKeys]:
        """Queries [B, D] from the CLS token of view 1, keys [B, D] from that of view 2."""
        queries = F.normalize(self.head(views.view1.tokens.cls), dim=-1)  # [B, E] -> [B, D]
        with torch.no_grad():
            key_cls = self.key_encoder(views.view2.images, views.view2.tokens).cls  # [B, E]
            key_head = self.key_encoder.get_key_head(self.head)
            keys = F.normalize(key_head(key_cls), dim=-1)  # [B, D]
        pairs = PositivePairs(queries, keys, views.image_ids, views.class_ids)
        return pairs, NewKeys(keys, views.image_ids, views.class_ids)
