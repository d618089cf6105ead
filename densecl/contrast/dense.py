"""How dense and global form their pairs: all in which they differ.

Letters: B images, N patches, M sampled, Q queries (B or B*M), K memory, R rows remembered, E
embedding, D projection.
"""

from __future__ import annotations

from typing import overload

import torch
import torch.nn.functional as F
from torch import Tensor

from densecl.config.params import DenseContrast, GlobalContrast
from densecl.contrast.matching import match_patches, match_similarity, mutual, true_matches
from densecl.contrast.memory import Rows
from densecl.contrast.memory_softmax import hardest_negative
from densecl.contrast.objective import Contrastive, Objective
from densecl.contrast.sampling import SAMPLERS
from densecl.contrast.view_pairs import Pairs, Views
from densecl.network.vit import Backbone


class Global(Contrastive):
    """Image level: the CLS tokens of an image's two views are a pair (Q = B)."""

    def pairs(self, views: Views) -> Pairs:
        """Queries from view 1's CLS, keys from view 2's, row by row of the batch."""
        with torch.no_grad():
            seen = self.key_encoder(views.second.images, views.second.tokens)
            keys = F.normalize(self.key_encoder.head(self.head)(seen.cls), dim=-1)
        queries = F.normalize(self.head(views.first.tokens.cls), dim=-1)
        return Pairs(
            queries,
            keys,
            views.image_ids,
            views.class_ids,
            Rows(keys, views.image_ids, views.class_ids),
        )


class Dense(Contrastive):
    """Patch level: M patches of view 1, each with its match in view 2 (Q = B*M, less what a filter
    leaves out).
    """

    settings: DenseContrast

    def pairs(self, views: Views) -> Pairs:
        """Match, sample and project; sampled first where neither the match nor a score decides what
        is sampled.
        """
        how = self.settings
        first = views.first.tokens.patches  # [B, N, E]
        index: Tensor | None = None
        allowed: Tensor | None = None
        if how.correspondence_features == "geometric":
            index, allowed = true_matches(views.first.geometry, views.second.geometry, self.grid)
        # Where nothing but chance decides, what is not sampled is neither projected nor matched.
        early = how.sampling_strategy == "random" and how.correspondence_filter == "none"
        if early:
            picks = self._sample(first, None, allowed)  # [B, M]
            first, index, allowed = _take(first, picks), _take(index, picks), _take(allowed, picks)
        queries = F.normalize(self.head(first), dim=-1)  # [B, M or N, D]
        with torch.no_grad():
            seen = self.key_encoder(views.second.images, views.second.tokens)
            head = self.key_encoder.head(self.head)
            whole = how.correspondence_features == "dense" or how.memory_unit == "image"
            projected = head(seen.patches) if whole else None  # [B, N, D]
            if index is None:
                index, allowed = self._match(first, queries, seen.patches, projected)
            matched = (
                head(_take(seen.patches, index)) if projected is None else _take(projected, index)
            )
            keys = F.normalize(matched, dim=-1)  # [B, M or N, D]
            if not early:
                scores = (
                    self._hardness(queries, keys, views)
                    if how.sampling_strategy == "hardest"
                    else None
                )
                picks = self._sample(queries, scores, allowed)
        if not early:
            queries, keys, allowed = (
                _take(queries, picks),
                _take(keys, picks),
                _take(allowed, picks),
            )
        image_ids, class_ids = (
            ids[:, None].expand_as(picks) for ids in (views.image_ids, views.class_ids)
        )
        kept = self._kept(projected, keys, allowed, views)
        queries, keys, image_ids, class_ids = (
            _rows(part, allowed) for part in (queries, keys, image_ids, class_ids)
        )
        return Pairs(queries, keys, image_ids, class_ids, kept)

    def _match(
        self, first: Tensor, queries: Tensor, second: Tensor, keys: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Match in view 2 of each patch [B, M or N], and which patches count, bool of that shape;
        None where all do.

        By the backbone's features (first, second) or the head's (queries, keys); cosines need no
        normalised features.
        """
        if self.settings.correspondence_features == "dense" and keys is not None:
            first, second = queries, keys
        allowed = None
        if self.settings.correspondence_filter == "mutual":
            allowed = mutual(first, second)
        elif self.settings.correspondence_filter == "threshold":
            allowed = match_similarity(first, second) >= self.settings.correspondence_threshold
        return match_patches(first, second), allowed

    def _kept(
        self, projected: Tensor | None, keys: Tensor, allowed: Tensor | None, views: Views
    ) -> Rows:
        """What the memory is to keep of keys [B, M, D], or, pooled, of the head's whole output [B,
        N, D].
        """
        if self.settings.memory_unit == "image" and projected is not None:
            # DenseCL's code pools what the head gives, then normalises.
            return Rows(F.normalize(projected.mean(1), dim=-1), views.image_ids, views.class_ids)
        counted = (
            torch.ones(keys.shape[:2], dtype=torch.bool, device=keys.device)
            if allowed is None
            else allowed
        )
        among = counted if self.settings.memory_per_image or allowed is not None else None
        if self.settings.memory_per_image:
            among = counted & (counted.cumsum(1) <= self.settings.memory_per_image)
        ids = (of[:, None].expand(keys.shape[:2]) for of in (views.image_ids, views.class_ids))
        return Rows(*(_rows(part, among) for part in (keys, *ids)))

    def _sample(self, features: Tensor, scores: Tensor | None, allowed: Tensor | None) -> Tensor:
        count, sampler = self.settings.patches_per_image, SAMPLERS[self.settings.sampling_strategy]
        return sampler(features, count, self.generator, scores, allowed)

    def _hardness(self, queries: Tensor, matched: Tensor, views: Views) -> Tensor | None:
        """[B, N] cosine of the hardest negative less the positive's; None while the memory is
        empty.
        """
        if not self.memory.filled:
            return None
        patches = queries.shape[1]
        ids = self._ids(
            *(of.repeat_interleave(patches) for of in (views.image_ids, views.class_ids))
        )
        hardest = hardest_negative(queries.flatten(0, 1), self.negatives, ids)
        return hardest.view(len(queries), patches) - (queries * matched).sum(-1)


@overload
def _take(values: Tensor, index: Tensor) -> Tensor: ...
@overload
def _take(values: Tensor | None, index: Tensor) -> Tensor | None: ...
def _take(values: Tensor | None, index: Tensor) -> Tensor | None:
    """Patches [B, M, ...] of values [B, N, ...] by index [B, M]; None of None."""
    if values is None or values.dim() == 2:
        return None if values is None else values.gather(1, index)
    return torch.take_along_dim(values, index[..., None], dim=1)


def _rows(values: Tensor, counted: Tensor | None) -> Tensor:
    """[B, M, ...] as rows: all, or those counted, in order."""
    return values.flatten(0, 1) if counted is None else values[counted]


def build_objective(
    settings: GlobalContrast | None,
    model: Backbone,
    queue_size: int,
    seed: int,
    generator: torch.Generator,
) -> Objective:
    """The objective of a mode's settings; None is mode none."""
    if settings is None:
        return Objective()
    kind = Dense if isinstance(settings, DenseContrast) else Global
    return kind(settings, model, queue_size, seed, generator)


def writes_per_image(settings: GlobalContrast | None, patches: int) -> int:
    """Most keys that one image adds to the memory in a step."""
    directions = 2 if settings and settings.symmetric else 1
    if not isinstance(settings, DenseContrast) or settings.memory_unit == "image":
        return directions
    return directions * min(
        settings.patches_per_image, patches, settings.memory_per_image or patches
    )
