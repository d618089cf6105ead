"""How dense and global form their pairs: all in which they differ.

Letters: B images, N patches, M sampled, Q queries (B or B*M), K memory, R rows remembered, E
embedding, D projection.
"""

from __future__ import annotations

from typing import overload

import torch
import torch.nn.functional as F
from torch import Tensor

from densecl.config.params import DenseContrastParams, GlobalContrastParams
from densecl.contrast.matching import (
    compute_match_similarity,
    find_true_matches,
    is_mutual_match,
    match_patches,
)
from densecl.contrast.memory import MemoryEntries
from densecl.contrast.memory_softmax import hardest_negative
from densecl.contrast.objective import ContrastiveObjective, Objective
from densecl.contrast.sampling import SAMPLERS
from densecl.contrast.view_pairs import PositivePairs, ViewPair
from densecl.network.vit import Backbone


class GlobalObjective(ContrastiveObjective):
    """Image level: the CLS tokens of an image's two views are a pair (Q = B)."""

    def build_pairs(self, views: ViewPair) -> PositivePairs:
        """Queries from view 1's CLS, keys from view 2's, row by row of the batch."""
        with torch.no_grad():
            key_tokens = self.key_encoder(views.view2.images, views.view2.tokens)
            keys = F.normalize(self.key_encoder.get_key_head(self.head)(key_tokens.cls), dim=-1)
        queries = F.normalize(self.head(views.view1.tokens.cls), dim=-1)
        return PositivePairs(
            queries,
            keys,
            views.image_ids,
            views.class_ids,
            MemoryEntries(keys, views.image_ids, views.class_ids),
        )


class DenseObjective(ContrastiveObjective):
    """Patch level: M patches of view 1, each with its match in view 2 (Q = B*M, less what a filter
    leaves out).
    """

    settings: DenseContrastParams

    def build_pairs(self, views: ViewPair) -> PositivePairs:
        """Match, sample and project; sampled first where neither the match nor a score decides what
        is sampled.
        """
        settings = self.settings
        patches = views.view1.tokens.patches  # [B, N, E]
        index: Tensor | None = None
        valid: Tensor | None = None
        if settings.correspondence_features == "geometric":
            index, valid = find_true_matches(views.view1.geometry, views.view2.geometry, self.grid)
        # Where nothing but chance decides, what is not sampled is neither projected nor matched.
        sample_before_matching = (
            settings.sampling_strategy == "random" and settings.correspondence_filter == "none"
        )
        if sample_before_matching:
            picks = self._sample_patches(patches, None, valid)  # [B, M]
            patches, index, valid = (
                _gather_patches(patches, picks),
                _gather_patches(index, picks),
                _gather_patches(valid, picks),
            )
        queries = F.normalize(self.head(patches), dim=-1)  # [B, M or N, D]
        with torch.no_grad():
            key_tokens = self.key_encoder(views.view2.images, views.view2.tokens)
            key_head = self.key_encoder.get_key_head(self.head)
            project_all_patches = (
                settings.correspondence_features == "dense" or settings.memory_unit == "image"
            )
            projected = key_head(key_tokens.patches) if project_all_patches else None  # [B, N, D]
            if index is None:
                index, valid = self._match_patches(patches, queries, key_tokens.patches, projected)
            matched = (
                key_head(_gather_patches(key_tokens.patches, index))
                if projected is None
                else _gather_patches(projected, index)
            )
            keys = F.normalize(matched, dim=-1)  # [B, M or N, D]
            if not sample_before_matching:
                scores = (
                    self._compute_hardness(queries, keys, views)
                    if settings.sampling_strategy == "hardest"
                    else None
                )
                picks = self._sample_patches(queries, scores, valid)
        if not sample_before_matching:
            queries, keys, valid = (
                _gather_patches(queries, picks),
                _gather_patches(keys, picks),
                _gather_patches(valid, picks),
            )
        image_ids, class_ids = (
            ids[:, None].expand_as(picks) for ids in (views.image_ids, views.class_ids)
        )
        memory_entries = self._build_memory_entries(projected, keys, valid, views)
        queries, keys, image_ids, class_ids = (
            _flatten_rows(part, valid) for part in (queries, keys, image_ids, class_ids)
        )
        return PositivePairs(queries, keys, image_ids, class_ids, memory_entries)

    def _match_patches(
        self, patches1: Tensor, queries: Tensor, patches2: Tensor, keys: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Match in view 2 of each patch [B, M or N], and which patches count, bool of that shape;
        None where all do.

        By the backbone's features (first, second) or the head's (queries, keys); cosines need no
        normalised features.
        """
        if self.settings.correspondence_features == "dense" and keys is not None:
            patches1, patches2 = queries, keys
        valid = None
        if self.settings.correspondence_filter == "mutual":
            valid = is_mutual_match(patches1, patches2)
        elif self.settings.correspondence_filter == "threshold":
            valid = (
                compute_match_similarity(patches1, patches2)
                >= self.settings.correspondence_threshold
            )
        return match_patches(patches1, patches2), valid

    def _build_memory_entries(
        self, projected: Tensor | None, keys: Tensor, valid: Tensor | None, views: ViewPair
    ) -> MemoryEntries:
        """What the memory is to keep of keys [B, M, D], or, pooled, of the head's whole output [B,
        N, D].
        """
        if self.settings.memory_unit == "image" and projected is not None:
            # DenseCL's code pools what the head gives, then normalises.
            return MemoryEntries(
                F.normalize(projected.mean(1), dim=-1), views.image_ids, views.class_ids
            )
        is_valid = (
            torch.ones(keys.shape[:2], dtype=torch.bool, device=keys.device)
            if valid is None
            else valid
        )
        selected = is_valid if self.settings.memory_per_image or valid is not None else None
        if self.settings.memory_per_image:
            selected = is_valid & (is_valid.cumsum(1) <= self.settings.memory_per_image)
        ids = (
            column[:, None].expand(keys.shape[:2]) for column in (views.image_ids, views.class_ids)
        )
        return MemoryEntries(*(_flatten_rows(part, selected) for part in (keys, *ids)))

    def _sample_patches(
        self, features: Tensor, scores: Tensor | None, valid: Tensor | None
    ) -> Tensor:
        count, sampler = self.settings.patches_per_image, SAMPLERS[self.settings.sampling_strategy]
        return sampler(features, count, self.generator, scores, valid)

    def _compute_hardness(self, queries: Tensor, keys: Tensor, views: ViewPair) -> Tensor | None:
        """[B, N] cosine of the hardest negative less the positive's; None while the memory is
        empty.
        """
        if not self.memory.filled:
            return None
        patches = queries.shape[1]
        mask = self._build_negative_mask(
            *(column.repeat_interleave(patches) for column in (views.image_ids, views.class_ids))
        )
        hardest = hardest_negative(queries.flatten(0, 1), self.negatives, mask)
        return hardest.view(len(queries), patches) - (queries * keys).sum(-1)


@overload
def _gather_patches(values: Tensor, index: Tensor) -> Tensor: ...
@overload
def _gather_patches(values: Tensor | None, index: Tensor) -> Tensor | None: ...
def _gather_patches(values: Tensor | None, index: Tensor) -> Tensor | None:
    """Patches [B, M, ...] of values [B, N, ...] by index [B, M]; None of None."""
    if values is None or values.dim() == 2:
        return None if values is None else values.gather(1, index)
    return torch.take_along_dim(values, index[..., None], dim=1)


def _flatten_rows(features: Tensor, selected: Tensor | None) -> Tensor:
    """[B, M, ...] as rows: all, or those counted, in order."""
    return features.flatten(0, 1) if selected is None else features[selected]


def build_objective(
    settings: GlobalContrastParams | None,
    model: Backbone,
    queue_size: int,
    seed: int,
    generator: torch.Generator,
) -> Objective:
    """The objective of a mode's settings; None is mode none."""
    if settings is None:
        return Objective()
    objective_class = (
        DenseObjective if isinstance(settings, DenseContrastParams) else GlobalObjective
    )
    return objective_class(settings, model, queue_size, seed, generator)


def count_keys_per_image(settings: GlobalContrastParams | None, patches: int) -> int:
    """Most keys that one image adds to the memory in a step."""
    directions = 2 if settings and settings.symmetric else 1
    if not isinstance(settings, DenseContrastParams) or settings.memory_unit == "image":
        return directions
    return directions * min(
        settings.patches_per_image, patches, settings.memory_per_image or patches
    )
